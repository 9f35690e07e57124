"""The page of the truncation stress test, from made-up stress files."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import f1_score, roc_auc_score

from bench.data.keypoints import FLIP_PAIRS, NUM_KEYPOINTS, OKS_SIGMAS
from bench.data.predictions import CALIBRATION, write_predictions
from bench.data.stressed import CONDITION, write_stressed
from bench.data.truncation import conditions
from bench.errors import UserError
from bench.metrics.calibrators import fit_temperature
from bench.reporting.rows import run_file, write_row
from bench.stages.stress_report import main
from tests.reporting.fake_runs import STANDING, make_people, make_row, predict, write_json

SYSTEMS = {"vitpose_presence": True, "hrnet": False}
PAGE_DIR = Path("reports/demo/truncation")
PLAN = Path("runs/demo/plan/stress_report.json")
STRESS = {
    "num_persons": 12, "kept": [1.0, 0.5], "sides": ["left", "top"], "paddings": ["zeros", "mean", "reflect"],
    "seed": 0,
}  # fmt: skip
EVALUATE = {
    "score_rule": "box_keypoint", "oks_nms": 0.9, "presence_policy": "labelled", "threshold": "max_f1",
    "interval": "percentile", "num_resamples": 50, "seed": 0,
}  # fmt: skip
TABLES = {"halfway", "given_away", "paddings", "presence", "places", "sides", "tally", "calibration"}
MIRROR = np.arange(NUM_KEYPOINTS)
for left, right in FLIP_PAIRS:
    MIRROR[[left, right]] = right, left


def make_stressed(name: str, *, head: bool, seed: int = 0) -> pd.DataFrame:
    """12 persons in 6 images; what is absent of them is put on its mirror partner."""
    rng = np.random.default_rng([seed, *name.encode()])
    shared = np.random.default_rng(0)
    frames = []
    truth = STANDING * (60, 120) + shared.uniform(0, 200, (12, 1, 2))
    for condition in conditions(sides=STRESS["sides"], kept=STRESS["kept"], paddings=STRESS["paddings"]):
        for person in range(12):
            if (condition.mode, condition.kept, person) == ("cut", 0.5, 3):
                continue  # nothing of them is kept
            present = np.random.default_rng([person, int(condition.kept * 10)]).random(NUM_KEYPOINTS) < condition.kept
            points = np.where(present[:, None], truth[person], truth[person][MIRROR])
            points = points + np.where(present[:, None], rng.normal(scale=2, size=points.shape), 0)
            squared = ((points - truth[person]) ** 2).sum(-1)
            similarity = np.exp(-squared / (2 * 5000 * (2 * OKS_SIGMAS) ** 2))
            frames.append(
                pd.DataFrame(
                    {
                        **condition._asdict(), "image_id": 1 + person // 2, "annotation_id": 101 + person,
                        "area": 5000.0, "keypoint": np.arange(NUM_KEYPOINTS), "x": points[:, 0], "y": points[:, 1],
                        "score": np.where(present, 0.5, 0.15) + rng.normal(scale=0.2, size=NUM_KEYPOINTS),
                        "presence_logit": np.where(present, 1.5, -1.5) + rng.normal(scale=2, size=NUM_KEYPOINTS)
                        if head else np.nan,
                        "present": present, "present_weight": 1.0 - (np.arange(NUM_KEYPOINTS) == person),
                        "visibility": np.where(present, 2 - (np.arange(NUM_KEYPOINTS) == 5), 0),
                        "similarity": np.where(present, similarity, np.nan),
                        "true_x": truth[person, :, 0], "true_y": truth[person, :, 1],
                    }
                )
            )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def make_project(root: Path, seeds: tuple[int, ...] = (0,), systems: tuple[str, ...] = tuple(SYSTEMS)) -> None:
    plan = {"profile": "demo", "seeds": list(seeds), "systems": list(systems), "evaluate": EVALUATE, "stress": STRESS}
    write_json(root / PLAN, plan)
    manifest = make_people(root, 12, np.random.default_rng(0))
    for name in systems:
        for seed in seeds:
            head = SYSTEMS[name]
            runs_dir = root / "runs/demo"
            split = predict(manifest, 3.0, np.random.default_rng(seed), head=head).assign(split=CALIBRATION)
            write_predictions(run_file(runs_dir, "predictions", name, seed), [split])
            write_row(make_row(name, seed, head=head), run_file(runs_dir, "rows", name, seed))
            write_stressed(runs_dir / f"stress/{name}-{seed}.parquet", make_stressed(name, head=head, seed=seed))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose page was made twice; `first` keeps the files of the first time."""
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        main("demo")
        PAGE_DIR.rename("first")
        main("demo")
    return root


