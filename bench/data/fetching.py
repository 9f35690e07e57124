"""One file from a web server: in pieces side by side, taken up where an earlier attempt stopped.

What has come lies in `<file>.part`, and in `<file>.part.json` which bytes these are and of which version of the file.
"""

import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Event, Lock
from typing import NamedTuple, Protocol, TypeVar

import requests
from pydantic import TypeAdapter, ValidationError

from bench.errors import UserError
from bench.writing import written_whole

ATTEMPTS = 6
"""In a row that bring less than `ENOUGH` bytes, before a download gives up."""
ENOUGH = 2**20
RESTARTS = 3
"""For a file that changes on the server while it is read."""
FIRST_PAUSE = 1.0
"""Seconds before the second attempt; doubled before each further one."""
TIMEOUT = (10, 20)
"""Seconds to connect, and without a byte."""
CHUNK = 2**16
"""Bytes read at once; a cut loses the begun one."""
SAVE_EVERY = 2**24
"""Bytes of a piece: at most so many of each piece are fetched again after a kill."""
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818
    """The user wants no more of it."""


class _Cut(Exception):  # noqa: N818
    """A reply that may be better next time."""


class _Changed(Exception):  # noqa: N818
    """The server has another version than the one that was begun."""


class Meter(Protocol):
    """Where progress is shown."""

    def begin(self, total: int | None, done: int) -> None: ...

    def advance(self, num_bytes: int) -> None: ...


class Remote(NamedTuple):
    """A version of a file on a server."""

    size: int | None
    validator: str | None  # a strong ETag, else Last-Modified: what If-Range takes
    ranges: bool  # whether parts of just this version can be asked for


@dataclass
class Piece:
    """Bytes `start` to `end` of the file, the first `done` of which are here."""

    start: int
    end: int | None
    done: int = 0


class _State(NamedTuple):
    url: str
    size: int
    validator: str
    pieces: list[Piece]


_STATE = TypeAdapter(_State)


def part_of(target: Path) -> Path:
    """Where a file lies while it is incomplete or unchecked."""
    return target.with_name(f"{target.name}.part")


def discard(target: Path) -> None:
    """Forget what has come of a file."""
    part_of(target).unlink(missing_ok=True)
    _state_file(target).unlink(missing_ok=True)


