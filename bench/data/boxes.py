"""Pictures of any kind, and the boxes of people in them from either of COCO's layouts.

Which picture a box belongs to is never guessed. A mapping with `images` and `annotations` names its pictures by
`file_name`: the name must be that of the picture, and the folder too where one is given; of several such entries, the
one that has more of the picture's folders is meant. A list of results, as detectors write it, knows pictures by
`image_id` alone: the number that files are named by, as COCO's are (000000000139.jpg), or the id in an annotation file
that is given beside it. Letters: D boxes.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.data.checks import LAYOUT_SIZES, check_categories, check_owners, first_of, implausible
from bench.data.coco import PERSON_CATEGORY, CocoDict, check_annotation, check_image, inspect_image, read_coco
from bench.data.detections import DetectedBoxes, read_detections
from bench.errors import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Of files that are taken for pictures in a folder, in either case."""


class Picture(NamedTuple):
    """`size` (w, h) in pixels as stored."""

    file: Path
    image_id: int
    size: tuple[int, int]
    turned: bool = False  # whether an EXIF tag asks viewers to turn or mirror what is stored

    @property
    def is_numbered(self) -> bool:
        """Whether its id is the number that it is named by."""
        return self.file.stem.isascii() and self.file.stem.isdigit() and int(self.file.stem) == self.image_id


Tell = Callable[[str], None]


