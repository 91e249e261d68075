"""Three hosts in the middle of a run, one of them struck by a fault, and what is seen of that.

The coordinator is `lab matrix --hosts` as a process; dask's own workers run the stand-ins of tests/fleet.
`two` and `three` wait until `one` is at work: on a busy host they were done before it had joined.
"""

import re
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
from tests.fleet.cable import FAR, Cable
from tests.fleet.examples import Command, Fleet, left_on

GUESTS, VARIANTS = ("debian-12", "debian-13", "debian-14"), ("stock", "userns-clone-off")
PLAN = [
    *(word for name in GUESTS for word in ("-g", name)),
    *(word for name in VARIANTS for word in ("-v", name)),
    *("--build", "0.10.8", "--no-remedies", "--no-experiment"),
]
CELLS = len(GUESTS) * len(VARIANTS)
SECONDS = 600.0


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
    """A run to be struck. `environment` and `control` are those of the host `one`."""

    folder: Path
    stack: ExitStack
    cable: Cable | None = None
    environment: str = ""
    control: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        within, address = (self.cable.far.within, FAR) if self.cable else ((), "127.0.0.1")
        self.fleet = Fleet(self.folder / "far", within, address)
        self.stack.callback(self.fleet.end)
        self.run, self.gate, others = (self.folder / name for name in ("run", "gate", "others"))
        self.one = self.fleet.add("one", environment=self.environment, until=str(self.gate), **self.control)
        self.fleet.add("two", until=str(others))
        self.fleet.add("three", until=str(others))
        self.begun, self.position = 0.0, 0
        self.command = self._coordinator(*PLAN, "-o", str(self.run))
        self.guest = self.command.wait_for(r"one: (\S+): waiting")
        self.command.wait_for("two joined")
        self.command.wait_for("three joined")
        others.touch()
        self.worker, self.children = self.one.worker(), self.one.children()
        self.command.wait_for(rf"{CELLS - len(VARIANTS)}/{CELLS} ")
        self.one.does()  # What its next child does.

    def _coordinator(self, *arguments: str) -> Command:
        return Command(self.fleet, *arguments, within=self.cable.near.within if self.cable else ())

    def resume(self) -> None:
        """Go on with the run in a new process."""
        self.position = 0
        self.command = self._coordinator("--resume", str(self.run))

    def strike(self) -> None:
        """From now on the seconds count."""
        self.begun, self.position = time.monotonic(), len(self.command.printed())

    def wait(self, pattern: str) -> tuple[float, str]:
        """Wait until the coordinator printed something more after the fault; when that was, and its line."""
        line = self.command.wait_for(rf"^.*(?:{pattern}).*$", since=self.position)
        return self.since(), line

    def runs_again(self) -> float:
        """When a child of any host began with the part that was struck."""
        return self.wait(rf"(?:one|two|three): {self.guest}(?: #\d+)?: \S+: suite")[0]

    def children_ended(self) -> float:
        """When the child of `one` was gone."""
        psutil.wait_procs(self.children, timeout=SECONDS)
        return self.since()

    def all_decided(self) -> float:
        """When the last cell was decided; the process has ended after that."""
        seconds = self.wait(rf"{CELLS}/{CELLS} ")[0]
        self.command.ends()
        return seconds

    def since(self) -> float:
        return time.monotonic() - self.begun

    def count(self, seen: Seen) -> None:
        """Count the cells in the record and in the log, and what is left on hosts after one more command."""
        cells = Counter(cell.folder for cell in RunResult.read(self.run).cells if cell.status is Status.PASS)
        planned = {Path("cells") / guest / variant / "0.10.8" for guest in GUESTS for variant in VARIANTS}
        log = (self.run / RUN_LOG).read_text()
        decided = Counter(re.findall(r"^\S+Z (\S+ \S+ 0\.10\.8): (?!tried)", log, re.MULTILINE))
        seen.lost = len(planned - cells.keys())
        seen.twice = sum(max(cells[each], decided[" ".join(each.parts[1:])]) > 1 for each in planned)
        wait_for(lambda: not self.one.below() or None, Deadline(SECONDS, "its workers to end"))
        seen.left = left_on(self.fleet) + [str(each) for each in self.run.glob(f"{ARRIVING}*")]
