"""python -m bench.data.download: COCO's keypoint data, and published checkpoints, from their official servers.

A file that comes for the first time is pinned by its sha256 in `downloads.lock.json`; from then on it must be the same.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Annotated, NamedTuple

import typer
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from typer import Argument, Option

from bench.data.archives import CHUNK, BrokenArchiveError, Members, is_damaged, unpack
from bench.data.fetching import Stopped, discard, fetch, part_of, set_aside
from bench.data.hashing import sha256_of
from bench.data.pins import Pin, Pins
from bench.data.sources import COCO_PARTS, SOURCES, WEIGHTS_DIR, Source
from bench.errors import UserError
from bench.stages.command import run_command
from bench.writing import written_whole

RECORDS = ".downloads"
"""Folder below the root: what each archive held, and what is not yet unpacked."""
SEVERAL_FILES = 3
"""At once; each over several connections."""


def main(
    parts: Annotated[list[str] | None, Argument(help=f"of {', '.join(SOURCES)}")] = None,
    root: Annotated[Path, Option(help="COCO's folder: data.root of params.yaml")] = Path("data/coco"),
    mirror: Annotated[str | None, Option(help="URL below which another server has the same paths")] = None,
    lock: Annotated[Path, Option(help="pins of all that was downloaded before")] = Path("downloads.lock.json"),
    connections: Annotated[int, Option(min=1, max=16, help="of each file")] = 4,
    keep: Annotated[bool, Option("--keep", help="archives after they are unpacked")] = False,
    check: Annotated[bool, Option("--check", help="what is there, and download nothing")] = False,
) -> None:
    """Download COCO's keypoint data, or the parts named, resuming what was begun; what is complete is left alone."""
    if unknown := [part for part in parts or [] if part not in SOURCES]:
        raise UserError(f"found part {unknown[0]!r}, wanted some of {', '.join(SOURCES)}")
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise UserError(f"--mirror: found {mirror!r}, wanted a URL that begins with http:// or https://")
    pins = Pins(lock)
    try:
        if check:
            pinned = [part for part, source in SOURCES.items() if pins.get(source.file_name)]
            check_all([SOURCES[part] for part in parts or pinned], root, pins)
        else:
            with only_one(root):
                sources = [SOURCES[part] for part in dict.fromkeys(parts or COCO_PARTS)]
                download_all(sources, Job(root, mirror, pins, connections, keep))
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command goes on from here")
        raise typer.Exit(130) from None


class Job(NamedTuple):
    root: Path
    mirror: str | None
    pins: Pins
    connections: int
    keep: bool


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Two downloads would write to the same files.

    Raises:
        UserError: another one is running; no permission.
    """
    try:
        (root / RECORDS).mkdir(parents=True, exist_ok=True)
        with FileLock(root / RECORDS / "lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"{root}: another download to it is running, wait for its end") from None
    except OSError as error:
        raise UserError(f"{root}: cannot be written ({error.strerror or error})") from error


class Bar:
    """One file's line of the display, which also tells its work to stop."""

    def __init__(self, progress: Progress, name: str, stop: Event) -> None:
        self.progress, self.name, self.stop, self.doing = progress, name, stop, ""
        self.task = progress.add_task(name, total=None)

    def begin(self, total: int | None, done: int) -> None:
        self.progress.reset(self.task, total=total, completed=done, description=f"{self.name} {self.doing}".rstrip())

    def advance(self, num_bytes: int) -> None:
        if self.stop.is_set():
            raise Stopped
        self.progress.advance(self.task, num_bytes)


def download_all(sources: Sequence[Source], job: Job) -> None:
    """All at once; one that fails leaves the others to go on.

    Raises:
        UserError: one line of all that failed.
        KeyboardInterrupt: the user's, after everything has stopped.
    """
    stop, faults = Event(), []
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with (
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
        ThreadPoolExecutor(SEVERAL_FILES) as pool,
    ):
        bars = [Bar(progress, source.file_name, stop) for source in sources]
        results = [pool.submit(download, source, job, bar, stop) for source, bar in zip(sources, bars, strict=True)]
        try:
            for result in results:
                try:
                    progress.console.print(result.result(), markup=False, highlight=False, soft_wrap=True)
                except UserError as error:
                    faults.append(str(error))
        except KeyboardInterrupt:
            stop.set()
            raise
    if faults:
        raise UserError("; ".join(faults))


