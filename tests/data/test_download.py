"""Downloads from a real server on this machine, which cuts, lies, changes its files and packs traps into archives."""

import errno
import hashlib
import io
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data import archives, download, fetching, sources
from bench.data.archives import BrokenArchiveError, unpack
from bench.data.fetching import Stopped, fetch, part_of
from bench.errors import UserError
from bench.stages.command import run_command

REPO = Path(__file__).parents[2]
BODY = np.random.default_rng(0).bytes(200_000)
OTHER_BODY = np.random.default_rng(1).bytes(200_000)


@dataclass
class Served:
    """A file, and what goes wrong in the replies to come."""

    body: bytes
    etag: str | None = '"1"'
    modified: str | None = None
    ranges: bool = True
    heeds_if_range: bool = True
    statuses: list[int] = field(default_factory=list)  # of the next replies
    cuts: list[int] = field(default_factory=list)  # bytes after which the next replies with more than one break off
    lie: int = 0  # added to Content-Length
    total_lie: int = 0  # added to the size in Content-Range
    heeds_end: bool = True  # of ranges
    shift: int = 0  # of the bytes that answer a range
    chunked: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    before_body: Callable[[], None] = lambda: None
    asked: list[str | None] = field(default_factory=list)  # the ranges
    conditions: list[str | None] = field(default_factory=list)  # If-Range


class Server:
    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        files = self.files

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                if self.path in files:
                    answer(self, files[self.path])
                else:
                    self.send_error(404)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=lambda: self.http.serve_forever(poll_interval=0.01), daemon=True).start()

    def serve(self, path: str, body: bytes, **how: Any) -> Served:
        self.files[path] = Served(body, **how)
        return self.files[path]


