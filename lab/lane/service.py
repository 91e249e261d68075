"""One lane at work: the guest is booted once and each build deployed once, then cells run in forks of that."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import causes
from lab import evidence as diagnosis_evidence
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.base.stopwatch import Stopwatch
from lab.base.wait import DeadlineExpired
from lab.builds import WHOLE_SUITE, Build, SuiteOptions
from lab.catalog import Suite, Variant
from lab.guest import access, collect, deploy, ready, variant
from lab.guest import suite as guest_suite
from lab.guest.session import Session
from lab.guest.suite import SuiteRun
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Processors
from lab.machine.checkpoint import Checkpoint, CheckpointFailed, DiskCheckpoint, MemoryCheckpoint
from lab.machine.lane import FAULTS, Lane, LaneDied
from lab.machine.states import Damaged, Known, States, StoredState
from lab.plan import Cell
from lab.record import CellResult, Experiments, Finding, LaneRecord, Outcome, Status, TestResult
from lab.remedies import Remedy
from lab.verdict.status import judge

COLD = "cold"
# Names of snapshots in a lane's overlay.
BOOT, BASE, DEPLOYED = "boot", "base", "build"
POWER_OFF_SECONDS = 10.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """What every lane of a run needs to know. `build`: the one of all cells, None where there are several.

    `remedies` and the changes of experiments are tried again after a fault of the lab's own, `retries` times.
    """

    paths: Paths
    folder: Path
    suite: Suite
    rootfs: Path
    processors: Processors
    build: Build | None
    cold: bool = False
    remedies: Mapping[str, Remedy] = field(default_factory=dict)
    experiments: Experiments = Experiments.NEVER
    retries: int = 0


@contextmanager
def turn(processors: Processors, count: int, what: str, *, how: Acceleration, say: Say) -> Iterator[None]:
    """Hold `count` processors for something that keeps an emulated guest's busy; under KVM nobody waits."""
    if how.kvm:
        say(what)
        yield
        return
    with processors.turn(count, lambda: say("waiting for a processor")):
        say(what)
        yield


