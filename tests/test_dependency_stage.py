"""Stages dependency and dependency_report: drawn persons and microscopic models."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.data.arrays import write_arrays
from bench.data.coco import persons_of
from bench.data.dependencies import MAPS, NEARNESS, RANDOM, read_dependencies, write_dependencies
from bench.errors import UserError
from bench.reporting import dependency as pages
from bench.reporting.rows import load_rows
from bench.stages import dependency, dependency_report
from bench.stages.files import RunFiles
from bench.stages.run_model import read_manifest
from tests.evaluated_project import PROFILE, evaluated_project

EXPERIMENTS = {"plain": {"model": "hrnet", "presence_head": {"type": "none"}}, "head": {"model": "vitpose"}}
SHARES = [0.25, 0.5]  # as `small_tree` has them
PAGE = Path("reports", PROFILE, "dependency")


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with evaluated_project(tmp_path_factory.mktemp("project"), EXPERIMENTS):
        for run in EXPERIMENTS:
            dependency.main(PROFILE, run, 0)
        dependency_report.main(PROFILE)
        yield


def files(run: str) -> RunFiles:
    return RunFiles(PROFILE, run, 0)


def test_labelled_keypoints_are_asked_about_and_of_all_systems_the_same() -> None:
    plain, head = (read_dependencies(files(run).dependency) for run in EXPERIMENTS)
    people = {person.annotation_id: person for person in persons_of(read_manifest(PROFILE, "val"))}
    asked = list(zip(plain.annotation_ids.tolist(), plain.keypoint.tolist(), strict=True))
    assert len(set(asked)) == len(asked) > 0
    for annotation_id, keypoint in asked:
        assert people[annotation_id].labels.visibility[keypoint] > 0
    assert np.bincount(np.unique(plain.annotation_ids, return_inverse=True)[1]).max() <= 2
    for field in ("image_ids", "annotation_ids", "keypoint", "shares"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(head, field))


@pytest.mark.parametrize("run", EXPERIMENTS)
def test_curves_begin_with_all_and_end_with_nothing_for_every_map(run: str) -> None:
    found = read_dependencies(files(run).dependency)
    num, maps = len(found.keypoint), len(found.names)
    assert found.similarity.shape == found.presence.shape == (num, maps, 2, len(SHARES) + 2)
    assert found.maps.shape == (num, maps, 4, 4)
    np.testing.assert_allclose(found.similarity[:, :, 0, 0], 1)
    for curves in (found.similarity, found.presence):
        np.testing.assert_array_equal(curves[:, :, 0, 0], curves[:, :, 1, -1])
        np.testing.assert_array_equal(curves[:, :, 0, -1], curves[:, :, 1, 0])
        assert (np.ptp(curves[:, :, 0, [0, -1]], axis=1) == 0).all()
    assert ((found.similarity >= 0) & (found.similarity <= 1)).all()


def test_presence_is_the_heads_probability_or_the_peak() -> None:
    for run in EXPERIMENTS:
        found = read_dependencies(files(run).dependency)
        frame = pd.read_parquet(files(run).predictions).query("split == 'val'").set_index(["annotation_id", "keypoint"])
        rows = frame.loc[list(zip(found.annotation_ids, found.keypoint, strict=True))]
        # The predictions are the mean of two passes, so equal only in kind.
        logits = rows["presence_logit"].to_numpy(dtype=float)
        wanted = rows["score"] if np.isnan(logits).all() else 1 / (1 + np.exp(-logits))
        assert found.presence[:, 0, 0, 0] == pytest.approx(np.asarray(wanted), abs=0.2)


def test_it_is_deterministic() -> None:
    before = files("head").dependency.read_bytes()
    dependency.main(PROFILE, "head", 0)
    assert files("head").dependency.read_bytes() == before


def test_the_page_has_every_map_of_every_system() -> None:
    frame = pd.read_csv(PAGE / "faithfulness.csv")
    assert frame["system"].value_counts().to_dict() == {"head": len(MAPS), "plain": 3}
    assert set(frame["map"]) == set(MAPS.values())
    text = (PAGE / "README.md").read_text()
    for name in ("maps_1.png", "maps_2.png", "deletion.png", "insertion.png", "faithfulness.png"):
        assert (PAGE / name).is_file()
        assert f"]({name})" in text
    assert "- head, attention rollout: for localisation" in text
    differences = pd.read_csv(PAGE / "differences.csv")
    assert len(differences) == 2 * (len(MAPS) - 2 + 1)  # both floors are left out; a plain HRNet has one map
    images = len(np.unique(read_dependencies(files("head").dependency).image_ids))
    assert (differences["images"] == images).all()


def test_numbers_are_those_of_the_file() -> None:
    """Image by image, without a matrix."""
    found = read_dependencies(files("plain").dependency)
    runs_dir = Path("runs", PROFILE)
    system, _ = pages.load_systems(runs_dir, load_rows(runs_dir, list(EXPERIMENTS), [0]), 5, 0)
    m = system.maps.index(RANDOM)
    curve = found.presence[:, m, 0].sum(axis=0) / found.presence[:, m, 0, 0].sum()
    widths = np.diff([0, *SHARES, 1])
    area = float((widths * (curve[1:] + curve[:-1]) / 2).sum())
    assert system.result.pooled(pages.key(RANDOM, pages.PRESENCE, "deletion")).value == pytest.approx(area)
    assert NEARNESS in system.maps


def test_a_broken_or_foreign_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run-3.npz"
    with pytest.raises(UserError, match=r"run-3.npz: no readable dependency maps.*run `dvc repro dependency@run-3`"):
        read_dependencies(file)
    write_arrays(file, {"maps": np.zeros(3)})
    with pytest.raises(UserError, match="image_ids"):
        read_dependencies(file)
    original = read_dependencies(files("head").dependency)
    rows = load_rows(Path("runs", PROFILE), list(EXPERIMENTS), [0])
    try:
        write_dependencies(files("head").dependency, original._replace(keypoint=(original.keypoint + 1) % 17))
        with pytest.raises(UserError, match=r"head-0.npz: keypoint: found others than of plain-0, wanted the same"):
            pages.load_systems(Path("runs", PROFILE), rows, 5, 0)
    finally:
        write_dependencies(files("head").dependency, original)
