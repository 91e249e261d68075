"""One try: a run with one fault at a moment that the try's name decides, and all that must hold afterwards."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil

from lab.base.errors import LabError, UsageError
from lab.record import RESULTS_FILE, CellResult, RunResult
from lab.run.journal import RUN_LOG
from tests.campaign import host
from tests.campaign.faults import FAULTS, Scene
from tests.campaign.host import PLAN, Home

# A run takes a minute, and two on a busy host. A fault may cost a lane its limits: eight minutes for a suite in
# a guest without a network.
RUN_SECONDS = 900.0
CLEAN_SECONDS = 60.0
# QEMU ends a moment after its domain.
VANISH_SECONDS = 10.0
MOST_RESUMES = 3
# From the start of the lab to the first line of its log, and to the end of a run without a stored state.
START_SECONDS, BOOTING_SECONDS = 3.0, 150.0
BUG = 4
SUITE = "running the suite"
RESUME = ["matrix", "--verbose", "--jobs", "1", "--resume"]
ROOT = Path(__file__).parents[2]


# -- which fault, and when


@dataclass(frozen=True)
class Name:
    """A try's name, `SEED:NUMBER:FAULT`: it decides all that is random in the try."""

    seed: int
    number: int
    fault: str

    @classmethod
    def parse(cls, text: str) -> "Name":
        """Raises UsageError."""
        parts = text.split(":")
        if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal() and parts[2] in FAULTS):
            raise UsageError(f"{text!r} names no try", hint="expected SEED:NUMBER:FAULT, as in record.jsonl")
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.seed}:{self.number}:{self.fault}"


def names(seed: int, tries: int, faults: Sequence[str]) -> list[Name]:
    """The tries of a campaign: every fault once in a random order, then again."""
    made: list[Name] = []
    while len(made) < tries:
        order = list(faults)
        random.Random(f"{seed}:{len(made) // len(order)}").shuffle(order)
        made += [Name(seed, len(made) + place, fault) for place, fault in enumerate(order)]
    return made[:tries]


class Step(NamedTuple):
    """What a run did between two lines of its log: the text of the first, and seconds until the second."""

    text: str
    seconds: float


@dataclass(frozen=True)
class Moment:
    """`delay` seconds after so many lines of the run's log, or at the `end` of what the last one began."""

    lines: int
    delay: float
    text: str = ""
    end: bool = True

    def __str__(self) -> str:
        return f"{self.text or 'start'} + {self.delay:.1f} s"


def lines_of(run: Path) -> list[tuple[str, str]]:
    """The stamps and texts of a run's log, without notes, and without the times that a decided cell has."""
    try:
        lines = [line.partition(" ") for line in (run / RUN_LOG).read_text(errors="replace").splitlines()]
    except OSError:
        return []
    return [
        (stamp, text.partition(" (")[0][:200])
        for stamp, _, text in lines
        if text and not text.startswith("note:")
    ]


def steps(run: Path, ended: datetime) -> list[Step]:
    """The steps of an undisturbed run, the time before its first line among them."""
    lines = lines_of(run)
    times = [*(datetime.fromisoformat(stamp) for stamp, _ in lines), ended]
    lengths = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    return [
        Step("", START_SECONDS),
        *(Step(text, max(0.0, seconds)) for (_, text), seconds in zip(lines, lengths, strict=True)),
    ]


def moment(source: random.Random, undisturbed: Sequence[Step], *, in_suite: bool) -> Moment:
    """A moment of the run, each second as likely as any other; `in_suite`: while the suite runs."""
    places = [n for n, step in enumerate(undisturbed) if step.text.endswith(SUITE) or not in_suite]
    [lines] = source.choices(places, [undisturbed[place].seconds for place in places])
    text, seconds = undisturbed[lines]
    return Moment(lines, round(source.uniform(0.0, seconds), 2), text)


def last_line(run: Path) -> str:
    """What the run was doing, as its log says."""
    return next((text for _, text in reversed(lines_of(run))), "before the first step")


def wait_for(when: Moment, run: Path, process: "subprocess.Popen[bytes]", limit: float) -> bool:
    """Wait for a moment of the run; False if the run ended before it, or did not come so far in time."""
    reached = time.monotonic()
    while len(lines_of(run)) < when.lines:
        if process.poll() is not None or time.monotonic() > limit:
            return False
        time.sleep(0.05)
        reached = time.monotonic()
    while time.monotonic() < reached + when.delay:
        if process.poll() is not None:
            return False
        if when.end and len(lines_of(run)) > when.lines:
            break
        time.sleep(0.02)
    return True


# -- what must hold of a run's table


