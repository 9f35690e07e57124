"""Markdown pages: escaping, the texts that every page shares, and the pages' skeletons."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from bench.metrics.bootstrap import MIN_KEYPOINTS, few_images_note
from bench.reporting.rows import Protocol, Row, by_experiment

UNDEFINED = "\N{EN DASH}"
FEW_MARK = "\N{DAGGER}"
"""Behind a number that stands on few keypoints of a class."""
SMALL_MODEL = 20e6
"""Below this many parameters a system is far from the published ones (ViT-S, the smallest ViTPose, has 22 M)."""

ENVIRONMENT = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)


def render(template: str, **values: Any) -> str:
    """A page; a name that the template uses and nobody gave is an error."""
    text = ENVIRONMENT.from_string(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def escape(text: object) -> str:
    """Text as it is, on one line, whatever Markdown or HTML it looks like, also inside of a table."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*|\[\]~$])", r"\\\1", line)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", line)


def fresh_folder(folder: Path) -> None:
    """An empty folder for a page: what an earlier run generated goes, so that nothing undeclared stays on show."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.suffix in {".md", ".csv", ".png"}:
            file.unlink()


def people_of(rows: Sequence[Row]) -> str:
    """What the numbers were taken on, for every title."""
    sources = {row.data.source for row in rows}
    return "drawn people" if "drawn" in sources else "photographed people"


def one_line(rows: Sequence[Row]) -> str:
    """What ran, on which data."""
    data, seeds = rows[0].data, sorted({row.seed for row in rows})
    systems = len(by_experiment(rows))
    people = people_of(rows)
    source = "" if data.name == people else f" ({escape(data.name)})"
    few = few_images_note(data.num_images)
    return (
        f"{systems} system{'s' if systems > 1 else ''}, training seed{'s' if len(seeds) > 1 else ''} "
        f"{', '.join(map(str, seeds))}, tested on {people}{source}: {data.num_persons} "
        f"persons in {data.num_images} images, {data.num_present} keypoints present and {data.num_absent} absent "
        f"(policy {escape(rows[0].protocol.policy)}).{f' **{few}**' if few else ''}"
    )


HOW_TO_READ = """\
- **AP** and **AR** are COCO's average precision and recall of whole poses: a pose is right where its keypoints are \
near the labelled ones (object keypoint similarity, averaged over ten strictnesses; AP50 and AP75 take one, APM and \
APL medium and large persons).
- **Presence F1** asks which keypoints are there at all: the harmonic mean of precision and recall over all keypoints, \
at a threshold ({rule}; the calibration split holds other persons than val). **AUROC** asks it without a threshold; \
50 % is a coin.
- **Heatmap peak** reads presence off the height of the heatmap's peak, which every system gives for free; **always \
present** says yes to everything. A presence head earns its place only above both.
- {interval}
- {few}
- Arrows tell which way is better; an en dash ({dash}) stands for a number that is undefined, and for the spread of \
one seed."""

ONE_SEED = (
    "Brackets are **95 % intervals**: where the number falls in 95 % of the cases when the images of the val split are "
    "drawn again with replacement ({method}). They know nothing of another training seed."
)
MANY_SEEDS = (
    "Numbers are means over training seeds. Brackets are **95 % intervals** of a hierarchical bootstrap: seeds are "
    "drawn with replacement, then the images of the val split, the same for all seeds."
)

DIFFERENCES = """\
- **Differences** are paired: both sides saw the same images, and every resample is taken of both, so what they share \
cancels. **p** is two-sided; for AP and AR of single trainings from a permutation test (each image's poses are traded \
between the two by coin, {num} times), else from the bootstrap. **p, corrected** corrects for all lines of {family} \
(step-down max-T, Westfall and Young 1993): only below .05 is a line more than chance. With n images no p is below \
2^(1-n). A line that no image could change is **unchanged** and has no p. **Smallest detectable** is the true \
difference that this many images would show with 80 % power: a line that is not clear may still hide a smaller one."""


def how_to_read_differences(num_permutations: int, family: str) -> str:
    """What the words of a table of comparisons mean; `family` is the question whose lines are corrected
    together."""
    return DIFFERENCES.format(num=num_permutations, family=family)


def how_to_read_few() -> str:
    """What the mark of few keypoints means."""
    return (
        f"**Absent (n)** is how many absent keypoints the numbers of presence stand on. Those marked {FEW_MARK} (grey "
        f"on the site) stand on fewer than {MIN_KEYPOINTS} absent or present keypoints: too few to call anything "
        "better."
    )


def how_to_read(rows: Sequence[Row]) -> str:
    """What the words of a page mean."""
    rule = " or ".join(dict.fromkeys(escape(row.protocol.threshold_rule) for row in rows))
    method = escape(rows[0].protocol.intervals)
    interval = ONE_SEED.format(method=method) if len({row.seed for row in rows}) == 1 else MANY_SEEDS
    return HOW_TO_READ.format(dash=UNDEFINED, rule=rule, interval=interval, few=how_to_read_few())


def limits(rows: Sequence[Row]) -> str:
    """What the page does not show, as far as its rows tell."""
    sentences = []
    if any(row.data.source == "drawn" for row in rows):
        sentences.append(
            "The people are drawn by a program: an order of systems here may not hold on photographs, and no number "
            "compares with one published for COCO."
        )
    else:
        sentences.append(
            "Absent means what the annotators left unlabelled: out of the picture, hidden, too small or passed over."
        )
    largest = max(row.num_parameters for row in rows)
    if largest < SMALL_MODEL:
        sentences.append(
            f"The models are small (at most {largest / 1e6:.1f} M parameters), so this says little about those of the "
            "papers they are named after."
        )
    if any("warmstart" in row.protocol.init for row in rows):
        sentences.append(
            "Backbones were trained beforehand on other drawn people (`models/warmstart/`, stage `warmstart`); "
            "decoders and heads started fresh."
        )
    if len({row.seed for row in rows}) == 1:
        sentences.append("There is one training seed, so no difference here is shown to survive a retraining.")
    sentences.append("Boxes are given, not detected." if _boxes_given(rows) else "")
    return " ".join(sentence for sentence in sentences if sentence)


def _boxes_given(rows: Sequence[Row]) -> bool:
    return all("ground" in row.protocol.boxes.lower() for row in rows)


def mismatches(rows: Sequence[Row]) -> list[str]:
    """One line for each thing that must be equal before rows may be compared, and is not."""
    facts = {f"protocol.{key}": _protocol(key) for key in Protocol.model_fields}
    facts["data.sha256"] = lambda row: row.data.sha256
    values = {fact: _runs_by_value(rows, value) for fact, value in facts.items()}
    return [f"{fact}: {_spell(found)}" for fact, found in values.items() if len(found) > 1]


MISMATCH_NOTE = "> **Not all rows below share one protocol and one data set:**"


def mismatch_note(rows: Sequence[Row]) -> str:
    """A warning for above a table; empty where all rows share one protocol and one data set."""
    lines = mismatches(rows)
    return "\n".join([MISMATCH_NOTE, ">", *(f"> - {line}" for line in lines)]) if lines else ""


def provenance(rows: Sequence[Row]) -> str:
    """Where the numbers come from, as a list: one value where all rows agree, else who has which."""
    facts: dict[str, Callable[[Row], str]] = {
        "data": lambda row: (
            f"{row.data.name} ({row.data.source}), val split: {row.data.num_persons} persons in {row.data.num_images} "
            f"images, {row.data.num_present} keypoints present and {row.data.num_absent} absent under policy "
            f"{row.protocol.policy}"
        ),
        "data sha256": lambda row: row.data.sha256,
        **{f"protocol, {key}": _protocol(key) for key in Protocol.model_fields},
        "code sha256": lambda row: row.provenance.code_sha256,
        "device": lambda row: row.provenance.device,
        "precision": lambda row: row.provenance.precision,
        "versions": lambda row: ", ".join(f"{k} {v}" for k, v in sorted(row.provenance.versions.items())),
        "parameters sha256": lambda row: row.provenance.params_sha256,
        "best epoch": lambda row: str(row.best_epoch) if row.best_epoch else "none, not trained here",
    }
    seeds = ", ".join(str(seed) for seed in sorted({row.seed for row in rows}))
    lines = [f"- training seeds: {seeds}"]
    lines += [f"- {escape(fact)}: {_spell(_runs_by_value(rows, value))}" for fact, value in facts.items()]
    return "\n".join(lines)


def _protocol(key: str) -> Callable[[Row], str]:
    return lambda row: str(getattr(row.protocol, key))


def _runs_by_value(rows: Sequence[Row], value: Callable[[Row], str]) -> dict[str, list[str]]:
    """Which runs have which value; a seed is named only where the seeds of a run differ."""
    found: dict[str, list[str]] = {}
    for name, group in by_experiment(rows).items():
        split = len({value(row) for row in group}) > 1
        for row in group if split else group[:1]:
            found.setdefault(value(row), []).append(f"{name} (seed {row.seed})" if split else name)
    return found


def _spell(found: Mapping[str, Sequence[str]]) -> str:
    if len(found) == 1:
        return escape(next(iter(found)))
    return "; ".join(f"{escape(', '.join(runs))}: {escape(value)}" for value, runs in found.items())
