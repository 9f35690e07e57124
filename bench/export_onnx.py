"""python -m bench.export_onnx FILE.onnx --run vitpose_presence-0: a run for any runtime of ONNX.

`image` (N, 3, H, W), float, normalised as in training, becomes `keypoints` (N, K, 2) in input pixels, `peak` (N, K) of
the heatmaps and calibrated `presence` (N, K). Flip test, decoding and calibration are the run's own and lie in the
graph; its metadata say the rest. The file is put in place only if onnxruntime says the same as torch of people of the
calibration split. Letters: N images, K keypoints, H W input height and width.
"""

import copy
import json
import logging
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typer import Option

from bench.data.coco import persons_of
from bench.data.codec import CODECS
from bench.data.dataset import ordered_loader
from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.predictions import CALIBRATION
from bench.errors import UserError
from bench.inference.exported import Answer, ExportedModel, answer
from bench.inference.predict import run_model
from bench.inference.presence import PresenceReading
from bench.stages.command import run_command
from bench.stages.evaluated_run import (
    EvaluatedRun,
    find_run,
    open_evaluated,
    preprocessing,
)
from bench.stages.predict import EVERY_POLICY
from bench.stages.run_model import build_samples, read_manifest
from bench.stages.run_record import licence_of, origin, presence_facts
from bench.writing import written_whole

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4
"""By which the runtimes may differ: in input pixels for keypoints, in height for peaks, in probability for presence."""
EXAMPLES = 2  # images that the graph is traced with; any number but 1 makes the batch a free axis


def main(
    file: Path,
    run: Annotated[str, Option(help="<experiment>-<seed>, such as vitpose_presence-0")],
    profile: Annotated[str, Option(help="whose run it is")] = "demo",
    num_persons: Annotated[int, Option(min=1, help="of the calibration split, for the comparison with torch")] = 100,
) -> None:
    """Export a run to ONNX, and compare it with torch before the file is put in place."""
    require_packages()
    asked = open_evaluated(find_run(profile, run))
    reading = asked.read_presence()
    with written_whole(file) as partial:
        export(exported_model(asked, reading), asked.trained.config.input_size, partial)
        add_metadata(partial, metadata(asked, reading))
        found = compare(partial, asked, reading, num_persons)
        refuse_difference(file, found)
    print(f"{file}: {found.num_persons} people as torch, to {', '.join(in_words(found))}")


def require_packages() -> None:
    """Raises:
    UserError: a package is missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(f"{missing[0]} is not installed, wanted the extra onnx: pip install {' '.join(PACKAGES)}")


def exported_model(asked: EvaluatedRun, reading: PresenceReading) -> ExportedModel:
    test = asked.trained.test
    return ExportedModel(
        asked.trained.network,
        asked.trained.codec,
        decoding=test.decoding,
        flip_test=test.flip_test,
        reading=reading,
    )


@torch.no_grad()
def export(model: ExportedModel, input_size: tuple[int, int], file: Path) -> None:
    """Write the graph with its weights as one file; `input_size` (w, h)."""
    width, height = input_size
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # else every node that is not folded is told of
    program = torch.onnx.export(
        model,
        (torch.zeros(EXAMPLES, 3, height, width),),
        input_names=["image"],
        output_names=list(Answer._fields),
        dynamic_shapes={"image": {0: torch.export.Dim.DYNAMIC}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "the exporter by torch.export returns a program"
    program.save(file)


def add_metadata(file: Path, entries: dict[str, str]) -> None:
    """Put texts into an ONNX file."""
    onnx = import_module("onnx")
    graph = onnx.load(file)
    onnx.helper.set_model_props(graph, entries)
    onnx.checker.check_model(graph)
    onnx.save(graph, file)


def metadata(asked: EvaluatedRun, reading: PresenceReading) -> dict[str, str]:
    """What one must know to use the file; each value is text, JSON where it has parts."""
    test, codec = asked.trained.test, asked.trained.codec
    facts: dict[str, Any] = {
        "keypoint_names": KEYPOINT_NAMES,
        "preprocessing": preprocessing(asked.trained),
        "decoding": CODECS[codec.name].decoding if test.decoding == "codec" else f"{test.decoding} ({codec.name})",
        "precision": "single; heatmaps are decoded in double",
        "flip_test": "in the graph" if test.flip_test else "none",
        "presence": presence_facts(asked, reading),
        "threshold": reading.threshold,
        "policy": asked.row.protocol.policy,
        "origin": origin(asked),
        "licence": licence_of(asked),
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


class Comparison(NamedTuple):
    """Largest differences of an exported file from torch."""

    num_persons: int
    differences: dict[str, float]  # by field of `Answer`


def compare(file: Path, asked: EvaluatedRun, reading: PresenceReading, num_persons: int) -> Comparison:
    """Ask a file and torch, both on the CPU, about the first people of the calibration split."""
    session = import_module("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])
    worst, number = dict.fromkeys(Answer._fields, 0.0), 0
    for image, wanted in torch_answers(asked, reading, num_persons):
        found = session.run(list(Answer._fields), {"image": image.numpy()})
        number += len(image)
        for name, ours, theirs in zip(Answer._fields, wanted, found, strict=True):
            worst[name] = max(worst[name], largest_difference(ours.numpy(), theirs))
    return Comparison(number, worst)


def torch_answers(asked: EvaluatedRun, reading: PresenceReading, num_persons: int) -> Iterator[tuple[Tensor, Answer]]:
    """Normalised images (N, 3, H, W) in batches, and what the run's model says of them on the way that stages take."""
    config, test, codec = asked.trained.config, asked.trained.test, asked.trained.codec
    persons = persons_of(read_manifest(asked.files.profile, CALIBRATION))[:num_persons]
    samples = build_samples(config, codec, persons, EVERY_POLICY, None, asked.files.seed)
    loader = ordered_loader(samples, test.batch_size, asked.trained.num_workers)
    model = copy.deepcopy(asked.trained.network).cpu().float()
    for batch, output in run_model(model, loader, flip_test=test.flip_test, shift=codec.shift):
        yield model.normalise(batch.image), answer(output, codec, test.decoding, reading)


def largest_difference(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> float:
    """Of arrays of one shape; infinite where one has a NaN."""
    assert ours.shape == theirs.shape, "an output of another shape"
    return float(np.nan_to_num(np.abs(ours - theirs), nan=np.inf).max())


def refuse_difference(file: Path, found: Comparison) -> None:
    """Raises:
    UserError: a difference is larger than `TOLERANCE`; the message names the largest.
    """
    name, largest = max(found.differences.items(), key=lambda item: item[1])
    if largest > TOLERANCE:
        raise UserError(
            f"{file}: not written: {name} by onnxruntime differs from torch by up to {largest:.2g} for "
            f"{found.num_persons} people, wanted at most {TOLERANCE:g}"
        )


def in_words(found: Comparison) -> Iterator[str]:
    """The differences, by their units."""
    units = {"keypoints": "input pixels", "peak": "of the peaks", "presence": "of presence"}
    for name, difference in found.differences.items():
        yield f"{difference:.1e} {units[name]}"


if __name__ == "__main__":
    run_command(main)
