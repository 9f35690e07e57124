"""python -m bench.export_onnx FILE.onnx --run vitpose_presence-0: a run for any runtime of ONNX.

`image` (N, 3, H, W), float, normalised as in training, becomes `keypoints` (N, K, 2) in input pixels, `peak` (N, K) of
the heatmaps and calibrated `presence` (N, K). Flip test, decoding and calibration are the run's own and lie in the
graph; its metadata say the rest. The file is put in place only if onnxruntime says the same as torch of people of the
calibration split: see `Comparison`. Letters: N images, K keypoints, H W input and h w heatmap height and width.
"""

import copy
import json
import logging
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
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
from models import PoseOutput

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
HEATMAPS = "heatmaps"
"""An output that the graph has until it is checked."""

LIMITS = {HEATMAPS: 1e-4, "peak": 1e-4, "presence": 1e-4, "decoding": 0.01}
"""By how much a graph may differ from torch: see `Comparison` for the units."""
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
        remove_output(partial, HEATMAPS)
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
        output_names=[*Answer._fields, HEATMAPS],
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


def remove_output(file: Path, name: str) -> None:
    """The graph computes it still, but no longer gives it."""
    onnx = import_module("onnx")
    graph = onnx.load(file)
    graph.graph.output.remove(next(output for output in graph.graph.output if output.name == name))
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
    """Largest differences of an exported graph from torch.

    Keypoints have no limit of their own. Where a heatmap is flat, or has two peaks of about one height, a rounding
    error moves its decoded peak far, without harm. So the heatmaps are compared, and then the graph's keypoints with
    those that torch decodes from the graph's own heatmaps. A wrong graph fails one of the two.
    """

    num_persons: int
    differences: dict[str, float]
    """`heatmaps` and `peak` as a share of the highest peak, `presence` in probability, `decoding` (keypoints of one
    heatmap) in heatmap pixels, `keypoints` in input pixels."""


def compare(file: Path, asked: EvaluatedRun, reading: PresenceReading, num_persons: int) -> Comparison:
    """Ask a file and torch, both on the CPU, about the first people of the calibration split."""
    session = import_module("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])
    codec, decoding = asked.trained.codec, asked.trained.test.decoding
    parts, highest, number = [], 0.0, 0
    for image, output in torch_outputs(asked, num_persons):
        *found, heatmaps = map(torch.from_numpy, session.run([*Answer._fields, HEATMAPS], {"image": image.numpy()}))
        wanted = answer(output, codec, decoding, reading)
        again = answer(output._replace(heatmaps=heatmaps), codec, decoding, reading)
        stride = torch.tensor(codec.stride)
        parts.append(
            {name: largest_difference(*pair) for name, *pair in zip(Answer._fields, wanted, found, strict=True)}
            | {HEATMAPS: largest_difference(output.heatmaps, heatmaps)}
            | {"decoding": largest_difference(again.keypoints / stride, found[0] / stride)}
        )
        highest, number = max(highest, float(output.heatmaps.abs().max())), number + len(image)
    worst = {name: max(part[name] for part in parts) for name in parts[0]}
    return Comparison(number, worst | {name: worst[name] / highest for name in (HEATMAPS, "peak")})


def torch_outputs(asked: EvaluatedRun, num_persons: int) -> Iterator[tuple[Tensor, PoseOutput]]:
    """Normalised images (N, 3, H, W) in batches, and what the run's model says of them on the way that stages take."""
    config, test, codec = asked.trained.config, asked.trained.test, asked.trained.codec
    persons = persons_of(read_manifest(asked.files.profile, CALIBRATION))[:num_persons]
    samples = build_samples(config, codec, persons, EVERY_POLICY, None, asked.files.seed)
    loader = ordered_loader(samples, test.batch_size, asked.trained.num_workers)
    model = copy.deepcopy(asked.trained.network).cpu().float()
    for batch, output in run_model(model, loader, flip_test=test.flip_test, shift=codec.shift):
        yield model.normalise(batch.image), output


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Of tensors of one shape; infinite where one has a NaN."""
    assert ours.shape == theirs.shape, "an output of another shape"
    return float(torch.nan_to_num((ours - theirs).abs(), nan=torch.inf).max())


def refuse_difference(file: Path, found: Comparison) -> None:
    """Raises:
    UserError: a difference is larger than its limit; the message names the first, of which the others follow.
    """
    name = next((name for name, limit in LIMITS.items() if found.differences[name] > limit), None)
    if name is not None:
        raise UserError(
            f"{file}: not written: {name} by onnxruntime differs from torch by up to {found.differences[name]:.2g} "
            f"{UNITS[name]} for {found.num_persons} people, wanted at most {LIMITS[name]:g}"
        )


UNITS = {
    HEATMAPS: "of the highest peak",
    "peak": "of the highest peak",
    "presence": "in probability",
    "decoding": "heatmap pixels",
    "keypoints": "input pixels",
}


def in_words(found: Comparison) -> Iterator[str]:
    """The differences with their limits."""
    for name, unit in UNITS.items():
        limit = f" (at most {LIMITS[name]:g})" if name in LIMITS else ""
        yield f"{name} {found.differences[name]:.1e} {unit}{limit}"


if __name__ == "__main__":
    run_command(main)
