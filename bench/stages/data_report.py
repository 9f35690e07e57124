"""Stage data_report: the data card of a profile, from its manifests."""

from pathlib import Path

from bench.data.coco import read_coco, turned_sentence
from bench.data.hashing import sha256_of
from bench.data.presence import BORDER
from bench.data.subset import shared_pictures
from bench.reporting import data_page as pages
from bench.reporting import markdown, tables
from bench.reporting.figures import save
from bench.stages.command import run_command
from bench.stages.files import MANIFESTS, manifest_file, write_text

REPORTS = Path("reports")


def main(profile: str) -> None:
    """Write reports/<profile>/data."""
    files = {name: manifest_file(profile, name) for name in MANIFESTS}
    manifests = {name: read_coco(file) for name, file in files.items()}
    splits = [pages.split_data(name, manifest) for name, manifest in manifests.items()]
    folder = REPORTS / profile / "data"
    markdown.fresh_folder(folder)
    is_drawn = all(split.true_visibility is not None for split in splits)
    people = "drawn people" if is_drawn else "photographed people"
    shown = [
        make(splits, people)
        for make in (
            pages.splits_table,
            pages.visibility_table,
            pages.border_table,
            pages.boxes_table,
            pages.faults_table,
            pages.sources_table,
        )
    ]
    for table in shown:
        tables.write_csv(table, folder)
    save(pages.draw_visibility(splits[-1], people), folder / "visibility.png")
    page = markdown.render(
        PAGE,
        profile=profile,
        people=people,
        shared=[markdown.escape(shared.sentence) for shared in shared_pictures(manifests)],
        turned=[
            markdown.escape(f"{name}: {turned_sentence(manifest['info']['turned'], manifest['info']['num_images'])}")
            for name, manifest in manifests.items()
            if manifest["info"]["turned"]
        ],
        is_drawn=is_drawn,
        lost=pages.lost_labels(splits) if is_drawn else "",
        border=f"{BORDER:g}",
        empty_classes=[markdown.escape(line) for split in splits for line in split.empty_classes],
        tables={table.name: tables.to_markdown(table) for table in shown},
        hashes={name: sha256_of([file]) for name, file in files.items()},
    )
    write_text(folder / "README.md", page)


PAGE = """\
# Data card: {{ people }} (profile {{ profile }})

What the systems were trained, calibrated and tested on, counted from the manifests. **train** fits weights;
**calibration** chooses the epoch, thresholds and calibrators; **val** is measured, and nothing is chosen on it.
{% if shared %}
**Not all are of other pictures**: {{ shared | join("; ") }}.
{% else %}
No two of them share a picture, by content or by name and labels.
{% endif %}

## How much

{{ tables.splits }}

Persons are those that COCO's evaluation scores: at least one labelled keypoint, and no crowd. As CSV:
[splits.csv](splits.csv).

{% for sentence in turned %}
- {{ sentence }}.
{% endfor %}

## Which keypoints are labelled

COCO's v of a keypoint is 2 where it is visible, 1 where it is hidden but labelled, and 0 where it is not labelled,
which is not to say that it is absent.

![Share of v for every keypoint of the val split](visibility.png)

<details><summary>The numbers of the figure, and of the other splits</summary>

{{ tables.visibility }}

</details>

As CSV: [visibility.csv](visibility.csv).

{% if empty_classes %}
What needs present and absent keypoints is undefined where a label policy leaves one of them empty. Policies that read
the crop are not among these:

{% for line in empty_classes %}
- {{ line }}
{% endfor %}
{% else %}
Every label policy that does not read the crop has present and absent ones of every keypoint in every split.
{% endif %}

## People cut by the border

What is not labelled of a person whom the border of the image cuts may be outside of it; of others it may be
hidden, too small or passed over. A box touches the border where it comes within {{ border }} pixels of it.

{{ tables.border }}

As CSV: [border.csv](border.csv).

## How large

{{ tables.boxes }}

As CSV: [boxes.csv](boxes.csv).

## What is known to be wrong with the labels

{{ tables.faults }}

As CSV: [faults.csv](faults.csv). Where a box bounds what is seen of a person, a hidden keypoint can lie outside of it:
this alone is no fault.

{% if is_drawn %}
These people are drawn by a program, which knows the truth: whether each keypoint is in the image, and hidden or not.
{{ lost }} So policies that read v = 0 as absent can be compared with the truth. What holds of drawn people need not
hold of photographs.
{% else %}
These data carry no truth of what is absent: v = 0 can mean outside of the picture, hidden, too small or passed over.
No count here shows whether left and right were mistaken, or whether small people were labelled more coarsely.
{% endif %}

## Where it comes from

{{ tables.sources }}

As CSV: [sources.csv](sources.csv). Digests (sha256) of the manifests:

{% for name, digest in hashes.items() %}
- {{ name }}: {{ digest }}
{% endfor %}
"""

if __name__ == "__main__":
    run_command(main)
