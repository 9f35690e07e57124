"""Zip archives that others made, unpacked whole or not at all, and never outside of their folder."""

import os
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bench.data.fetching import Meter, check_room
from bench.errors import UserError
from bench.writing import written_whole

MAX_BYTES = 2**36
"""Of all files of an archive; COCO's largest is 20 GB."""
MAX_RATIO = 100
"""Of these bytes to those of the archive; COCO's annotations, which compress best, stay below 10."""
CHUNK = 2**20
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises on archives that are cut, damaged, encrypted or packed in a way that it does not know."""


class BrokenArchiveError(UserError):
    """An archive that is damaged or that no honest server would send."""


class Member(NamedTuple):
    size: int
    crc: int


Members = dict[str, Member]
"""By path below the root."""


def unpack(archive: Path, folder: str, root: Path, staging: Path, meter: Meter) -> Members:
    """Unpack an archive that holds just `folder` to `root / folder`; every file is checked by its CRC first.

    Files of other origin stay; those equal to the archive's are taken as they are. The meter may raise to stop.

    Raises:
        BrokenArchiveError: damaged, too large, or with names that lead elsewhere or stand for one another.
        UserError: there is a file of this name with other content; no room or no permission.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = check_members(archive, opened.infolist(), folder)
            members = {info.filename: Member(info.file_size, info.CRC) for info in infos}
            _check_present(root, members, archive)
            total = sum(info.file_size for info in infos)
            check_room(root, total)
            meter.begin(total, 0)
            shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed while it moved them in
            with written_whole(staging) as partial:
                partial.mkdir()
                for info in infos:
                    _unpack_one(opened, info, partial, meter)
    except BROKEN as error:
        raise BrokenArchiveError(f"{archive}: not a sound zip archive ({error})") from error
    _move_in(staging, folder, root)
    return members


def check_members(archive: Path, infos: Sequence[zipfile.ZipInfo], folder: str) -> list[zipfile.ZipInfo]:
    """The files of an archive, once all of its entries are harmless.

    Raises:
        BrokenArchiveError: they are not.
    """
    names: set[str] = set()
    for info in infos:
        if fault := _fault(info, folder):
            raise BrokenArchiveError(f"{archive}: {info.orig_filename!r}: {fault}")
        # Disks that ignore case or normalise names take these for the same file.
        name = unicodedata.normalize("NFC", info.filename.rstrip("/")).casefold()
        if name in names:
            raise BrokenArchiveError(f"{archive}: {info.filename!r}: twice, or in another case, wanted unique names")
        names.add(name)
    files = [info for info in infos if not info.is_dir()]
    total, packed = sum(info.file_size for info in files), archive.stat().st_size
    if total > MAX_BYTES or total > MAX_RATIO * packed:
        raise BrokenArchiveError(
            f"{archive}: {total} bytes packed in {packed}, wanted at most {MAX_RATIO} times as many and {MAX_BYTES}"
        )
    return files


def _fault(info: zipfile.ZipInfo, folder: str) -> str | None:
    name = info.orig_filename
    parts = name.rstrip("/").split("/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if name != info.filename or any(character in name for character in "\\:") or not name.isprintable():
        return "wanted a plain name"
    if PurePosixPath(name).is_absolute() or {"", ".", ".."} & set(parts) or parts[0] != folder:
        return f"wanted a path below {folder}/"
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "a link or device, wanted files and folders alone"
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return f"packed by method {info.compress_type}, wanted stored or deflated"
    return None


def _unpack_one(archive: zipfile.ZipFile, info: zipfile.ZipInfo, to: Path, meter: Meter) -> None:
    target = to / info.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with archive.open(info) as source, target.open("xb") as file:
        while chunk := source.read(CHUNK):
            size += file.write(chunk)
            meter.advance(len(chunk))
    if size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename!r} has {size} bytes, wanted {info.file_size} as its entry says")


def _check_present(root: Path, members: Members, archive: Path) -> None:
    if not any((root / folder).exists() for folder in {name.partition("/")[0] for name in members}):
        return
    for name, member in members.items():
        if (root / name).exists() and is_damaged(root / name, member):
            raise UserError(f"{root / name}: another file than in {archive.name}, move it away")


def is_damaged(file: Path, member: Member) -> bool:
    """Whether a file is missing or is not the one that was packed."""
    try:
        return file.stat().st_size != member.size or _crc_of(file) != member.crc
    except FileNotFoundError:
        return True


def _crc_of(file: Path) -> int:
    crc = 0
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _move_in(staging: Path, folder: str, root: Path) -> None:
    """Take the place of `root / folder`, at once where there is none yet, else file by file."""
    try:
        if not (root / folder).exists():
            os.replace(staging / folder, root / folder)
        else:
            for file in [path for path in staging.rglob("*") if path.is_file()]:
                target = root / file.relative_to(staging)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
        shutil.rmtree(staging)
    except OSError as error:
        raise UserError(f"{root / folder}: cannot be written ({error.strerror or error})") from error
