"""Every parameter is read: each leaf of `params.yaml` is changed in turn, and something downstream must change.

The stages run for real, in this process, on a handful of persons with microscopic models.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file

from bench.errors import UserError
from bench.resolve import load_grid
from bench.stages import dependency, evaluate, predict, prepare, resolve, stress, train
from bench.stages.files import MANIFESTS, RunFiles, detections_file, drawn_dir, manifest_file, plan_dir

REPO = Path(__file__).parents[1]
Tree = dict[str, Any]

SMALL = {
    "data": {
        "source": "drawn",
        "num_persons": {"train": 8, "calibration": 6, "val": 24},
        "drawn": {"image_size": [96, 96], "unlabelled_fraction": 0.2},
    },
    "base": {
        "input_size": [32, 32],
        "sigma": 4.0,
        "model": "vitpose",
        "architectures": {
            "vitpose": {"patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2, "drop_path": 0.0, "init": "random"}
            | {"decoder_channels": 4},
            "hrnet": {"backbone": "hrnet_w18_small", "init": "random"},
            "transpose": {"backbone": "resnet18", "embed_dim": 8, "depth": 1, "num_heads": 2, "feedforward_dim": 8}
            | {"decoder_channels": 4, "init": "random"},
        },
        "presence_head": {"type": "mlp", "hidden": 4},
        "augment": {"shift": 0.1, "half_body": 0.5},
        "optim": {"lr": 1e-2, "backbone_lr_factor": 0.5, "clip_norm": 0.05},
        "train": {"epochs": 2, "batch_size": 2, "num_workers": 0, "crop_store": False},
    },
    "test": {"batch_size": 4},
    "evaluate": {"num_resamples": 20},
    "stress": {"num_persons": 4, "kept": [1.0, 0.5], "sides": ["left"], "paddings": ["zeros"]},
    "dependency": {"num_persons": 4, "keypoints_per_person": 2, "cell": 8, "shares": [0.25, 0.5]},
}

# Leaves that must not change any result: how fast, not what.
NEUTRAL = {
    "base.train.compile", "base.train.devices", "base.train.num_nodes", "base.train.strategy",
    "base.train.num_workers", "base.train.crop_store", "test.batch_size",
}  # fmt: skip

# What each leaf is changed to.
PERTURBED: Tree = {
    "data.source": "coco",
    "data.root": "elsewhere",
    "data.detections": "boxes.json",
    "data.min_detection_score": 0.5,
    "data.seed": 1,
    "data.num_persons.train": 9,
    "data.num_persons.calibration": 7,
    "data.num_persons.val": 25,
    "data.on_broken": "skip",
    "data.drawn.image_size": [128, 96],
    "data.drawn.people_per_image": [2, 3],
    "data.drawn.num_objects": [3, 3],
    "data.drawn.truncation": 1.0,
    "data.drawn.max_yaw": 30.0,
    "data.drawn.unlabelled_fraction": 0.5,
    "base.input_size": [32, 64],
    "base.fit": "stretch",
    "base.bbox_padding": 1.5,
    "base.codec": "dark",
    "base.sigma": 6.0,
    "base.model": "transpose",
    "base.architectures.vitpose.patch_size": 16,
    "base.architectures.vitpose.patch_padding": 0,
    "base.architectures.vitpose.embed_dim": 12,
    "base.architectures.vitpose.depth": 3,
    "base.architectures.vitpose.num_heads": 4,
    "base.architectures.vitpose.drop_path": 0.9,
    "base.architectures.vitpose.decoder": "simple",
    "base.architectures.vitpose.decoder_channels": 6,
    "base.architectures.vitpose.normalisation": "half",
    "base.architectures.vitpose.init": "warmstart",
    "base.architectures.hrnet.backbone": "hrnet_w18_small_v2",
    "base.architectures.hrnet.normalisation": "half",
    "base.architectures.hrnet.init": "warmstart",
    "base.architectures.transpose.backbone": "resnet34",
    "base.architectures.transpose.embed_dim": 12,
    "base.architectures.transpose.depth": 2,
    "base.architectures.transpose.num_heads": 4,
    "base.architectures.transpose.feedforward_dim": 12,
    "base.architectures.transpose.dropout": 0.5,
    "base.architectures.transpose.decoder_channels": 6,
    "base.architectures.transpose.normalisation": "half",
    "base.architectures.transpose.init": "warmstart",
    "base.weights": "models/published/other.pth",
    "base.presence_head.type": "none",
    "base.presence_head.pool": 2,
    "base.presence_head.pool_type": "mean",
    "base.presence_head.hidden": 6,
    "base.presence_head.dropout": 0.9,
    "base.presence_head.dropout_at": "pooled",
    "base.presence_head.detach": True,
    "base.presence_policy": "true",
    "base.loss.heatmap_weight": 3.0,
    "base.loss.heatmap_mean": "all",
    "base.loss.presence_weight": 3.0,
    "base.loss.absent_heatmaps": "zero",
    "base.loss.weighting": "uncertainty",
    "base.augment.flip": 1.0,
    "base.augment.half_body": 0.0,
    "base.augment.rotation": 90,
    "base.augment.rotation_probability": 0.0,
    "base.augment.scale": 0.1,
    "base.augment.shift": 0.5,
    "base.augment.shift_probability": 1.0,
    "base.optim.lr": 2e-2,
    "base.optim.backbone_lr_factor": 1.0,
    "base.optim.layer_decay": 0.5,
    "base.optim.trainable_layers": 1,
    "base.optim.weight_decay": 0.9,
    "base.optim.warmup": 0.9,
    "base.optim.schedule": "constant",
    "base.optim.final_lr_factor": 0.5,
    "base.optim.clip_norm": 10.0,
    "base.train.num_persons": 6,
    "base.train.epochs": 1,
    "base.train.batch_size": 4,
    "base.train.accumulate": 2,
    "base.train.compile": True,
    "base.train.devices": 2,
    "base.train.num_nodes": 2,
    "base.train.strategy": "fsdp",
    "base.train.precision": "bf16-mixed",
    "base.train.num_workers": 1,
    "base.train.crop_store": True,
    "test.flip_test": False,
    "test.decoding": "argmax",
    "test.batch_size": 3,
    "evaluate.score_rule": "box",
    "evaluate.oks_nms": 0.05,
    "evaluate.presence_policy": "visible",
    "evaluate.threshold": 0.25,
    "evaluate.interval": "bca",
    "evaluate.num_resamples": 40,
    "evaluate.seed": 1,
    "stress.num_persons": 5,
    "stress.kept": [1.0, 0.4],
    "stress.sides": ["top"],
    "stress.paddings": ["mean"],
    "stress.seed": 1,
    "dependency.num_persons": 5,
    "dependency.keypoints_per_person": 3,
    "dependency.cell": 16,
    "dependency.shares": [0.25, 0.75],
    "dependency.seed": 1,
    "report.picture_persons": 3,
    "report.picture_seed": 1,
}


def leaves(tree: Tree, path: str = "") -> Iterator[str]:
    for key, value in tree.items():
        where = f"{path}.{key}".lstrip(".")
        yield from leaves(value, where) if isinstance(value, dict) else iter([where])


def deep_update(tree: Tree, changes: Tree) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            deep_update(tree[key], value)
        else:
            tree[key] = value


PARAMS = YAML(typ="safe").load((REPO / "params.yaml").read_text())
WARMSTART = PARAMS["warmstart"] | {"profile": "p"}


def sections() -> Tree:
    return {
        key: copy.deepcopy(PARAMS[key])
        for key in ("data", "base", "test", "evaluate", "stress", "dependency", "report")
    }


def small_tree(profile: str = "p") -> Tree:
    """What `params.yaml` would hold of one profile in microscopic sizes; its experiments are still to be added."""
    tree = {**sections(), "profile": profile, "seeds": [0], "profiles": {profile: {}}}
    tree |= {"studies": {}, "ablations": {}, "retests": [], "warmstart": WARMSTART | {"profile": profile}}
    tree |= {"sweep": PARAMS["sweep"]}
    deep_update(tree, copy.deepcopy(SMALL))
    return tree


def test_every_leaf_has_its_perturbation() -> None:
    assert sorted(leaves(sections())) == sorted(PERTURBED)


def digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def digest_of_tensors(file: Path) -> str:
    """Without what a checkpoint says of its settings."""
    return hashlib.sha256(b"".join(value.numpy().tobytes() for _, value in sorted(load_file(file).items()))).hexdigest()


def numbers_of(file: Path) -> str:
    """A row without its words on itself."""
    return json.dumps(json.loads(file.read_text())["numbers"])


def evaluate_good_predictions() -> None:
    """Two epochs teach nothing: predictions near the truth show what evaluation depends on."""
    frame = pd.read_parquet(FILES.predictions)
    manifests = [json.loads(manifest_file("p", name).read_text()) for name in ("calibration", "val")]
    truth = [annotation["true_keypoints"] for manifest in manifests for annotation in manifest["annotations"]]
    noise = np.random.default_rng(0).normal(scale=2, size=(len(frame), 2))
    frame[["x", "y"]] = np.reshape(truth, (-1, 3))[:, :2] + noise
    frame["score"] = np.random.default_rng(1).uniform(size=len(frame)).astype(np.float32)
    frame.to_parquet(FILES.predictions, index=False)
    evaluate.main("p", "run", 0)


FILES = RunFiles("p", "run", 0)


def digest_of_data() -> str:
    """Of the manifests and of the detected boxes."""
    return digest(*(manifest_file("p", name) for name in MANIFESTS), detections_file("p"))


# The stages in their order, each with what it wrote.
STAGES: dict[str, tuple[Callable[[], None], Callable[[], str]]] = {
    "data": (lambda: prepare.main("p"), digest_of_data),
    "base": (lambda: train.main("p", "run", 0), lambda: digest_of_tensors(FILES.checkpoint)),
    "test": (lambda: predict.main("p", "run", 0), lambda: digest(FILES.predictions)),
    "evaluate": (evaluate_good_predictions, lambda: numbers_of(FILES.row)),
    "stress": (lambda: stress.main("p", "run", 0), lambda: digest(FILES.stress)),
    "dependency": (lambda: dependency.main("p", "run", 0), lambda: digest(FILES.dependency)),
}


class Pipeline:
    """All stages of one run, up to the one that a section belongs to; a stage runs only if its parameters changed."""

    def __init__(self) -> None:
        self._done: Tree = {}

    def run(self, changes: Tree, until: str) -> str:
        """What the last stage wrote under changed parameters."""
        tree = small_tree() | {"experiments": {"run": {}}}
        for path, value in changes.items():
            *parents, key = path.split(".")
            target = tree
            for parent in parents:
                target = target[parent]
            target[key] = value
        YAML(typ="safe").dump(tree, Path("params.yaml"))
        resolve.write_plan(load_grid(Path("params.yaml")))
        for section, (stage, output) in STAGES.items():
            if self._done.get(section) != tree[section]:
                self._done = {name: done for name, done in self._done.items() if name in before(section)}
                stage()
                self._done[section] = tree[section]
            if section == until:
                return output()
        raise AssertionError(until)


def before(section: str) -> list[str]:
    names = list(STAGES)
    return names[: names.index(section)]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("workspace"))
        patch.setattr(resolve, "STAGE_MODULES", {})  # digests of code take their time, and know no parameters
        Path("models").mkdir()
        Path("models/warmstart").symlink_to(REPO / "models/warmstart")
        yield Pipeline()


def context_of(path: str) -> Tree:
    """Sizes of an architecture are read by a run of that architecture; two parts are of a batch of four at least."""
    if path == "base.train.accumulate":
        return {"base.train.batch_size": 4}
    return {"base.model": path.split(".", maxsplit=3)[2]} if ".architectures." in path else {}


DETECTIONS = {"data.detections", "data.min_detection_score"}
SPECIAL = {"data.source", "data.root", "data.on_broken", "base.weights"} | DETECTIONS
PLAIN = [path for path in PERTURBED if path not in SPECIAL | NEUTRAL and not path.startswith("report")]


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in PLAIN if not path.endswith(".init")])
def test_a_changed_leaf_changes_its_stage(path: str, pipeline: Pipeline) -> None:
    section, context = path.split(".", maxsplit=1)[0], context_of(path)
    plain = pipeline.run(context, until=section)
    assert pipeline.run({**context, path: PERTURBED[path]}, until=section) != plain


@pytest.mark.slow
@pytest.mark.parametrize("path", ["base.train.num_workers", "base.train.crop_store"])
def test_who_reads_the_images_does_not_matter(path: str, pipeline: Pipeline) -> None:
    assert pipeline.run({path: PERTURBED[path]}, until="base") == pipeline.run({}, until="base")


def test_without_a_compiler_nothing_can_be_compiled(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing that was compiled earlier
    wanted = r"^base\.train\.compile: torch\.compile failed \(.*No working C\+\+ compiler.*\), wanted false on this"
    without = import_module("torch._inductor.config").patch({"cpp.cxx": (None, "/no/compiler")})
    with without, pytest.raises(UserError, match=wanted):
        pipeline.run({"base.train.compile": True}, until="base")


def test_how_many_go_through_at_once_does_not_matter(pipeline: Pipeline) -> None:
    whole = {"test.decoding": "argmax"}  # the flat heatmaps of an untrained model have no stable sub-pixel peak
    pipeline.run(whole, until="test")
    plain = pd.read_parquet(FILES.predictions)
    pipeline.run({**whole, "test.batch_size": PERTURBED["test.batch_size"]}, until="test")
    pd.testing.assert_frame_equal(pd.read_parquet(FILES.predictions), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", ["data.source", "data.root"])
def test_a_coco_folder_is_looked_for(path: str, pipeline: Pipeline) -> None:
    with pytest.raises(UserError, match=r"person_keypoints_train2017.json: cannot be read") as caught:
        pipeline.run({"data.source": "coco", path: PERTURBED[path]}, until="data")
    assert ("elsewhere" in str(caught.value)) == (path == "data.root")


def test_broken_people_are_an_error_or_skipped(pipeline: Pipeline) -> None:
    pipeline.run({}, until="data")
    shutil.copytree(drawn_dir("p"), "broken")
    for file in sorted(Path("broken/train2017").iterdir())[:2]:
        file.write_bytes(file.read_bytes()[:500])
    broken = {"data.source": "coco", "data.root": "broken", "data.num_persons.train": "all"}
    with pytest.raises(UserError, match=r"broken/train2017/.*jpg: image \d+ is broken"):
        pipeline.run(broken, until="data")
    assert pipeline.run({**broken, "data.on_broken": "skip"}, until="data")


@pytest.fixture
def coco(pipeline: Pipeline) -> Tree:
    """The drawn people as a folder of somebody else, and boxes that a detector found in its val images."""
    pipeline.run({}, until="data")
    if not Path("copied").exists():
        shutil.copytree(drawn_dir("p"), "copied")
    manifest = json.loads(manifest_file("p", "val").read_text())
    boxes = [
        {"image_id": person["image_id"], "category_id": 1, "bbox": person["bbox"], "score": score}
        for person in manifest["annotations"]
        for score in (0.4, 0.9)
    ]
    Path(PERTURBED["data.detections"]).write_text(json.dumps(boxes))
    return {"data.source": "coco", "data.root": "copied"}


def test_detections_are_read_and_reach_the_predictions(coco: Tree, pipeline: Pipeline) -> None:
    """But for their score what is predicted in a box is the same whoever drew it."""
    detected = coco | {"data.detections": PERTURBED["data.detections"]}
    assert pipeline.run(detected, until="data") != pipeline.run(coco, until="data")
    plain = pipeline.run(coco | {"test.decoding": "argmax"}, until="test")
    assert pipeline.run(detected | {"test.decoding": "argmax"}, until="test") != plain
    frame = pd.read_parquet(FILES.predictions)
    val, found = (frame[frame["split"] == name] for name in ("val", "val_detected"))
    assert set(val["bbox_score"]) == {1.0}
    for score in (0.4, 0.9):
        boxes = found[found["bbox_score"] == score]
        for column in ("image_id", "view_area", "x", "y", "score"):
            np.testing.assert_allclose(boxes[column], val[column], rtol=1e-4, atol=1e-4)


def test_boxes_of_a_low_score_are_left_out(coco: Tree, pipeline: Pipeline) -> None:
    detected = coco | {"data.detections": PERTURBED["data.detections"]}
    whole = pipeline.run(detected, until="data")
    num_boxes = len(json.loads(detections_file("p").read_text()))
    path = "data.min_detection_score"
    assert pipeline.run(detected | {path: PERTURBED[path]}, until="data") != whole
    assert len(json.loads(detections_file("p").read_text())) == num_boxes / 2


@pytest.mark.parametrize("path", sorted(DETECTIONS))
def test_drawn_people_have_no_detections(path: str, pipeline: Pipeline) -> None:
    plain = pipeline.run({}, until="data")
    plan = (plan_dir("p") / "prepare.json").read_text()
    Path(PERTURBED["data.detections"]).unlink(missing_ok=True)
    assert pipeline.run({path: PERTURBED[path]}, until="data") == plain
    assert (plan_dir("p") / "prepare.json").read_text() == plan


def test_a_least_score_of_no_detections_reruns_nothing(coco: Tree, pipeline: Pipeline) -> None:
    pipeline.run(coco, until="data")
    plan = (plan_dir("p") / "prepare.json").read_text()
    pipeline.run(coco | {"data.min_detection_score": 0.5}, until="data")
    assert (plan_dir("p") / "prepare.json").read_text() == plan


def test_detections_that_are_not_there_are_named(coco: Tree, pipeline: Pipeline) -> None:
    with pytest.raises(UserError, match=r"^elsewhere\.json: cannot be read"):
        pipeline.run(coco | {"data.detections": "elsewhere.json"}, until="data")


@pytest.mark.parametrize("path", [path for path in PLAIN if path.endswith(".init")])
def test_initial_weights_are_loaded(path: str, pipeline: Pipeline) -> None:
    """The committed warm starts have the demo's sizes: here they do not fit, but for HRNet, whose size is its name."""
    context = context_of(path)
    if context["base.model"] != "hrnet":
        with pytest.raises(ValueError, match="has other sizes than the model"):
            pipeline.run({**context, path: "warmstart"}, until="base")
        return
    plain = pipeline.run(context, until="base")
    assert pipeline.run({**context, path: "warmstart"}, until="base") != plain


