"""Whatever a file holds, its reader returns, or refuses it in one line that names it; nothing in a file is run."""

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from safetensors.torch import save

from bench.config import TrainConfig
from bench.data.arrays import read_arrays
from bench.data.boxes import Picture, read_boxes
from bench.data.coco import COCO_LAYOUT, persons_of, read_image
from bench.data.detections import read_detections
from bench.data.predictions import VAL, read_split, write_predictions
from bench.data.results import read_results
from bench.data.subset import build_manifests
from bench.data.synthetic.coco import write_drawn_coco
from bench.data.synthetic.scene import SceneParams
from bench.errors import UserError
from bench.reporting.results import read_replicates, write_replicates
from bench.reporting.rows import read_row
from bench.resolve import load_grid
from bench.score import read_annotations
from bench.stages.files import read_model
from bench.training.checkpoint import load_checkpoint
from bench.training.resume import StateFile
from models.weight_files import read_tensors
from models.weights import WeightsError
from tests.conftest import make_person, make_result
from tests.data.test_predictions_file import make_frame, make_manifest
from tests.fuzz.mutations import changed_bytes, changed_json
from tests.harmful import Harmful
from tests.reporting.fake_runs import make_row

REPO = Path(__file__).parents[2]
SCENE = SceneParams(image_size=(64, 64), people_per_image=(1, 1), num_objects=(0, 0))


class Reader(NamedTuple):
    """A file that is right, as it may have been changed, and who reads it."""

    file: Path
    contents: st.SearchStrategy[bytes]
    read: Callable[[Path], object]

    def __repr__(self) -> str:
        return self.file.name


def parameters(folder: Path) -> Reader:
    text = (REPO / "params.yaml").read_bytes()
    tree = YAML(typ="safe").load(text)
    return Reader(folder / "params.yaml", st.one_of(changed_json(tree), changed_bytes(text)), load_grid)


def toy_coco() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rng = np.random.default_rng(0)
    people = [make_person(rng, 100 + number, 1 + number % 3) for number in range(4)]
    images = [{"id": 1 + i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(3)]
    coco = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}
    return coco, [make_result(rng, person) for person in people]


def annotations(folder: Path) -> Reader:
    coco, _ = toy_coco()
    return Reader(folder / "truth.json", changed_json(coco), lambda file: read_annotations(file, COCO_LAYOUT))


def data_set(folder: Path) -> Reader:
    """As stage prepare reads it: the images are there."""
    write_drawn_coco(folder, {"train2017": 4, "val2017": 2}, SCENE, seed=0)
    file = folder / "annotations" / "person_keypoints_train2017.json"
    asked = {"train": "all", "calibration": 1, "val": "all"}
    contents = changed_json(json.loads(file.read_text()))
    return Reader(file, contents, lambda _: build_manifests(folder, asked, 0, skip_broken=True))


def results(folder: Path) -> Reader:
    _, entries = toy_coco()
    return Reader(folder / "results.json", changed_json(entries), lambda file: read_results(file, np.arange(1, 4), 17))


def boxes(folder: Path) -> Reader:
    coco, _ = toy_coco()
    entries = [
        {"image_id": person["image_id"], "category_id": 1, "bbox": person["bbox"], "score": 0.5}
        for person in coco["annotations"]
    ]
    return Reader(folder / "boxes.json", changed_json(entries), lambda file: read_detections(file, coco["images"], 0.1))


def boxes_of_annotations(folder: Path) -> Reader:
    coco, _ = toy_coco()
    pictures = [Picture(Path(f"{i}.jpg"), 1 + i, (640, 480)) for i in range(3)]
    return Reader(folder / "boxes.json", changed_json(coco), lambda file: read_boxes(file, pictures, 0.1))


def plan(folder: Path) -> Reader:
    config = next(iter(load_grid(REPO / "params.yaml").experiments.values()))
    tree = config.model_dump(mode="json")
    return Reader(folder / "train.json", changed_json(tree), lambda file: read_model(file, TrainConfig))


def row(folder: Path) -> Reader:
    return Reader(folder / "row.json", changed_json(json.loads(make_row("a").model_dump_json())), read_row)


def picture(folder: Path, suffix: str) -> Reader:
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    content = cv2.imencode(suffix, image)[1].tobytes()
    return Reader(folder / f"picture{suffix}", changed_bytes(content), read_image)


def predictions(folder: Path) -> Reader:
    file = folder / "a-0.parquet"
    write_predictions(file, [make_frame(VAL, persons_of(make_manifest(3, drawn=False)), head=True)])
    return Reader(file, changed_bytes(file.read_bytes()), lambda file: read_split(file, VAL, "labelled"))


def replicates(folder: Path) -> Reader:
    file, row = folder / "a-0.parquet", make_row("a")
    write_replicates(file, ["AP", "AR"], np.arange(8.0).reshape(4, 2))
    return Reader(
        file, changed_bytes(file.read_bytes()), lambda file: read_replicates(file, row, ["AP", "AR"], "evaluate")
    )


def arrays(folder: Path) -> Reader:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, a=np.arange(99), b=np.ones((3, 4)))
    contents = changed_bytes(content.getvalue())
    return Reader(folder / "a-0.npz", contents, lambda file: read_arrays(file, ["a", "b"], "arrays", "evaluate"))


