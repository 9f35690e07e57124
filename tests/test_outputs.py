"""What stages write is removed by name, and no path of the user may meet it."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bench.errors import UserError
from bench.stages import resolve
from bench.stages.files import RunFiles
from bench.stages.outputs import check_user_paths, clean

REPO = Path(__file__).parents[1]
Tree = dict[str, Any]
RUN = "runs/demo/vitpose-0"
WRITTEN = (
    "data/demo/train.json", "data/demo/drawn/1.png", "data/demo.detections.json", "data/laptop.crops/ab/images",
    "runs/demo/plan/vitpose/train.json", f"{RUN}/checkpoint.safetensors", f"{RUN}/dvclive/metrics.json",
    "runs/demo/curves/vitpose-0.csv", "runs/demo/rows/no_flip_test-12.json", "runs/demo/unfinished/vitpose-0.pt",
    "runs/full/floors.parquet",
)  # fmt: skip
OF_THE_USER = (
    "data/mine/train2017/1.jpg", "data/mine.json", "data/coco/val2017/1.jpg", "data/demo2/1.jpg", "data/democrops",
    "runs/mine/notes.txt", "runs/demo/notes.txt", f"{RUN}/notes.txt", "runs/demo/rows/my-copy.json",
    "runs/demo/my-run/checkpoint.safetensors", "runs/demo/curves/vitpose-0.csv.old", "models/published/x.pth",
    "models/warmstart/vitpose.safetensors", "reports/demo/systems/README.md",
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPO / name, root / name)
    return root


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")


def refusal(action: Callable[[], None]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    return str(caught.value)


@pytest.fixture(scope="module")
def params() -> Tree:
    tree: Tree = YAML(typ="safe").load((REPO / "params.yaml").read_text())
    return tree


def edited(params: Tree, *keys: str, value: Any) -> Tree:
    first, *rest = keys
    return params | {first: edited(params.get(first, {}), *rest, value=value) if rest else value}


def test_outputs_are_removed_and_files_of_the_user_stay(root: Path) -> None:
    write(root, *WRITTEN, *OF_THE_USER)
    clean(root)
    assert [name for name in WRITTEN if (root / name).exists()] == []
    assert [name for name in OF_THE_USER if not (root / name).exists()] == []
    assert sorted(path.name for path in (root / "runs/demo").iterdir()) == [
        "curves", "my-run", "notes.txt", "rows", "vitpose-0",
    ]  # fmt: skip


def test_folders_of_outputs_alone_go_too(root: Path) -> None:
    write(root, *WRITTEN)
    clean(root)
    clean(root)
    assert sorted(path.name for path in root.iterdir()) == ["dvc.yaml", "params.yaml"]


def test_every_file_of_a_run_is_an_output(root: Path) -> None:
    files = RunFiles("demo", "vitpose", 0)
    names = [
        name for name, kind in vars(RunFiles).items() if isinstance(kind, property) and name not in ("name", "folder")
    ]
    paths = [getattr(files, name) for name in names] + [files.of_presence("presence")]
    write(root, *map(str, paths))
    clean(root)
    assert not (root / "runs").exists()


def test_a_link_is_removed_and_its_target_stays(root: Path, tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/train2017/1.jpg", "elsewhere/vitpose-0.csv")
    write(root, "data/mine/1.jpg", "runs/demo/rows/vitpose-0.json")
    for link in ("data/demo", "data/linked", "runs/demo/curves"):
        (root / link).symlink_to(tmp_path / "elsewhere")
    (root / "data/laptop").symlink_to("mine")
    clean(root)
    assert (tmp_path / "elsewhere/train2017/1.jpg").exists()
    assert (tmp_path / "elsewhere/vitpose-0.csv").exists()
    assert (root / "data/mine/1.jpg").exists()
    assert sorted(path.name for path in (root / "data").iterdir()) == ["linked", "mine"]


def test_a_profile_named_as_the_data_set_removes_nothing(root: Path, params: Tree) -> None:
    YAML(typ="safe").dump(edited(params, "profiles", "coco", value={}), root / "params.yaml")
    write(root, "data/coco/val2017/1.jpg", "data/demo/train.json")
    assert "data.root: found 'data/coco', which is data/coco, an output" in refusal(lambda: clean(root))
    assert (root / "data/coco/val2017/1.jpg").exists()
    assert (root / "data/demo/train.json").exists()


def test_without_profiles_nothing_is_removed(root: Path) -> None:
    write(root, *WRITTEN)
    (root / "params.yaml").write_text("profile: [")
    assert "not valid YAML" in refusal(lambda: clean(root))
    assert all((root / name).exists() for name in WRITTEN)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("data/laptop", "is data/laptop,"),
        ("data/full/", "is data/full,"),
        ("data/laptop/coco", "lies in data/laptop,"),
        ("data/mine/../laptop", "is data/laptop,"),
        ("data/demo.crops/x", "lies in data/demo.crops,"),
        ("runs/demo/unfinished", "is runs/demo/unfinished,"),
        ("runs/demo/vitpose-0/dvclive", "is runs/demo/<run>-<seed>/dvclive,"),
        ("reports/demo/html/x", "lies in reports/demo/html,"),
        ("models/warmstart", "holds models/warmstart/<model>.safetensors,"),
        ("data", "holds data/demo,"),
        ("runs", "holds runs/demo/plan,"),
        ("reports/paper", "holds reports/paper/systems,"),
        (".", "holds "),
        ("..", "holds "),
        ("/", "holds "),
    ],
)
def test_data_that_meets_an_output_is_refused(root: Path, params: Tree, path: str, words: str) -> None:
    raw = edited(params, "data", "root", value=path)
    message = refusal(lambda: check_user_paths(raw, root))
    assert message.startswith(f"params.yaml: data.root: found {path!r}, which {words}")
    assert "wanted another place, such as data/mine for a data set: DVC deletes an output" in message


@pytest.mark.parametrize("keys", [("data", "detections"), ("profiles", "paper", "data", "root")])
def test_every_key_that_names_data_is_compared(root: Path, params: Tree, keys: tuple[str, ...]) -> None:
    raw = edited(params, *keys, value="data/laptop/x")
    assert f"{'.'.join(keys)}: found 'data/laptop/x'" in refusal(lambda: check_user_paths(raw, root))


def test_the_stage_refuses_it_before_it_writes(root: Path, params: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = edited(edited(params, "profile", value="laptop"), "data", "root", value="data/laptop")
    YAML(typ="safe").dump(raw, root / "params.yaml")
    write(root, "data/laptop/val2017/1.jpg")
    monkeypatch.chdir(root)
    for check in (True, False):
        assert "data.root: found 'data/laptop', which is data/laptop," in refusal(partial(resolve.main, check=check))
    assert not (root / "runs").exists()


def test_a_full_path_is_refused_too(root: Path, params: Tree) -> None:
    raw = edited(params, "data", "detections", value=str(root / "data/demo.detections.json"))
    assert "which is data/demo.detections.json," in refusal(lambda: check_user_paths(raw, root))


@pytest.mark.parametrize(
    ("link", "target", "path", "words"),
    [
        ("data/mine", "demo", "data/mine", "is data/demo,"),
        ("data/mine", "demo/drawn", "data/mine/x", "lies in data/demo,"),
        ("data/mine", "../runs", "data/mine", "holds runs/demo/plan,"),
        ("data/mine/val2017", "../demo/drawn", "data/mine", "lies in data/demo,"),
        (
            "data/mine/annotations/person_keypoints_val2017.json",
            "../../demo/val.json",
            "data/mine",
            "lies in data/demo,",
        ),
        ("data/demo", "../../elsewhere", "data/demo", "is data/demo,"),  # the link itself would be deleted
        ("data/demo", "../../elsewhere", "../elsewhere", "is data/demo,"),
        ("data", "../elsewhere", "../elsewhere/laptop", "is data/laptop,"),
    ],
)
def test_links_are_resolved_on_both_sides(
    root: Path, params: Tree, link: str, target: str, path: str, words: str
) -> None:
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(target)
    raw = edited(params, "data", "root", value=path)
    assert words in refusal(lambda: check_user_paths(raw, root))


@pytest.mark.parametrize(
    ("keys", "target"),
    [
        (("base", "weights"), "runs/demo/vitpose-0/checkpoint.safetensors"),
        (("experiments", "vitpose", "weights"), "runs/demo/vitpose-0/checkpoint.safetensors"),
        (("base", "architectures", "vitpose", "init"), "data/demo"),
    ],
)
def test_weights_in_an_output_are_refused(root: Path, params: Tree, keys: tuple[str, ...], target: str) -> None:
    raw = edited(params, *keys, value=f"models/published/../../{target}")
    assert f"params.yaml: {'.'.join(keys)}: found" in refusal(lambda: check_user_paths(raw, root))
    (root / "models/published/folder").mkdir(parents=True)
    (root / "models/published/folder/link").symlink_to(root / target)
    for path in ("models/published/folder/link", "models/published/folder"):
        raw = edited(params, *keys, value=path)
        with pytest.raises(UserError, match="an output of a stage"):
            check_user_paths(raw, root)


def test_what_is_no_output_is_welcome(root: Path, params: Tree, tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/1.jpg")
    write(root, "data/coco/1.jpg", "models/warmstart/vitpose.safetensors")
    (root / "data/linked").symlink_to(tmp_path / "elsewhere")
    (root / "models/published").mkdir()
    (root / "models/published/warm").symlink_to("../warmstart/vitpose.safetensors")
    roots = ("data/coco", "../shared/coco-mini", "data/mine", "data/linked", "data/demo2", "data/.crops", "runs/mine")
    for path in (*roots, str(tmp_path / "elsewhere"), "data/demo/../mine"):
        check_user_paths(edited(params, "profiles", "laptop", "data", "root", value=path), root)
    for path in ("models/published/x.pth", "models/published/warm"):
        check_user_paths(edited(params, "base", "weights", value=path), root)
    check_user_paths(edited(params, "data", "detections", value="data/detections.json"), root)


def test_a_link_to_itself_is_one_line(root: Path, params: Tree) -> None:
    (root / "data").mkdir()
    (root / "data/loop").symlink_to("loop")
    raw = edited(params, "data", "root", value="data/loop")
    assert "leads nowhere" in refusal(lambda: check_user_paths(raw, root))