def answer(handler: BaseHTTPRequestHandler, served: Served) -> None:
    asked = handler.headers["Range"]
    served.asked.append(asked)
    handler.close_connection = True  # else a client would wait for the rest of what is cut
    served.conditions.append(handler.headers["If-Range"])
    status = served.statuses.pop(0) if served.statuses else 200
    if status != 200:
        handler.send_response(status)
        for name, value in served.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        return
    body, size = served.body, len(served.body)
    current = handler.headers["If-Range"] in {None, served.etag, served.modified} or not served.heeds_if_range
    if asked and served.ranges and current:
        start, end = asked.removeprefix("bytes=").split("-")
        start = int(start) + (served.shift if end != "0" else 0)
        body = body[int(start) : int(end) + 1 if served.heeds_end or end == "0" else None]
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{int(start) + len(body) - 1}/{size + served.total_lie}")
    else:
        handler.send_response(200)
    for name, value in {"ETag": served.etag, "Last-Modified": served.modified, **served.headers}.items():
        if value:
            handler.send_header(name, value)
    if served.chunked:
        handler.send_header("Transfer-Encoding", "chunked")
        body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    else:
        handler.send_header("Content-Length", str(len(body) + served.lie))
    handler.end_headers()
    cut = served.cuts.pop(0) if len(body) > 1 and served.cuts else len(body)
    try:
        if len(body) > 1:
            handler.wfile.write(body[: cut // 2])
            served.before_body()
            handler.wfile.write(body[cut // 2 : cut])
    except (BrokenPipeError, ConnectionResetError):  # the client has seen enough
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.http.shutdown()
    started.http.server_close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(fetching, "ENOUGH", 10_000)
    monkeypatch.setattr(fetching, "CHUNK", 1000)


class Counted:
    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0

    def begin(self, total: int | None, done: int) -> None:
        self.total, self.done = total, done

    def advance(self, num_bytes: int) -> None:
        self.done += num_bytes


def fetched(server: Server, folder: Path, **options: Any) -> bytes:
    """The bytes of /file."""
    target, meter = folder / "file", Counted()
    fetch(f"{server.url}/file", target, meter, threading.Event(), **options)
    assert {path.name for path in folder.iterdir()} <= {"file.part", "file.part.json"}
    assert meter.done == part_of(target).stat().st_size
    return part_of(target).read_bytes()


# What a server does.


@pytest.mark.parametrize("connections", [1, 4])
def test_a_file_comes_whole(connections: int, server: Server, tmp_path: Path) -> None:
    served = server.serve("/file", BODY)
    assert fetched(server, tmp_path, connections=connections) == BODY
    assert len(served.asked) == 1 + connections


@pytest.mark.parametrize("connections", [1, 3])
def test_a_cut_connection_is_taken_up_where_it_broke(connections: int, server: Server, tmp_path: Path) -> None:
    served = server.serve("/file", BODY, cuts=[30_000, 20_000, 12_000])
    assert fetched(server, tmp_path, connections=connections) == BODY
    if connections == 1:
        assert served.asked[1:] == [f"bytes={start}-199999" for start in (0, 30_000, 50_000, 62_000)]


def test_only_the_same_version_is_taken_up(server: Server, tmp_path: Path) -> None:
    served = server.serve("/file", BODY, cuts=[30_000])
    assert fetched(server, tmp_path) == BODY
    assert served.conditions == [None, '"1"', '"1"']


def test_other_bytes_than_asked_for_are_refused(server: Server, tmp_path: Path) -> None:
    server.serve("/file", BODY, shift=1)
    with pytest.raises(UserError, match="changed on the server 3 times"):
        fetched(server, tmp_path)


@pytest.mark.parametrize("etag", [None, '"1"'])
def test_a_file_of_unknown_length(etag: str | None, server: Server, tmp_path: Path) -> None:
    """Cut at first, and shorter at the second attempt, without a version that would tell."""
    served = server.serve("/file", BODY, etag=etag, ranges=False, chunked=True, cuts=[90_000, 150_000])

    def shrink() -> None:
        if len(served.asked) == 2:
            served.body = OTHER_BODY[:100_000]

    served.before_body = shrink
    assert fetched(server, tmp_path, connections=4) == OTHER_BODY[:100_000]


def test_progress_makes_patient(server: Server, tmp_path: Path) -> None:
    """More cuts than attempts, each after enough bytes."""
    server.serve("/file", BODY, cuts=[15_000] * 12)
    assert fetched(server, tmp_path) == BODY


@pytest.mark.parametrize("how", [{"ranges": False}, {"etag": None}, {"etag": 'W/"1"'}])
def test_without_ranges_or_versions_all_of_it_is_fetched_again(
    how: dict[str, Any], server: Server, tmp_path: Path
) -> None:
    cuts = [100_000, 30_000] if how == {"ranges": False} else [30_000]  # there the question is answered in full
    served = server.serve("/file", BODY, cuts=cuts, **how)
    assert fetched(server, tmp_path, connections=4) == BODY
    assert served.asked[1:] == [None, None]


def test_a_date_does_for_a_version(server: Server, tmp_path: Path) -> None:
    served = server.serve("/file", BODY, etag=None, modified="Wed, 21 Oct 2015 07:28:00 GMT", cuts=[30_000])
    assert fetched(server, tmp_path) == BODY
    assert served.asked[-1] == "bytes=30000-199999"


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("size", [200_000, 150_000])
def test_a_file_that_changes_is_not_glued_together(
    heeds_if_range: bool, size: int, server: Server, tmp_path: Path
) -> None:
    served = server.serve("/file", BODY, cuts=[30_000], heeds_if_range=heeds_if_range)

    def change() -> None:
        served.body, served.etag, served.before_body = OTHER_BODY[:size], '"2"', lambda: None

    served.before_body = change
    assert fetched(server, tmp_path) == OTHER_BODY[:size]


def test_a_file_that_keeps_changing_is_given_up(server: Server, tmp_path: Path) -> None:
    served = server.serve("/file", BODY, cuts=[30_000] * 99)

    def change() -> None:
        served.etag = f'"{len(served.asked)}"'

    served.before_body = change
    with pytest.raises(UserError, match=r"/file: changed on the server 3 times while it was read, wanted one version$"):
        fetched(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_servers_errors_that_pass(server: Server, tmp_path: Path) -> None:
    served = server.serve("/file", BODY, statuses=[503, 500, 200, 502, 429])
    assert fetched(server, tmp_path) == BODY
    assert len(served.asked) == 6


def test_servers_errors_that_stay(server: Server, tmp_path: Path) -> None:
    served = server.serve("/file", BODY, statuses=[500] * 99)
    with pytest.raises(UserError, match=r"/file: given up after 6 attempts \(the server answers 500 Internal Server E"):
        fetched(server, tmp_path)
    assert len(served.asked) == 6


def test_no_such_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"http://127\S+/file: the server answers 404 Not Found, wanted a file$"):
        fetched(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^http://127.0.0.1:1/f: given up after 6 attempts \(.*Connection refused\)$"):
        fetch("http://127.0.0.1:1/f", tmp_path / "f", Counted(), threading.Event())


def test_a_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    server.serve("/file", b"", statuses=[302] * 9, headers={"Location": "/elsewhere"})
    server.serve("/elsewhere", BODY)
    assert fetched(server, tmp_path, connections=2) == BODY


def test_redirects_in_a_circle(server: Server, tmp_path: Path) -> None:
    server.serve("/file", b"", statuses=[302] * 99, headers={"Location": "/file"})
    with pytest.raises(UserError, match=r"/file: cannot be fetched \(Exceeded 30 redirects\.\)$"):
        fetched(server, tmp_path)


def test_a_page_is_not_a_file(server: Server, tmp_path: Path) -> None:
    server.serve("/file", BODY, headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(UserError, match=r"/file: a web page, wanted a file$"):
        fetched(server, tmp_path)


def test_a_reply_shorter_than_its_length(server: Server, tmp_path: Path) -> None:
    server.serve("/file", BODY, lie=100, ranges=False)
    with pytest.raises(
        UserError, match=r"6 attempts \(Connection broken: IncompleteRead\(200000 .*, 100 more expected\)\)$"
    ):
        fetched(server, tmp_path)


def test_a_file_shorter_than_its_ranges_say(server: Server, tmp_path: Path) -> None:
    server.serve("/file", BODY, total_lie=100)
    with pytest.raises(UserError, match=r"given up after 6 attempts \(the reply ended after 200000 of 200100 bytes\)"):
        fetched(server, tmp_path)


def test_more_bytes_than_asked_for_are_left_out(server: Server, tmp_path: Path) -> None:
    server.serve("/file", BODY, heeds_end=False)
    assert fetched(server, tmp_path, connections=3) == BODY


@pytest.mark.parametrize("size", [199_999, 200_001])
def test_another_size_than_pinned_is_not_even_begun(size: int, server: Server, tmp_path: Path) -> None:
    served = server.serve("/file", BODY)
    with pytest.raises(UserError, match=rf"/file: 200000 bytes on the server, wanted {size} as pinned$"):
        fetched(server, tmp_path, size=size)
    assert len(served.asked) == 1


def test_one_lost_piece_ends_the_others(server: Server, tmp_path: Path) -> None:
    served = server.serve("/file", BODY, statuses=[200, 404])
    served.before_body = lambda: time.sleep(0.2)
    with pytest.raises(UserError, match="404"):
        fetched(server, tmp_path, connections=4)
    assert 0 < sum(piece["done"] for piece in pieces_of(tmp_path / "file.part.json")) < 100_000


# What the disk does.


def test_no_room(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve("/file", BODY)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match=r"0\.0 GB of disk are free, wanted 0\.0 GB$"):
        fetched(server, tmp_path)


def test_a_disk_that_fills(server: Server, tmp_path: Path) -> None:
    server.serve("/file", BODY)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match=r"file\.part: cannot be written \(File too large\)$"):
            fetched(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_half_way_keeps_what_has_come(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve("/file", BODY)
    copy = fetching._Download._copy

    def full(*arguments: Any) -> None:
        piece = arguments[-1]
        arguments[2](memoryview(BODY[:5000]))
        piece.done += 5000
        arguments[0].meter.advance(5000)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching._Download, "_copy", full)
    with pytest.raises(UserError, match=r"file\.part: cannot be written \(No space left on device\)$"):
        fetched(server, tmp_path)
    monkeypatch.setattr(fetching._Download, "_copy", copy)
    served = server.serve("/file", BODY)
    assert fetched(server, tmp_path) == BODY
    assert served.asked[1:] == ["bytes=5000-199999"]


def test_a_place_that_is_none(server: Server, tmp_path: Path) -> None:
    server.serve("/file", BODY)
    (tmp_path / "taken").write_text("a file, no folder")
    with pytest.raises(UserError, match=r"taken/file\.part: cannot be written \(File exists\)$"):
        fetched(server, tmp_path / "taken")


# Stopped and taken up.


@pytest.mark.parametrize("connections", [1, 4])
def test_what_was_stopped_goes_on(connections: int, server: Server, tmp_path: Path) -> None:
    stop = threading.Event()
    served = server.serve("/file", BODY, before_body=stop.set)
    with pytest.raises(Stopped):
        fetch(f"{server.url}/file", tmp_path / "file", Counted(), stop, connections=connections)
    assert any(piece["done"] for piece in pieces_of(tmp_path / "file.part.json"))
    served.before_body = lambda: None
    served.asked.clear()
    assert fetched(server, tmp_path, connections=connections) == BODY
    assert "bytes=0-199999" not in served.asked


def test_what_is_complete_but_unchecked_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    """As after Ctrl-C while its sha256 is taken."""
    served = server.serve("/file", BODY)
    assert fetched(server, tmp_path, connections=2) == BODY
    served.asked.clear()
    assert fetched(server, tmp_path, connections=2) == BODY
    assert served.asked == ["bytes=0-0"]


@pytest.mark.parametrize("broken", ["", "{", '{"url": 1}', "[]"])
def test_a_broken_record_of_what_has_come_begins_anew(broken: str, server: Server, tmp_path: Path) -> None:
    server.serve("/file", BODY)
    part_of(tmp_path / "file").write_bytes(bytes(200_000))
    (tmp_path / "file.part.json").write_text(broken)
    assert fetched(server, tmp_path) == BODY


def test_what_has_come_of_another_version_begins_anew(server: Server, tmp_path: Path) -> None:
    stop = threading.Event()
    server.serve("/file", BODY, before_body=stop.set)
    with pytest.raises(Stopped):
        fetch(f"{server.url}/file", tmp_path / "file", Counted(), stop)
    server.serve("/file", OTHER_BODY, etag='"2"')
    assert fetched(server, tmp_path) == OTHER_BODY


# Archives.

PACKED = {"val2017/1.jpg": BODY[:5000], "val2017/2.jpg": BODY[5000:9000], "val2017/sub/3.jpg": b""}


def packed(files: dict[str, bytes], **how: Any) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", **how) as archive:
        archive.mkdir("val2017")
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


def unpacked(archive: bytes, folder: Path) -> dict[str, bytes]:
    file = folder / "val2017.zip"
    file.write_bytes(archive)
    root = folder / "root"
    root.mkdir(exist_ok=True)
    try:
        unpack(file, "val2017", root, root / ".downloads" / "val2017", Counted())
    finally:
        assert sorted(path.name for path in folder.iterdir()) == ["root", "val2017.zip"]
        assert list((root / ".downloads").glob("*")) == []
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_an_archive_is_unpacked(tmp_path: Path) -> None:
    assert unpacked(packed(PACKED), tmp_path) == PACKED


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "val2017/../../out",
        "/out",
        "out",
        "val2017/./a",
        "val2017//a",
        "C:/out",
        "val2017\\..\\out",
        "val2017/\n",
    ],
)
def test_a_name_that_leads_elsewhere(name: str, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = name
    with pytest.raises(BrokenArchiveError, match=r"val2017\.zip: .*: wanted a (plain name|path below val2017/)$"):
        unpacked(packed_info(info), tmp_path)
    assert list((tmp_path / "root").iterdir()) == []


def packed_info(info: zipfile.ZipInfo, content: bytes = b"x") -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("val2017/first", b"harmless")
        archive.writestr(info, content)
    return memory.getvalue()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK])
def test_a_link_or_device(kind: int, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("val2017/link")
    info.external_attr = (kind | 0o777) << 16
    with pytest.raises(BrokenArchiveError, match="a link or device, wanted files and folders alone"):
        unpacked(packed_info(info, b"/etc"), tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["val2017/first", "val2017/FIRST", "val2017/first/"])
def test_names_for_the_same_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenArchiveError, match="twice, or in another case, wanted unique names"):
        unpacked(packed_info(zipfile.ZipInfo(name), b""), tmp_path)


def test_a_bomb(tmp_path: Path) -> None:
    bomb = packed({"val2017/zeros": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(BrokenArchiveError, match=r"1000000 bytes packed in \d+, wanted at most 100 times as many"):
        unpacked(bomb, tmp_path)


def test_more_than_any_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 8999)
    with pytest.raises(BrokenArchiveError, match=r"9000 bytes packed in \d+, wanted"):
        unpacked(packed(PACKED), tmp_path)


@pytest.mark.parametrize("claimed", [100, 10_000, 2**31])
def test_an_entry_that_lies_about_its_size(claimed: int, tmp_path: Path) -> None:
    """Its true 5000 bytes are never exceeded on disk, and never taken for what it claims."""
    archive = packed({"val2017/1.jpg": BODY[:5000]}, compression=zipfile.ZIP_DEFLATED)
    honest = (5000).to_bytes(4, "little")
    assert archive.count(honest) == 2
    with pytest.raises(BrokenArchiveError, match=r"Bad CRC-32|has 5000 bytes|bytes packed in"):
        unpacked(archive.replace(honest, claimed.to_bytes(4, "little")), tmp_path)


def test_an_entry_by_another_method_or_locked(tmp_path: Path) -> None:
    with pytest.raises(BrokenArchiveError, match="packed by method 12, wanted stored or deflated"):
        unpacked(packed(PACKED, compression=zipfile.ZIP_BZIP2), tmp_path)
    locked = bytearray(packed(PACKED))
    locked[locked.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(BrokenArchiveError, match="encrypted"):
        unpacked(bytes(locked), tmp_path)


def test_a_damaged_byte_is_named(tmp_path: Path) -> None:
    damaged = packed(PACKED).replace(BODY[100:110], bytes(10))
    with pytest.raises(BrokenArchiveError, match=r"not a sound zip archive \(Bad CRC-32 for file 'val2017/1\.jpg'\)$"):
        unpacked(damaged, tmp_path)


@pytest.mark.parametrize("archive", [b"", b"no archive", packed(PACKED)[:-30]])
def test_no_archive_at_all(archive: bytes, tmp_path: Path) -> None:
    with pytest.raises(BrokenArchiveError, match="not a sound zip archive"):
        unpacked(archive, tmp_path)


def test_files_of_other_origin_stay(tmp_path: Path) -> None:
    own = tmp_path / "root" / "val2017"
    own.mkdir(parents=True)
    (own / "mine").write_text("mine")
    (own / "1.jpg").write_bytes(PACKED["val2017/1.jpg"])
    assert unpacked(packed(PACKED), tmp_path) == {**PACKED, "val2017/mine": b"mine"}


def test_a_file_of_other_content_is_not_overwritten(tmp_path: Path) -> None:
    own = tmp_path / "root" / "val2017"
    own.mkdir(parents=True)
    (own / "2.jpg").write_text("mine")
    with pytest.raises(UserError, match=r"val2017/2\.jpg: another file than in val2017\.zip, move it away$"):
        unpacked(packed(PACKED), tmp_path)
    assert [path.name for path in own.iterdir()] == ["2.jpg"]


def test_an_archive_larger_than_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 8999})())
    with pytest.raises(UserError, match=r"GB of disk are free, wanted"):
        unpacked(packed(PACKED), tmp_path)


# The command.

TRAIN = {f"train2017/{i}.jpg": BODY[i * 100 : i * 100 + 3000] for i in range(20)}
ANNOTATIONS = {"annotations/person_keypoints_val2017.json": b"{}"}
ZIPS = {"train2017": "/zips/train2017.zip", "val2017": "/zips/val2017.zip"} | {
    "annotations": "/annotations/annotations_trainval2017.zip"
}


def zipped(files: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


@pytest.fixture
def mirror(server: Server) -> Server:
    for part, files in {"train2017": TRAIN, "val2017": PACKED, "annotations": ANNOTATIONS}.items():
        server.serve(f"/coco{ZIPS[part]}", zipped(files))
    return server


Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(mirror: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Command:
    """Arguments -> exit code and all that was printed, in an empty project."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["download", "--mirror", f"{mirror.url}/coco/", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command(download.main)
        printed = capsys.readouterr()
        code = ended.value.code or 0
        if code == 1:
            assert printed.err.splitlines()[-1].startswith("error: ")
        return int(code), printed.out + printed.err

    return run


def tree(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in files.items() if not name.startswith(".downloads/")}


def test_coco_in_one_command(command: Command, mirror: Server) -> None:
    assert command()[0] == 0
    assert tree(Path("data/coco")) == {**TRAIN, **PACKED, **ANNOTATIONS}
    pins = json.loads(Path("downloads.lock.json").read_text())
    val = mirror.files["/coco/zips/val2017.zip"].body
    assert pins["val2017.zip"] == {
        "url": "http://images.cocodataset.org/zips/val2017.zip",
        "size": len(val),
        "sha256": hashlib.sha256(val).hexdigest(),
    }
    for served in mirror.files.values():
        served.asked.clear()
    before = Path("downloads.lock.json").stat().st_mtime_ns
    code, printed = command()
    assert (code, printed.count(": complete")) == (0, 3)
    assert not any(served.asked for served in mirror.files.values())
    assert Path("downloads.lock.json").stat().st_mtime_ns == before


def test_parts_can_be_chosen_and_archives_kept(command: Command) -> None:
    assert command("val2017", "--keep", "--root", "elsewhere", "--connections", "1")[0] == 0
    assert tree(Path("elsewhere")).keys() == {*PACKED, "val2017.zip"}


def test_another_file_than_pinned_is_set_aside(command: Command, mirror: Server) -> None:
    assert command("val2017", "--root", "first")[0] == 0
    served = mirror.files["/coco/zips/val2017.zip"]
    right, served.body = served.body, served.body.replace(b"2.jpg", b"4.jpg")
    code, printed = command("val2017", "--root", "second")
    assert code == 1
    assert "val2017.zip: found sha256" in printed
    assert "as pinned; set aside as second/val2017.zip.wrong" in printed
    assert tree(Path("second")).keys() == {"val2017.zip.wrong"}
    served.body = right
    assert command("val2017", "--root", "second")[0] == 0


def test_another_pin_is_not_met_by_what_is_there(command: Command) -> None:
    """As after taking a colleague's pins from git."""
    assert command("val2017")[0] == 0
    pins = json.loads(Path("downloads.lock.json").read_text())
    pins["val2017.zip"]["sha256"] = "0" * 64
    Path("downloads.lock.json").write_text(json.dumps(pins))
    assert "not of the val2017.zip that is pinned" in command("--check")[1]
    code, printed = command("val2017")
    assert (code, f"wanted {'0' * 64} as pinned" in printed) == (1, True)


def test_a_broken_archive_is_not_pinned(command: Command, mirror: Server) -> None:
    served = mirror.files["/coco/zips/val2017.zip"]
    right, served.body = served.body, served.body[:-100]
    code, printed = command()
    assert code == 1
    assert "val2017.zip: not a sound zip archive" in printed
    assert tree(Path("data/coco")).keys() == {*TRAIN, *ANNOTATIONS, "val2017.zip.wrong"}, "the others go on"
    assert "val2017.zip" not in json.loads(Path("downloads.lock.json").read_text())
    served.body = right
    assert command()[0] == 0
    assert set(json.loads(Path("downloads.lock.json").read_text())) == {
        "train2017.zip", "val2017.zip", "annotations_trainval2017.zip"
    }  # fmt: skip


def test_a_length_too_short_gives_no_archive(command: Command, mirror: Server) -> None:
    served = mirror.files["/coco/zips/val2017.zip"]
    served.lie, served.ranges = -100, False
    code, printed = command("val2017")
    assert code == 1
    assert "not a sound zip archive" in printed


def test_an_archive_put_there_by_hand_is_taken(command: Command, mirror: Server) -> None:
    Path("data/coco").mkdir(parents=True)
    Path("data/coco/val2017.zip").write_bytes(mirror.files["/coco/zips/val2017.zip"].body)
    assert command("val2017")[0] == 0
    assert tree(Path("data/coco")) == PACKED
    assert mirror.files["/coco/zips/val2017.zip"].asked == []


def test_weights_by_the_same_way(command: Command, mirror: Server) -> None:
    path = sources.WEIGHTS["transpose_r_a4"].at("")
    mirror.serve(f"/coco{path}", BODY)
    assert command("transpose_r_a4")[0] == 0
    file = Path("models/published/tp_r_256x192_enc4_d256_h1024_mh8.pth")
    assert file.read_bytes() == BODY
    assert ": complete" in command("transpose_r_a4")[1]
    file.write_bytes(OTHER_BODY)
    assert "another sha256 than pinned" in command("transpose_r_a4", "--check")[1]
    code, printed = command("transpose_r_a4")
    assert (code, "set aside as" in printed) == (1, True)
    assert command("transpose_r_a4")[0] == 0
    assert file.read_bytes() == BODY


def test_check(command: Command) -> None:
    assert "pins nothing" in command("--check")[1]
    assert command("val2017", "annotations")[0] == 0
    code, printed = command("--check")
    assert (code, printed.count(": as pinned")) == (0, 2)
    assert "train2017.zip: never downloaded" in command("--check", "train2017")[1]
    file = Path("data/coco/val2017/1.jpg")
    file.write_bytes(bytes(5000))
    Path("data/coco/val2017/2.jpg").unlink()
    code, printed = command("--check")
    assert code == 1
    assert "val2017.zip: 2 faults" in printed
    assert "1.jpg: missing or damaged and 1 more; move away what is damaged and download again" in printed
    file.unlink()
    assert command("val2017")[0] == 0
    assert command("--check")[0] == 0
    file.write_bytes(b"changed")
    assert "1.jpg: another file than in val2017.zip, move it away" in command("val2017")[1]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["test2017"], "found part 'test2017', wanted some of train2017, val2017, annotations, "),
        (["--mirror", "ftp://host"], "--mirror: found 'ftp://host', wanted a URL that begins with http:// or https://"),
    ],
)
def test_mistakes(arguments: list[str], wanted: str, command: Command) -> None:
    code, printed = command(*arguments)
    assert (code, printed.count("\n")) == (1, 1)
    assert wanted in printed
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"val2017.zip": {"url": "x"}}'])
def test_a_broken_file_of_pins(content: str, command: Command) -> None:
    Path("downloads.lock.json").write_text(content)
    code, printed = command()
    assert code == 1
    assert "downloads.lock.json: cannot be read as pins of downloads" in printed