def untrue(undisturbed: RunResult, run: RunResult) -> list[str]:
    """The cells of a disturbed run that claim what is not so, and those that are missing.

    A cell may do as in the undisturbed run, or say with a reason that it could not be run.
    """
    reference = {cell.name: cell for cell in undisturbed.cells}
    found = [
        f"{name} is missing from the results" for name in reference.keys() - {cell.name for cell in run.cells}
    ]
    for cell in run.cells:
        expected, reason = reference.get(cell.name), cell.reason.strip()
        if expected is None:
            found.append(f"{cell.name} was not planned")
        elif cell.status.could_not_run:
            found += [] if reason else [f"{cell.name} is {cell.status} without a reason"]
        elif _square(cell) != _square(expected):
            (square, tests), (wanted, outcomes) = _square(cell), _square(expected)
            found.append(f"{cell.name} is {square} ({reason[:200]}), expected {wanted}")
            found += [
                f"{cell.name}: {test} is {tests.get(test)}, expected {outcome}"
                for test, outcome in outcomes.items()
                if tests.get(test) != outcome
            ]
    return sorted(found)


def _square(cell: CellResult) -> tuple[str, dict[str, str]]:
    """What a cell did: its status with its cause, and the outcome of each test."""
    return f"{cell.status} {cell.cause or ''}".strip(), {test.name: str(test.outcome) for test in cell.tests}


def unfinished(run: RunResult) -> list[str]:
    """The cells that could not be run, or on which more is to be tried."""
    return [cell.name for cell in run.cells if cell.status.could_not_run or cell.has_more_to_try]


# -- the try


