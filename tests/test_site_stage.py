"""The site of a made-up project: its links, its bytes, and what a real browser makes of it."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest

from ablations.report import main as ablations_report
from bench.data.predictions import CALIBRATION, VAL, read_split, write_predictions
from bench.errors import UserError
from bench.metrics.presence import Labelled, choose_threshold, metrics_at
from bench.stages.cards import main as cards
from bench.stages.data_report import main as data_report
from bench.stages.presence_report import main as presence_report
from bench.stages.report import main as report
from bench.stages.runs_report import main as runs_report
from bench.stages.site import main
from tests.reporting.fake_runs import PARENT, make_project

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed")
NUM_PERSONS = 24
OTHER_STAGES = ("architectures", "demo/errors", "demo/truncation", "demo/pose_scores", "demo/dependency")
PRESENCE = "demo/html/presence.html"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose site was made twice; `first` keeps the HTML of the first time."""
    root = tmp_path_factory.mktemp("site")
    make_project(root, systems=(PARENT, "hrnet"), num_persons=NUM_PERSONS, pictured=1, with_presence=True)
    for file in (root / "runs/demo/predictions").iterdir():
        frame = pd.read_parquet(file)
        write_predictions(file, [frame, frame.assign(split=CALIBRATION)])  # calibrated on the very people of val
    for other in OTHER_STAGES:
        (root / "reports" / other).mkdir(parents=True)
        (root / "reports" / other / "README.md").write_text("# The page of another stage\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage in (report, presence_report, ablations_report, data_report, runs_report, cards, main):
            stage("demo")
        shutil.copytree(root / "reports", root / "first")
        (root / "reports/demo/html/gone.html").write_text("of a run that is no longer declared")
        for stage in (data_report, runs_report, cards, main):
            stage("demo")
    return root


class Links(HTMLParser):
    """Where a page leads, what it loads, its ids."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.ids: list[str] = []
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        for name, value in attrs:
            if name in ("href", "src"):
                self.hrefs.append(value or "")
            elif name == "id":
                self.ids.append(value or "")


def html_files(project: Path) -> list[Path]:
    return sorted((project / "reports").rglob("*.html"))


def test_there_is_a_page_for_every_page_and_run(project: Path) -> None:
    found = {file.relative_to(project / "reports").as_posix() for file in html_files(project)}
    names = ["systems", "presence", "pose_scores", "truncation", "dependency", "errors", "ablations", "data", "runs"]
    runs = [f"runs/{file.parent.name}" for file in (project / "reports/demo/runs").glob("*/README.md")]
    assert len(runs) > 4
    systems = ["cards", f"cards/{PARENT}-0", "cards/hrnet-0"]
    pages = [*names, "architectures", *runs, *systems]
    assert found == {"index.html", *(f"demo/html/{name}.html" for name in pages)}


def test_two_runs_give_the_same_bytes(project: Path) -> None:
    for file in (project / "reports").rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (project / "first" / file.relative_to(project / "reports")).read_bytes(), file


def test_every_link_image_and_anchor_resolves(project: Path) -> None:
    pages = {file: Links(file) for file in html_files(project)}
    for file, page in pages.items():
        assert len(set(page.ids)) == len(page.ids), file
        for href in page.hrefs:
            parts = urlsplit(href)
            if parts.scheme in ("https", "data"):
                continue
            assert not parts.scheme and not parts.netloc, f"{file}: {href}"
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert target.is_file(), f"{file}: {href}"
            if parts.fragment:
                assert parts.fragment in pages[target].ids, f"{file}: {href}"


def test_pages_of_the_site_link_to_each_other_not_to_markdown(project: Path) -> None:
    for file in html_files(project):
        markdown = [href for href in Links(file).hrefs if href.endswith(".md")]
        assert len(markdown) == 1, file  # in the footer, the page's own


def test_the_front_page_begins_with_the_findings(project: Path) -> None:
    page = (project / "reports/index.html").read_text()
    assert page.index("Placing keypoints (AP)") < page.index("<table>")
    for text in ("learly different from", "make repro", "What this does not show"):
        assert text in page
    assert f"{NUM_PERSONS} persons" in page


def test_the_explorer_starts_at_the_threshold_of_calibration(project: Path) -> None:
    told = explorer_data(project)
    file = project / f"runs/demo/predictions/{PARENT}-0.parquet"
    assert told["sources"][0]["label"] == f"{PARENT}, presence head"
    for policy, counts in told["sources"][0]["policies"].items():
        split = read_split(file, CALIBRATION, policy)
        assert split.presence is not None
        labels = Labelled(split.present, split.present_weight, np.arange(len(split.present)))
        assert counts["chosen"] == choose_threshold(split.presence, labels)


def explorer_data(project: Path) -> dict:
    found = re.search(
        r'<script type="application/json" id="explorer-data">(.*?)</script>',
        (project / "reports" / PRESENCE).read_text(),
    )
    assert found
    return json.loads(found[1])


def test_a_missing_page_is_named_with_its_remedy(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    Path("reports/demo/errors/README.md").unlink()
    with pytest.raises(UserError, match=r"reports/demo/errors/README\.md: .* wanted a page: run `dvc repro`"):
        main("demo")


def test_missing_predictions_are_named_with_their_remedy(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    Path("runs/demo/predictions/hrnet-0.parquet").unlink()
    with pytest.raises(
        UserError, match=r"hrnet-0\.parquet: no readable predictions .* run `dvc repro predict@hrnet-0`"
    ):
        main("demo")


def test_the_front_page_shows_every_profile_that_has_run(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    assert "Declared, but not run yet: laptop." in Path("reports/index.html").read_text()
    shutil.copytree("reports/demo", "reports/laptop")
    main("demo")
    page = Path("reports/index.html").read_text()
    assert "not run yet" not in page
    assert page.index('href="demo/html/systems.html"') < page.index('href="laptop/html/systems.html"')
    menu = page[page.index("<nav") : page.index("</nav>")]
    assert "laptop" not in menu


def test_the_data_card_counts_the_manifest(project: Path) -> None:
    manifest = json.loads((project / "data/demo/val.json").read_text())
    visibility = np.array([annotation["keypoints"][2::3] for annotation in manifest["annotations"]])
    page = re.sub(" +", " ", (project / "reports/demo/data/README.md").read_text())
    counts = " | ".join(str(int((visibility == v).sum())) for v in (2, 1, 0))
    assert f"| val | {NUM_PERSONS} | {NUM_PERSONS} | 0 | {visibility.size} | {counts} |" in page
    wrist = " | ".join(str(int((visibility[:, 9] == v).sum())) for v in (2, 1, 0))
    assert re.search(rf"\| left wrist .*\| {re.escape(wrist)} \|", page)
    assert "not labelled (v = 0), but visible in the image in truth" in page


def test_a_run_has_its_parameters_and_its_origin(project: Path) -> None:
    page = re.sub(" +", " ", (project / f"reports/demo/runs/{PARENT}-0/README.md").read_text())
    for text in ("| train | optim.lr | 0.0005 |", "| train | codec | udp |", "- data sha256: ", "![Training curves"):
        assert text in page


def test_a_run_of_a_system_leads_to_its_card_and_back(project: Path) -> None:
    run = Links(project / f"reports/demo/html/runs/{PARENT}-0.html").hrefs
    card = Links(project / f"reports/demo/html/cards/{PARENT}-0.html").hrefs
    assert f"../cards/{PARENT}-0.html" in run
    assert {f"../runs/{PARENT}-0.html", "../cards.html", "../systems.html", "../presence.html"} <= set(card)
    assert not [href for href in Links(project / "reports/demo/html/runs/dropout_0-0.html").hrefs if "cards/" in href]


@pytest.fixture(scope="module")
def dom(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    yield Browser(project / "reports", tmp_path_factory.mktemp("browser"))


class Browser:
    """A headless browser: pages as they are once their scripts have run."""

    def __init__(self, root: Path, profile: Path) -> None:
        self.root = root
        self.profile = profile

    def open(self, page: str, script: str = "") -> str:
        """The page after `script`; it may not write a line to the console."""
        assert BROWSER is not None
        original = self.root / page
        file = original.with_name(f"probe_{original.name}")
        probe = f"<script>addEventListener('load', () => {{ {script} }});</script></body>"
        html = original.read_text().replace('loading="lazy"', "")  # so that loading ends when all is there
        file.write_text(html.replace("</body>", probe))
        command = [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self.profile}",
            "--virtual-time-budget=2000", "--enable-logging=stderr", "--dump-dom", file.as_uri(),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
        finally:
            file.unlink()
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout


COUNT_BROKEN = """
const images = [...document.images];
document.title = `${images.length} images, ${images.filter((image) => !image.naturalWidth).length} broken, overflow `
  + (document.documentElement.scrollWidth > document.documentElement.clientWidth);
"""


@needs_browser
@pytest.mark.parametrize("page", ["index.html", PRESENCE, "demo/html/data.html", f"demo/html/runs/{PARENT}-0.html"])
def test_every_image_loads_and_nothing_overflows(dom: Browser, page: str) -> None:
    title = re.search("<title>(.*?)</title>", dom.open(page, COUNT_BROKEN))
    assert title
    assert re.fullmatch(r"[1-9]\d* images, 0 broken, overflow false", title[1])


@needs_browser
def test_tables_sort_by_value(dom: Browser) -> None:
    script = "const b = document.querySelectorAll('.scroll thead button')[1]; b.click(); {}"
    for clicks, order in (("", "ascending"), ("b.click();", "descending")):
        html = dom.open("index.html", script.format(clicks))
        assert f'aria-sort="{order}"' in html
        keys = [
            float(row[1]) for row in re.finditer(r'<tr>\s*<td[^>]*>[^<]*</td>\s*<td[^>]* data-key="([\d.]+)"', html)
        ]
        assert len(keys) == 2
        assert keys == sorted(keys, reverse=order == "descending")


@needs_browser
def test_the_explorer_shows_the_numbers_of_the_metrics(dom: Browser, project: Path) -> None:
    script = """
    const set = (id, value, type) => {
      const element = document.getElementById(`explorer-${id}`);
      element.value = value;
      element.dispatchEvent(new Event(type));
    };
    set("source", "1", "change");
    set("policy", "true", "change");
    set("keypoint", "9", "change");
    set("threshold", "30", "input");
    """
    told = explorer_data(project)["sources"][1]
    chosen = told["policies"]["true"]["chosen"]
    thresholds = sorted([*np.arange(101) / 100, chosen])
    split = read_split(project / f"runs/demo/predictions/{told['label'].split(',')[0]}-0.parquet", VAL, "true")
    labels = Labelled(split.present, split.present_weight, np.arange(len(split.present))).of(9)
    html = dom.open(PRESENCE, script)
    for place, threshold in (("slider", thresholds[30]), ("chosen", chosen)):
        wanted = metrics_at(split.score[:, [9]], labels, threshold, np.ones((1, NUM_PERSONS), dtype=int))
        for metric, text in {
            "precision": f"{100 * wanted['precision'][0, 0]:.1f} %",
            "recall": f"{100 * wanted['recall'][0, 0]:.1f} %",
            "hallucinated": f"{wanted['hallucinated'][0, 0]:.2f}",
        }.items():
            assert f'<td data-metric="{metric}" data-at="{place}">{text}</td>' in html
    assert f"Threshold {thresholds[30]:.2f}: " in html
    assert 'id="explorer-form" hidden' not in html
