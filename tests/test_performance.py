"""The page of performance, from what pytest-benchmark writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.performance import Record, main
from bench.stages.files import read_model

RATIO = {"median": 3.5, "low": 3.1, "high": 4.0, "n": 7}
WIDE, NARROW = RATIO | {"at_least": 3, "at_most": None}, RATIO | {"at_least": None, "at_most": 1.01}


def entry(name: str, **extra: Any) -> dict[str, Any]:
    return {
        "fullname": f"tests/perf/test_perf_x.py::{name}",
        "stats": {"median": 0.0025, "rounds": 40, "data": [0.0025] * 40},
        "extra_info": extra,
    }


def write(file: Path, *entries: dict[str, Any]) -> Path:
    machine = {"node": "host-of-somebody", "cpu": {"brand_raw": "A CPU | of <some> kind"}}
    file.write_text(json.dumps({"machine_info": machine, "benchmarks": list(entries)}))
    return file


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def page(workspace: Path) -> str:
    curve = {"against": "persons", "sizes": [10, 1000], "found": [0.5, 40.0], "exponent": 0.95}
    main(
        write(
            workspace / "raw.json",
            entry("fast", ratios={"theirs over ours": WIDE}, rates={"persons": 400}),
            entry("slow", ratios={"head over plain": NARROW}),
            entry("grows", scaling={"seconds of something": curve}, numbers={"GB": {"value": 1.5, "at_most": 4}}),
        )
    )
    return Path("reports/performance.md").read_text()


def test_every_number_stands_with_its_bar_its_range_and_its_test(page: str) -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    found = {line[0]: line[1:] for line in lines}
    assert found["theirs over ours"][:4] == ["3.50", "3.10, 4.00", "7", "at least 3: met"]
    assert found["theirs over ours"][4].endswith("fast")
    assert found["head over plain"][3] == "at most 1.01: missed"
    assert found["GB"][:2] == ["1.50", "at most 4: met"]
    assert found["seconds of something"][:4] == ["persons", "10, 1,000", "0.5, 40", "0.95"]
    assert any("400 persons/s" in line for line in page.splitlines())


def test_what_was_not_measured_is_said(page: str) -> None:
    record = read_model(next(Path("reports/performance").glob("*.json")), Record)
    assert ("Not measured" in page) == (record.gpu == "none")


def test_machines_stand_beside_each_other_without_their_names(page: str, workspace: Path) -> None:
    assert "A CPU \\| of &lt;some&gt; kind" in page
    written = "".join(file.read_text() for file in Path("reports").rglob("*.*") if file.suffix in {".md", ".json"})
    assert "host-of-somebody" not in written
    assert str(workspace) not in written
    [first] = Path("reports/performance").glob("*.json")
    other = json.loads(first.read_text()) | {"cpu": "Another", "gpu": "A GPU"}
    (first.parent / "another.json").write_text(json.dumps(other))
    main(workspace / "raw.json")
    text = Path("reports/performance.md").read_text()
    assert text.count("\n## ") == 2
    assert "Another" in text
    assert "Not measured" not in text
    for figure in ("scaling_1.png", "scaling_2.png"):
        assert f"](performance/{figure})" in text
        assert (Path("reports/performance") / figure).is_file()


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"benchmarks": [{}]}'])
def test_another_file_is_refused_in_one_line(content: str | None, workspace: Path) -> None:
    file = workspace / "raw.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=r"raw\.json: .*wanted what `make perf` writes") as refused:
        main(file)
    assert "\n" not in str(refused.value)
    assert not Path("reports").exists()
