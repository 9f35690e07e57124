"""What every reader of an annotation file asks of it, beside the form of each value (`bench.data.coco`).

Categories are people with the keypoints that are meant, annotations belong to images of the file, people that count
have an area, and labels can belong to their pictures (`bench.data.plausible`).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.data.coco import COCO_LAYOUT, PERSON_CATEGORY, CocoDict, Layout, check_annotation, is_scored
from bench.data.keypoints import CROWDPOSE_NAMES, KEYPOINT_NAMES
from bench.data.plausible import COMMON, fault_of_file, faults_of_people
from bench.data.readings import labels_of
from bench.errors import UserError

NAMES = {len(names): names for names in (KEYPOINT_NAMES, CROWDPOSE_NAMES)}
"""By the number of keypoints of a layout."""

LAYOUT_SIZES = tuple(NAMES)

PEOPLE = {"person", "persons", "people", "human", "humans", "pedestrian"}


def check_categories(file: Path, coco: CocoDict, num_keypoints: Sequence[int] = (len(KEYPOINT_NAMES),)) -> None:
    """Category 1 is a person with the keypoints of a layout that has one of these numbers of them.

    A file without `categories`, or without names of keypoints there, proves nothing and is taken.

    Raises:
        UserError: `categories` is no list of mappings; none, or more than one, has the id of people; it has another
            name, or its keypoints are others or in another order.
    """
    categories = coco.get("categories", [])
    if not isinstance(categories, list) or not all(isinstance(category, dict) for category in categories):
        raise UserError(f"{file}: categories: found {categories!r}, wanted a list of mappings with id and name")
    if not categories:
        return
    people = [category for category in categories if category.get("id") == PERSON_CATEGORY]
    if len(people) != 1:
        ids = [category.get("id") for category in categories]
        raise UserError(f"{file}: categories: found the ids {ids}, wanted {PERSON_CATEGORY} once, which is a person")
    if fault := _category_fault(people[0], num_keypoints):
        raise UserError(f"{file}: category {PERSON_CATEGORY}: {fault}")


def _category_fault(category: CocoDict, num_keypoints: Sequence[int]) -> str | None:
    name, keypoints = category.get("name", "person"), category.get("keypoints") or []
    if not isinstance(name, str) or _plain(name) not in PEOPLE:
        return f"name: found {name!r}, wanted 'person': annotations of people have this category"
    if not isinstance(keypoints, list) or not all(isinstance(keypoint, str) for keypoint in keypoints):
        return f"keypoints: found {keypoints!r}, wanted a list of names"
    faults = [_names_fault(keypoints, NAMES[number]) for number in num_keypoints]
    return faults[0] if keypoints and all(faults) else None


def _names_fault(found: list[str], wanted: Sequence[str]) -> str | None:
    if len(found) != len(wanted):
        return f"keypoints: found {len(found)} names, wanted {len(wanted)}: {', '.join(wanted)}"
    pairs = enumerate(zip(found, wanted, strict=True))
    other = next((i for i, (a, b) in pairs if SAME_NAME.get(_plain(a), _plain(a)) != _plain(b)), None)
    if other is None:
        return None
    order = ", ".join(wanted)
    return f"keypoints: found {found[other]!r} at place {other}, wanted {wanted[other]!r}: the order is {order}"


SAME_NAME = {"tophead": "head", "headtop": "head"}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def check_owners(file: Path, coco: CocoDict) -> None:
    """Raises:
    UserError: an annotation names an image that the file does not list.
    """
    known = {image["id"] for image in coco["images"]}
    lost = [a for a in coco["annotations"] if type(a.get("image_id")) is not int or a["image_id"] not in known]
    if lost:
        share = f"so have {len(lost)} of {len(coco['annotations'])} annotations"
        raise UserError(
            f"{file}: annotation {lost[0]['id']}: image_id: found {lost[0].get('image_id')!r}, wanted the id of "
            f"an image of this file ({share})"
        )


def image_sizes_known(coco: CocoDict) -> dict[int, tuple[float, float]]:
    """(w, h) by image id, NaN where the file does not say."""
    return {image["id"]: (_side(image.get("width")), _side(image.get("height"))) for image in coco["images"]}


def _side(value: Any) -> float:
    return float(value) if type(value) is int and 0 < value < 2**31 else float("nan")


def faults_of(file: Path, coco: CocoDict, layout: Layout = COCO_LAYOUT) -> dict[int, str]:
    """What is wrong with single annotations, by their ids, in the order of the file.

    Raises:
        UserError: the file as a whole is wrong: see `check_categories`, `check_owners` and `bench.data.plausible`.
    """
    check_categories(file, coco, (layout.num_keypoints,))
    check_owners(file, coco)
    faults = {a["id"]: fault for a in coco["annotations"] if (fault := check_annotation(a, layout))}
    sound = [a for a in coco["annotations"] if a["id"] not in faults]
    found = area_faults([a for a in sound if layout.has_area and is_scored(a)]) | faults
    return in_order(implausible(file, coco, sound) | found, coco)


def implausible(
    file: Path, coco: CocoDict, annotations: Sequence[CocoDict], *, cropped: bool | None = None
) -> dict[int, str]:
    """Why labels cannot belong to their pictures, by annotation id; see `bench.data.plausible`.

    Raises:
        UserError: the labels of the whole file cannot, or those of more than `COMMON` of these annotations.
    """
    labels = labels_of(annotations, image_sizes_known(coco), cropped=cropped)
    faults = faults_of_people(labels)
    if len(faults) > COMMON * len(annotations):
        raise first_of(file, in_order(faults, coco))
    if fault := fault_of_file(labels):
        raise UserError(f"{file}: {fault.text('annotation')}")
    return faults


def in_order(faults: dict[int, str], coco: CocoDict) -> dict[int, str]:
    """As the file has its annotations."""
    return {a["id"]: faults[a["id"]] for a in coco["annotations"] if a["id"] in faults}


def first_of(file: Path, faults: dict[int, str]) -> UserError:
    """The error that names the first of some faults."""
    annotation_id, fault = next(iter(faults.items()))
    return UserError(f"{file}: annotation {annotation_id}: {fault}")


def area_faults(people: Sequence[CocoDict]) -> dict[int, str]:
    """Of people that count, by annotation id: OKS divides by their areas."""
    empty = [annotation["id"] for annotation in people if annotation["area"] == 0]
    share = f"so have {len(empty)} of {len(people)} people that count"
    return dict.fromkeys(empty, f"area: found 0 ({share}), wanted the pixels of the person: OKS divides by it")


def check_annotations(file: Path, coco: CocoDict, layout: Layout = COCO_LAYOUT) -> None:
    """Raises:
    UserError: see `faults_of`; also for the first annotation that is wrong.
    """
    if faults := faults_of(file, coco, layout):
        raise first_of(file, faults)
