"""Stage prepare: draw people if asked, then choose persons and write the manifests."""

from pathlib import Path
from typing import cast

from bench.config import DataParams, DrawnPeople
from bench.data.coco import CocoDict, persons_of, turned_sentence
from bench.data.detections import DetectedBoxes, as_entries, read_detections
from bench.data.presence import empty_class_lines
from bench.data.subset import build_manifests, shared_pictures
from bench.data.synthetic.coco import write_drawn_coco
from bench.data.synthetic.scene import SceneParams
from bench.data.windows import labels_of
from bench.stages.command import run_command
from bench.stages.files import (
    NO_DETECTIONS,
    detections_file,
    drawn_dir,
    manifest_file,
    plan_dir,
    read_model,
    write_json,
)

SPARE = 1.05, 20  # more people are drawn than asked, so that whole images can add up to the exact number


def main(profile: str) -> None:
    """Write data/<profile>/{train,calibration,val}.json and data/<profile>.detections.json."""
    write_manifests(profile, read_model(plan_dir(profile) / "prepare.json", DataParams))


def write_manifests(profile: str, params: DataParams) -> None:
    """Draw or open a COCO-layout folder, choose persons, write; says what came out.

    Raises:
        UserError: see `bench.data.subset.build_manifests` and `bench.data.detections.read_detections`; nothing is
            written then but drawn people.
    """
    root = Path(cast(str, params.root)) if params.source == "coco" else draw(params, drawn_dir(profile))
    manifests = build_manifests(
        root, params.num_persons.model_dump(), params.seed, skip_broken=params.on_broken == "skip"
    )
    boxes = None if params.detections is None else boxes_in(manifests["val"], params)
    for shared in shared_pictures(manifests):
        print(shared.sentence)
    for name, manifest in manifests.items():
        info = manifest["info"]
        write_json(manifest_file(profile, name), manifest)
        skipped = f", skipped {len(info['skipped'])}" if info["skipped"] else ""
        print(f"{name}: {info['num_persons']} persons in {info['num_images']} images{skipped}")
        for line in empty_class_lines(name, labels_of(persons_of(manifest))):
            print(line)
        if info["turned"]:
            print(f"{name}: {turned_sentence(info['turned'], info['num_images'])}")
    write_json(detections_file(profile), NO_DETECTIONS if boxes is None else as_entries(boxes))
    if boxes is not None:
        print(f"val: {len(boxes.score)} detected boxes")


def boxes_in(manifest: CocoDict, params: DataParams) -> DetectedBoxes:
    """The detected boxes of a manifest's images."""
    file, min_score = Path(cast(str, params.detections)), cast(float, params.min_detection_score)
    return read_detections(file, manifest["images"], min_score)


def draw(params: DataParams, root: Path) -> Path:
    """A COCO-layout folder of drawn people, enough for every split."""
    asked = params.num_persons.model_dump()
    wanted = {"train2017": asked["train"] + asked["calibration"], "val2017": asked["val"]}
    factor, extra = SPARE
    enough = {split: int(number * factor) + extra for split, number in wanted.items()}
    scene = SceneParams(**cast(DrawnPeople, params.drawn).model_dump())
    write_drawn_coco(root, enough, scene, params.seed)
    return root


if __name__ == "__main__":
    run_command(main)
