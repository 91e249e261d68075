"""One lane at work: the guest is booted and the build deployed once, then each cell runs in a fork of that."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import builds
from lab.catalog import Suite, Variant
from lab.diagnosis import causes
from lab.diagnosis import evidence as diagnosis_evidence
from lab.diagnosis.verdict import judge
from lab.errors import LabError
from lab.guest import deploy, evidence, ready, variant
from lab.guest import suite as guest_suite
from lab.guest.session import Session
from lab.machine.acceleration import Acceleration
from lab.machine.checkpoint import Checkpoint, DiskCheckpoint, MemoryCheckpoint
from lab.machine.lane import BootFailed, Lane, LaneDied
from lab.paths import Paths
from lab.plan import Cell
from lab.results import CellResult, LaneRecord, Outcome, Status
from lab.wait import DeadlineExpired

COLD = "cold"
POWER_OFF_SECONDS = 10.0

# Under emulation. A box took from 14 to 28 s with one suite on two processors, beside another guest's boot.
SUITES_AT_ONCE = max(1, (os.cpu_count() or 1) // 2)

Say = Callable[[str], None]


class Stopwatch:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            spent = self.seconds.get(name, 0.0) + time.monotonic() - start
            self.seconds[name] = round(spent, 2)


@dataclass(frozen=True)
class Work:
    """What every lane of a run needs to know."""

    paths: Paths
    folder: Path
    suite: Suite
    rootfs: Path
    cold: bool = False
    # boxlite gives a box 30 s to come up. Under emulation suites side by side would fail that for the lab's
    # own reason.
    suite_turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(SUITES_AT_ONCE))


@dataclass
class Service:
    """A lane from its start to its last cell."""

    work: Work
    lane: Lane
    say: Say
    watch: Stopwatch = field(default_factory=Stopwatch)
    facts: dict[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    note: str = ""

    def __post_init__(self) -> None:
        self.session = Session(
            self.lane.endpoint, alive=self.lane.check_alive, factor=self._acceleration.factor
        )

    @property
    def _acceleration(self) -> Acceleration:
        return self.lane.acceleration

    def bring_up(self, build: builds.Build) -> list[Path]:
        """Boot the guest and deploy the build; returns the wheels that were deployed.

        Raises NotApplicable where this build has nothing for this guest, LabError for a fault.
        """
        self.say("booting")
        with self.watch.step("boot"):
            self._boot()
            self.facts = variant.read_facts(self.session)
        with self.watch.step("wheels"):
            wheels = builds.wheels(self.work.paths, build, self.facts["python"], self.say)
        self.say("deploying")
        with self.watch.step("deploy"):
            deploy.deploy(
                self.session,
                wheels=wheels,
                suite=self.work.suite.folder,
                rootfs=self.work.rootfs,
                progress=self._uploaded,
            )
        return wheels

    def take_checkpoint(self) -> None:
        """Take a checkpoint the best way that this lane allows; `note` says why, where it is not the best."""
        self.say("taking a checkpoint")
        with self.watch.step("checkpoint"):
            self.session.close()
            try:
                self.checkpoint = MemoryCheckpoint(self.lane)
            except LaneDied:
                raise
            except LabError as error:
                why = f"no checkpoint of memory ({error}); every cell boots from the deployed disk"
                self.say(why)
                self.note = "; ".join(filter(None, [self.note, why]))
                self._power_off()
                self.checkpoint = DiskCheckpoint(self.lane)

    def record(self) -> LaneRecord:
        return LaneRecord(
            guest=self.lane.guest.name,
            image=self.lane.image.manifest.disk_sha256,
            way=self.checkpoint.way if self.checkpoint else COLD,
            note=self.note,
            seconds=self.watch.seconds,
        )

    def not_applicable(self, cell: Cell) -> CellResult | None:
        """The result of a cell whose variant makes no sense on this guest, or None for one to run."""
        reason = variant.why_not_applicable(cell.variant, self.facts)
        if reason is None:
            return None
        result = cell.result(Status.NOT_APPLICABLE, reason=reason)
        return result.model_copy(update={"facts": self.facts})

    def run(self, cell: Cell) -> CellResult:
        """Run one cell in a fork (or in the lane as it is, where there is no checkpoint). Raises LabError."""
        watch = Stopwatch() if self.checkpoint else self.watch
        self.say(cell.variant.name)
        if self.checkpoint:
            with watch.step("fork"):
                self._fork(self.checkpoint)
        with watch.step("apply"):
            facts, mark = self.apply(cell.variant)
        with self._turn(), watch.step("suite"):
            ran = guest_suite.run(self.session, self.work.suite, cell.variant, factor=self._acceleration.factor)
        folder = self.work.folder / cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        clean = all(test.outcome is Outcome.PASS for test in ran.tests)
        with watch.step("evidence"):
            self._gather(cell, folder, mark=mark, full=not clean)
        outcomes = {test.name: test.outcome for test in ran.tests}
        findings = causes.diagnose(
            diagnosis_evidence.read(folder),
            control_passed=outcomes[self.work.suite.control] is Outcome.PASS,
        )
        verdict = judge(
            self.work.suite,
            ran.tests,
            cell.variant.expect,
            findings,
            killed=ran.killed,
            emulated=not self._acceleration.kvm,
        )
        result = cell.result(verdict.status, reason=verdict.reason)
        return result.model_copy(
            update={
                "cause": verdict.cause,
                "confidence": verdict.confidence,
                "tests": ran.tests,
                "facts": facts,
                "evidence": evidence_of(self.work.folder, cell),
                "seconds": watch.seconds,
                "way": self.checkpoint.way if self.checkpoint else COLD,
            }
        )

    def apply(self, wanted: Variant) -> tuple[dict[str, Any], str]:
        """Put a variant on and read it back; the facts of the guest then, and the mark in its kernel log.

        Raises NotInEffect where the guest does not show the variant's settings.
        """
        mark = f"lab-cell-begins {self.lane.name} {wanted.name}"
        variant.begin(self.session, wanted, mark=mark)
        facts = variant.read_facts(self.session)
        who = variant.probe(self.session, wanted, probes=False)
        variant.check_in_effect(wanted, facts, who)
        return {**facts, "suite_context": who["context"]}, mark

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._acceleration.kvm:
            yield
            return
        self.say("waiting for its turn")
        with self.work.suite_turn:
            self.say("running the suite")
            yield

    def _fork(self, checkpoint: Checkpoint) -> None:
        self.session.close()
        checkpoint.fork()
        if checkpoint.boots:
            self._wait_ready()
        else:
            self.session.wait_open(ready.BOOT_SECONDS * self._acceleration.factor)

    def _boot(self) -> None:
        """Boot, and once more where the machine dies before it is up: emulated ones sometimes do."""
        try:
            self.lane.start()
            self._wait_ready()
        except LaneDied as error:
            self.note = f"booted twice: {str(error).splitlines()[0]}"
            self.say(self.note)
            self.session.close()
            self.lane.stop()
            self.lane.new_overlay(self.lane.image.disk)
            self.lane.start()
            self._wait_ready()

    def _wait_ready(self) -> None:
        try:
            ready.wait_ready(self.session, factor=self._acceleration.factor)
        except DeadlineExpired as error:
            raise BootFailed(
                f"{self.lane.guest.name} did not come up: {error}\n{self.lane.last_words()}"
            ) from error

    def _gather(self, cell: Cell, folder: Path, *, mark: str, full: bool) -> None:
        if full:
            self.say(f"{cell.variant.name}: gathering evidence")
            probes = variant.probe(self.session, cell.variant, probes=True)
            (folder / diagnosis_evidence.PROBES_FILE).write_text(json.dumps(probes, indent=2) + "\n")
        evidence.collect(self.session, folder, mark=mark, full=full)
        if full:
            (folder / "console.log").write_text(self.lane.console_text())

    def _power_off(self) -> None:
        self.session.run("sudo -n sh -c 'sync; systemctl poweroff --no-block'", seconds=10)
        self.session.close()
        self.lane.wait_until_off(POWER_OFF_SECONDS * self._acceleration.factor)

    def _uploaded(self, sent: int, total: int) -> None:
        self.say(f"deploying: {sent / 2**20:.0f} of {total / 2**20:.0f} MiB")


def evidence_of(run: Path, cell: Cell) -> list[str]:
    """The files of a cell's folder, relative to the run's."""
    folder = run / cell.folder
    return sorted(str(file.relative_to(run)) for file in folder.rglob("*") if file.is_file())
