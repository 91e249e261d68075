"""One try: a run with one fault at a moment that the try's name decides, and all that must hold afterwards."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from lab import catalog, causes
from lab.base.errors import LabError, UsageError
from lab.record import RESULTS_FILE, Outcome, RunResult, Status
from lab.record.folders import RUN_LOG
from tests.campaign import host
from tests.campaign.faults import FAULTS, Fault, Scene
from tests.campaign.host import PLAN, VARIANTS, Home

# A run takes a minute, and two on a busy host. A fault may cost a lane its limits: eight minutes for a suite in
# a guest without a network.
RUN_SECONDS = 900.0
CLEAN_SECONDS = 60.0
# QEMU ends a moment after its domain.
VANISH_SECONDS = 10.0
MOST_RESUMES = 3
# From the start of the lab to the end of a run without a stored state; the shortest suite of a quiet host.
BOOTING_SECONDS, SUITE_SECONDS = 150.0, 15.0
BUG = 4
SUITE = "running the suite"
RESUME = ["matrix", "--verbose", "--jobs", "1", "--resume"]
ROOT = Path(__file__).parents[2]


def names(seed: int, tries: int, faults: list[str]) -> list[str]:
    """The tries of a campaign, `SEED:NUMBER:FAULT`: every fault once in a random order, then again."""
    made: list[str] = []
    while len(made) < tries:
        order = random.Random(f"{seed}:{len(made) // len(faults)}").sample(faults, len(faults))
        made += [f"{seed}:{number}:{fault}" for number, fault in enumerate(order, len(made))]
    return made[:tries]


def last_line(run: Path) -> str:
    """What a run was doing, as its log says, without notes and the times that a decided cell has."""
    with suppress(OSError):
        for line in reversed((run / RUN_LOG).read_text(errors="replace").splitlines()):
            text = line.partition(" ")[2].partition(" (")[0][:200]
            if text and not text.startswith("note:"):
                return text
    return "before the first step"


def untrue(run: RunResult) -> list[str]:
    """What a disturbed run claims that is not so, and cells that are missing.

    A cell is blocked in just the tests that its cause breaks, or it says why it could not be run.
    """
    suite, variants = catalog.load_catalog().suite, sorted(cell.variant for cell in run.cells)
    findings = [] if variants == sorted(VARIANTS) else [f"the cells are those of {variants}"]
    for cell in run.cells:
        failed = {test.name for test in cell.tests if test.outcome is not Outcome.PASS}
        cause = VARIANTS.get(cell.variant, "")
        if cell.status.could_not_run:
            findings += [] if cell.reason.strip() else [f"{cell.name} is {cell.status} without a reason"]
        elif (cell.status, cell.cause) != (Status.XFAIL, cause):
            findings.append(f"{cell.name} is {cell.status} {cell.cause}: {cell.reason[:200]}")
        elif failed != suite.needing(causes.list_causes()[cause].breaks):
            findings.append(f"{cell.name}: these tests failed: {sorted(failed)}")
    return findings


def unfinished(run: RunResult) -> list[str]:
    """The cells that could not be run, or on which more is to be tried."""
    return [cell.name for cell in run.cells if cell.status.could_not_run or cell.has_more_to_try]


@dataclass
class Try:
    """A try at work, and what is recorded of it: its fields but `home`.

    `most` is how many seconds an undisturbed run takes, `moment` when the fault was to happen, in seconds after
    the start of the lab, or of the suite. `happened` is what was done (empty: the run ended before), `doing`
    what the lab's log said then. `statuses` has each command of the try with its exit status, in order.
    `findings` are what was not as promised.
    """

    home: Home
    name: str
    lab: str
    most: float
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    moment: float = 0.0
    happened: str = ""
    doing: str = ""
    statuses: list[tuple[str, int | None]] = field(default_factory=list)
    cells: dict[str, str] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def fault(self) -> Fault:
        return FAULTS[self.name.rpartition(":")[2]]

    def record(self) -> str:
        """One line of JSON. Records are published: the folders of a host say nothing to others."""
        fields = {key: value for key, value in asdict(self).items() if key != "home"}
        return json.dumps(fields).replace(str(self.home.base), "LAB_HOME") + "\n"

    def run(self) -> None:
        """Make it from its home to its end; nothing of it is left on the host but the home."""
        began = time.monotonic()
        try:
            self.home.make()
            self.disturb()
            if run := self.results():
                self.findings += untrue(run)
                for cell in run.cells:
                    reason = f": {cell.reason[:300]}" if cell.status.could_not_run else ""
                    self.cells[cell.name] = f"{cell.status} {cell.cause or ''}{reason}"
            self.look_for_leftovers("lab clean", resumed=False)
            self.complete()
        except (LabError, OSError, subprocess.SubprocessError) as error:
            self.findings.append(f"the campaign could not go on: {error}")
        finally:
            self.take_down()
            self.seconds = round(time.monotonic() - began, 1)

    def disturb(self) -> None:
        """Run the plan, make the fault at its moment, and put the host right again."""
        fault, source = self.fault, random.Random(self.name)
        with ExitStack() as afterwards:
            scene = Scene(self.home, source, self.run_lab, afterwards, self.findings)
            fault.prepare(scene)
            self.home.fill_cache(states=not fault.boots)
            scene.lab = process = self.start("run", *PLAN, "-o", str(self.home.run))
            limit = time.monotonic() + RUN_SECONDS
            if self.comes_to_its_moment(source, process, limit):
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

    def comes_to_its_moment(
        self, source: random.Random, process: subprocess.Popen[bytes], limit: float
    ) -> bool:
        """Wait for the moment of the fault; False if the run ended before it, or did not come so far in time.

        Each second of the run is as likely as any other, or of a suite.
        """
        most = SUITE_SECONDS if self.fault.in_guest else BOOTING_SECONDS if self.fault.boots else self.most
        self.moment = round(source.uniform(0.0, most), 1)
        while self.fault.in_guest and not last_line(self.home.run).endswith(SUITE):
            if process.poll() is not None or time.monotonic() > limit:
                return False
            time.sleep(0.05)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.moment)
            return False
        return True

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

    def complete(self) -> None:
        """Resume the run until it is whole, and judge its table."""
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
        self.findings += [f"at the end: {what}" for what in untrue(run)]
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
        program = "tests.campaign.lab_with_keys" if self.fault.in_guest else "lab"
        with self.output(what).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", program, *words],
                cwd=ROOT,
                env=self.home.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=self.fault.umask,
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