def download(source: Source, job: Job, bar: Bar, stop: Event) -> str:
    """One file, checked and in its place; returns what to tell of it."""
    pin = job.pins.get(source.file_name)
    if is_complete(source, job.root, pin):
        return f"{source.file_name}: complete"
    target = target_of(source, job.root)
    if not target.exists():
        url = source.at(job.mirror)
        fetch(url, target, bar, stop, connections=job.connections, size=pin.size if pin else None)
        found = checked(part_of(target), source, target, pin, bar)
        os.replace(part_of(target), target)
        discard(target)
    else:
        found = checked(target, source, target, pin, bar)
    if source.folder:
        unpack_pinned(source, source.folder, job, found, bar)
    job.pins.add(source.file_name, found)
    return f"{source.file_name}: {found.size} bytes, sha256 {found.sha256}, {'as' if pin else 'now'} pinned"


def checked(file: Path, source: Source, target: Path, pin: Pin | None, bar: Bar) -> Pin:
    """What a file is, by reading all of it.

    Raises:
        UserError: another one than pinned, which is then set aside.
    """
    digest, size = hashlib.sha256(), file.stat().st_size
    bar.doing = "sha256"
    bar.begin(size, 0)
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            bar.advance(len(chunk))
    found = Pin(source.url, size, digest.hexdigest())
    if pin and (pin.size, pin.sha256) != (found.size, found.sha256):
        wrong = set_aside(file, target)
        discard(target)
        raise UserError(
            f"{source.file_name}: found sha256 {found.sha256}, wanted {pin.sha256} as pinned; set aside as {wrong}"
        )
    return found


def unpack_pinned(source: Source, folder: str, job: Job, found: Pin, bar: Bar) -> None:
    """Unpack an archive, record what it held, and remove it. A broken one is set aside, before anything is pinned."""
    archive = target_of(source, job.root)
    bar.doing = "unpacking"
    try:
        members = unpack(archive, folder, job.root, job.root / RECORDS / folder, bar)
    except BrokenArchiveError as error:
        raise UserError(f"{error}; set aside as {set_aside(archive, archive)}") from error
    job.pins.add(source.file_name, found)
    with written_whole(record_file(source, job.root)) as partial:
        partial.write_bytes(_RECORD.dump_json(Record(found.sha256, members)))
    if not job.keep:
        archive.unlink()


class Record(NamedTuple):
    """What an archive held that is unpacked."""

    sha256: str
    members: Members


_RECORD = TypeAdapter(Record)


def record_file(source: Source, root: Path) -> Path:
    return root / RECORDS / f"{source.file_name}.json"


def read_record(source: Source, root: Path) -> Record | None:
    try:
        return _RECORD.validate_json(record_file(source, root).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def target_of(source: Source, root: Path) -> Path:
    return (root if source.folder else WEIGHTS_DIR) / source.file_name


def is_complete(source: Source, root: Path, pin: Pin | None) -> bool:
    """Whether all of a source is in its place; contents are not read, but for weights, which are few files.

    Raises:
        UserError: a file that was unpacked was changed since: downloading again would not mend it.
    """
    if source.folder is None:
        file = target_of(source, root)
        return pin is not None and file.exists() and sha256_of([file]) == pin.sha256
    record = read_record(source, root)
    if record is None or pin is None or record.sha256 != pin.sha256:
        return False
    sizes = {name: size_of(root / name) for name in record.members}
    for name, size in sizes.items():
        if size not in {None, record.members[name].size}:
            raise UserError(f"{root / name}: another file than in {source.file_name}, move it away")
    return None not in sizes.values()


def size_of(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None


def check_all(sources: Sequence[Source], root: Path, pins: Pins) -> None:
    """Read all that was downloaded and compare it with what came.

    Raises:
        UserError: something is missing, damaged or unknown.
    """
    if not sources:
        raise UserError(f"{pins.file}: pins nothing, so there is nothing to check")
    faults = []
    for source in sources:
        damaged = find_faults(source, root, pins.get(source.file_name))
        print(f"{source.file_name}: {f'{len(damaged)} faults' if damaged else 'as pinned'}")
        faults += damaged
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}; move away what is damaged and download again")


def find_faults(source: Source, root: Path, pin: Pin | None) -> list[str]:
    file = target_of(source, root)
    if pin is None:
        return [f"{source.file_name}: never downloaded, wanted a pin of it"]
    if source.folder is None:
        if not file.exists():
            return [f"{file}: missing"]
        return [] if sha256_of([file]) == pin.sha256 else [f"{file}: another sha256 than pinned"]
    record = read_record(source, root)
    if record is None or record.sha256 != pin.sha256:
        return [f"{root / source.folder}: not of the {source.file_name} that is pinned"]
    return [
        f"{root / name}: missing or damaged"
        for name, member in record.members.items()
        if is_damaged(root / name, member)
    ]


if __name__ == "__main__":
    run_command(main)