def fetch(url: str, target: Path, meter: Meter, stop: Event, *, connections: int = 1, size: int | None = None) -> None:
    """Complete `part_of(target)`, whose content is not checked here. Once that is moved, `discard` what is left.

    Raises:
        UserError: no such file, another size than wanted, too many failures in a row, no room or no permission.
        Stopped: `stop` was set; what has come is kept.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(RESTARTS):
            try:
                _Download(url, target, meter, stop).run(connections, size)
            except _Changed:
                discard(target)
            else:
                return
    except OSError as error:
        raise UserError(f"{part_of(target)}: cannot be written ({error.strerror or error})") from error
    raise UserError(f"{url}: changed on the server {RESTARTS} times while it was read, wanted one version")


class _Download:
    def __init__(self, url: str, target: Path, meter: Meter, stop: Event) -> None:
        self.url, self.target, self.meter, self.stop = url, target, meter, stop
        self.failed = Event()  # one piece cannot be had, so that the others need not go on
        self.saving = Lock()

    def run(self, connections: int, wanted: int | None) -> None:
        self.remote = self._persist(self._ask)
        size = self.remote.size
        if wanted is not None and size is not None and size != wanted:
            raise UserError(f"{self.url}: {size} bytes on the server, wanted {wanted} as pinned")
        self.pieces = self._read_state() or self._begin(connections)
        done = sum(piece.done for piece in self.pieces)
        if size is not None:
            check_room(self.target.parent, size - done)
        self.meter.begin(size, done)
        with ThreadPoolExecutor(len(self.pieces)) as pool:
            attempts = [pool.submit(self._persist, partial(self._get, piece), piece) for piece in self.pieces]
            ended, _ = wait(attempts, return_when=FIRST_EXCEPTION)
            self.failed.set()
        for attempt in [*ended, *attempts]:  # the first failure first: it stopped the others
            attempt.result()

    def _persist(self, attempt: Callable[[], T], piece: Piece | None = None) -> T:
        """What an attempt returns, made again after a pause where it fails for a reason that may pass."""
        failures = 0
        while True:
            before = piece.done if piece else 0
            try:
                return attempt()
            except (
                _Cut,
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ) as error:
                failures = 1 if piece and piece.done - before >= ENOUGH else failures + 1
                if failures >= ATTEMPTS or isinstance(error, requests.exceptions.SSLError):
                    raise UserError(f"{self.url}: given up after {failures} attempts ({_reason(error)})") from error
            except requests.RequestException as error:
                raise UserError(f"{self.url}: cannot be fetched ({_reason(error)})") from error
            self._pause(FIRST_PAUSE * 2 ** (failures - 1))

    def _pause(self, seconds: float) -> None:
        self.failed.wait(0) or self.stop.wait(seconds)
        self._check_stop()

    def _check_stop(self) -> None:
        if self.stop.is_set() or self.failed.is_set():
            raise Stopped

    def _ask(self) -> Remote:
        with self._reply({"Range": "bytes=0-0"}) as reply:
            return _remote(reply)

    @contextmanager
    def _reply(self, headers: dict[str, str]) -> Iterator[requests.Response]:
        # An encoded reply would have another length, and its ranges other bytes.
        headers = {"Accept-Encoding": "identity", **headers}
        with requests.get(self.url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
            if reply.status_code in TRANSIENT:
                raise _Cut(_answer(reply))
            if reply.status_code not in {200, 206}:
                via = "" if reply.url == self.url else f" from {reply.url}"
                raise UserError(f"{self.url}: {_answer(reply)}{via}, wanted a file")
            if reply.headers.get("Content-Type", "").startswith("text/html"):
                raise UserError(f"{self.url}: a web page, wanted a file")  # of a log-in, or an error without its code
            yield reply

    def _read_state(self) -> list[Piece]:
        """The pieces of an earlier attempt, if they are of this version of this file."""
        try:
            state = _STATE.validate_json(_state_file(self.target).read_bytes())
            fits = part_of(self.target).stat().st_size == state.size
        except (FileNotFoundError, ValidationError):
            return []
        same = (state.url, state.size, state.validator) == (self.url, self.remote.size, self.remote.validator)
        return state.pieces if fits and same and self.remote.ranges else []

    def _begin(self, connections: int) -> list[Piece]:
        discard(self.target)
        size = self.remote.size
        with part_of(self.target).open("wb") as file:
            file.truncate(size or 0)
        if not self.remote.ranges or not size:
            return [Piece(0, size)]
        num_pieces = max(1, min(connections, size // ENOUGH))
        edges = [size * i // num_pieces for i in range(num_pieces + 1)]
        return [Piece(start, end) for start, end in pairwise(edges)]

    def _get(self, piece: Piece) -> None:
        """The rest of a piece."""
        if piece.end is not None and piece.start + piece.done == piece.end:
            return
        headers = self._prepare(piece)
        with self._reply(headers) as reply, part_of(self.target).open("r+b", buffering=0) as file:
            if _remote(reply) != self.remote or _begins_at(reply) != piece.start + piece.done:
                raise _Changed
            if not self.remote.ranges:
                file.truncate(0)
            file.seek(piece.start + piece.done)
            try:
                self._copy(reply, file.write, piece)
            finally:
                self._save()
        if piece.end is not None and piece.start + piece.done != piece.end:
            found, wanted = piece.done, piece.end - piece.start
            raise _Cut(f"the reply ended after {found} of {wanted} bytes")

    def _prepare(self, piece: Piece) -> dict[str, str]:
        """Headers that ask for the rest of a piece; all of it again where the server knows no ranges."""
        if self.remote.ranges and self.remote.validator and piece.end:
            span = f"bytes={piece.start + piece.done}-{piece.end - 1}"
            return {"Range": span, "If-Range": self.remote.validator}
        self.meter.advance(-piece.done)
        piece.done = 0
        return {}

    def _copy(self, reply: requests.Response, write: Callable[[memoryview], int | None], piece: Piece) -> None:
        saved = piece.done
        for chunk in reply.iter_content(CHUNK):
            wanted = len(chunk) if piece.end is None else piece.end - piece.start - piece.done
            rest = memoryview(chunk)[:wanted]
            while rest:  # a write may be short, and what is counted must be on disk
                written = write(rest) or 0
                rest = rest[written:]
                piece.done += written
                self.meter.advance(written)
            if piece.done - saved >= SAVE_EVERY:
                self._save()
                saved = piece.done
            self._check_stop()

    def _save(self) -> None:
        size, validator, ranges = self.remote
        if ranges and size is not None and validator is not None:
            with self.saving, written_whole(_state_file(self.target)) as partial_file:
                partial_file.write_bytes(_STATE.dump_json(_State(self.url, size, validator, self.pieces)))


def check_room(folder: Path, num_bytes: int) -> None:
    """Refuse what cannot end well.

    Raises:
        UserError: the disk has less room.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise UserError(f"{folder}: {free / 1e9:.1f} GB of disk are free, wanted {num_bytes / 1e9:.1f} GB")


def set_aside(file: Path, target: Path) -> Path:
    """Keep a wrong file under a name that nothing reads; returns it."""
    wrong = target.with_name(f"{target.name}.wrong")
    os.replace(file, wrong)
    return wrong


def _state_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _remote(reply: requests.Response) -> Remote:
    etag = reply.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else reply.headers.get("Last-Modified")
    if "Content-Encoding" in reply.headers:
        return Remote(None, validator, ranges=False)
    if reply.status_code == 206:
        total = reply.headers.get("Content-Range", "").rpartition("/")[2]
        size = int(total) if total.isdecimal() else None
        return Remote(size, validator, ranges=validator is not None and size is not None)
    length = reply.headers.get("Content-Length", "")
    return Remote(int(length) if length.isdecimal() else None, validator, ranges=False)


def _begins_at(reply: requests.Response) -> int | None:
    if reply.status_code == 200:
        return 0
    span = re.match(r"bytes (\d+)-", reply.headers.get("Content-Range", ""))
    return int(span[1]) if span else None


def _answer(reply: requests.Response) -> str:
    return f"the server answers {reply.status_code} {reply.reason or ''}".rstrip()


def _reason(error: Exception) -> str:
    """The innermost cause, in one line."""
    cause: BaseException = error
    while isinstance(inner := getattr(cause, "reason", None) or next(iter(cause.args), None), BaseException):
        cause = inner
    said = next(iter(cause.args), None)
    return textwrap.shorten(said if isinstance(said, str) else str(cause) or type(cause).__name__, width=160)
