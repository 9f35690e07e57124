"""What the machine lacks is said in one line each, before anything is installed."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections import namedtuple
from importlib import util
from pathlib import Path

import pytest

from bench import needs

REPO = Path(__file__).parents[1]
Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the environment is made from, in no repository."""
    root = tmp_path / "unpacked"
    (root / "bench").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "bench/needs.py"):
        shutil.copy(REPO / name, root / name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(root)
    return root


def give_disk(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e12, 0, free))


def test_this_machine_has_all(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    give_disk(monkeypatch, 9e9)
    assert needs.missing(Path(".venv")) == []


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    monkeypatch.setattr(sys, "version", "3.10.4 (main)")
    [line] = needs.missing(Path(".venv"))
    assert line == "Python 3.11 or newer is needed, found 3.10.4: name another, make PYTHON=python3.11"


@pytest.mark.parametrize("name", ["venv", "ensurepip"])
def test_no_module_for_environments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda asked: None if asked == name else real(asked))
    assert needs.venv_missing() == (
        f"Python's module {name} is needed: install it, such as with `apt install python3-venv`"
    )


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: "some-gcc -pthread")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "a C compiler is needed, as xtcocotools is compiled: found no some-gcc," in needs.compiler_missing()
    (tmp_path / "my-cc").touch(mode=0o755)
    monkeypatch.setenv("CC", "my-cc -O1")
    assert needs.compiler_missing() == ""
    monkeypatch.setenv("CC", str(tmp_path / "other-cc"))
    assert "found no " + str(tmp_path / "other-cc") in needs.compiler_missing()


def test_no_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert f"found no Python.h in {tmp_path}, install them" in needs.headers_missing()
    (tmp_path / "Python.h").touch()
    assert needs.headers_missing() == ""


def test_no_git(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = needs.git_missing()
    assert line.startswith(
        "a git repository is needed, as DVC works in one only: git says 'fatal: not a git repository"
    )
    assert "\n" not in line
    assert "`git init && git add -A && git commit -m start`" in line
    monkeypatch.setenv("PATH", str(tmp_path))
    assert needs.git_missing() == "git is needed: install it, such as with `apt install git`"


def test_not_enough_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_disk(monkeypatch, 7.94e9)
    environment = tmp_path / "not" / "there"
    assert needs.disk_missing(environment) == (
        f"8 GB of disk are needed for {environment}, found 7.9 GB free in {tmp_path}: make room there"
    )
    environment.mkdir(parents=True)
    with (environment / "library.so").open("wb") as file:
        file.truncate(100_000_000)  # what is there already is replaced
    assert needs.disk_missing(environment) == ""


def test_nothing_is_installed_where_something_is_missing(unpacked: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncase "$*" in *needs*) exec {sys.executable} "$@";; esac\n'
    )
    python.chmod(0o755)
    command = ["make", f"PYTHON={python}", "check"]
    done = subprocess.run(command, env=os.environ | {"CC": "no-such-cc"}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("error: a C compiler is needed")
    assert "\nerror: a git repository is needed" in done.stderr
    assert (tmp_path / "calls").read_text() == "-I bench/needs.py .venv\n"
    assert not (unpacked / ".venv").exists()


def test_cleaning_installs_nothing(unpacked: Path) -> None:
    done = subprocess.run(["make", "PYTHON=false", "clean"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "error: .venv: not there, wanted the environment that make check makes" in done.stderr
