"""Three host workers in the middle of a run of which one is struck by a fault, and what is seen of that.

The coordinator is `lab matrix --hosts` as a process, with its own patience; the workers are real, their
children are the stand-ins of tests/fleet. `one` is at work, `two` and `three` have joined and are idle.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from lab.base.wait import Deadline, wait_for
from lab.fleet.coordinator import ARRIVING
from lab.record import RunResult, Status
from lab.run.journal import RUN_LOG
from tests.fleet.cable import NEAR, Cable
from tests.fleet.command import Command
from tests.fleet.examples import ROOT, Fleet, HostProcess

GUESTS, VARIANTS = ("debian-12", "debian-13", "debian-14"), ("stock", "userns-clone-off")
PLAN = [
    *(word for name in GUESTS for word in ("-g", name)),
    *(word for name in VARIANTS for word in ("-v", name)),
    *("--build", "0.10.8", "--no-remedies", "--no-experiment"),
]
CELLS = len(GUESTS) * len(VARIANTS)
SECONDS = 300.0
END_SECONDS = 60.0
LOOK_SECONDS = 0.02


@dataclass
class Seen:
    """What one fault did; seconds are from its moment on, None where nothing of that kind was seen."""

    noticed: float | None = None
    again: float | None = None
    ended: float | None = None
    words: str = ""
    lost: int = 0
    twice: int = 0
    left: list[str] = field(default_factory=list)


@dataclass
class Scene:
    """A run to be struck. `control` and `environment` are those of the host `one`."""

    folder: Path
    stack: ExitStack
    cable: Cable | None = None
    temporary: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    control: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.folder)
        self.stack.callback(self.fleet.end)
        self.run = self.folder / "run"
        self.gate = self.folder / "gate"
        self.begun, self.position = 0.0, 0
        self.command = self._coordinator(*PLAN, "-o", str(self.run))
        self.one = self.fleet.start(
            "one",
            self.command.address,
            within=self.cable.far.within if self.cable else (),
            temporary=self.temporary,
            environment=self.environment,
            until=str(self.gate),
            **self.control,
        )
        self.guest = self.command.wait_for(r"one: (\S+): waiting")
        self.children = self.one.children()
        self.others = [
            self.fleet.start(name, self.command.address, within=self.near) for name in ("two", "three")
        ]
        for name in ("two", "three"):
            self.command.wait_for(f"{name} joined")
        self.command.wait_for(rf"{CELLS - len(VARIANTS)}/{CELLS} ")
        # What its next child does.
        self.one.does()

    @property
    def near(self) -> list[str]:
        return self.cable.near.within if self.cable else []

    def _coordinator(self, *arguments: str, port: int = 0) -> Command:
        host = NEAR if self.cable else "127.0.0.1"
        return Command(self.fleet, *arguments, within=self.near, host=host, port=port)

    def resume(self) -> None:
        """Go on with the run in a new process, at the same address."""
        self.position = 0
        self.command = self._coordinator(
            "--resume", str(self.run), port=int(self.command.address.rpartition(":")[2])
        )

    # -- what is seen

    def strike(self) -> None:
        """From now on the seconds count."""
        self.begun, self.position = time.monotonic(), len(self.command.said())

    def wait(self, pattern: str) -> tuple[float, str]:
        """Wait until the coordinator printed something more after the fault; when that was, and its line."""

        def look() -> str | None:
            found = re.search(rf"^.*(?:{pattern}).*$", self.command.said()[self.position :], re.MULTILINE)
            assert found or self.command.process.poll() is None, self.command.said()
            return found[0] if found else None

        line = wait_for(look, Deadline(SECONDS, pattern), interval=LOOK_SECONDS)
        seconds = self.since()
        self.position = self.command.said().index(line, self.position)
        return seconds, line

    def runs_again(self) -> float:
        """When a child of any host began with the part that was struck."""
        return self.wait(rf"(one|two|three): {self.guest}( #\d+)?: \S+: suite")[0]

    def children_ended(self) -> float:
        """When the child of `one` was gone."""
        psutil.wait_procs(self.children, timeout=SECONDS)
        return self.since()

    def all_decided(self) -> float:
        """When the last cell was decided; the process has ended after that."""
        seconds = self.wait(rf"{CELLS}/{CELLS} ")[0]
        self.command.ends()
        return seconds

    def ends(self) -> float:
        """When the coordinator's process has ended."""
        self.command.ends()
        return self.since()

    def since(self) -> float:
        return time.monotonic() - self.begun

    # -- what is counted afterwards

    def count(self, seen: Seen) -> None:
        """Count the cells in the record and in the log, and what is left on hosts after one more command."""
        cells = Counter(cell.folder for cell in RunResult.read(self.run).cells if cell.status is Status.PASS)
        planned = {Path("cells") / guest / variant / "0.10.8" for guest in GUESTS for variant in VARIANTS}
        decided = Counter(
            re.findall(r"^\S+Z (\S+ \S+ 0\.10\.8): (?!tried)", (self.run / RUN_LOG).read_text(), re.MULTILINE)
        )
        seen.lost = len(planned - cells.keys())
        seen.twice = sum(max(cells[each], decided[_name(each)]) > 1 for each in planned)
        self._end_hosts()
        seen.left = self._left()

    def _end_hosts(self) -> None:
        for host in self.fleet.hosts.values():
            if host.process.poll() is None:
                host.kill(signal.SIGCONT)
                host.kill(signal.SIGTERM)
                host.process.wait(timeout=END_SECONDS)

    def _left(self) -> list[str]:
        found = [f"a process: {' '.join(each.cmdline())[:60]}" for each in _processes_below(self.folder)]
        for host in self.fleet.hosts.values():
            place = self.temporary if self.temporary and host is self.one else host.home
            _clean(host, place)
            found += [str(each) for each in place.glob("boxlite-lab-tmp-*")]
            found += [str(each) for each in host.home.glob("state/lanes/*")]
        _clean(self.one, self.folder, self.folder)
        return found + [str(each) for each in self.run.glob(f"{ARRIVING}*")]


def _name(folder: Path) -> str:
    return " ".join(folder.parts[1:])


def _clean(host: HostProcess, temporary: Path, home: Path | None = None) -> None:
    """A host's next command: it removes what dead ones left."""
    environment = {**os.environ, "LAB_HOME": str(home or host.home), "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "lab", "--connect", "test:///default", "clean"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)


def _processes_below(folder: Path) -> list[psutil.Process]:
    """Processes that were started with a path below this folder."""
    return [
        each
        for each in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in each.info["cmdline"] or [])
    ]
