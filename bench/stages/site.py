"""Stage site: all pages of a profile as HTML that needs neither a server nor a network, and the front page of all."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup
from pyarrow.parquet import read_schema
from pydantic import BaseModel, ConfigDict

from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.predictions import CALIBRATION, VAL, read_split
from bench.data.presence import POLICIES
from bench.errors import UserError
from bench.reporting import html, markdown
from bench.reporting.explorer import METRICS, SOURCES, Explored, as_json, draw_thresholds, explore
from bench.reporting.figures import save
from bench.reporting.html import Page
from bench.reporting.presence_results import OWN
from bench.stages.command import run_command
from bench.stages.files import RunFiles, plan_dir, read_model, write_text

REPORTS = Path("reports")
INDEX_PAGE = Page("README.md", "index.html", "Results")
MENU = {
    "systems": "Systems",
    "presence": "Presence",
    "pose_scores": "Pose scores",
    "truncation": "Truncation",
    "dependency": "Dependency maps",
    "errors": "Errors",
    "ablations": "Ablations",
    "data": "Data",
    "runs": "Runs",
    "cards": "Model cards",
}
THRESHOLDS = "thresholds.png"
NO_EXPLORER = Markup(
    "<p>There is no slider for the threshold: the calibration split has no present keypoint under policy {} to choose "
    "one by.</p>"
)


class SitePlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    profiles: list[str]
    seeds: list[int]
    systems: list[str]
    runs: list[str]  # systems and ablations
    policy: str  # the headline one


def main(profile: str) -> None:
    """Write reports/<profile>/html, reports/assets and reports/index.html."""
    plan = read_model(plan_dir(profile) / "site.json", SitePlan)
    folder = REPORTS / profile / "html"
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier run generated
    pages = pages_of(plan)
    inserts = {"explorer": explorer(plan, folder)}
    for page in pages[1:]:
        shown = inserts if page.source == f"{profile}/presence/README.md" else {}
        write_page(pages, page, read_page(page.source), shown)
    others = [page for name in plan.profiles if name != profile for page in menu_of(name)]
    write_page([*pages, *(page._replace(in_menu=False) for page in others)], INDEX_PAGE, index(plan))
    html.write_assets(REPORTS / "assets")


def pages_of(plan: SitePlan) -> list[Page]:
    """Every page, the index first, in the order of the menu."""
    profile = plan.profile
    runs = [
        Page(f"{profile}/{kind}/{name}/README.md", f"{profile}/html/{kind}/{name}.html", name, in_menu=False)
        for kind, declared in (("runs", plan.runs), ("cards", plan.systems))
        for name in (RunFiles(profile, run, seed).name for run in declared for seed in plan.seeds)
    ]
    architectures = Page("architectures/README.md", f"{profile}/html/architectures.html", "Architectures")
    return [INDEX_PAGE, *menu_of(profile), architectures, *runs]


def menu_of(profile: str) -> list[Page]:
    """A profile's pages that stages wrote as `<name>/README.md`."""
    return [Page(f"{profile}/{name}/README.md", f"{profile}/html/{name}.html", label) for name, label in MENU.items()]


def read_page(source: str) -> str:
    """Raises:
    UserError: the page is not there.
    """
    file = REPORTS / source
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}), wanted a page: run `dvc repro`") from error


def write_page(pages: list[Page], page: Page, text: str, inserts: dict[str, Markup] | None = None) -> None:
    write_text(REPORTS / page.target, html.render_page(REPORTS, pages, page, text, inserts or {}))


