"""Command lines and how tests run them, and other processes to test against."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from lab import cli
from lab.base.activity import Progress
from lab.base.wait import Deadline, wait_for
from lab.cli import output
from lab.plan import Cell
from lab.record import CellResult, RunResult, Status
from lab.run import scheduler
from lab.run.journal import Journal

ONE_CELL = ["matrix", "-g", "debian-13", "-v", "stock"]
# How long anything may take: on a host with much to do an interpreter takes seconds to start.
SECONDS = 600.0

# Starts a command as nohup does, and a script that puts it into the background.
IGNORING_SIGINT = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")

LOCK_HOLDER = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("locked", flush=True)
sys.stdin.read()
"""

LANE_HOLDER = """
import sys
from pathlib import Path
from lab.machine import leftovers
from lab.base.paths import Paths
leftovers.FIRST_PORT, leftovers.LAST_PORT = 23150, 23199
base = Path(sys.argv[1])
paths = Paths(cache=base / "cache", state=base / "state")
with leftovers.make_lane_folder(paths, guest="debian-13", uri="test:///default") as (folder, port):
    print(folder.name, flush=True)
    sys.stdin.read()
"""


TWO_CELLS = [*ONE_CELL, "-v", "max-userns-zero"]


def lab(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lab", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """The exit status of a command line, run in this process. Most tests use the fixture `run_lab`."""
    monkeypatch.setattr(sys, "argv", ["lab", *map(str, arguments)])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    # What is printed goes to pytest's own streams.
    monkeypatch.setattr(output, "open_streams", lambda: Mock(problem=None))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


class Printed(str):
    """What a command line printed: all of it, standard output first, and each stream by itself."""

    __slots__ = ("err", "out")
    out: str
    err: str


# The fixture `run_lab`: an exit status and a command line.
RunLab = Callable[..., Printed]


def rows_listed(printed: str) -> list[list[str]]:
    return [re.split("  +", line) for line in printed.splitlines()]


def decide_at_once(
    monkeypatch: pytest.MonkeyPatch, result: Callable[[Cell], CellResult], *, interrupted: bool = False
) -> list[str]:
    """From here on runs have no guests: cells get these results, or only the first does; the cells that ran."""
    ran: list[str] = []

    class WithoutGuests(scheduler.Scheduler):
        def run(self) -> RunResult:
            run = self.planned
            run.folder.mkdir(parents=True, exist_ok=True)
            journal = Journal(run.folder, run.cells, run.info, run.earlier_results)
            for cell in run.cells[: 1 if interrupted else None]:
                if cell.folder not in run.earlier_results:
                    self.observer.lane(cell.guest.name, Progress("running the suite"))
                    self.observer.cell(journal.decide(cell, result(cell)))
                    ran.append(cell.name)
            self.observer.note("guests are not run at all")
            return journal.finish(interrupted=interrupted)

    monkeypatch.setattr(scheduler, "Scheduler", WithoutGuests)
    return ran


def interrupt_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on runs are interrupted after their first cell."""
    decide_at_once(monkeypatch, lambda cell: cell.result(Status.XPASS), interrupted=True)


@contextmanager
def other_process(program: str, *arguments: object) -> Iterator[tuple[psutil.Process, str]]:
    """A Python program in its own process and the first line it prints; killed at the end of the block."""
    child = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            yield psutil.Process(child.pid), child.stdout.readline().strip()
        finally:
            child.kill()


def on_terminal(
    command: Sequence[str], variables: Mapping[str, str] | None = None, *, keys: bytes = b""
) -> tuple[str, int]:
    """What a command shows on a terminal into which these keys are typed, and its exit status."""
    ours, theirs = pty.openpty()
    screen = b""
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables) as process:
        os.close(theirs)
        os.write(ours, keys)
        with suppress(OSError):  # What Linux says when the other end is closed.
            while shown := os.read(ours, 65536):
                screen += shown
        status = process.wait(timeout=60)
    os.close(ours)
    return screen.decode(), status


def keys_for_all(folder: Path) -> list[Path]:
    """The files below a folder that hold a private key and that others than their owner may read."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o044]
    return [file for file in files if b"PRIVATE KEY-----" in file.read_bytes()]


def wait_until_ended(pid: int) -> None:
    """Wait until a process is gone; one that nobody has collected yet counts as gone."""

    def ended() -> bool | None:
        try:
            return True if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return True

    wait_for(ended, Deadline(20, f"the end of process {pid}"), interval=0.02)