@pytest.mark.parametrize("path", ["report.picture_persons", "report.picture_seed"])
def test_pictures_are_in_the_plans_of_the_pages_that_show_them(path: str, pipeline: Pipeline) -> None:
    """That the report obeys its plan is tested in tests/reporting."""
    assert changed_plans(path, pipeline) == {"report.json", "dependency_report.json"}


@pytest.mark.parametrize("path", ["evaluate.num_resamples", "evaluate.seed"])
def test_permutations_are_in_the_plan_of_every_page_that_compares(path: str, pipeline: Pipeline) -> None:
    assert changed_plans(path, pipeline) >= {"report.json", "ablations.json", "run/evaluate.json"}


@pytest.mark.parametrize("path", [path for path in PERTURBED if path.startswith(("stress.", "dependency."))])
def test_what_systems_are_asked_is_in_the_plans_of_its_stage_and_page_alone(path: str, pipeline: Pipeline) -> None:
    section = path.split(".", maxsplit=1)[0]
    assert changed_plans(path, pipeline) == {f"run/{section}.json", f"{section}_report.json"}


def changed_plans(path: str, pipeline: Pipeline) -> set[str]:
    """Files of the plan that hold this parameter."""

    def plans() -> dict[str, str]:
        folder = plan_dir("p")
        return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*.json")}

    pipeline.run({}, until="data")
    plain = plans()
    pipeline.run({path: PERTURBED[path]}, until="data")
    return {name for name, content in plans().items() if content != plain[name]}