def explorer(plan: SitePlan, folder: Path) -> Markup:
    """The threshold explorer of the page of presence, beside its figure."""
    explored, num_persons = explore_systems(plan)
    policies = [policy for policy in POLICIES if all(policy in entry.policies for entry in explored)]
    if plan.policy not in policies:
        return NO_EXPLORER.format(plan.policy)
    folder.mkdir(parents=True, exist_ok=True)
    title = f"Presence at every threshold, policy {plan.policy}, val split, training seed {plan.seeds[0]}"
    save(draw_thresholds(explored, plan.systems, plan.policy, num_persons, title), folder / THRESHOLDS)
    return html.template(
        "explorer.html",
        explored=as_json(explored, OWN, num_persons),
        policies={policy: POLICIES[policy].meaning for policy in policies},
        policy=plan.policy,
        keypoints=KEYPOINT_NAMES,
        metrics=METRICS,
        seed=plan.seeds[0],
        figure=THRESHOLDS,
        size=html.css_size(folder / THRESHOLDS),
    )


def explore_systems(plan: SitePlan) -> tuple[list[Explored], int]:
    """Heads before peaks, of every system's first seed, and the number of persons of val.

    Raises:
        UserError: predictions are missing or broken.
    """
    files = {system: RunFiles(plan.profile, system, plan.seeds[0]).predictions for system in plan.systems}
    num_persons = [len(read_split(file, VAL, plan.policy).image_ids) for file in files.values()]
    found = [entry for system, file in files.items() for entry in explore_file(system, file)]
    found.sort(key=lambda entry: SOURCES.index(entry.source))  # stable: systems stay in their order
    return found, num_persons[0]


def explore_file(system: str, file: Path) -> Iterator[Explored]:
    """Every source of a system under every policy that its predictions carry."""
    columns = set(read_schema(file).names)
    policies = [policy for policy in POLICIES if f"present_{policy}" in columns]
    splits = {policy: (read_split(file, CALIBRATION, policy), read_split(file, VAL, policy)) for policy in policies}
    for source in SOURCES:
        found = {policy: explore(*pair, source) for policy, pair in splits.items()}
        levels = {policy: studied for policy, studied in found.items() if studied is not None}
        if levels:
            yield Explored(system, source, levels)


def index(plan: SitePlan) -> str:
    """The front page, as Markdown: what every profile found that has run."""
    names = [name for name in plan.profiles if (REPORTS / name / "html").is_dir()]
    parts = ("systems/overview.md", "systems/findings.md", "presence/findings.md", "systems/limits.md")
    found = {name: [read_page(f"{name}/{part}") for part in parts] for name in names}
    return markdown.render(INDEX, found=found, rest=[name for name in plan.profiles if name not in names])


INDEX = """\
# Which keypoints are there? Results

This suite measures **keypoint presence** in human pose estimation: is a keypoint there at all, how sure is the model,
and what does asking cost in localisation? Everything here was generated by `dvc repro` from what the runs left.

{% for profile, (overview, systems, presence, limits) in found.items() %}
## Profile {{ profile }}

### Which numbers, by how much, how sure?

{{ systems }}

{{ presence }}

Brackets are 95 % intervals. *Clearly* means by more than chance, after correction for all comparisons that answer the
same question; numbers by label policy are not compared by a test. How to read the words:
[systems]({{ profile }}/systems/README.md),
[presence]({{ profile }}/presence/README.md).

**What this does not show.** {{ limits }}

### The numbers

{{ overview }}

![AP, presence AUROC and presence F1 of every system]({{ profile }}/systems/systems.png)

### On what data?

[Data]({{ profile }}/data/README.md): persons, labels, sources and what is known to be wrong with them. Every run with
its curves, parameters and origin: [runs]({{ profile }}/runs/README.md). What each system is for and how it is loaded:
[model cards]({{ profile }}/cards/README.md). What of a picture its keypoints depend on:
[dependency maps]({{ profile }}/dependency/README.md).

### How to rerun

Set `profile: {{ profile }}` in `params.yaml`, then

```sh
make repro
```

runs whatever is out of date, and these pages.

{% endfor %}
{% if rest %}
Declared, but not run yet: {{ rest | join(", ") }}.
{% endif %}
"""

if __name__ == "__main__":
    run_command(main)
