"""Stage architectures: what the published architectures cost, counted from our models, beside what was published."""

from pathlib import Path

import torch

from bench.data.keypoints import NUM_KEYPOINTS
from bench.published import COUNTING, PUBLISHED, PublishedSystem
from bench.reporting import markdown, tables
from bench.reporting.markdown import UNDEFINED
from bench.reporting.tables import Cell, Column, Table
from bench.stages.command import run_command
from bench.stages.files import write_text
from models import PoseModel, build_model
from models.cost import count_macs, count_parameters

FOLDER = Path("reports", "architectures")


def main() -> None:
    """Write reports/architectures."""
    table = architectures_table()
    markdown.fresh_folder(FOLDER)
    tables.write_csv(table, FOLDER)
    page = markdown.render(PAGE, table=tables.to_markdown(table), notes=COUNTING, num_keypoints=NUM_KEYPOINTS)
    write_text(FOLDER / "README.md", page)


def architectures_table() -> Table:
    """One line per published system; nothing is trained and no weights are read."""
    columns = [
        Column("system", "system"),
        Column("input_size", "input (w x h)"),
        Column("parameters", "parameters", "↓", "M", 1e-6, 2),
        Column("published_parameters", "published parameters (M)"),
        Column("macs", "multiply-adds per image", "↓", "10^9", 1e-9, 2),
        Column("binary_macs", "the same", "↓", "2^30", 2**-30, 2),
        Column("published_macs", "published FLOPs (G)"),
        Column("AP", "published AP, detected boxes", "↑", "%", 100.0, 1),
        Column("AR", "published AR, detected boxes", "↑", "%", 100.0, 1),
        Column("true_AP", "published AP, true boxes", "↑", "%", 100.0, 1),
        Column("source", "source of the published values"),
    ]
    return Table("architectures", "Published architectures", columns, [record(s) for s in PUBLISHED.values()])


def build_published(system: PublishedSystem) -> PoseModel:
    """The model of a published system with random weights."""
    return build_model(
        system.model,
        input_size=system.input_size,
        num_keypoints=NUM_KEYPOINTS,
        presence_head=None,
        init="random",
        **system.sizes,
    )


def record(system: PublishedSystem) -> dict[str, Cell]:
    """Counted and published, side by side."""
    with torch.device("meta"):  # without memory behind it
        num_parameters = count_parameters(build_published(system))
    num_macs = count_macs(lambda: build_published(system), system.input_size)
    return {
        "system": system.title,
        "input_size": "{} x {}".format(*system.input_size),
        "parameters": num_parameters,
        "published_parameters": str(system.num_parameters),  # the digits that were stated
        "macs": num_macs,
        "binary_macs": num_macs,
        "published_macs": UNDEFINED if system.gflops is None else str(system.gflops),
        "AP": system.detected_boxes.AP,
        "AR": system.detected_boxes.AR,
        "true_AP": system.true_boxes.AP if system.true_boxes else None,
        "source": system.source,
    }


PAGE = """\
# Published architectures

What our models of the published systems cost, counted from the models themselves for {{ num_keypoints }} keypoints,
beside what their authors state. Nothing here depends on data or training; which weights reach which AP is on the pages
of the profiles.

{{ table }}

As CSV: [architectures.csv](architectures.csv).

## How to read this page

- **Parameters** are all values that a published file holds as parameters, fixed ones too (TransPose's position
  embedding).
- **Multiply-adds** are those of convolutions and matrix products, attention's included, of one forward pass of one
  image. Authors call them FLOPs and count differently, each in their own way:
{% for model, note in notes.items() %}
  - {{ model }}: {{ note }}.
{% endfor %}
- **AP** and **AR** are what the sources of the table state for COCO val2017 with mirrored averaging, with the boxes of
  a detector of 56.4 AP on persons, or with the true ones, those annotated. An en dash stands where nothing is stated.
"""

if __name__ == "__main__":
    run_command(main)
