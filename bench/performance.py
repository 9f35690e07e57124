"""Command: what `make perf` measured on this machine, as `reports/performance.md`.

Every machine leaves one record in `reports/performance/`, so that numbers of several stand on the page, each with where
it was taken. Nothing is known there of who ran it or where its files lie.
"""

import json
import platform
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from bench.errors import UserError
from bench.machine import num_cores
from bench.reporting import markdown
from bench.reporting.figures import MARKERS, PALETTE, house_style, save
from bench.reporting.tables import Cell, Column, Table, to_markdown
from bench.stages.command import run_command
from bench.stages.files import read_model, write_json, write_text

REPORTS = Path("reports")
RECORDS = REPORTS / "performance"
PACKAGES = ("torch", "timm", "transformers", "numpy", "opencv-python-headless", "pycocotools", "xtcocotools", "dvc")
NO_GPU = "none"


class Measured(BaseModel):
    """One benchmark: a test of tests/perf, what it says of itself, and what it recorded (`tests/perf/rates.py`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    test: str  # file::name
    median: float  # seconds of a round
    rounds: int
    rates: dict[str, float] = {}  # unit -> things per second
    ratios: dict[str, dict[str, Any]] = {}
    scaling: dict[str, dict[str, Any]] = {}
    numbers: dict[str, dict[str, Any]] = {}


class Record(BaseModel):
    """All that was measured on one machine at one time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu: str
    num_cores: int
    gpu: str
    python: str
    versions: dict[str, str]
    benchmarks: list[Measured]

    @property
    def machine(self) -> str:
        gpu = "no GPU" if self.gpu == NO_GPU else self.gpu
        return f"{self.cpu}, {self.num_cores} cores, {gpu}"


def main(file: Path) -> None:
    """Take over what pytest-benchmark wrote to FILE (JSON), and write the page of all machines."""
    record = read_record(file)
    name = re.sub(r"\W+", "-", f"{record.cpu} {record.gpu}".lower()).strip("-")
    write_json(RECORDS / f"{name}.json", record.model_dump())
    records = [read_model(path, Record) for path in sorted(RECORDS.glob("*.json"))]
    for i, one in enumerate(records):
        if curves := draw_scaling(one):
            save(curves, RECORDS / f"scaling_{i + 1}.png")
    write_text(REPORTS / "performance.md", page_of(records))