def find_pictures(path: Path) -> list[Picture]:
    """The picture at a path, or those of a folder (not of folders in it) by name.

    `image_id` is the number in the name where every file is named by a number of its own, as COCO's are, else the
    place from 1 on.

    Raises:
        UserError: nothing is there, the folder holds no picture, or a file cannot be read as one.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder, wanted a picture or a folder of pictures")
    files = sorted(file for file in path.iterdir() if _is_picture(file)) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: found no picture in this folder, wanted files {', '.join(SUFFIXES)}")
    numbers = [int(file.stem) for file in files if file.stem.isascii() and file.stem.isdigit() and len(file.stem) < 19]
    ids = numbers if len(set(numbers)) == len(files) else list(range(1, len(files) + 1))
    return [_picture(file, image_id) for file, image_id in zip(files, ids, strict=True)]


def _is_picture(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _picture(file: Path, image_id: int) -> Picture:
    stored = inspect_image(file)
    return Picture(file, image_id, stored.size, stored.turned)


def whole_pictures(pictures: Sequence[Picture]) -> DetectedBoxes:
    """Every picture as one box."""
    return DetectedBoxes(
        image_id=np.array([picture.image_id for picture in pictures]),
        bbox=np.array([[0.0, 0.0, *picture.size] for picture in pictures]),
        score=np.ones(len(pictures)),
    )


def read_boxes(
    file: Path,
    pictures: Sequence[Picture],
    min_score: float,
    images_file: Path | None = None,
    tell: Tell = lambda _: None,
) -> tuple[list[Picture], DetectedBoxes]:
    """The pictures that a file knows, with its ids, and the boxes of people in them whose score is at least this.

    Boxes of annotations have score 1; those of crowds are left out. `images_file` are the annotations that give the
    numbers in a list of results their file names. `tell` is given a sentence on each kind of thing that is left out.

    Raises:
        UserError: see `bench.data.coco.read_coco`, `bench.data.checks` and `bench.data.detections.read_detections`; the
            file knows none of the pictures, or has another size for one; which entry means a picture is not certain; a
            box without extent or wholly outside of its picture; no box.
    """
    if _starts_as_list(file):
        known = _by_number(file, pictures) if images_file is None else _in_annotations(images_file, pictures, tell)[0]
        images = [{"id": picture.image_id, "width": picture.size[0], "height": picture.size[1]} for picture in known]
        return known, read_detections(file, images, min_score, tell)
    if images_file is not None:
        raise UserError(f"{images_file}: found beside the annotations {file}, wanted beside a list of results")
    known, content = _in_annotations(file, pictures, tell)
    return known, _annotated(file, content, known)


def _by_number(file: Path, pictures: Sequence[Picture]) -> list[Picture]:
    other = next((picture for picture in pictures if not picture.is_numbered), None)
    if other is not None:
        raise UserError(
            f"{file}: a list of results knows its pictures by a number (image_id), and {other.file.name} is not named "
            "by a number of its own: give the annotation file that has these ids and the file names by --images, or "
            "name each picture by its image_id"
        )
    return list(pictures)


def _starts_as_list(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            return content.read(64).lstrip().startswith(b"[")
    except OSError:
        return False  # the reader of the other layout says why


def _in_annotations(file: Path, pictures: Sequence[Picture], tell: Tell) -> tuple[list[Picture], CocoDict]:
    """The pictures that are among the images of an annotation file, with its ids, and what the file holds."""
    content = read_coco(file)
    images = content["images"]
    for image in images:
        if fault := check_image(image):
            raise UserError(f"{file}: image {image['id']}: {fault}")
    check_categories(file, content, LAYOUT_SIZES)
    check_owners(file, content)
    named = defaultdict(list)
    for image in images:
        named[_folders(image["file_name"])[-1]].append(image)
    found = [(picture, _entry_of(file, picture, named[picture.file.name])) for picture in pictures]
    known = [_identified(file, picture, image) for picture, image in found if image is not None]
    unknown = [picture.file for picture, image in found if image is None]
    if not known:
        alike = [image["file_name"] for image in named[unknown[0].name]]
        others = f", and the file has {alike[0]}, in another folder" if alike else ""
        raise UserError(f"{file}: images: found none of {len(pictures)} pictures, the first is {unknown[0]}{others}")
    if unknown:
        tell(f"{file}: {len(unknown)} of {len(pictures)} pictures are not in it, the first is {unknown[0]}")
    if len(known) < len(images):
        tell(f"{file}: {len(images) - len(known)} of its {len(images)} images are not among the pictures")
    return known, content


def _folders(path: str) -> list[str]:
    """The parts of a path of any system; at least one."""
    return [part for part in re.split(r"[\\/]+", path) if part not in ("", ".")] or [path]


def _entry_of(file: Path, picture: Picture, images: Sequence[CocoDict]) -> CocoDict | None:
    """The entry that means a picture, of those with its name."""
    own = _folders(str(picture.file.absolute()))
    shared = [_num_shared(own, _folders(image["file_name"])) for image in images]
    fitting = [
        (number, image)
        for number, image in zip(shared, images, strict=True)
        if number >= min(2, len(_folders(image["file_name"])))  # the folder must be the same, if one is given
    ]
    most = max((number for number, _ in fitting), default=0)
    best = [image for number, image in fitting if number == most]
    if len(best) > 1:
        entries = " and ".join(f"image {image['id']} ({image['file_name']})" for image in best[:2])
        raise UserError(f"{file}: {entries} may both mean {picture.file}, wanted one: give both their folders")
    return best[0] if best else None


def _num_shared(path: Sequence[str], other: Sequence[str]) -> int:
    """How many parts are the same, from the end."""
    pairs = zip(reversed(path), reversed(other), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(path), len(other)))


def _identified(file: Path, picture: Picture, image: CocoDict) -> Picture:
    size = image["width"], image["height"]
    if size != picture.size:
        found = f"found {size[0]} x {size[1]} pixels, wanted {picture.size[0]} x {picture.size[1]}"
        raise UserError(f"{file}: image {image['id']}: {found} as {picture.file} has")
    return picture._replace(image_id=image["id"])


def _annotated(file: Path, content: CocoDict, pictures: Sequence[Picture]) -> DetectedBoxes:
    size_of = {picture.image_id: picture.size for picture in pictures}
    everybody = [a for a in content["annotations"] if a.get("category_id") == PERSON_CATEGORY and not a.get("iscrowd")]
    people = [a for a in everybody if a["image_id"] in size_of]
    for annotation in people:
        width, height = size_of[annotation["image_id"]]
        if not _is_within(annotation.get("bbox"), (width, height)):
            wanted = f"[x, y, w, h] with w, h > 0 and a part inside of its image of {width} x {height} pixels"
            raise UserError(
                f"{file}: annotation {annotation['id']}: bbox: found {annotation.get('bbox')}, wanted {wanted}"
            )
    if not people:
        raise UserError(f"{file}: annotations: found no person in {len(pictures)} pictures, wanted one or more")
    _check_plausible(file, content, everybody, people)
    return DetectedBoxes(
        image_id=np.array([annotation["image_id"] for annotation in people]),
        bbox=np.array([annotation["bbox"] for annotation in people], dtype=np.float64),
        score=np.ones(len(people)),
    )


def _check_plausible(file: Path, content: CocoDict, everybody: Sequence[CocoDict], shown: Sequence[CocoDict]) -> None:
    """All boxes of a file are evidence; what is wrong with one counts where it is shown. Keypoints may be missing."""
    unbounded = float("inf"), float("inf")
    boxed = [a for a in everybody if _is_within(a.get("bbox"), unbounded)]
    complete = [a if check_annotation(a) is None else {**a, "keypoints": None} for a in boxed]
    faults = implausible(file, content, complete)
    if wrong := {a["id"]: faults[a["id"]] for a in shown if a["id"] in faults}:
        raise first_of(file, wrong)


def _is_within(bbox: object, size: tuple[float, float]) -> bool:
    """Whether a value of JSON is a box that shows something of its image."""
    if not isinstance(bbox, list) or len(bbox) != 4 or any(type(x) not in {int, float} for x in bbox):
        return False
    x, y, w, h = bbox
    shown = min(x + w, size[0]) - max(x, 0), min(y + h, size[1]) - max(y, 0)
    return min(w, h, *shown) > 0 and max(map(abs, bbox)) < float("inf")
