"""Stage cards: the model card of every system as a page, and the page that lists them."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from bench.reporting import markdown, tables
from bench.reporting.model_card import Card, calibrator_of, card_page
from bench.reporting.rows import SOURCES, Row, load_rows
from bench.reporting.tables import Cell, Column, Table
from bench.stages.command import run_command
from bench.stages.files import RunFiles, plan_dir, read_model, write_text

REPORTS = Path("reports")


class CardsPlan(BaseModel):
    """What stage resolve says is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    seeds: list[int]
    systems: list[str]


class Carded(NamedTuple):
    """A run, and what its card says beside its row."""

    files: RunFiles
    row: Row
    card: Card


def main(profile: str) -> None:
    """Write reports/<profile>/cards."""
    plan = read_model(plan_dir(profile) / "cards.json", CardsPlan)
    runs = [read_run(profile, row) for row in load_rows(Path("runs", profile), plan.systems, plan.seeds)]
    folder = REPORTS / profile / "cards"
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier run generated
    for run in runs:
        write_text(folder / run.files.name / "README.md", card_page(run.row, run.card))
    shown = cards_table(runs)
    tables.write_csv(shown, folder)
    rows = [run.row for run in runs]
    page = markdown.render(
        INDEX,
        profile=profile,
        people=markdown.people_of(rows),
        facts=markdown.one_line(rows),
        table=tables.to_markdown(shown),
        pages={markdown.escape(f"{run.row.experiment}, seed {run.row.seed}"): run.files.name for run in runs},
        limits=markdown.limits(rows),
    )
    write_text(folder / "README.md", page)


def read_run(profile: str, row: Row) -> Carded:
    files = RunFiles(profile, row.experiment, row.seed)
    return Carded(files, row, read_model(files.card, Card))


def cards_table(runs: Sequence[Carded]) -> Table:
    """A line per run."""
    columns = [
        Column("system", "system"),
        Column("seed", "seed"),
        Column("parameters", "parameters", "↓", "M", 1e-6, 2),
        Column("input_size", "input (w x h)"),
        Column("source", "presence read from"),
        Column("calibrator", "calibrator"),
        Column("threshold", "present from", decimals=4),
    ]
    records: list[dict[str, Cell]] = [
        {
            "system": row.experiment,
            "seed": row.seed,
            "parameters": row.num_parameters,
            "input_size": "{} x {}".format(*row.input_size),
            "source": SOURCES[card.source],
            "calibrator": calibrator_of(card) or f"none: {card.nothing_to_read}",
            "threshold": card.presence["threshold"] if card.presence else None,
        }
        for _, row, card in runs
    ]
    return Table("cards", "The systems, as their cards have them", columns, records)


INDEX = """\
# Model cards of systems on {{ people }} (profile {{ profile }})

{{ facts }}

A model card goes with weights that are handed on. It says what a model is for and what not, what it was trained on,
what it calls present, how its scores become probabilities, how good it is, what its limits are, and how
to load it. `python -m bench.export_hub FOLDER --run RUN` writes a run's weights to a folder, with the same card in it.

{{ table }}

**Calibrator**: what turns the head's logit, or the height of the heatmap's peak, into a probability, fitted on the
calibration split. **Present from**: the probability from which on a keypoint is called present, chosen on the
calibration split too; an en dash stands for none. As CSV: [cards.csv](cards.csv).

{% for label, folder in pages.items() %}
- [{{ label }}]({{ folder }}/README.md)
{% endfor %}

## What this does not show

{{ limits }} Every card tells the limits of its own model.
"""

if __name__ == "__main__":
    run_command(main)
