"""Seeded, image-disjoint subsets of a COCO-layout folder, as manifests.

A manifest is a COCO file of the chosen images with all their annotations (crowds and unlabelled persons too, which
COCO's evaluation ignores but must know), and in `info` the image root, the seed, the sha256 of its source and what was
skipped.
Whole images are chosen until exactly the asked number of scored persons is reached.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from bench.data.checks import faults_of
from bench.data.coco import CocoDict, Person, check_image, inspect_image, is_scored, read_coco
from bench.data.hashing import sha256_of
from bench.errors import UserError

NumPersons = int | Literal["all"]

SPLITS = {"train2017": ("calibration", "train"), "val2017": ("val",)}
"""The folders of COCO's layout, and the manifests that are chosen from each. Calibration is drawn first, so that the
persons every choice is made on stay the same as training grows."""


def annotation_file(root: Path, split: str) -> Path:
    """Of a folder in COCO's layout."""
    return root / "annotations" / f"person_keypoints_{split}.json"


def in_some_images(persons: Sequence[Person], num_persons: int, seed: int) -> list[Person]:
    """At most so many persons, in their order: everybody in images drawn at random, until there are enough."""
    image_ids = np.random.default_rng(seed).permutation(sorted({person.image_id for person in persons}))
    rank = {image_id: place for place, image_id in enumerate(image_ids.tolist())}
    order = sorted(range(len(persons)), key=lambda i: (rank[persons[i].image_id], i))
    return [persons[i] for i in sorted(order[:num_persons])]


class Source(NamedTuple):
    """One annotation file of a COCO-layout folder and the people of each of its images."""

    root: Path
    split: str  # "train2017" or "val2017"
    file: Path
    content: CocoDict
    annotations: dict[int, list[CocoDict]]  # by image id
    faults: dict[int, str]  # by annotation id

    @classmethod
    def open(cls, root: Path, split: str) -> "Source":
        """Read `<root>/annotations/person_keypoints_<split>.json`.

        Raises:
            UserError: the file is missing, broken, or wrong as a whole: see `bench.data.checks.faults_of`.
        """
        file = annotation_file(root, split)
        if not file.exists():
            raise UserError(
                f"{file}: cannot be read (No such file or directory), wanted COCO's layout: `make coco` fetches COCO"
                " into data/coco, which data.root names unless you change it"
            )
        content = read_coco(file)
        annotations: dict[int, list[CocoDict]] = defaultdict(list)
        faults = faults_of(file, content)
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        return cls(root, split, file, content, dict(annotations), faults)


class Chosen(NamedTuple):
    images: list[CocoDict]
    skipped: list[str]
    turned: list[str]  # file names of pictures that an EXIF tag asks to turn


class Selection:
    """Draws images of a source in seeded order; what one call took, the next one does not see."""

    def __init__(self, source: Source, seed: int, *, skip_broken: bool) -> None:
        self.source = source
        self.skip_broken = skip_broken
        self._turned: set[str] = set()
        images = [image for image in source.content["images"] if image["id"] in source.annotations]
        order = np.random.default_rng(seed).permutation(len(images))
        self._left = [images[i] for i in order]

    def take(self, num_persons: NumPersons, name: str) -> Chosen:
        """Whole images with exactly `num_persons` scored persons.

        Raises:
            UserError: fewer persons than asked; a broken image or annotation, unless these are skipped.
        """
        chosen: list[CocoDict] = []
        skipped: list[str] = []
        rest: list[CocoDict] = []
        missing = math.inf if num_persons == "all" else num_persons
        for image in self._left:
            if missing == 0:
                rest.append(image)
            elif fault := self._fault(image):
                if not self.skip_broken:
                    raise UserError(fault)
                skipped.append(fault)
            elif self._count(image) > missing:
                rest.append(image)
            elif self._count(image):
                chosen.append(image)
                missing -= self._count(image)
        if num_persons != "all":
            missing -= self._swap(chosen, rest, int(missing))
        found = sum(map(self._count, chosen))
        if found == 0 or (num_persons != "all" and missing):
            raise UserError(
                f"{self.source.file}: found {found} persons in whole images for data.num_persons.{name}, "
                f"wanted {num_persons} ({len(skipped)} images skipped as broken)"
            )
        self._left = rest
        names = sorted(image["file_name"] for image in chosen)
        return Chosen(chosen, skipped, [name for name in names if name in self._turned])

    def _count(self, image: CocoDict) -> int:
        return sum(is_scored(annotation) for annotation in self.source.annotations[image["id"]])

    def _swap(self, chosen: list[CocoDict], rest: list[CocoDict], missing: int) -> int:
        """Swap one chosen image for one with `missing` persons more, where there is such a pair; how many that adds."""
        if missing == 0:
            return 0
        place_of = {self._count(image): place for place, image in enumerate(chosen)}
        for place, image in enumerate(rest):
            swap = place_of.get(self._count(image) - missing)
            if swap is not None:
                chosen[swap], rest[place] = image, chosen[swap]
                return missing
        return 0

    def _fault(self, image: CocoDict) -> str | None:
        """The first thing wrong with an image or its annotations, in words, or None."""
        fault = check_image(image)
        if fault:
            return f"{self.source.file}: image {image['id']}: {fault}"
        for annotation in self.source.annotations[image["id"]]:
            fault = self.source.faults.get(annotation["id"])
            if fault:
                return f"{self.source.file}: annotation {annotation['id']}: {fault}"
        return self._picture_fault(image)

    def _picture_fault(self, image: CocoDict) -> str | None:
        file, wanted = self.source.root / self.source.split / image["file_name"], (image["width"], image["height"])
        if not file.exists():
            return f"{file}: image {image['id']} is missing, wanted a picture of {wanted[0]} x {wanted[1]} pixels"
        try:
            stored = inspect_image(file)
        except UserError as error:
            return f"{file}: image {image['id']} is broken, wanted a picture that decodes: {error}"
        if stored.turned:
            self._turned.add(image["file_name"])
        if fault := stored.size_fault(wanted):
            return f"{file}: image {image['id']}: {fault}"
        return None


