"""No score without its interval, on any page: those of a made-up project and those that are shipped."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ablations.report import main as write_ablations
from bench.reporting.markdown import FEW_MARK, UNDEFINED
from bench.stages.report import main as write_systems
from tests.reporting.fake_runs import make_project

REPO = Path(__file__).parents[2]
SHIPPED = sorted((REPO / "reports").rglob("*.md"))

METRIC = re.compile(
    r"\b((AP|AR)(50|75|M|L)?|precision|recall|F1|AUROC|FPR95|accuracy|MCC|hallucinated|ECE|reliability|Brier|NLL)\b"
)
WITHOUT_INTERVAL = {
    "AP sd over seeds ↓ (%)": "is a spread itself",
    "published, no interval stated ↑ (%)": "by others, who state none",
    "here - published (points)": "one side of it has none",
    "published AP, detected boxes ↑ (%)": "by others, who state none",
    "published AR, detected boxes ↑ (%)": "by others, who state none",
    "published AP, true boxes ↑ (%)": "by others, who state none",
    "labelled present (%)": "says what the data are",
    "v = 0 (%)": "the same",
    "v = 0 in them (%)": "the same",
    "v = 0 in the others (%)": "the same",
    "of all v = 0, in them (%)": "the same",
    "of all persons (%)": "the same",
    "ECE (biased upwards, no interval) ↓": "resampling adds to it what chance adds",
    "ECE, bins of equal mass (biased upwards, no interval) ↓": "the same",
    "smallest detectable (points)": "says how sharp the test is",
}
"""Columns of percentages or points that are excused, each for a reason; the only ones."""
NUMBER = r"[+-]?\d+(?:\.\d+)?"
CELL = re.compile(rf"({NUMBER}) \[({NUMBER}), ({NUMBER})\](?: {FEW_MARK})?")


class MarkdownTable(NamedTuple):
    header: list[str]
    lines: list[list[str]]


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def tables_of(page: str) -> Iterator[MarkdownTable]:
    """Every table: runs of lines with pipes, of which the second is the rule under the header."""
    for block in re.findall(r"(?:^[ \t]*\|.*(?:\n|\Z))+", page, flags=re.MULTILINE):
        header, rule, *lines = [cells_of(line) for line in block.splitlines()]
        assert all(re.fullmatch(r":?-+:?", cell) for cell in rule), f"no table: {block.splitlines()[0]}"
        assert {len(line) for line in (rule, *lines)} <= {len(header)}, f"ragged: {block.splitlines()[0]}"
        yield MarkdownTable(header, lines)


def is_score(header: str) -> bool:
    """Whether a column holds what was found on a sample of images: any percentage or difference in points, and any
    metric whatever its unit."""
    return header not in WITHOUT_INTERVAL and (
        header.endswith(("(%)", "(points)")) or METRIC.search(header) is not None
    )


def has_interval(cell: str) -> bool:
    found = CELL.fullmatch(cell)
    return cell == UNDEFINED or (found is not None and float(found[2]) <= float(found[3]))


def bare_scores(page: str) -> list[str]:
    """`column: cell` of every cell of a score that is neither undefined nor has an interval."""
    return [
        f"{header}: {cell}"
        for table in tables_of(page)
        for line in table.lines
        for header, cell in zip(table.header, line, strict=True)
        if is_score(header) and not has_interval(cell)
    ]


def count_scores(page: str) -> int:
    """How many cells a page has that need an interval."""
    return sum(len(table.lines) * sum(map(is_score, table.header)) for table in tables_of(page))


@pytest.fixture(scope="module", params=[1, 3], ids=["one seed", "three seeds"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    make_project(root, seeds=range(request.param), pictured=1, published={"hrnet": "hrnet_w32"})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_systems("demo")
        write_ablations("demo")
    return root / "reports"


@pytest.mark.parametrize(
    ("page", "num_tables", "at_least"),
    [
        ("README.md", 1, 4 * 5),
        ("demo/systems/overview.md", 1, 4 * 5),
        ("demo/systems/README.md", 8, 4 * 5 + 4 * 10 + 12 + 10 * 2 + 6 + 5 + 9 * 4 + 17 * 6),
        ("demo/ablations/README.md", 4, 2 * (3 * 7 + 12)),
    ],
)
def test_every_score_of_a_made_page_has_its_interval(project: Path, page: str, num_tables: int, at_least: int) -> None:
    text = (project / page).read_text()
    assert len(list(tables_of(text))) == num_tables
    assert count_scores(text) >= at_least
    assert bare_scores(text) == []


def test_every_page_of_the_project_is_looked_at(project: Path) -> None:
    pages = {page.relative_to(project).as_posix() for page in project.rglob("*.md")}
    without_tables = {"demo/systems/findings.md", "demo/systems/limits.md"}
    assert pages - without_tables == {
        "README.md", "demo/systems/overview.md", "demo/systems/README.md", "demo/ablations/README.md",
    }  # fmt: skip


@pytest.mark.parametrize("page", SHIPPED, ids=lambda page: page.relative_to(REPO).as_posix())
def test_every_score_of_a_shipped_page_has_its_interval(page: Path) -> None:
    assert bare_scores(page.read_text()) == []


def test_shipped_pages_hold_scores() -> None:
    assert sum(count_scores(page.read_text()) for page in SHIPPED) > 100


TABLE = """\
Some text.

