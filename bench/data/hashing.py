"""Digests that say where numbers come from."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256_of(files: Iterable[Path]) -> str:
    """One digest over the contents of files, in their order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
