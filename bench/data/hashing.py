"""Digests that say where numbers come from."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

CHUNK = 2**20  # bytes; published weights are gigabytes


def sha256_of(files: Iterable[Path]) -> str:
    """One digest over the contents of files, in their order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while chunk := content.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def sha256_of_listing(folder: Path) -> str:
    """One digest over the name, size and time of change of every file in a folder and in those below it: what a change
    of content does not leave as it is. 100,000 files take half a second, links are followed.

    Raises:
        OSError: the folder, or one below it, cannot be read.
    """
    digest = hashlib.sha256()
    for line in sorted(_listing(folder, "", frozenset())):
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _listing(folder: Path, prefix: str, above: frozenset[Path]) -> Iterator[str]:
    """A line for each file; a link to a folder `above` is not followed, as it would lead round in a circle."""
    above |= {folder.resolve()}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir():
                below = Path(entry.path)
                yield from () if below.resolve() in above else _listing(below, f"{name}/", above)
            elif entry.is_file():
                status = entry.stat()
                yield f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"