@dataclass
class Service:
    """A lane from its start to its last cell. `states`: where the guest's states are kept, if they may be."""

    work: Work
    lane: Lane
    say: Say
    states: States | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    served: int = 0
    # The stored state that was taken up, and what was deployed in it.
    restored: bool = False
    found_deployed: dict[str, str] = field(default_factory=dict)
    _base: Checkpoint | None = None
    _deployed: dict[str, Checkpoint | None] = field(default_factory=dict)
    _files: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.session = Session(
            self.lane.endpoint, alive=self.lane.check_alive, factor=self._acceleration.factor
        )

    @property
    def is_alive(self) -> bool:
        """Whether its machine still runs."""
        try:
            self.lane.check_alive()
        except LaneDied:
            return False
        return True

    @property
    def _acceleration(self) -> Acceleration:
        return self.lane.acceleration

    def start(self) -> None:
        """Boot the guest, or take up a stored state of it, and read its facts. Raises LabError."""
        self.restored = self._restore(self._deployment) or self._restore()
        if not self.restored:
            self._boot()
            self._store_boot()
        with self.watch.step("boot"):
            self.facts = variant.read_facts(self.session)
        if self.work.build is None and not self.work.cold:
            # Each build is deployed from here, so that none sees what another left.
            self._base = self._checkpoint(BASE)

    def prepare(self, build: Build) -> dict[str, str] | None:
        """Deploy the build and take its checkpoint; the files deployed, None where that was done before.

        Each file with its SHA-256. Raises NotApplicable where this build has nothing for this guest, LabError
        for a fault.
        """
        if build.name in self._deployed:
            return None
        files = self.found_deployed or self._deploy(build)
        self._files[build.name] = files
        self._deployed[build.name] = (
            None if self.work.cold else self._checkpoint(f"{DEPLOYED}-{len(self._deployed)}")
        )
        return files

    def keep(self) -> None:
        """Store the lane's deployed build for later lanes. The lane has served its last cell: it is stopped.

        Where that cannot be, the note says why: all that the lane was for is done.
        """
        build = self.work.build
        if not self.states or build is None or self.found_deployed:
            return
        checkpoint = self._deployed.get(build.name)
        if not isinstance(checkpoint, MemoryCheckpoint) or not self.states.wanted(self._deployment):
            return
        endpoint = self.lane.endpoint
        known = Known(checkpoint.tag, endpoint.client_key, endpoint.host_key, self._files[build.name])
        try:
            with self.watch.step("checkpoint"):
                self.session.close()
                self.lane.check_alive()
                self.lane.stop()
                self.lane.rewind(checkpoint.tag)
                self.states.keep(self.lane.overlay, known, self._deployment)
        except FAULTS as error:
            self._add_note(f"the deployed build was not stored: {str(error).splitlines()[0]}")

    @property
    def _deployment(self) -> str:
        """What a stored state with the run's build goes by; empty where there are several builds."""
        if self.work.build is None:
            return ""
        return deploy.identity(self.work.build, self.work.rootfs)

    def _deploy(self, build: Build) -> dict[str, str]:
        with self.watch.step("fetch"):
            files = build.fetch(self.work.paths, self.facts, self.say)
        if self._base:
            self._fork(self._base)
        with self._turn(1, "deploying"), self.watch.step("deploy"):
            deploy.deploy(self.session, build, files, rootfs=self.work.rootfs, say=self.say)
        return build.record(files).files

    def record(self) -> LaneRecord:
        ways = {checkpoint.way for checkpoint in self._deployed.values() if checkpoint}
        return LaneRecord(
            guest=self.lane.guest.name,
            image=self.lane.image.manifest.disk_sha256,
            way=ways.pop() if ways else COLD,
            note=self.note,
            restored=self.restored,
            stored_build=bool(self.found_deployed),
            seconds=dict(self.watch.seconds),
        )

    def not_applicable(self, cell: Cell) -> CellResult | None:
        """The result of a cell whose variant makes no sense on this guest, or None for one to run."""
        reason = self.why_not(cell)
        return None if reason is None else self.left_out(cell, reason)

    def left_out(self, cell: Cell, reason: str) -> CellResult:
        """The result of a cell that makes no sense on this guest, with the facts that say so."""
        result = cell.result(Status.NOT_APPLICABLE, reason=reason)
        return result.model_copy(update={"facts": self.facts})

    def why_not(self, cell: Cell) -> str | None:
        """Why the cell's variant makes no sense on this guest, or None where it does."""
        if cell.machine.arguments and self.lane.image.firmware is not None:
            return "its own loader decides what its kernel is booted with"
        return variant.why_not_applicable(cell.variant, self.facts)

    def run(self, cell: Cell, folder: Path) -> CellResult:
        """Run one cell in a fork (or in the lane as it is, where there is no checkpoint); evidence to `folder`.

        Its build is prepared already. Raises LabError.
        """
        checkpoint = self._deployed[cell.build.name]
        self.served += 1
        watch = Stopwatch() if checkpoint else self.watch
        self.say(cell.variant.name)
        if checkpoint:
            with watch.step("fork"):
                self._fork(checkpoint)
        with watch.step("apply"):
            facts, mark = self.apply(cell.variant)
        ran = self.run_suite(cell, watch)
        folder.mkdir(parents=True, exist_ok=True)
        clean = all(test.outcome is Outcome.PASS for test in ran.tests)
        with watch.step("evidence"):
            self.gather(cell, folder, mark=mark, full=not clean)
        findings = [] if clean else self.diagnose(folder, ran.tests)
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
                "causes": findings,
                "tests": ran.tests,
                "facts": facts,
                "seconds": dict(watch.seconds),
                "way": checkpoint.way if checkpoint else COLD,
            }
        )

    def run_suite(self, cell: Cell, watch: Stopwatch, options: SuiteOptions = WHOLE_SUITE) -> SuiteRun:
        """Run the suite in the lane as it is, when a processor is free. Raises LabError."""
        factor = self._acceleration.factor
        with self._turn(1, f"{cell.variant.name}: running the suite"), watch.step("suite"):
            return guest_suite.run(self.session, cell.build, cell.variant, factor=factor, options=options)

    def diagnose(self, folder: Path, tests: Sequence[TestResult]) -> list[Finding]:
        """What the evidence in a folder shows of a suite that ran so, the first cause that blocks first."""
        return causes.diagnose(diagnosis_evidence.read(folder, tests, control=self.work.suite.control))

    def again(self, cell: Cell) -> tuple[dict[str, Any], variant.Mark]:
        """Fork the cell anew and put its variant on, as `run` does; what `apply` returns."""
        checkpoint = self._deployed[cell.build.name]
        assert checkpoint is not None
        self._fork(checkpoint)
        return self.apply(cell.variant)

    def apply(self, wanted: Variant) -> tuple[dict[str, Any], variant.Mark]:
        """Put a variant on and read it back; the facts of the guest then, and the mark in its kernel log.

        Raises NotAsDefined or NotInEffect where the guest does not show its own settings or the variant's.
        """
        mark = variant.Mark(f"lab-cell-begins {self.lane.name} {wanted.name}")
        facts = variant.begin(self.session, wanted, mark=mark)
        who = variant.probe(self.session, wanted, probes=False)
        if "selinux" not in wanted.knobs:  # What a variant changes of that is read back as its own.
            ready.check_as_defined(self.lane.guest, facts)
        variant.check_in_effect(wanted, facts, who)
        return {**facts, "suite_context": who["context"]}, mark

    def _turn(self, count: int, what: str) -> AbstractContextManager[None]:
        return turn(self.work.processors, count, what, how=self._acceleration, say=self.say)

    def _checkpoint(self, tag: str) -> Checkpoint:
        """Take a checkpoint the best way that this lane allows; `note` says why, where it is not the best."""
        self.say("taking a checkpoint")
        with self.watch.step("checkpoint"):
            self.session.close()
            try:
                return MemoryCheckpoint.take(self.lane, tag)
            except LaneDied:
                raise
            except LabError as error:
                self._add_note(f"no checkpoint of memory ({error}); every cell boots from the deployed disk")
                self._power_off()
                return DiskCheckpoint(self.lane, tag)

    def _fork(self, checkpoint: Checkpoint) -> None:
        self.session.close()
        checkpoint.fork()
        if checkpoint.boots:
            self._wait_ready()
        else:
            self.session.wait_open(ready.BOOT_SECONDS * self._acceleration.factor, listening=True)

    def _restore(self, deployment: str = "") -> bool:
        """Whether the lane could take up a stored state; one that cannot be used is dropped."""
        stored = self.states.find(deployment) if self.states else None
        if stored is None:
            return False
        self.say("restoring its boot" if not deployment else "restoring the deployed build")
        try:
            with self.watch.step("boot"):
                self._take_up(stored)
        except (LabError, OSError) as error:
            self.lane.check_wanted()
            if isinstance(error, (CheckpointFailed, DeadlineExpired, Damaged)):
                stored.refuse(str(error))
            self._add_note(f"a stored state could not be used: {str(error).splitlines()[0]}")
            self._start_over()
            return False
        return True

    def _start_over(self) -> None:
        """Back to an empty overlay, with keys of the lane's own."""
        self.session.close()
        self.lane.stop()
        self.lane.prepare()
        self.session.use(self.lane.endpoint)

    def _take_up(self, stored: StoredState) -> None:
        known = stored.known()
        self.lane.adopt(stored)
        self.session.use(self.lane.endpoint)
        self.lane.start(paused=True)
        taken = MemoryCheckpoint(self.lane, known.tag)
        taken.fork()
        # A checkpoint of this lane's own may take its name, and its room.
        taken.drop()
        self.lane.resume()
        self.session.wait_open(ready.BOOT_SECONDS * self._acceleration.factor, listening=True)
        # The stored keys have been on disk: this lane goes on with a client key of its own.
        self.lane.endpoint = access.renew(self.session, self.lane.endpoint)
        self.found_deployed = known.files

    def _store_boot(self) -> None:
        """Keep this boot for later lanes, and go on from it: one that cannot be used shows at once."""
        if self.states is None or not self.states.wanted():
            return
        self.say("storing its boot")
        self.session.close()
        endpoint = self.lane.endpoint
        with self.watch.step("boot"):
            try:
                MemoryCheckpoint.take(self.lane, BOOT)
            except CheckpointFailed:
                return  # The checkpoint of the deployed build will say why.
            self.lane.stop()
            kept = self.states.keep(self.lane.overlay, Known(BOOT, endpoint.client_key, endpoint.host_key))
        if kept is None:
            # The overlay may be gone with what could not be stored.
            self._start_over()
        if not self._restore():
            self._boot()

    def _boot(self) -> None:
        """Boot, and once more where the machine dies before it is up: emulated ones sometimes do."""
        # A turn is waited for outside of the step: what is measured is the boot.
        with self._turn(self.lane.guest.cpus, "booting"), self.watch.step("boot"):
            try:
                self.lane.start()
                self._wait_ready()
            except LaneDied as error:
                self._add_note(f"booted twice: {str(error).splitlines()[0]}")
                self.session.close()
                self.lane.stop()
                self.lane.new_overlay(self.lane.image.disk)
                self.lane.start()
                self._wait_ready()

    def _add_note(self, text: str) -> None:
        self.say(text)
        self.note = "; ".join(filter(None, [self.note, text]))

    def _wait_ready(self) -> None:
        ready.wait_up(self.session, self.lane, factor=self._acceleration.factor)

    def gather(self, cell: Cell, folder: Path, *, mark: variant.Mark, full: bool) -> None:
        """Fetch the evidence of a suite that ran; `full`, all that can explain a failure. Raises LabError."""
        if full:
            self.say(f"{cell.variant.name}: gathering evidence")
            probes = variant.probe(self.session, cell.variant, probes=True)
            (folder / diagnosis_evidence.PROBES_FILE).write_text(json.dumps(probes, indent=2) + "\n")
        collect.collect(self.session, folder, cell.variant, mark=mark, full=full)
        if full:
            (folder / "console.log").write_text(self.lane.console_text())

    def _power_off(self) -> None:
        self.session.run("sudo -n sh -c 'sync; systemctl poweroff --no-block'", seconds=10)
        self.session.close()
        self.lane.wait_until_off(POWER_OFF_SECONDS * self._acceleration.factor)