@dataclass
class Try:
    """A try at work, and what is recorded of it: its fields but `home`.

    `moment` is when the fault was to happen, `happened` what was done (empty: the run ended before), `doing`
    what the lab's log said then. `statuses` has each command of the try with its exit status, in order.
    `findings` are what was not as promised.
    """

    home: Home
    name: str
    lab: str
    fault: str = ""
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    moment: str = ""
    happened: str = ""
    doing: str = ""
    statuses: list[tuple[str, int | None]] = field(default_factory=list)
    cells: dict[str, str] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def record(self) -> str:
        """One line of JSON. Records are published: the folders of a host say nothing to others."""
        shown = {key: value for key, value in asdict(self).items() if key != "home"}
        return json.dumps(shown).replace(str(self.home.base), "LAB_HOME") + "\n"

    def run(self, name: Name, reference: Path) -> None:
        """Make it from its home to its end; nothing of it is left on the host but the home.

        `reference` is the folder of the undisturbed run.
        """
        began, source, self.fault = time.monotonic(), random.Random(str(name)), name.fault
        fault, undisturbed = FAULTS[name.fault], RunResult.read(reference)
        ended = undisturbed.run.finished
        assert ended
        if fault.boots:
            when = Moment(0, round(source.uniform(0.0, BOOTING_SECONDS), 2), end=False)
        else:
            when = moment(source, steps(reference, ended), in_suite=fault.in_guest)
        self.moment = str(when)
        try:
            self.home.make()
            self.disturb(when, source)
            if run := self.results():
                self.findings += untrue(undisturbed, run)
                for cell in run.cells:
                    reason = f": {cell.reason[:300]}" if cell.status.could_not_run else ""
                    self.cells[cell.name] = _square(cell)[0] + reason
            self.look_for_leftovers("lab clean", resumed=False)
            self.complete(undisturbed)
        except (LabError, OSError, subprocess.SubprocessError) as error:
            self.findings.append(f"the campaign could not go on: {error}")
        finally:
            self.take_down()
            self.seconds = round(time.monotonic() - began, 1)

    def disturb(self, when: Moment, source: random.Random) -> None:
        """Run the plan, make the fault at its moment, and put the host right again."""
        fault = FAULTS[self.fault]
        with ExitStack() as afterwards:
            scene = Scene(self.home, source, self.run_lab, afterwards, self.findings)
            fault.prepare(scene)
            self.home.fill_cache(states=not fault.boots)
            scene.lab = process = self.start("run", *PLAN, "-o", str(self.home.run))
            limit = time.monotonic() + RUN_SECONDS
            if wait_for(when, self.home.run, process, limit):
                self.doing, began = last_line(self.home.run), time.monotonic()
                try:
                    self.happened = fault.make(scene)
                    if (now := last_line(self.home.run)) != self.doing:
                        self.doing += f"; when it was done: {now}"
                except (LabError, ProcessLookupError, psutil.NoSuchProcess) as error:
                    self.doing += f"; not done: {error}"
                # A fault may itself take minutes: a second lab, a lab that stands still.
                limit += time.monotonic() - began
            status = self.end("run", process, limit)
        host.start_daemons()
        allowed = fault.statuses if self.happened else {0}
        if status is not None and status not in allowed:
            self.findings.append(f"the run ended with {status}, expected one of {sorted(allowed)}")

    def results(self) -> RunResult | None:
        """The run's results; None if it ended before there were any."""
        if not (self.home.run / RESULTS_FILE).exists():
            return None
        try:
            return RunResult.read(self.home.run)
        except UsageError as error:
            self.findings.append(f"the results cannot be read: {error}")
            return None

    def look_for_leftovers(self, after: str, *, resumed: bool = True) -> None:
        status, output = self.run_lab("clean", "clean")
        if status != 0:
            self.findings.append(f"lab clean ended with {status}: {output[-300:]}")
        end = time.monotonic() + VANISH_SECONDS
        while (left := self.home.left(resumed=resumed)) and time.monotonic() < end:
            time.sleep(0.5)
        self.findings += [f"left after {after}: {what}" for what in left]

    def complete(self, undisturbed: RunResult) -> None:
        """Resume the run until it is whole, and compare its table with that of an undisturbed run."""
        for _ in range(MOST_RESUMES):
            run = self.results()
            if run is None:
                self.run_lab("run again", *PLAN, "-o", str(self.home.run), seconds=RUN_SECONDS)
            elif unfinished(run):
                self.run_lab("resume", *RESUME, str(self.home.run), seconds=RUN_SECONDS)
            else:
                break
        run = self.results()
        if run is None or unfinished(run):
            self.findings.append(f"not complete after {MOST_RESUMES} times --resume")
            return
        self.findings += [f"at the end: {what}" for what in untrue(undisturbed, run)]
        what, status = self.statuses[-1]
        if status != 0:
            self.findings.append(f"{what} ended with {status} although every cell is as expected")
        if len(self.statuses) > 2:
            self.look_for_leftovers("--resume and lab clean")

    def run_lab(self, what: str, *words: str, seconds: float = CLEAN_SECONDS) -> tuple[int | None, str]:
        """Run a command of the lab to its end: its exit status, None if it hung, and its output."""
        process = self.start(what, *words)
        status = self.end(what, process, time.monotonic() + seconds)
        return status, self.output(what).read_text(errors="replace")

    def output(self, what: str) -> Path:
        return self.home.base / f"output-{what.replace(' ', '-')}.txt"

    def start(self, what: str, *words: str) -> subprocess.Popen[bytes]:
        fault = FAULTS.get(self.fault)
        program = "tests.campaign.lab_with_keys" if fault and fault.in_guest else "lab"
        with self.output(what).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", program, *words],
                cwd=ROOT,
                env=self.home.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=fault.umask if fault else 0o022,
            )

    def end(self, what: str, process: subprocess.Popen[bytes], limit: float) -> int | None:
        status: int | None = None
        try:
            status = process.wait(max(1.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.findings.append(f"{what}: hung, killed at its limit; {last_line(self.home.run)}")
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        self.statuses.append((what, status))
        output = self.output(what).read_text(errors="replace")
        if status == BUG or "Traceback (most recent call last)" in output:
            self.findings.append(f"{what}: a bug of the lab: {output.strip().splitlines()[-1][:300]}")
        return status

    def take_down(self) -> None:
        """Leave nothing on the host, whatever the try has left."""
        for process in self.home.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for domain in host.domains() or []:
            host.virsh("destroy", domain)
        for log in host.LOGS.glob("qemu/lab-*.log"):
            log.unlink()


def make_reference(home: Home, revision: str, folder: Path) -> float:
    """Run the plan undisturbed and keep the run in `folder`; its seconds. Raises LabError if it met a fault."""
    attempt = Try(home, "undisturbed", revision)
    try:
        home.make()
        home.fill_cache()
        began = time.monotonic()
        status, output = attempt.run_lab("run", *PLAN, "-o", str(home.run), seconds=RUN_SECONDS)
        seconds = time.monotonic() - began
        if status != 0:
            raise LabError(f"the undisturbed run ended with {status}:\n{output[-2000:]}")
        if retried := [why for cell in RunResult.read(home.run).cells for why in cell.retried]:
            raise LabError(f"the undisturbed run met a fault, so it is no measure: {'; '.join(retried)}")
        attempt.look_for_leftovers("an undisturbed run")
        if attempt.findings:
            raise LabError("the undisturbed run: " + "; ".join(attempt.findings))
        subprocess.run(["cp", "-a", home.run, folder], check=True, timeout=120)
        return seconds
    finally:
        attempt.take_down()
