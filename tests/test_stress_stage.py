"""Stage stress: a handful of drawn persons and a microscopic model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from bench.config import StressParams
from bench.data.coco import persons_of
from bench.data.geometry import Crop
from bench.data.keypoints import NUM_KEYPOINTS, OKS_SIGMAS
from bench.data.stressed import COLUMNS, CONDITION, read_stressed, write_stressed
from bench.data.truncated import TruncatedDataset
from bench.data.truncation import PADDINGS, SIDES, conditions
from bench.errors import UserError
from bench.resolve import load_grid
from bench.stages import predict, prepare, resolve, stress, train
from bench.stages.files import RunFiles
from bench.stages.run_model import read_manifest
from bench.stages.stress import choose_people
from tests.test_parameters import small_tree

FILES = RunFiles("p", "run", 0)
STRESS = {"num_persons": 7, "kept": [1.0, 0.5], "sides": ["left", "bottom"], "paddings": list(PADDINGS), "seed": 0}


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pd.DataFrame]:
    """What the stage writes; the folder is that of its project."""
    tree = small_tree()
    tree["stress"] |= STRESS
    tree["test"]["decoding"] = "argmax"  # the flat heatmaps of an untrained model have no stable sub-pixel peak
    tree["experiments"] = {"run": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("workspace"))
        patch.setattr(resolve, "STAGE_MODULES", {})
        YAML(typ="safe").dump(tree, Path("params.yaml"))
        resolve.write_plan(load_grid(Path("params.yaml")))
        prepare.main("p")
        for stage in (train, predict, stress):
            stage.main("p", "run", 0)
        yield pd.read_parquet(FILES.stress)


def test_there_is_a_row_of_every_condition_person_and_keypoint(frame: pd.DataFrame) -> None:
    assert tuple(frame) == COLUMNS
    assert not frame.duplicated([*CONDITION, "annotation_id", "keypoint"]).any()
    grid = {tuple(row) for row in frame[list(CONDITION)].drop_duplicates().itertuples(index=False)}
    assert grid == set(conditions(sides=STRESS["sides"], kept=STRESS["kept"], paddings=STRESS["paddings"]))
    assert frame["annotation_id"].nunique() == 7
    sizes = frame.groupby(list(CONDITION), observed=True).size()
    assert (sizes[sizes.index.get_level_values("kept") == 1] == 7 * NUM_KEYPOINTS).all()


def test_where_all_is_kept_it_is_the_plain_prediction(frame: pd.DataFrame) -> None:
    """In every mode and for every side, to 1e-5."""
    plain = pd.read_parquet(FILES.predictions).query("split == 'val'").set_index(["annotation_id", "keypoint"])
    whole = frame[(frame["kept"] == 1) & (frame["padding"] == "zeros")]
    groups = list(whole.groupby(["mode", "side"], observed=True))
    assert len(groups) == 5
    for _, rows in groups:
        wanted = plain.loc[list(zip(rows["annotation_id"], rows["keypoint"], strict=True))]
        for column in ("x", "y", "score", "presence_logit"):
            np.testing.assert_allclose(rows[column], wanted[column], rtol=1e-5, atol=1e-5)
        assert (rows["image_id"].to_numpy() == wanted["image_id"].to_numpy()).all()
        assert not (rows["present"].to_numpy() & ~wanted["present_true"].to_numpy()).any()  # or not in the window


def test_less_is_present_where_less_is_kept_and_covered_keypoints_stay(frame: pd.DataFrame) -> None:
    present = frame.groupby(["mode", "kept"], observed=True)["present"].mean()
    for mode in ("cut", "shift"):
        assert present[mode, 0.5] < 0.8 * present[mode, 1.0]
    assert present["blackout", 0.5] == present["blackout", 1.0]
    seen = frame[frame["mode"] == "blackout"].groupby("kept")["visibility"].apply(lambda v: (v == 2).mean())
    assert seen[0.5] < 0.7 * seen[1.0]


def test_counts_are_those_of_the_dataset(frame: pd.DataFrame) -> None:
    people = choose_people(read_manifest("p", "val"), 7, 0)
    grid = conditions(sides=STRESS["sides"], kept=STRESS["kept"], paddings=STRESS["paddings"])
    crop = Crop((32, 32), 1.25, "extend", aligned=True)
    for condition, tally in zip(grid, TruncatedDataset(people.persons, crop, grid, 0).tally(), strict=True):
        rows = frame[(frame[list(CONDITION)] == list(condition)).all(axis=1)]
        assert len(rows) == NUM_KEYPOINTS * (tally.num_persons - tally.num_excluded)
        assert int((rows["present"] & (rows["present_weight"] > 0)).sum()) == tally.num_present
        assert int((~rows["present"] & (rows["present_weight"] > 0)).sum()) == tally.num_absent


def test_similarity_is_the_term_of_oks_of_what_is_present(frame: pd.DataFrame) -> None:
    assert (frame["similarity"].notna() == frame["present"]).all()
    areas = {annotation["id"]: annotation["area"] for annotation in read_manifest("p", "val")["annotations"]}
    for row in frame[frame["present"]].iloc[::97].itertuples():
        squared = (row.x - row.true_x) ** 2 + (row.y - row.true_y) ** 2
        scale = 2 * areas[row.annotation_id] * (2 * OKS_SIGMAS[row.keypoint]) ** 2
        assert row.similarity == pytest.approx(np.exp(-squared / scale), abs=1e-9)
        assert row.area == areas[row.annotation_id]


def test_everybody_in_an_image_is_chosen_but_in_the_last_one(frame: pd.DataFrame) -> None:
    manifest = read_manifest("p", "val")
    everybody = persons_of(manifest)
    chosen = [person.annotation_id for person in choose_people(manifest, 7, 0).persons]
    assert set(frame["annotation_id"]) == set(chosen)
    assert chosen == [person.annotation_id for person in everybody if person.annotation_id in chosen]
    images = {person.image_id for person in everybody if person.annotation_id in chosen}
    left_out = {p.image_id for p in everybody if p.image_id in images and p.annotation_id not in chosen}
    assert len(left_out) <= 1
    assert set(chosen) != {person.annotation_id for person in choose_people(manifest, 7, 1).persons}
    assert len(choose_people(manifest, 10_000, 0).persons) == len(everybody)


def test_the_file_is_read_as_it_was_written(frame: pd.DataFrame) -> None:
    found = read_stressed(FILES.stress)
    np.testing.assert_array_equal(found.keypoints[..., 0].ravel(), frame["x"])
    np.testing.assert_array_equal(found.truth[..., 1].ravel(), frame["true_y"])
    assert found.logits is not None
    np.testing.assert_array_equal(found.logits.ravel(), frame["presence_logit"].astype(np.float64))
    half = found.take(found.kept == 0.5)
    assert set(half.kept) == {0.5}
    assert len(half.score) == len(half.mode) == len(half.logits) < len(found.score)


def test_a_broken_file_names_its_stage(frame: pd.DataFrame, tmp_path: Path) -> None:
    file = tmp_path / "run-3.parquet"
    again = r": run `dvc repro stress@run-3`$"
    with pytest.raises(UserError, match="no readable stress test.*" + again):
        read_stressed(file)
    write_stressed(file, frame.iloc[1:])
    with pytest.raises(UserError, match="wanted 17 keypoints a person in order" + again):
        read_stressed(file)
    frame.drop(columns="similarity").to_parquet(file)
    with pytest.raises(UserError, match="column 'similarity' is missing, .*" + again):
        read_stressed(file)


def test_the_parameters_name_what_there_is() -> None:
    """They are spelt out there, as resolving parameters must not wait for the generator of samples."""
    params = StressParams(num_persons=1, kept=(1.0,), sides=tuple(SIDES), paddings=PADDINGS, seed=0)
    assert len(conditions(sides=params.sides, kept=params.kept, paddings=params.paddings)) == 3 * 4 * 2 + 2
