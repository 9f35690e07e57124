"""The page of the systems, from a made-up project folder."""

import json
import re
from pathlib import Path

import pytest

from bench.reporting.pictures import MAX_BYTES
from bench.stages.report import index, main
from tests.reporting.fake_runs import make_project

SYSTEMS = ("vitpose_presence", "hrnet")
SYSTEMS_DIR = Path("reports/demo/systems")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose report was made twice; `first` keeps the files of the first time."""
    root = tmp_path_factory.mktemp("project")
    make_project(root, systems=SYSTEMS, num_persons=3, pictured=1)
    (root / "reports/architectures").mkdir(parents=True)
    (root / "reports/architectures/README.md").write_text("the page of another stage")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        main("demo")
        (root / "reports/demo").rename(root / "first")
        main("demo")
    return root


def test_two_runs_give_the_same_bytes(project: Path) -> None:
    files = sorted(file.relative_to(project / "first") for file in (project / "first").rglob("*") if file.is_file())
    assert len(files) > 10
    for file in files:
        assert (project / "first" / file).read_bytes() == (project / "reports/demo" / file).read_bytes(), file


def test_every_link_leads_to_a_file(project: Path) -> None:
    page = project / SYSTEMS_DIR / "README.md"
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert {"systems.csv", "presence.csv", "presence_per_keypoint.csv", "pictures_1.png", "curves.png"} <= set(links)
    assert all((page.parent / link).is_file() for link in links)


def test_pages_hold_the_declared_systems_and_no_paths_of_this_machine(project: Path) -> None:
    for name in ("README.md", "demo/systems/README.md"):
        text = (project / "reports" / name).read_text()
        assert all(f"| {system} " in text for system in SYSTEMS)
        assert str(project) not in text
        assert "drawn people" in text


def test_pictures_stay_small(project: Path) -> None:
    assert all(file.stat().st_size <= MAX_BYTES for file in (project / SYSTEMS_DIR).glob("*.png"))


def test_the_index_lists_profiles_with_a_page_and_names_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    text = index(["demo", "laptop"])
    assert "## Profile demo" in text
    assert "## Profile laptop" not in text
    assert "not run yet: laptop" in text


def test_a_removed_system_leaves_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    plan = Path("runs/demo/plan/report.json")
    content = json.loads(plan.read_text())
    plan.write_text(json.dumps({**content, "systems": ["vitpose_presence"]}))
    main("demo")
    texts = [file.read_text() for file in Path("reports").rglob("*") if file.suffix in {".md", ".csv"}]
    assert not any("hrnet" in text for text in texts)
