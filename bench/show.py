"""python -m bench.show PICTURE_OR_FOLDER --run vitpose_presence-0: skeletons with presence on any picture.

Beside `NAME.pose.png` there is `NAME.pose.json`: for each person an entry of COCO's result format, and the calibrated
probability that each keypoint is there. Pictures are taken as stored, as COCO's annotations count pixels: an EXIF tag
that asks viewers to turn one is not followed. Letters: N persons, K keypoints.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit
from typer import Option

from bench.data.boxes import Picture, find_pictures, read_boxes, whole_pictures
from bench.data.coco import CocoDict, persons_in, read_image
from bench.data.detections import DetectedBoxes
from bench.data.keypoints import KEYPOINT_NAMES
from bench.data.results import result_entries
from bench.errors import UserError
from bench.inference.predict import Predictions
from bench.inference.presence import PresenceReading, presence_score
from bench.inference.scoring import person_scores
from bench.reporting.figures import save
from bench.reporting.rows import SOURCES
from bench.reporting.shown import ShownPeople, draw_people
from bench.stages.command import run_command
from bench.stages.evaluated_run import EvaluatedRun, find_run, open_evaluated
from bench.stages.files import json_text
from bench.stages.run_record import origin, presence_facts
from bench.writing import written_whole


def main(
    image: Path,
    run: Annotated[str, Option(help="<experiment>-<seed>, such as vitpose_presence-0")],
    profile: Annotated[str, Option(help="whose run it is")] = "demo",
    boxes: Annotated[Path | None, Option(help="COCO annotations or results; without it a picture is one box")] = None,
    images: Annotated[Path | None, Option(help="COCO annotations that give the ids of results file names")] = None,
    min_score: Annotated[float, Option(min=0, max=1, help="of boxes of results")] = 0.3,
    out: Annotated[Path, Option(help="folder")] = Path("shown"),
) -> None:
    """Draw skeletons with presence on a picture, or on those of a folder, and write them as JSON too."""
    files = find_run(profile, run)
    if out.resolve() == image.resolve():
        raise UserError(f"{out}: found the folder of the pictures, wanted another --out: they would be taken for more")
    pictures = find_pictures(image)
    names = output_names(pictures)
    known, found = boxes_in(pictures, boxes, images, min_score)
    asked = open_evaluated(files)
    reading = asked.read_presence()
    predictions = asked.ask(persons_in(found.bbox, found.score, found.image_id, as_manifest(known)))
    presence = reading.probability(presence_score(predictions))
    people = ShownPeople.of(found.bbox, predictions.keypoints, presence, reading.threshold)
    entries = entries_of(asked, found, predictions, people)
    caption = f"{profile}/{run}, presence by its {SOURCES[asked.source]}"
    shared = facts_of(asked, reading, boxes)
    shown = [picture for picture in known if picture.image_id in found.image_id]
    for picture in shown:
        if picture.turned:
            print(f"{picture.file}: an EXIF tag asks viewers to turn it; it is taken as stored")
        places = np.flatnonzero(found.image_id == picture.image_id)
        content = {"image": image_facts(picture), "people": [entries[place] for place in places]}
        figure = draw_people(read_image(picture.file), people.take(places), reading.threshold, caption)
        write_both(out / names[picture.file], figure, shared | content)
    print(f"{out}: {len(entries)} people in {len(shown)} of {len(pictures)} pictures")


def boxes_in(
    pictures: Sequence[Picture], boxes: Path | None, images: Path | None, min_score: float
) -> tuple[Sequence[Picture], DetectedBoxes]:
    """The pictures that are known, and the boxes in them; prints what is left out."""
    if boxes is not None:
        return read_boxes(boxes, pictures, min_score, images, print)
    if images is not None:
        raise UserError(f"{images}: found --images without --boxes, wanted a list of results there")
    return pictures, whole_pictures(pictures)


def output_names(pictures: Sequence[Picture]) -> dict[Path, str]:
    """What the outputs of each picture are called, but for their suffix.

    Raises:
        UserError: two pictures differ in their suffix alone.
    """
    names = {picture.file: f"{picture.file.stem}.pose" for picture in pictures}
    name, number = Counter(names.values()).most_common(1)[0]
    if number > 1:
        same = " and ".join(file.name for file in names if names[file] == name)
        raise UserError(f"{same}: found one name with {number} suffixes, wanted names that stay apart as {name}.png")
    return names


def as_manifest(pictures: Sequence[Picture]) -> CocoDict:
    """The pictures in COCO's layout."""
    images = [{"id": picture.image_id, "file_name": str(picture.file)} for picture in pictures]
    return {"info": {"image_root": ""}, "images": images}


def entries_of(
    asked: EvaluatedRun, found: DetectedBoxes, predictions: Predictions, people: ShownPeople
) -> list[dict[str, Any]]:
    """An entry of COCO's result format for each person, by the run's score rule, and what else is known.

    The box is not called `bbox`: COCO's tools would take its area for the person's (`bench.data.results`).
    """
    head = None if predictions.presence_logits is None else expit(predictions.presence_logits)
    score = person_scores(asked.row.protocol.score_rule, found.score, predictions.score, head)
    entries = result_entries(found.image_id, predictions.keypoints, predictions.score, score)
    more = zip(found.bbox.tolist(), people.presence.tolist(), people.present.tolist(), strict=True)
    return [
        entry | {"person_bbox": bbox, "presence": presence, "present": present}
        for entry, (bbox, presence, present) in zip(entries, more, strict=True)
    ]


def facts_of(asked: EvaluatedRun, reading: PresenceReading, boxes: Path | None) -> dict[str, Any]:
    """What every JSON file says of the run."""
    return {
        "run": origin(asked),
        "presence": presence_facts(asked, reading),
        "boxes": "the whole picture" if boxes is None else str(boxes),
        "keypoint_names": list(KEYPOINT_NAMES),
    }


def image_facts(picture: Picture) -> dict[str, Any]:
    """Of the picture as stored."""
    width, height = picture.size
    facts = {"id": picture.image_id, "file_name": picture.file.name, "width": width, "height": height}
    return facts | {"exif_orientation": "not followed" if picture.turned else "none"}


def write_both(name: Path, figure: Figure, content: dict[str, Any]) -> None:
    """The picture and the JSON, each whole or not at all.

    Raises:
        UserError: one cannot be written.
    """
    png, text = (name.with_name(f"{name.name}.{suffix}") for suffix in ("png", "json"))
    with written_whole(png) as partial_png, written_whole(text) as partial_text:
        with partial_png.open("wb") as file:
            save(figure, file)
        partial_text.write_text(json_text(content), encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
