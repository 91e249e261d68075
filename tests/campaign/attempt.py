"""One try: a run with one fault, and all that must hold afterwards."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, Field

from lab.base.errors import LabError, UsageError
from lab.record import RESULTS_FILE, RunResult
from tests.campaign import checks, host
from tests.campaign.checks import Table
from tests.campaign.host import PLAN, Home
from tests.campaign.kinds import KINDS, Fault, Scene
from tests.campaign.moments import Moment, Name, Timeline, last_step, moment, steps

# A run takes a minute, and two on a busy host. A fault may cost a lane its limits: eight minutes for a suite in
# a guest without a network.
RUN_SECONDS = 900.0
CLEAN_SECONDS = 60.0
# QEMU ends a moment after its domain.
VANISH_SECONDS = 10.0
MOST_RESUMES = 3
# How long a run without stored states takes; its steps are not those of the reference.
BOOTING_TIMELINE = Timeline(steps=[], seconds=150.0)
BUG = 4
RESUME = ["matrix", "--verbose", "--jobs", "1", "--resume"]
ROOT = Path(__file__).parents[2]


class TryRecord(BaseModel):
    """One try. `moment` is when the fault was to happen, `doing` what the lab's log said when it did.

    `statuses` maps each command of the try to its exit status, in order. `findings` are what was not as
    promised.
    """

    name: str
    fault: str
    started: datetime
    lab: str = Field(description="The commit of the lab.")
    moment: str
    happened: str = Field(default="", description="What was done; empty: the run ended before the moment.")
    doing: str = ""
    statuses: list[tuple[str, int | None]] = Field(default_factory=list)
    cells: dict[str, str] = Field(default_factory=dict)
    findings: list[str] = Field(default_factory=list)
    seconds: float = 0.0

    def append(self, folder: Path) -> None:
        """Add it to the records in a folder: one JSON object in a line."""
        with (folder / "record.jsonl").open("a") as stream:
            stream.write(self.model_dump_json() + "\n")


class Reference(BaseModel):
    """What an undisturbed run did."""

    table: Table
    timeline: Timeline


@dataclass
class Attempt:
    """One try at work."""

    name: Name
    home: Home
    revision: str
    reference: Reference
    statuses: list[tuple[str, int | None]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    _fault: Fault = field(default_factory=Fault)

    def run(self) -> TryRecord:
        """Make the try from its home to its end; nothing of it is left on the host."""
        began, started = time.monotonic(), datetime.now(UTC)
        self._fault = KINDS[self.name.fault]()
        source = self.name.random()
        timeline = BOOTING_TIMELINE if self._fault.boots else self.reference.timeline
        when = moment(source, timeline, in_suite=self._fault.in_guest)
        record = TryRecord(
            name=str(self.name), fault=self.name.fault, started=started, lab=self.revision, moment=str(when)
        )
        try:
            self._disturbed(when, source, record)
            self._look_for_leftovers("lab clean", resumed=False)
            self._complete()
        except (LabError, OSError, subprocess.SubprocessError) as error:
            self.findings.append(f"the campaign could not go on: {error}")
        finally:
            self._take_down()
        record.statuses, record.findings = self.statuses, self.findings
        record.seconds = round(time.monotonic() - began, 1)
        # Records are published: the folders of a host say nothing to others.
        return TryRecord.model_validate_json(record.model_dump_json().replace(str(self.home.base), "LAB_HOME"))

    # -- the disturbed run

    def _disturbed(self, when: Moment, source: Any, record: TryRecord) -> None:
        self.home.make()
        self._fault.prepare(self.home)
        self.home.fill_cache(states=not self._fault.boots)
        host.clear_logs()
        process = self._start("run", *PLAN, "-o", str(self.home.run))
        scene = Scene(self.home, process, source, self.lab)
        limit = time.monotonic() + RUN_SECONDS
        try:
            if wait_for(when, self.home, process, limit):
                record.doing, began = last_step(self.home.run), time.monotonic()
                try:
                    record.happened = self._fault.inject(scene)
                    if (now := last_step(self.home.run)) != record.doing:
                        record.doing += f"; when it was done: {now}"
                except (LabError, ProcessLookupError, psutil.NoSuchProcess) as error:
                    record.doing += f"; not done: {error}"
                # A fault may itself take minutes: a second lab, a lab that stands still.
                limit += time.monotonic() - began
            status = self._end("run", process, limit)
        finally:
            self._fault.mend(scene)
        host.start_daemons()
        allowed = self._fault.statuses if record.happened else {0}
        if status is not None and status not in allowed:
            self.findings.append(f"the run ended with {status}, expected one of {sorted(allowed)}")
        if run := self._results():
            self.findings += checks.untrue(self.reference.table, run)
            record.cells = {name: str(square) for name, square in checks.table_of(run).items()}
            reasons = {c.name: c.reason for c in run.cells if c.status.could_not_run}
            record.cells |= {name: f"{record.cells[name]}: {why[:300]}" for name, why in reasons.items()}
        self.findings += self._fault.check(scene)

    def _results(self) -> RunResult | None:
        """The run's results; None if it ended before there were any."""
        if not (self.home.run / RESULTS_FILE).exists():
            return None
        try:
            return RunResult.read(self.home.run)
        except UsageError as error:
            self.findings.append(f"the results cannot be read: {error}")
            return None

    # -- afterwards

    def _look_for_leftovers(self, after: str, *, resumed: bool = True) -> None:
        status, output = self.lab("clean", "clean", seconds=CLEAN_SECONDS)
        if status != 0:
            self.findings.append(f"lab clean ended with {status}: {output[-300:]}")
        end = time.monotonic() + VANISH_SECONDS
        while left := checks.find(self.home, self._fault.mounts, resumed=resumed):
            if time.monotonic() > end:
                break
            time.sleep(0.5)
        self.findings += [f"left after {after}: {each}" for each in left]

    def _complete(self) -> None:
        """Resume the run until it is whole, and compare its table with that of an undisturbed run."""
        for _ in range(MOST_RESUMES):
            run = self._results()
            if run is not None and not checks.unfinished(run):
                break
            if run is None:
                self.lab("run again", *PLAN, "-o", str(self.home.run), seconds=RUN_SECONDS)
            else:
                self.lab("resume", *RESUME, str(self.home.run), seconds=RUN_SECONDS)
        else:
            if (run := self._results()) is None or checks.unfinished(run):
                self.findings.append(f"not complete after {MOST_RESUMES} times --resume")
                return
        if run is None:
            return
        self.findings += [f"at the end: {each}" for each in checks.untrue(self.reference.table, run)]
        what, status = self.statuses[-1]
        if status != 0:
            self.findings.append(f"{what} ended with {status} although every cell is as expected")
        if len(self.statuses) > 2:
            self._look_for_leftovers("--resume and lab clean")

    # -- commands of the lab

    def lab(self, what: str, *words: str, seconds: float = CLEAN_SECONDS) -> tuple[int | None, str]:
        """Run a command of the lab to its end: its exit status, None if it hung, and its output."""
        process = self._start(what, *words)
        status = self._end(what, process, time.monotonic() + seconds)
        return status, self._output(what).read_text(errors="replace")

    def _output(self, what: str) -> Path:
        return self.home.base / f"output-{what.replace(' ', '-')}.txt"

    def _start(self, what: str, *words: str) -> subprocess.Popen[bytes]:
        program = "tests.campaign.lab_with_keys" if self._fault.in_guest else "lab"
        with self._output(what).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", program, *words],
                cwd=ROOT,
                env=self.home.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=self._fault.umask,
            )

    def _end(self, what: str, process: subprocess.Popen[bytes], limit: float) -> int | None:
        status: int | None = None
        try:
            status = process.wait(max(1.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.findings.append(f"{what}: hung, killed at its limit; {last_step(self.home.run)}")
            self._kill(process)
        self.statuses.append((what, status))
        output = self._output(what).read_text(errors="replace")
        if status == BUG or "Traceback (most recent call last)" in output:
            self.findings.append(f"{what}: a bug of the lab: {output.strip().splitlines()[-1][:300]}")
        return status

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)

    def _take_down(self) -> None:
        """Leave nothing on the host, whatever the try has left."""
        for each in checks.running():
            if checks.processes_left(self.home.base, host.lanes(), [each]):
                with suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGKILL)
        for domain in host.domains() or []:
            host.virsh("destroy", domain)
        for folder in self._fault.mounts:
            host.unmount(folder)