def test_only_one_at_a_time(command: Command) -> None:
    with download.only_one(Path("data/coco")):
        code, printed = command()
    assert code == 1
    assert "data/coco: another download to it is running, wait for its end" in printed


def test_a_root_without_permission(command: Command) -> None:
    Path("data").write_text("a file, no folder")
    code, printed = command()
    assert code == 1
    assert "data/coco: cannot be written (Not a directory)" in printed


HASTY = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored by what a shell starts in the background
import bench.data.fetching as fetching
fetching.ENOUGH, fetching.SAVE_EVERY, fetching.CHUNK = 10_000, 10_000, 10_000
from bench.data.download import main
from bench.stages.command import run_command
run_command(main)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_goes_on(sent: signal.Signals, server: Server, tmp_path: Path) -> None:
    """By Ctrl-C, with a line and code 130, or killed."""
    here, go_on = threading.Event(), threading.Event()
    big = {"val2017/1.jpg": BODY}
    served = server.serve("/zips/val2017.zip", zipped(big))

    def pause() -> None:
        here.set()
        go_on.wait(0.2 if sent == signal.SIGINT else 9)

    served.before_body = pause
    root = tmp_path / "coco"
    arguments = ["val2017", "--mirror", server.url, "--root", str(root), "--lock", str(tmp_path / "lock.json")]
    run = [sys.executable, "-c", HASTY, *arguments, "--connections", "2"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    with subprocess.Popen(run, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert here.wait(20)
        wait_for(lambda: all(piece["done"] for piece in pieces_of(root / "val2017.zip.part.json")))
        process.send_signal(sent)
        _, error = process.communicate(timeout=20)
    go_on.set()
    assert process.returncode == (130 if sent == signal.SIGINT else -sent)
    if sent == signal.SIGINT:
        assert error.splitlines()[-1] == "stopped; the same command goes on from here"
        assert "Traceback" not in error
    assert {path.name for path in root.iterdir()} == {".downloads", "val2017.zip.part", "val2017.zip.part.json"}
    served.before_body = lambda: None
    served.asked.clear()
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert tree(root) == big
    starts = [int(asked.removeprefix("bytes=").partition("-")[0]) for asked in served.asked[1:] if asked]
    assert min(starts) > 0, "the first piece was taken up, not begun again"


def pieces_of(state_file: Path) -> list[dict[str, int]]:
    return json.loads(state_file.read_text())[3] if state_file.exists() else [{"done": 0}]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_several_files_come_at_once(command: Command, mirror: Server) -> None:
    """Each waits until all three are asked for."""
    together = threading.Barrier(3, timeout=5)
    for served in mirror.files.values():
        served.before_body = together.wait
    assert command("--connections", "1")[0] == 0


def test_sources_are_of_known_servers_and_names() -> None:
    assert {source.url.split("/")[2] for source in sources.SOURCES.values()} == {
        "images.cocodataset.org", "download.openmmlab.com", "github.com"
    }  # fmt: skip
    assert len({source.file_name for source in sources.SOURCES.values()}) == len(sources.SOURCES)
