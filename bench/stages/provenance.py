"""What a row says of itself: the people it was tested on, the protocol, and where its numbers come from."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bench.config import EvaluateParams, TestParams, TrainConfig
from bench.data.coco import CocoDict
from bench.data.hashing import sha256_of
from bench.data.predictions import Split
from bench.errors import UserError
from bench.git import git
from bench.reporting.rows import PROTOCOL_VERSION, DataCard, Protocol, Provenance
from bench.stages.files import MANIFESTS, TrainingInfo, detections_file, manifest_file

VERSIONS = ("numpy", "opencv-python-headless", "pandas", "pyarrow", "scipy", "timm", "torch", "torchvision")
NUMBER_MAKING = ("models", "bench/data", "bench/training", "bench/inference", "bench/metrics")
ROOT = Path(__file__).parents[2]


def data_card(profile: str, manifest: CocoDict, val: Split) -> DataCard:
    """What the val split is."""
    info = manifest["info"]
    counted = val.present_weight > 0
    present = val.present & counted
    drawn = all("true_keypoints" in annotation for annotation in manifest["annotations"])
    files = [manifest_file(profile, name) for name in MANIFESTS]
    return DataCard(
        source="drawn" if drawn else "coco",
        name=info["source_description"] or Path(info["image_root"]).name,
        num_images=info["num_images"],
        num_persons=info["num_persons"],
        num_present=int(present.sum()),
        num_absent=int((counted & ~present).sum()),
        prevalence=[float(x) for x in present.sum(0) / np.maximum(counted.sum(0), 1)],
        sha256=sha256_of([*files, detections_file(profile)]),
        source_sha256=info["source_sha256"],
    )


def protocol(
    train: TrainConfig, info: TrainingInfo, test: TestParams, params: EvaluateParams, *, detected: bool
) -> Protocol:
    """What must be equal before two rows are compared."""
    return Protocol(
        version=PROTOCOL_VERSION,
        boxes="detected" if detected else "ground truth",
        score_rule=params.score_rule,
        oks_nms="none" if params.oks_nms is None else f"above {params.oks_nms:g}",
        flip_test=("mirrored, shifted by a heatmap pixel" if info.flip_shift else "mirrored")
        if test.flip_test
        else "none",
        codec=f"{train.codec}, sigma {train.sigma:g} input px"
        + (f", {test.decoding} decoding" if test.decoding != "codec" else ""),
        crop=f"{train.input_size[0]} x {train.input_size[1]}, {train.fit}, padding {train.bbox_padding:g}",
        policy=params.presence_policy,
        threshold_rule="max F1 on calibration" if params.threshold == "max_f1" else f"fixed at {params.threshold:g}",
        checkpoint_rule="highest AP on calibration" if train.fitting else "as published",
        evaluator="bench.metrics.oks, rules of pycocotools, 20 detections an image",
        intervals=f"{params.interval}, {params.num_resamples} resamples of the images, seed {params.seed}",
        init=f"{train.weights} ({info.weights_source})" if train.weights else train.architecture.init,
    )


def provenance(plan: Path, info: TrainingInfo, precision: str) -> Provenance:
    """Where the numbers come from: code, parameters, versions, device, time."""
    return Provenance(
        code_sha256=sha256_of_code(),
        code_revision=code_revision(ROOT),
        params_sha256=sha256_of(plan / f"{stage}.json" for stage in ("weights", "train", "predict", "evaluate")),
        versions={name: version(name) for name in VERSIONS},
        device=info.device,
        precision=precision,
        trained_seconds=info.seconds,
        evaluated_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def sha256_of_code() -> str:
    """One digest over the sources that make numbers."""
    return sha256_of(file for package in NUMBER_MAKING for file in sorted((ROOT / package).rglob("*.py")))


def code_revision(root: Path) -> str | None:
    """The last commit that touched code behind the numbers, with `+` where it has changed since; None without git."""
    sources = ("--", *NUMBER_MAKING)
    try:
        revision = git(root, "log", "-1", "--format=%H", *sources)
        edits = git(root, "status", "--porcelain", *sources)
    except UserError:
        return None
    return f"{revision}{'+' if edits else ''}" if revision else None