def wait_for(when: Moment, home: Home, process: "subprocess.Popen[bytes]", limit: float) -> bool:
    """Wait for a moment of the run; False if the run ended before it, or did not come so far in time.

    If the step ends sooner than in the undisturbed run, its end is the moment.
    """
    reached = time.monotonic()
    while when.after is not None and len(steps(home.run)) <= when.after:
        if process.poll() is not None or time.monotonic() > limit:
            return False
        time.sleep(0.05)
        reached = time.monotonic()
    while time.monotonic() < reached + when.delay:
        if process.poll() is not None:
            return False
        if when.ends is not None and len(steps(home.run)) > when.ends:
            break
        time.sleep(0.02)
    return True


def make_reference(home: Home, revision: str) -> Reference:
    """Run the plan undisturbed. Raises LabError if it does not end as expected."""
    attempt = Attempt(Name(0, 0, "none"), home, revision, Reference(table={}, timeline=BOOTING_TIMELINE))
    try:
        home.make()
        home.fill_cache()
        began = datetime.now(UTC)
        status, output = attempt.lab("run", *PLAN, "-o", str(home.run), seconds=RUN_SECONDS)
        ended = datetime.now(UTC)
        if status != 0:
            raise LabError(f"the undisturbed run ended with {status}:\n{output[-2000:]}")
        made = RunResult.read(home.run)
        if retried := [f"{cell.variant}: {why}" for cell in made.cells for why in cell.retried]:
            raise LabError(f"the undisturbed run met a fault, so it is no measure: {'; '.join(retried)}")
        attempt._look_for_leftovers("an undisturbed run")
        if attempt.findings:
            raise LabError("the undisturbed run: " + "; ".join(attempt.findings))
        timeline = Timeline(steps=steps(home.run, began), seconds=(ended - began).total_seconds())
        return Reference(table=checks.table_of(made), timeline=timeline)
    finally:
        attempt._take_down()