def read_record(file: Path) -> Record:
    """Raises:
    UserError: the file is missing, or not one that pytest-benchmark wrote.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = [_measured(entry) for entry in content["benchmarks"]]
        cpu = content["machine_info"]["cpu"].get("brand_raw", platform.machine())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}), wanted what `make perf` writes") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: found no benchmarks ({error!r}), wanted what `make perf` writes") from error
    return Record(
        cpu=cpu,
        num_cores=num_cores(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else NO_GPU,
        python=platform.python_version(),
        versions={name: version(name) for name in PACKAGES},
        benchmarks=found,
    )


def _measured(entry: dict[str, Any]) -> Measured:
    test = re.sub(r"^tests/perf/", "", entry["fullname"])
    stats, extra = entry["stats"], entry["extra_info"]
    kinds = {kind: extra.get(kind, {}) for kind in ("rates", "ratios", "scaling", "numbers")}
    return Measured(test=test, median=stats["median"], rounds=stats["rounds"], **kinds)


def page_of(records: Sequence[Record]) -> str:
    """Markdown."""
    shown = [
        {
            "machine": markdown.escape(record.machine),
            "software": markdown.escape(
                ", ".join([f"Python {record.python}", *(f"{k} {v}" for k, v in record.versions.items())])
            ),
            "tables": [to_markdown(table) for table in tables_of(record) if table.records],
            "figure": f"performance/scaling_{i + 1}.png" if any(one.scaling for one in record.benchmarks) else "",
        }
        for i, record in enumerate(records)
    ]
    return markdown.render(PAGE, records=shown, without_gpu=all(record.gpu == NO_GPU for record in records))


def tables_of(record: Record) -> list[Table]:
    return [ratios_table(record), numbers_table(record), scaling_table(record), rates_table(record)]


TEST = Column("test", "measured by (tests/perf)")


def ratios_table(record: Record) -> Table:
    columns = [
        Column("what", "ratio of times"),
        Column("median", "median", decimals=2),
        Column("range", "lowest, highest"),
        Column("n", "pairs (n)"),
        Column("bar", "bar"),
        TEST,
    ]
    records: list[dict[str, Cell]] = [
        {
            "what": what,
            "median": found["median"],
            "range": f"{found['low']:.2f}, {found['high']:.2f}",
            "n": found["n"],
            "bar": bar_of(found, found["median"]),
            "test": one.test,
        }
        for one in record.benchmarks
        for what, found in one.ratios.items()
    ]
    return Table("ratios", "Ratios, both sides in turns in one process", columns, records)


def bar_of(found: dict[str, Any], value: float) -> str:
    """What was wanted, and whether it was reached."""
    for key, words, reached in (("at_least", "at least", 1), ("at_most", "at most", -1)):
        if (wanted := found.get(key)) is not None:
            return f"{words} {wanted:g}: {'met' if reached * (value - wanted) >= 0 else 'missed'}"
    return ""


def numbers_table(record: Record) -> Table:
    columns = [Column("what", "number"), Column("value", "found", decimals=2), Column("bar", "bar"), TEST]
    records: list[dict[str, Cell]] = [
        {"what": what, "value": found["value"], "bar": bar_of(found, found["value"]), "test": one.test}
        for one in record.benchmarks
        for what, found in one.numbers.items()
    ]
    return Table("numbers", "Numbers with a bar", columns, records)


def scaling_table(record: Record) -> Table:
    columns = [
        Column("what", "what grows"),
        Column("against", "with"),
        Column("sizes", "from, to"),
        Column("found", "found"),
        Column("exponent", "fitted exponent", decimals=2),
        TEST,
    ]
    records: list[dict[str, Cell]] = [
        {
            "what": what,
            "against": curve["against"],
            "sizes": f"{curve['sizes'][0]:,}, {curve['sizes'][-1]:,}",
            "found": f"{curve['found'][0]:.3g}, {curve['found'][-1]:.3g}",
            "exponent": curve["exponent"],
            "test": one.test,
        }
        for what, curve, one in curves_of(record)
    ]
    return Table("scaling", "Scaling", columns, records)


def curves_of(record: Record) -> Iterator[tuple[str, dict[str, Any], Measured]]:
    for one in record.benchmarks:
        for what, curve in one.scaling.items():
            yield what, curve, one


def rates_table(record: Record) -> Table:
    columns = [
        TEST,
        Column("median", "median of a round", unit="ms", scale=1e3, decimals=2),
        Column("rounds", "rounds (n)"),
        Column("rate", "rate"),
    ]
    records: list[dict[str, Cell]] = [
        {
            "test": one.test,
            "median": one.median,
            "rounds": one.rounds,
            "rate": ", ".join(f"{rate:,.0f} {unit}/s" for unit, rate in one.rates.items()),
        }
        for one in record.benchmarks
    ]
    return Table("rates", "Times and rates", columns, records)


def draw_scaling(record: Record) -> Figure | None:
    """One panel per curve, three a line, both axes logarithmic; None where nothing was scaled."""
    curves = list(curves_of(record))
    if not curves:
        return None
    num_lines = -(-len(curves) // 3)
    with house_style():
        figure = Figure(figsize=(9.6, 0.4 + 2.7 * num_lines), layout="constrained")
        axes = list(figure.subplots(num_lines, 3, squeeze=False).flat)
        for ax, (what, curve, _) in zip(axes, curves, strict=False):
            ax.loglog(curve["sizes"], curve["found"], marker=MARKERS[0], color=PALETTE[0])
            ax.set_xticks(curve["sizes"], [f"{size:,}" for size in curve["sizes"]])
            ax.set_yticks(curve["found"], [f"{found:.3g}" for found in curve["found"]])
            ax.set_title(f"{what}\n~ {curve['against']}^{curve['exponent']:.2f}", fontsize=8)
            ax.set_xlabel(curve["against"])
            ax.minorticks_off()
        for ax in axes[len(curves) :]:
            ax.set_axis_off()
        return figure


PAGE = """\
# Performance

What `make perf` measured: `tests/perf` times our code beside the plain way, or beside the library that others use, in
turns in one process, and writes the ratio. Absolute times depend on the machine and on what else it did, which is why
both sides of a ratio run in turns. A ratio is the time of the other side over that of ours unless its name says
otherwise. The code of both sides is in the test that a line names.

{% for record in records %}
## {{ record.machine }}

{{ record.software }}

{% for table in record.tables %}
{{ table }}

{% endfor %}
{% if record.figure %}
![How time and memory grow]({{ record.figure }})
{% endif %}

{% endfor %}
{% if without_gpu %}
## On a GPU

Not measured: no machine of this page has one. `make perf` there (`tests/perf/test_perf_gpu.py`) says which share of a
large matrix product's rate a training of ViT-B reaches, how long 6,000 persons and 8 epochs take, and whether the data
keep up; `test_perf_decoder.py`, what one kernel makes of the decoder `bilinear16`.
{% endif %}
"""

if __name__ == "__main__":
    run_command(main)
