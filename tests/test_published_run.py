"""A published model as a run: its file is taken as it is, nothing is trained, and it gets a row of its own."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

from bench.config import TrainConfig
from bench.errors import UserError
from bench.metrics.average_precision import OKSEvaluation
from bench.reporting.results import read_matches
from bench.reporting.rows import read_row
from bench.resolve import load_grid
from bench.stages import evaluate, predict, prepare, resolve, train
from bench.stages.files import RunFiles, TrainingInfo, plan_dir, read_model
from bench.stages.run_model import build
from bench.training.checkpoint import load_checkpoint
from tests.test_parameters import small_tree

WEIGHTS = "models/published/tiny"
SIZES = {"patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2, "decoder": "simple"}
FILES = RunFiles("p", "tiny", 0)


def published_model() -> VitPoseForPoseEstimation:
    """A microscopic VitPose of transformers with its own random weights."""
    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(  # type: ignore[call-arg]  # their base class takes these
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=[32, 32], out_indices=[2], mlp_ratio=4
    )
    return VitPoseForPoseEstimation(
        VitPoseConfig(backbone_config=backbone, use_simple_decoder=True, num_labels=17)  # type: ignore[call-arg]
    )


def write_plan(**changes: Any) -> None:
    tree = small_tree()
    tree["base"]["presence_head"]["type"] = "none"
    tree["base"]["architectures"]["vitpose"] |= SIZES
    tree["experiments"] = {"tiny": {"weights": WEIGHTS, "published": "vitpose_b_simple"} | changes}
    YAML(typ="safe").dump(tree, Path("params.yaml"))
    resolve.write_plan(load_grid(Path("params.yaml")))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the published model in its place and a plan that names it."""
    monkeypatch.chdir(tmp_path)
    published_model().save_pretrained(WEIGHTS)
    write_plan()
    return tmp_path


def test_a_published_model_is_evaluated_as_it_is(workspace: Path) -> None:
    prepare.main("p")
    train.main("p", "tiny", 0)
    predict.main("p", "tiny", 0)
    evaluate.main("p", "tiny", 0)
    theirs, info = published_model(), read_model(FILES.training, TrainingInfo)
    assert info.best_epoch == 0
    assert info.num_parameters == sum(parameter.numel() for parameter in theirs.parameters())
    assert info.weights_source is not None
    assert len(FILES.curves.read_text().splitlines()) == 1
    row = read_row(FILES.row)
    assert row.protocol.init == f"{WEIGHTS} ({info.weights_source})"
    assert row.protocol.checkpoint_rule == "as published"
    assert row.protocol.boxes == "ground truth"
    assert list(row.thresholds) == ["heatmap_peak", "always_present"]
    assert (row.best_epoch, row.num_presence_parameters) == (0, 0)
    assert row.provenance.trained_seconds == info.seconds >= 0
    assert len(pd.read_parquet(FILES.predictions)) == 17 * (6 + 24)
    assert len(pd.read_parquet(FILES.replicates)) == 1 + 20
    assert OKSEvaluation(read_matches(FILES.matches)).stats["AP"] == row.numbers["oks/AP"].value


def test_its_heatmaps_are_those_of_the_published_model(workspace: Path) -> None:
    train.main("p", "tiny", 0)
    config = read_model(plan_dir("p") / "tiny" / "train.json", TrainConfig)
    ours = build(config, pretrained=False)
    load_checkpoint(FILES.checkpoint, ours)
    image = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        found = ours.eval()(image).heatmaps
        theirs = published_model().eval()  # type: ignore[no-untyped-call]
        wanted = theirs(pixel_values=ours.normalise(image)).heatmaps
    assert wanted.std() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_no_training_is_planned_for_it(workspace: Path) -> None:
    plan = json.loads((plan_dir("p") / "tiny" / "train.json").read_text())
    assert plan["fitting"] is None
    assert plan["architecture"]["init"] == "random"
    assert json.loads((plan_dir("p") / "report.json").read_text())["published"] == {"tiny": "vitpose_b_simple"}


def test_new_content_of_its_file_changes_the_plan(workspace: Path) -> None:
    file = plan_dir("p") / "tiny" / "weights.json"
    before = file.read_text()
    config = workspace / WEIGHTS / "config.json"
    config.write_text(config.read_text() + "\n")
    write_plan()
    assert file.read_text() != before


def test_a_file_that_is_not_there_is_named_before_any_work(workspace: Path) -> None:
    wanted = "^models/published/none.pth: cannot be read .*, wanted a file or folder of weights$"
    with pytest.raises(UserError, match=wanted):
        write_plan(weights="models/published/none.pth")


def test_weights_of_another_size_are_refused(workspace: Path) -> None:
    write_plan(architectures={"vitpose": {"depth": 3}})
    with pytest.raises(UserError, match=rf"^{WEIGHTS}.*missing"):
        train.main("p", "tiny", 0)
    assert not FILES.checkpoint.exists()