| system | AP ↑ (%) | seeds (n) | {header} |
|:-------|---------:|----------:|---------:|
| a \\| b | 52.1 [49.8, 54.3] | 1 | {cell} |

More text.
"""


@pytest.mark.parametrize(
    "header",
    [
        "AP ↑ (%)", "AP50 ↑ (%)", "AP75 ↑ (%)", "APM ↑ (%)", "APL ↑ (%)", "AR ↑ (%)", "ARL ↑ (%)", "precision ↑ (%)",
        "recall ↑ (%)", "F1 ↑ (%)", "F1, presence head ↑ (%)", "presence AUROC ↑ (%)", "difference ↑ (points)",
        "AP minus parent's (points)", "hrnet, heatmap peak ↑ (%)", "here ↑ (%)", "presence (%)", "AP", "F1 of all",
        "published AP (%)",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "cell", ["52.1", "+0.4", "52.1 ± 0.4", f"52.1 [{UNDEFINED}, {UNDEFINED}]", "52.1 [49.8]", "52.1 [54.3, 49.8]", ""]
)
def test_a_score_without_its_interval_is_found(header: str, cell: str) -> None:
    assert bare_scores(TABLE.format(header=header, cell=cell)) == [f"{header}: {cell}"]


@pytest.mark.parametrize("cell", [UNDEFINED, "52.1 [49.8, 54.3]", "-0.4 [-1.0, +0.2]", "100.0 [100.0, 100.0]"])
def test_a_score_with_its_interval_passes(cell: str) -> None:
    assert bare_scores(TABLE.format(header="AP ↑ (%)", cell=cell)) == []


@pytest.mark.parametrize(
    "header", [*WITHOUT_INTERVAL, "parameters ↓ (M)", "of these presence head ↓ (k)", "presence read from"]
)
def test_only_named_columns_are_excused(header: str) -> None:
    assert bare_scores(TABLE.format(header=header, cell="52.1")) == []
    assert count_scores(TABLE.format(header=header, cell="52.1")) == 1


def test_no_table_is_overlooked() -> None:
    page = TABLE.format(header="F1 ↑ (%)", cell="1.0") + "\n<details>\n\n" + TABLE.format(header="AR ↑ (%)", cell="2.0")
    assert bare_scores(page.rstrip() + "\n\n| AP |\n|--:|\n| 3.0 |") == ["F1 ↑ (%): 1.0", "AR ↑ (%): 2.0", "AP: 3.0"]
    with pytest.raises(AssertionError, match="ragged"):
        bare_scores("| AP | AR |\n|--:|--:|\n| 1.0 |\n")
    with pytest.raises(AssertionError, match="no table"):
        bare_scores("| AP | AR |\n| 1.0 | 2.0 |\n")
