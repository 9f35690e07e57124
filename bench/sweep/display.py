"""What a sweep shows while it runs."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from bench.sweep.process import log_file
from bench.sweep.schedule import Schedule

SECONDS_BETWEEN = 0.5
TAIL = 4096  # bytes of a log
ORDER = ("failed", "stopped", "running", "queued", "waiting", "blocked", "done", "unchanged", "cached")
COLOURS = {"failed": "red", "blocked": "red", "running": "cyan", "done": "green", "unchanged": "dim", "cached": "dim"}
DVC_SAYS = ("Updating lock file", "Generating lock file", "Use `dvc push`", "To track the changes", "\tgit add")


class Display:
    """A live table on a terminal, else a line for every change."""

    def __init__(self, console: Console, logs: Path) -> None:
        self.console, self.logs = console, logs
        self.states: dict[str, str] = {}
        self.begun: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self._live: Live | None = None
        self._next = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The table, while stages run."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False) as self._live:
            yield
            self._live.update(self.table(), refresh=True)
        self._live = None

    def change(self, stage: str, state: str) -> None:
        now = time.monotonic()
        if state == "running":
            self.begun[stage] = now
        elif stage in self.begun and stage not in self.seconds:
            self.seconds[stage] = now - self.begun[stage]
        self.states[stage] = state
        if self._live is None and state not in ("waiting", "queued"):
            took = f", {self.seconds[stage]:.1f} s" if stage in self.seconds else ""
            self.console.print(f"{stage}: {state}{took}", markup=False, highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        if self._live and time.monotonic() >= self._next:
            self._live.update(self.table(), refresh=True)
            self._next = time.monotonic() + SECONDS_BETWEEN

    def table(self) -> Table:
        """What matters most first, as many stages as the terminal has lines."""
        stages = sorted(self.states, key=lambda stage: ORDER.index(self.states[stage]))
        count = {state: list(self.states.values()).count(state) for state in ORDER}
        table = Table(caption=", ".join(f"{number} {state}" for state, number in count.items() if number))
        table.add_column("stage", no_wrap=True)
        table.add_column("state")
        table.add_column("seconds", justify="right")
        table.add_column("last line", no_wrap=True, overflow="ellipsis", ratio=1)
        for stage in stages[: max(1, self.console.height - 7)]:
            state = self.states[stage]
            taken = self.seconds.get(stage, time.monotonic() - self.begun[stage] if stage in self.begun else None)
            last = last_line(log_file(self.logs, stage)) if state in ("running", "failed") else ""
            table.add_row(stage, state, "" if taken is None else f"{taken:.0f}", last, style=COLOURS.get(state, ""))
        return table


def last_line(log: Path) -> str:
    """The last line that the stage itself has written."""
    for line in reversed(re.split(r"[\r\n]+", tail(log))):
        if line.strip() and not line.startswith(DVC_SAYS):
            return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).replace("[", r"\[").strip()
    return ""


def tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def outcome(log: Path) -> str:
    """How a stage ended well: DVC may have had nothing to do."""
    text = tail(log)
    if "didn't change, skipping" in text:
        return "unchanged"
    return "cached" if "is cached - skipping run" in text else "done"


def print_failures(console: Console, schedule: Schedule) -> None:
    """Every stage that failed, with those that were not run for it."""
    for stage, why in schedule.failed.items():
        lost = [name for name, cause in schedule.blocked.items() if cause == stage]
        after = f"; not run: {', '.join(lost)}" if lost else ""
        console.print(f"failed: {stage}: {why}{after}", style="red", markup=False, highlight=False, soft_wrap=True)
