"""Digests that say where numbers come from."""

import hashlib
from collections.abc import Iterable
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