@pytest.fixture
def copied(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def table(project: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(project / PAGE_DIR / f"{name}.csv")


def line(project: Path, name: str, **where: Any) -> pd.Series:
    """The one line of a table."""
    frame = table(project, name)
    for key, value in where.items():
        frame = frame[frame[key] == value]
    assert len(frame) == 1, frame
    return frame.iloc[0]


def rows_of(name: str, *, head: bool, **where: Any) -> pd.DataFrame:
    """The keypoints of which something is known, of a made-up file."""
    frame = make_stressed(name, head=head)
    for key, value in where.items():
        frame = frame[frame[key] == value]
    return frame[frame["present_weight"] > 0]


def test_two_runs_give_the_same_bytes(project: Path) -> None:
    files = sorted(file.name for file in (project / "first").iterdir())
    assert {file.removesuffix(".csv") for file in files if file.endswith(".csv")} == TABLES
    assert {file for file in files if file.endswith(".png")} == {
        f"{name}.png" for name in ("auroc", "f1", "hallucinated", "ece", "similarity", "swaps")
    }
    for file in files:
        assert (project / "first" / file).read_bytes() == (project / PAGE_DIR / file).read_bytes(), file


def test_every_link_leads_to_a_file_and_every_file_is_linked(project: Path) -> None:
    page = (project / PAGE_DIR / "README.md").read_text()
    links = set(re.findall(r"\]\(([^)#]+)\)", page))
    assert links == {file.name for file in (project / PAGE_DIR).iterdir()} - {"README.md"}
    assert "12 persons in 6 images" in page
    assert "50 resamples" in page


def test_the_page_shows_the_numbers_of_its_csvs(project: Path) -> None:
    page = re.sub(" +", " ", (project / PAGE_DIR / "README.md").read_text())
    for name in ("halfway", "presence", "sides"):
        frame = pd.read_csv(project / PAGE_DIR / f"{name}.csv", dtype=str)
        for record in frame.to_dict("records"):
            assert f"| {record['F1']} [{record['F1_low']}, {record['F1_high']}]" in page


@pytest.mark.parametrize(("system", "source"), [("vitpose_presence", "presence head"), ("hrnet", "heatmap peak")])
def test_presence_is_that_of_scikit_learn_at_the_threshold_of_the_row(system: str, source: str, project: Path) -> None:
    head = source == "presence head"
    rows = rows_of(system, head=head, mode="cut", padding="mean", kept=0.5)
    found = line(project, "presence", mode="cut away", padding="mean colour", kept=50, system=system, source=source)
    score = expit(rows["presence_logit"]) if head else rows["score"]
    claimed = score >= make_row(system, head=head).thresholds["presence_head" if head else "heatmap_peak"]
    assert found["AUROC"] == pytest.approx(100 * roc_auc_score(rows["present"], score), abs=0.06)
    assert found["F1"] == pytest.approx(100 * f1_score(rows["present"], claimed), abs=0.06)
    num_samples = len(rows[["side", "annotation_id"]].drop_duplicates())
    assert num_samples == 22
    assert found["hallucinated"] == pytest.approx((claimed & ~rows["present"]).sum() / num_samples, abs=0.006)
    assert found["AUROC_low"] < found["AUROC"] < found["AUROC_high"]


def test_sides_are_apart_in_their_table(project: Path) -> None:
    rows = rows_of("hrnet", head=False, mode="shift", padding="zeros", kept=0.5, side="top")
    found = line(project, "sides", mode="left out of the window", side="top", system="hrnet")
    assert found["AUROC"] == pytest.approx(100 * roc_auc_score(rows["present"], rows["score"]), abs=0.06)


def gap(probability: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """ECE by hand."""
    place = np.ceil(probability * 15)
    cells = [place == i for i in range(16) if (place == i).any()]
    return float(sum(abs(probability[cell].mean() - present[cell].mean()) * cell.sum() for cell in cells) / len(place))


def test_the_temperature_is_that_of_the_plain_calibration_split(project: Path) -> None:
    rows = rows_of("vitpose_presence", head=True, mode="blackout", padding="zeros", kept=0.5)
    found = line(project, "calibration", mode="covered", padding="black", kept=50)
    logits, present = rows["presence_logit"].to_numpy(), rows["present"].to_numpy()
    plain = pd.read_parquet(project / "runs/demo/predictions/vitpose_presence-0.parquet")
    columns = (plain[c].to_numpy()[:, None] for c in ("presence_logit", "present_labelled", "present_weight_labelled"))
    tempered = fit_temperature(*columns)(logits[:, None])[:, 0]
    assert found["ECE"] == pytest.approx(100 * gap(expit(logits), present), abs=0.06)
    assert found["ECE_temperature"] == pytest.approx(100 * gap(tempered, present), abs=0.06)
    assert found["ECE"] != found["ECE_temperature"]


def test_absent_keypoints_are_found_where_they_were_put(project: Path) -> None:
    """On their mirror partners: a swap where that one is left, unless there is none (the nose is its own)."""
    rows = rows_of("hrnet", head=False, mode="cut", padding="zeros", kept=0.5)
    found = line(project, "places", mode="cut away", padding="black", kept=50, system="hrnet")
    there = {(row.side, row.annotation_id, row.keypoint) for row in rows.itertuples() if row.present}
    absent = [row for row in rows.itertuples() if not row.present]
    on_mirror = np.mean([(row.side, row.annotation_id, MIRROR[row.keypoint]) in there for row in absent])
    assert on_mirror > 0.3
    assert found["on_mirror"] == pytest.approx(100 * on_mirror, abs=0.06)
    assert found["swap"] >= found["on_mirror"]
    left = rows[rows["present"] & (rows["visibility"] > 0)]
    assert found["similarity"] == pytest.approx(100 * left["similarity"].mean(), abs=0.06)


def test_somebody_else_is_found_too(copied: Path) -> None:
    """Everything absent is put on the same keypoint of the other person in the image, who is not cut."""
    frame = make_stressed("hrnet", head=False)
    truth = frame.drop_duplicates(["annotation_id", "keypoint"]).set_index(["annotation_id", "keypoint"])
    other = (frame["annotation_id"] - 101) // 2 * 2 + 101 + (frame["annotation_id"] - 100) % 2
    there = truth.loc[list(zip(other, frame["keypoint"], strict=True))]
    for axis in ("x", "y"):
        frame[axis] = np.where(frame["present"], frame[axis], there[f"true_{axis}"])
    write_stressed(Path("runs/demo/stress/hrnet-0.parquet"), frame)
    main("demo")
    assert line(copied, "places", mode="cut away", padding="black", kept=50, system="hrnet")["on_other"] == 100


def test_differences_are_those_of_the_numbers_beside_them(project: Path) -> None:
    """They are those of the numbers beside them; nothing of what is covered is mirrored."""
    found = line(project, "given_away", padding="black", system="hrnet")
    whole = (
        table(project, "presence").query("padding == 'black' and kept == 50 and system == 'hrnet'").set_index("mode")
    )
    cut, shift = whole.loc["cut away", "AUROC"], whole.loc["left out of the window", "AUROC"]
    assert found["difference"] == pytest.approx(cut - shift, abs=0.11)
    assert found["difference_low"] <= found["difference"] <= found["difference_high"]
    paddings = line(project, "paddings", mode="covered", system="hrnet")
    assert pd.isna(paddings["reflect"])
    assert pd.isna(paddings["minus_reflect"])
    assert not pd.isna(paddings["minus_mean"])


def test_who_is_excluded_is_counted(project: Path) -> None:
    found = line(project, "tally", mode="cut away", kept=50)
    assert (found["systems"], found["samples"], found["excluded"]) == ("all", 24, 2)
    assert found["present"] + found["absent"] + found["unknown"] == 22 * NUM_KEYPOINTS
    assert line(project, "tally", mode="covered", kept=100)["samples"] == 12


def test_the_floor_is_there_once_and_says_yes_to_everything(project: Path) -> None:
    frame = table(project, "presence")
    floor = frame[frame["source"] == "always present"]
    assert set(floor["system"]) == {"any"}
    assert len(floor) == 2 * len(conditions(("cut", "shift"), ["top"], [1.0], STRESS["paddings"])) + 2 * 2
    assert set(floor["AUROC"].dropna()) == {50.0}
    rows = rows_of("hrnet", head=False, mode="cut", padding="zeros", kept=0.5)
    found = floor.query("mode == 'cut away' and padding == 'black' and kept == 50").iloc[0]
    assert found["hallucinated"] == pytest.approx((~rows["present"]).sum() / 22, abs=0.006)


def test_without_a_head_there_is_nothing_to_calibrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, systems=("hrnet",))
    main("demo")
    assert not (PAGE_DIR / "calibration.csv").exists()
    assert not (PAGE_DIR / "ece.png").exists()
    assert "Does calibration transfer" not in (PAGE_DIR / "README.md").read_text()


def test_seeds_are_pooled(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, seeds=(0, 1), systems=("hrnet",))
    main("demo")
    where = {"mode": "cut away", "padding": "black", "kept": 50, "system": "hrnet"}
    found = line(tmp_path, "presence", **where)
    assert found["seeds"] == 2
    frames = [make_stressed("hrnet", head=False, seed=seed) for seed in (0, 1)]
    alone = [
        roc_auc_score(rows["present"], rows["score"])
        for frame in frames
        for rows in [frame.query("mode == 'cut' and padding == 'zeros' and kept == .5 and present_weight > 0")]
    ]
    assert found["AUROC"] == pytest.approx(100 * np.mean(alone), abs=0.06)
    assert "2 training seeds" in (tmp_path / PAGE_DIR / "README.md").read_text()


def test_a_missing_file_names_its_stage(copied: Path) -> None:
    Path("runs/demo/stress/hrnet-0.parquet").unlink()
    with pytest.raises(UserError, match=r"hrnet-0.parquet: no readable stress test .* run `dvc repro stress@hrnet-0`"):
        main("demo")


def test_a_file_of_other_conditions_is_refused(copied: Path) -> None:
    plan = json.loads(PLAN.read_text())
    plan["stress"]["kept"] = [1.0, 0.4]
    PLAN.write_text(json.dumps(plan))
    with pytest.raises(UserError, match=r"condition \('blackout', '', 0\.4, 'mean'\): run `dvc repro stress@vitpose_p"):
        main("demo")
    frame = make_stressed("hrnet", head=False)
    assert tuple(frame)[:4] == tuple(sorted(CONDITION, key=list(frame).index))