def toy_model() -> torch.nn.Module:
    return torch.nn.Linear(3, 2)


def checkpoint(folder: Path) -> Reader:
    contents = changed_bytes(save(toy_model().state_dict()))
    return Reader(folder / "checkpoint.safetensors", contents, lambda file: load_checkpoint(file, toy_model()))


def saved(content: object, *, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def published(folder: Path) -> Reader:
    """In the format of today, and in that of torch before 1.6."""
    contents = [changed_bytes(saved({"state_dict": toy_model().state_dict()}, zipped=z)) for z in (True, False)]
    return Reader(folder / "published.pth", st.one_of(contents), read_tensors)


def state(folder: Path) -> Reader:
    content = {"asked": "a", "content": {"stepper": toy_model().state_dict(), "seen": [[0.5, 0.25, 0.25]]}}
    contents = changed_bytes(saved(content, zipped=True))
    return Reader(folder / "unfinished.pt", contents, lambda file: StateFile(file, "a").load())


READERS: dict[str, Callable[[Path], Reader]] = {
    "parameters": parameters,
    "annotations": annotations,
    "data set": data_set,
    "results": results,
    "boxes": boxes,
    "boxes of annotations": boxes_of_annotations,
    "plan": plan,
    "row": row,
    "JPEG": lambda folder: picture(folder, ".jpg"),
    "PNG": lambda folder: picture(folder, ".png"),
    "predictions": predictions,
    "replicates": replicates,
    "arrays": arrays,
    "checkpoint": checkpoint,
    "published": published,
    "state": state,
}


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return {name: make(tmp_path_factory.mktemp(name.replace(" ", "_"))) for name, make in READERS.items()}


def returns_or_refuses(reader: Reader, content: bytes) -> None:
    """No other errors than the two for users' mistakes, in one line of bounded length with the file's name."""
    reader.file.write_bytes(content)
    try:
        reader.read(reader.file)
    except (UserError, WeightsError) as error:
        message = str(error)
        assert len(message.splitlines()) == 1, message
        assert reader.file.name in message, message
        assert len(message) < 3000, message


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_it_is_read_or_refused(name: str, data: st.DataObject, readers: dict[str, Reader]) -> None:
    returns_or_refuses(readers[name], data.draw(readers[name].contents))


@pytest.mark.parametrize("name", READERS)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(name: str, content: bytes, readers: dict[str, Reader]) -> None:
    returns_or_refuses(readers[name], content)


# Files made to harm.


HARMFUL = {
    "pickle": lambda: pickle.dumps(Harmful()),
    "zip": lambda: saved({"asked": "a", "content": Harmful(), "state_dict": Harmful()}, zipped=True),
    "old": lambda: saved({"state_dict": {"weight": Harmful()}}, zipped=False),
    "numpy": lambda: numpy_pickle(Harmful()),
}


def numpy_pickle(content: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.array([content], dtype=object), b=np.ones(2))
    return stream.getvalue()


@pytest.mark.parametrize("kind", HARMFUL)
@pytest.mark.parametrize("name", ["arrays", "checkpoint", "published", "state", "predictions", "JPEG"])
def test_nothing_is_run(
    name: str, kind: str, readers: dict[str, Reader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reader = readers[name]
    reader.file.write_bytes(HARMFUL[kind]())
    with pytest.raises((UserError, WeightsError)) as caught:
        reader.read(reader.file)
    assert reader.file.name in str(caught.value)
    assert not Path("harm").exists()


def png(width: int, height: int) -> bytes:
    """One that says it is of that size, and is almost nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(40_000, 40_000), (30_000, 30_000), (2**31 - 1, 1), (1, 2**30)])
def test_a_picture_of_a_billion_pixels_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    file = tmp_path / "bomb.png"
    file.write_bytes(png(*size))
    with pytest.raises(UserError, match=r"bomb\.png: cannot be read as an image"):
        read_image(file)


def test_parameters_that_repeat_themselves_without_end_are_refused(tmp_path: Path) -> None:
    """A billion of `lol`, as aliases of aliases, in a dozen lines."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    file = tmp_path / "params.yaml"
    file.write_text("\n".join(lines) + "\n" + (REPO / "params.yaml").read_text().replace("seeds: [0]", "seeds: *a8"))
    with pytest.raises(UserError, match=r"params\.yaml: .*aliases that hold themselves"):
        load_grid(file)


def test_a_mapping_that_holds_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text((REPO / "params.yaml").read_text().replace("seeds: [0]", "seeds: &a [*a]"))
    with pytest.raises(UserError, match=r"params\.yaml: .*aliases that hold themselves"):
        load_grid(file)


MEASURE = """
import resource, sys
from pathlib import Path
from models.weight_files import read_tensors
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_tensors(Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_an_archive_that_swells_takes_no_memory(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte, where torch keeps tensors as they are: what it reads is the megabyte."""
    content = saved({"state_dict": {"weight": torch.zeros(16)}}, zipped=True)
    file = tmp_path / "bomb.pth"
    with zipfile.ZipFile(io.BytesIO(content)) as plain, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, b"\0" * 2**30 if name.endswith("data/0") else plain.read(name))
    command = [sys.executable, "-c", MEASURE, str(file)]
    grown = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout
    assert int(grown) < 2**20 / 4  # kibibytes: a quarter of a gigabyte
