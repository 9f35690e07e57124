"""The page of the published architectures: counted from models, beside what was stated."""

import csv
from pathlib import Path

import pytest

from bench.published import PUBLISHED
from bench.stages import architectures

KEYS = ("hrnet_w32", "transpose_r_a4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("architectures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(architectures, "PUBLISHED", {key: PUBLISHED[key] for key in KEYS})
        architectures.main()
    return root / "reports" / "architectures"


def test_counted_and_published_stand_side_by_side(folder: Path) -> None:
    with (folder / "architectures.csv").open() as file:
        hrnet, transpose = csv.DictReader(file)
    assert (hrnet["system"], hrnet["parameters"], hrnet["published_parameters"]) == ("HRNet-W32", "28.54", "28.5")
    assert (hrnet["binary_macs"], hrnet["published_macs"]) == ("7.12", "7.1")
    assert (hrnet["AP"], hrnet["AR"], hrnet["true_AP"]) == ("74.4", "79.8", "76.5")
    assert (transpose["parameters"], transpose["published_parameters"]) == ("5.99", "6.0")


def test_the_page_says_how_authors_count(folder: Path) -> None:
    page = (folder / "README.md").read_text()
    assert "- hrnet: in units of 2^30" in page
    assert "(architectures.csv)" in page
