"""No absent keypoint in any split: known when the data are prepared, and every later stage goes on and says why."""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from ruamel.yaml import YAML

from ablations import report as ablations
from bench.data.synthetic.coco import write_drawn_coco
from bench.data.synthetic.scene import SceneParams
from bench.reporting.markdown import UNDEFINED
from bench.resolve import load_grid
from bench.stages import (
    card,
    cards,
    data_report,
    dependency,
    dependency_report,
    errors,
    evaluate,
    floors,
    pose_scores,
    pose_scores_report,
    predict,
    prepare,
    presence,
    presence_report,
    report,
    resolve,
    runs_report,
    site,
    stress,
    stress_report,
    train,
)
from tests.test_parameters import small_tree

CASES = Path(__file__).parents[2] / "shared" / "cases"
PROFILE = "p"
OF_A_RUN = (train, predict, evaluate, presence, pose_scores, stress, dependency, card)
OF_PAGES = (
    report, errors, presence_report, pose_scores_report, stress_report, dependency_report, ablations, data_report,
    runs_report, cards,
)  # fmt: skip
HEAD, BARE = "head", "bare"
SYSTEMS = {HEAD: {"model": "vitpose"}, BARE: {"model": "vitpose", "presence_head": {"type": "none"}}}


class Made(NamedTuple):
    """The reports of a whole pipeline, what `prepare` printed, and the warnings of all stages."""

    reports: Path
    prepared: list[str]
    warned: list[str]

    def read(self, page: str) -> str:
        return (self.reports / page).read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """All keypoints of drawn people visible, as of photographed ones: nobody carries the truth."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", ResourceWarning)
        patch.chdir(folder)
        patch.setattr(resolve, "STAGE_MODULES", {})
        write_people(Path("people"))
        prepared = run_all()
        yield Made(folder / "reports", prepared, [str(warning.message) for warning in caught])


def write_people(root: Path) -> None:
    scene = SceneParams(image_size=(96, 96), truncation=0.0)
    write_drawn_coco(root, {"train2017": 20, "val2017": 12}, scene, seed=0)
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        for annotation in content["annotations"]:
            points = np.reshape(annotation.pop("true_keypoints"), (-1, 3))
            points = np.column_stack([np.clip(points[:, :2], 1, 94), np.full(len(points), 2)])
            annotation |= {"keypoints": points.ravel().tolist(), "num_keypoints": len(points)}
        file.write_text(json.dumps(content))


def write_params(root: Path, num_persons: dict[str, Any], experiments: dict[str, Any]) -> None:
    tree = small_tree(PROFILE)
    tree["data"] |= {"source": "coco", "root": str(root), "num_persons": num_persons}
    tree["base"]["train"]["epochs"] = 1
    tree["test"]["decoding"] = "argmax"  # the flat heatmaps of an untrained model have no stable sub-pixel peak
    tree["experiments"] = experiments
    YAML(typ="safe").dump(tree, Path("params.yaml"))
    resolve.write_plan(load_grid(Path("params.yaml")))


def prepared_lines() -> list[str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        prepare.main(PROFILE)
    return said.getvalue().splitlines()


def run_all() -> list[str]:
    """Every stage, in the order of the pipeline; what `prepare` printed."""
    write_params(Path("people"), {"train": 6, "calibration": 4, "val": 6}, SYSTEMS)
    prepared = prepared_lines()
    floors.main(PROFILE)
    for run in SYSTEMS:
        for stage in OF_A_RUN:
            stage.main(PROFILE, run, 0)
    for page in OF_PAGES:
        page.main(PROFILE)
    Path("reports/architectures").mkdir()
    Path("reports/architectures/README.md").write_text("# Architectures\n")
    site.main(PROFILE)
    return prepared


def test_it_is_said_when_the_data_are_prepared(made: Made) -> None:
    under = "no absent keypoint under policies labelled, visible, border_aware, three_class:"
    assert [line.partition(": no ")[0] for line in made.prepared if " under " in line] == [
        "calibration", "train", "val"
    ]  # fmt: skip
    assert f"val: {under} presence cannot be measured there; pages show an en dash" in made.prepared
    assert any(line.startswith(f"calibration: {under} no calibrator and no regression") for line in made.prepared)


def test_no_stage_warns(made: Made) -> None:
    assert made.warned == []


@pytest.mark.parametrize(
    "page", ["systems", "presence", "pose_scores", "runs", f"runs/{HEAD}-0", f"cards/{HEAD}-0", f"cards/{BARE}-0"]
)
def test_pages_show_an_en_dash_and_say_why_once(made: Made, page: str) -> None:
    text = made.read(f"{PROFILE}/{page}/README.md")
    assert text.count("**val has no absent keypoint under policy labelled**") == 1
    assert f" {UNDEFINED} |" in text
    assert "nan" not in text.lower().split()


@pytest.mark.parametrize("page", ["errors", "truncation", "dependency", "ablations", "data", "cards"])
def test_all_other_pages_are_made(made: Made, page: str) -> None:
    assert made.read(f"{PROFILE}/{page}/README.md").startswith("# ")


def test_the_site_is_made(made: Made) -> None:
    assert "val has no absent keypoint under policy labelled" in made.read(f"{PROFILE}/html/presence.html")
    assert "val has no absent keypoint under policy labelled" in made.read("index.html")


def test_the_page_of_presence_says_what_calibration_does_not_allow(made: Made) -> None:
    text = made.read(f"{PROFILE}/presence/README.md")
    assert "**calibration has no absent keypoint under policy labelled**, so no calibrator" in text
    assert "keypoints.png" not in text  # which would be empty


def test_a_head_keeps_its_sigmoid_and_peaks_give_nothing_to_read(made: Made) -> None:
    assert "`sigmoid(1 * s)` of the logit s, by\nits own sigmoid" in made.read(f"{PROFILE}/cards/{HEAD}-0/README.md")
    bare = made.read(f"{PROFILE}/cards/{BARE}-0/README.md")
    assert "as the calibration split has one class of keypoints only: nothing to read." in bare


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the project")
def test_people_of_whom_all_is_labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "STAGE_MODULES", {})
    root = tmp_path / "root"
    root.mkdir()
    (root / "annotations").symlink_to(CASES / "data/no_absent/annotations")
    for split in ("train2017", "val2017"):
        (root / split).symlink_to(CASES / "tiny" / split)
    write_params(root, {"train": 20, "calibration": 10, "val": 10}, {HEAD: SYSTEMS[HEAD]})
    said = prepared_lines()
    assert (
        "val: no absent keypoint under policies labelled, visible, border_aware, three_class: presence cannot be "
        "measured there; pages show an en dash" in said
    )
