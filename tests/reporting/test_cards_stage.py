"""The pages of model cards of a made-up project."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import UserError
from bench.reporting.model_card import card_page, card_text
from bench.reporting.rows import read_row
from bench.stages.cards import main
from tests.reporting.fake_runs import PARENT, make_card, make_project, make_row

SYSTEMS = (PARENT, "hrnet")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("cards")
    make_project(root, systems=SYSTEMS, seeds=(0, 1), pictured=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        (root / "reports/demo/cards/gone-0").mkdir(parents=True)
        main("demo")
        yield root


def test_there_is_one_card_for_every_system_and_seed(project: Path) -> None:
    folder = project / "reports/demo/cards"
    names = [f"{system}-{seed}" for system in SYSTEMS for seed in (0, 1)]
    assert {file.relative_to(folder).as_posix() for file in folder.rglob("*.*")} == {
        "README.md",
        "cards.csv",
        *(f"{name}/README.md" for name in names),
    }
    assert not (folder / "gone-0").exists()
    for name in names:
        row = read_row(project / f"runs/demo/rows/{name}.json")
        assert (folder / name / "README.md").read_text() == card_page(row, make_card(row))
        assert f"({name}/README.md)" in (folder / "README.md").read_text()


def test_the_index_says_how_presence_is_read(project: Path) -> None:
    table = pd.read_csv(project / "reports/demo/cards/cards.csv")
    assert table.to_numpy().tolist() == [
        [PARENT, 0, 1.23, "64 x 96", "presence head", "temperature scaling", 0.5625],
        [PARENT, 1, 1.23, "64 x 96", "presence head", "temperature scaling", 0.5625],
        ["hrnet", 0, 1.23, "64 x 96", "heatmap peak", "Platt scaling", 0.5625],
        ["hrnet", 1, 1.23, "64 x 96", "heatmap peak", "Platt scaling", 0.5625],
    ]


def test_peaks_that_say_nothing_have_a_card_without_a_probability(project: Path) -> None:
    file = project / "runs/demo/cards/hrnet-1.json"
    before = file.read_text()
    file.write_text(
        json.dumps(json.loads(before) | {"presence": None, "nothing_to_read": "peaks are low: nothing to read"})
    )
    main("demo")
    file.write_text(before)
    index = (project / "reports/demo/cards/README.md").read_text()
    page = (project / "reports/demo/cards/hrnet-1/README.md").read_text()
    assert "none: peaks are low: nothing to read" in index
    assert "no probability can be read from it, as peaks are low: nothing to read." in page
    assert "present where its peak is at least 0.2100 (max F1 on calibration)" in page
    assert "`bench.export_hub` refuses" in page
    for word in ("sigmoid", "Probabilities were", "build_model"):
        assert word not in page
    main("demo")


def test_what_changes_from_day_to_day_is_in_the_folder_alone() -> None:
    row = make_row("hrnet")
    assert "| code_revision | ffff" in card_text(row, make_card(row))
    assert "code_revision" not in card_page(row, make_card(row))


def test_a_missing_card_is_named(project: Path) -> None:
    file = project / "runs/demo/cards/hrnet-0.json"
    before = file.read_text()
    file.unlink()
    with pytest.raises(UserError, match=r"cards/hrnet-0\.json: cannot be read .* wanted the output of an earlier"):
        main("demo")
    file.write_text(before)