def build_manifest(source: Source, chosen: Chosen, seed: int, sha256: str) -> CocoDict:
    """The COCO dict of a subset; `file_name` is relative to `info.image_root`, `sha256` is of the picture's bytes."""
    images = sorted(chosen.images, key=lambda image: image["id"])
    annotations = [annotation for image in images for annotation in source.annotations[image["id"]]]
    return {
        "info": {
            "image_root": source.root.as_posix(),
            "source_file": source.file.as_posix(),
            "source_sha256": sha256,
            "source_description": _description(source.content),
            "seed": seed,
            "num_images": len(images),
            "num_persons": sum(is_scored(annotation) for annotation in annotations),
            "skipped": chosen.skipped,
            "turned": chosen.turned,
        },
        "images": [_entry(source, image) for image in images],
        "annotations": annotations,
        "categories": source.content.get("categories", [{"id": 1, "name": "person"}]),
    }


def _entry(source: Source, image: CocoDict) -> CocoDict:
    name = f"{source.split}/{image['file_name']}"
    return {**image, "file_name": name, "sha256": sha256_of([source.root / name])}


def _description(content: CocoDict) -> str:
    """What a file calls itself, if it does."""
    info = content.get("info")
    description = info.get("description") if isinstance(info, dict) else None
    return description if isinstance(description, str) else ""


def build_manifests(
    root: Path, num_persons: dict[str, NumPersons], seed: int, *, skip_broken: bool
) -> dict[str, CocoDict]:
    """Manifests `train`, `calibration` (both from train2017) and `val` (from val2017).

    Raises:
        UserError: see `Source.open` and `Selection.take`; two manifests share pictures (`Shared.is_copy`).
    """
    manifests = {}
    for split, names in SPLITS.items():
        source = Source.open(root, split)
        digest = sha256_of([source.file])
        selection = Selection(source, seed, skip_broken=skip_broken)
        for name in names:
            manifests[name] = build_manifest(source, selection.take(num_persons[name], name), seed, digest)
    for shared in shared_pictures(manifests):
        if shared.is_copy:
            raise UserError(f"{root}: {shared.sentence}, wanted each in one alone: a test must show other pictures")
    return manifests


class Shared(NamedTuple):
    """Pictures of one manifest that are in another one too."""

    first: str
    second: str
    pairs: list[tuple[str, str]]  # file names in either
    num_images: int  # of the smaller of the two

    @property
    def is_copy(self) -> bool:
        """Whether there are more than the odd picture that a large collection holds twice."""
        return len(self.pairs) > MAX_SHARED * self.num_images

    @property
    def sentence(self) -> str:
        """How many, and which the first is."""
        pair = " and ".join(dict.fromkeys(self.pairs[0]))
        return (
            f"{self.first} and {self.second} share {len(self.pairs)} of {self.num_images} pictures (the first: {pair})"
        )


MAX_SHARED = 0.01


def shared_pictures(manifests: Mapping[str, CocoDict]) -> list[Shared]:
    """Of every two manifests that share pictures. Two pictures are the same where their bytes are, or where they have
    one file name in their folders and the same labels, as a copy that was saved anew."""
    identities = {name: _identities(manifest) for name, manifest in manifests.items()}
    found = []
    for first, second in combinations(manifests, 2):
        known = {identity: file_name for file_name, own in identities[second].items() for identity in own}
        same = {
            file_name: known[identity]
            for file_name, own in identities[first].items()
            for identity in own
            if identity in known
        }
        smaller = min(len(identities[first]), len(identities[second]))
        found += [Shared(first, second, list(same.items()), smaller)] if same else []
    return found


def _identities(manifest: CocoDict) -> dict[str, list[Hashable]]:
    """By file name, what two same pictures have in common."""
    labels = defaultdict(list)
    for annotation in manifest["annotations"]:
        labels[annotation["image_id"]].append((tuple(annotation["bbox"]), tuple(annotation["keypoints"])))
    return {
        image["file_name"]: [
            image["sha256"],
            (image["file_name"].partition("/")[2], frozenset(labels[image["id"]])),
        ]
        for image in manifest["images"]
    }
