"""Markdown pages: escaping, the texts that every page shares, and the pages' skeletons."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.presence import POLICIES
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
at a threshold ({rule}), which is never chosen on val. **AUROC** asks it without a threshold; 50 % is a coin.
- **Heatmap peak** reads presence off the height of the heatmap's peak, which needs no head; **always present** says \
yes to everything. A presence head adds something where it is above both.
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


def spell_choice(words: Iterable[str]) -> str:
    """`a, b or c`, each once."""
    *first, last = dict.fromkeys(words)
    return f"{', '.join(first)} or {last}" if first else last


def how_to_read_few() -> str:
    """What the mark of few keypoints means."""
    return (
        f"**Absent (n)** is how many absent keypoints the numbers of presence stand on. Those marked {FEW_MARK} (grey "
        f"on the site) stand on fewer than {MIN_KEYPOINTS} absent or present keypoints: too few to call anything "
        "better."
    )


def how_to_read(rows: Sequence[Row]) -> str:
    """What the words of a page mean."""
    rule = spell_choice(escape(row.protocol.threshold_rule) for row in rows)
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
        policies = {row.protocol.policy: POLICIES[row.protocol.policy].meaning for row in rows}
        read = "; ".join(f"`{policy}`: {meaning}" for policy, meaning in policies.items())
        sentences.append(
            f"Presence is what a policy reads from labels ({read}), and not whether a keypoint is in the picture."
        )
    largest = max(row.num_parameters for row in rows)
    if largest < SMALL_MODEL:
        sentences.append(
            f"The models are small (at most {largest / 1e6:.1f} M parameters), so this says little about those of the "
            "papers they are named after."
        )
    if warm := [name for name, group in by_experiment(rows).items() if "warmstart" in group[0].protocol.init]:
        of = "" if len(warm) == len(by_experiment(rows)) else f" of {escape(', '.join(warm))}"
        sentences.append(
            f"The backbones{of} were trained beforehand on drawn people (`models/warmstart/`, stage `warmstart`); "
            "decoders and heads started fresh."
        )
    if len({row.seed for row in rows}) == 1:
        sentences.append("There is one training seed, so no difference here is shown to survive a retraining.")
    sentences.append("Boxes are given, not detected." if boxes_given(rows) else "")
    return " ".join(sentence for sentence in sentences if sentence)


def boxes_given(rows: Sequence[Row]) -> bool:
    """Whether all were tested on annotated boxes."""
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


def notes(rows: Sequence[Row]) -> str:
    """For above the first table of a page: rows that are not alike, and classes of keypoints that are empty."""
    return "\n\n".join(note for note in (mismatch_note(rows), empty_class_note(rows)) if note)


def empty_class_note(rows: Sequence[Row]) -> str:
    """Why numbers of presence are undefined: the rows' policy leaves no present, or no absent, keypoints. Empty where
    it leaves both."""
    return _quote([*map(_empty_in_val, rows), *map(_without_threshold, rows)])


def no_threshold_note(rows: Sequence[Row]) -> str:
    """Why numbers at a threshold are undefined; empty where every row has its thresholds."""
    return _quote(map(_without_threshold, rows))


def _quote(sentences: Iterable[str]) -> str:
    found = [sentence for sentence in dict.fromkeys(sentences) if sentence]
    return f"> {' '.join(found)} An en dash ({UNDEFINED}) stands for what is undefined." if found else ""


def _empty_in_val(row: Row) -> str:
    data, policy = row.data, escape(row.protocol.policy)
    lacking = lacking_class(data.num_present, data.num_absent)
    if lacking:
        return (
            f"**val has {lacking} under policy {policy}**, so nothing there tells present from absent keypoints, and "
            "AUROC and all else that needs both is undefined."
        )
    one_sided = [name for name, share in zip(KEYPOINT_NAMES, data.prevalence, strict=True) if share in (0, 1)]
    if not one_sided:
        return ""
    names = ", ".join(name.replace("_", " ") for name in one_sided)
    return (
        f"**val has only one class, present or absent, of these keypoints under policy {policy}: {names}**, so AUROC "
        "of each of them is undefined, and means over keypoints leave them out."
    )


def _without_threshold(row: Row) -> str:
    if None not in row.thresholds.values():
        return ""
    return (
        f"**calibration has no present keypoint under policy {escape(row.protocol.policy)}**, so no threshold could be "
        "chosen there, and what needs one is undefined."
    )


def lacking_class(num_present: int, num_absent: int) -> str:
    """In words which class of keypoints is empty; empty where none is."""
    lacking = [f"no {name}" for name, number in (("present", num_present), ("absent", num_absent)) if not number]
    return f"{' and '.join(lacking)} keypoint" if lacking else ""


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
