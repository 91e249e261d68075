"""Remedies tried on a cell that failed: each in a fresh fork of it, with its variant still on."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

from lab import catalog, evidence, remedies
from lab.base.errors import NotApplicable
from lab.base.stopwatch import Stopwatch
from lab.builds import SuiteOptions
from lab.guest import remedy_script, variant
from lab.guest.suite import SuiteRun
from lab.lane.attempts import AGAIN, agreed, fault_folder, set_aside
from lab.lane.service import Service
from lab.machine.lane import FAULTS
from lab.plan import Cell
from lab.record import (
    CellResult,
    Expectation,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    Status,
    TestResult,
)
from lab.remedies import AND, Remedy
from lab.trials.changes import Change
from lab.verdict.status import judge

FOLDER = "remedies"
PROBES_UNDONE_FILE = "probes-undone.json"
# Where the evidence of the control goes, where it had to be run alone.
CONTROL = "control"


@dataclass(frozen=True)
class Attempt:
    """What came of remedies on a cell; `causes`: those that the evidence shows with the remedies in place."""

    remedies: tuple[Remedy, ...]
    result: RemedyResult
    causes: tuple[str, ...] | None = None

    def lifted(self, cause: str) -> bool:
        """Whether the evidence no longer shows this cause. Where nobody looked, that is not known."""
        return self.causes is not None and cause not in self.causes


@dataclass
class _Course:
    """An attempt under way: the cell as it is run, where the evidence goes, and what was found so far."""

    cell: Cell
    folder: Path
    defects: list[str] = field(default_factory=list)
    causes: tuple[str, ...] | None = None


def with_remedies(service: Service, cell: Cell, result: CellResult) -> CellResult:
    """A cell's result with what was tried on it, where it failed for a cause that is known.

    No error of the lab's is raised: what it kept from being tried says so. The lane may be dead afterwards.
    """
    if not is_wanted(service, result):
        return result
    return result.model_copy(update={"remedies": Trials(service, cell, result).all()})


def is_wanted(service: Service, result: CellResult) -> bool:
    """Whether remedies are to be tried on a cell."""
    return result.status in (Status.FAIL, Status.XFAIL) and bool(service.work.remedies)


@dataclass(frozen=True)
class Trials:
    """All that is tried on one cell. `before` is its result without a remedy."""

    service: Service
    cell: Cell
    before: CellResult

    def all(self) -> list[RemedyResult]:
        """Every candidate, the one that gives up least first, and then what cures only together."""
        causes = [finding.name for finding in self.before.causes]
        tried = [self._attempt((each,)) for each in remedies.candidates(self.service.work.remedies, causes)]
        tried += self._together(causes, tried)
        return [attempt.result for attempt in tried]

    def _together(self, causes: Sequence[str], alone: Sequence[Attempt]) -> list[Attempt]:
        """Where none cures alone: the cheapest that lifts the first cause, and on top what lifts the next."""
        if any(attempt.result.result is RemedyOutcome.VERIFIED for attempt in alone):
            return []
        tried: list[Attempt] = []
        base = next((attempt for attempt in alone if attempt.lifted(causes[0])), None)
        while base is not None and base.causes:
            more = self._on_top(base, base.causes[0])
            tried += more
            base = more[-1] if more and more[-1].lifted(base.causes[0]) else None
        return tried

    def _on_top(self, base: Attempt, cause: str) -> list[Attempt]:
        """The candidates for a cause that is left, each together with `base`, up to one that lifts it."""
        tried: list[Attempt] = []
        for each in remedies.candidates(self.service.work.remedies, [cause]):
            if each.host is None or each in base.remedies:
                continue
            tried.append(self._attempt((*base.remedies, each)))
            if tried[-1].lifted(cause):
                break
        return tried

    def _attempt(self, these: tuple[Remedy, ...]) -> Attempt:
        name = AND.join(each.name for each in these)
        self.service.say(f"{self.cell.variant.name}: trying {name}")
        folder = self.service.work.folder / self.cell.folder / FOLDER / name
        start = time.monotonic()
        retried: list[str] = []
        outcome, reason, course = self._settled(these, folder, retried)
        if _is_surprising(outcome, course):
            # Of two tries that disagree neither tells of the remedy.
            first, defects = (outcome, reason), course.defects
            outcome, reason, course = self._settled(these, folder / AGAIN, retried)
            outcome, reason = agreed(first, (outcome, reason), RemedyOutcome.ERROR)
            course.defects = list(dict.fromkeys([*defects, *course.defects]))
            if outcome is RemedyOutcome.ERROR:
                course.causes = None
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        result = RemedyResult(
            name=name,
            result=outcome,
            reason=reason,
            price=" ".join(each.price for each in these),
            seconds=round(time.monotonic() - start, 2),
            scripts={each.name: each.digest for each in these if each.host},
            defects=course.defects,
            retried=retried,
            evidence=[str(file.relative_to(self.service.work.folder)) for file in files],
        )
        return Attempt(these, result, course.causes)

    def _settled(
        self, these: Sequence[Remedy], folder: Path, retried: list[str]
    ) -> tuple[RemedyOutcome, str, _Course]:
        """A try in a fresh fork, and after a fault of the lab's another; why goes to `retried`."""
        while True:
            course = _Course(self.cell, folder)
            outcome, reason = self._guarded(these, course)
            over = len(retried) == self.service.work.retries or not self.service.is_alive
            if outcome is not RemedyOutcome.ERROR or over:
                return outcome, reason, course
            retried.append(reason)
            set_aside(folder, fault_folder(folder))

    def _guarded(self, these: Sequence[Remedy], course: _Course) -> tuple[RemedyOutcome, str]:
        """As `_try`, with a fault as an outcome. Raises LaneDied where the run is interrupted."""
        try:
            self.service.lane.check_alive()
            return self._try(these, course)
        except NotApplicable as why:
            return RemedyOutcome.CANNOT, str(why)
        except FAULTS as error:
            self.service.lane.check_wanted()
            return RemedyOutcome.ERROR, str(error)

    def _try(self, these: Sequence[Remedy], course: _Course) -> tuple[RemedyOutcome, str]:
        course.cell = self._as_run_with(these)
        course.folder.mkdir(parents=True, exist_ok=True)
        _, mark = self.service.again(course.cell)
        for each in these:
            if each.host and (stopped := self._put_in_place(each, course)):
                return stopped
        environment = {key: value for each in these if each.run for key, value in each.run.environment.items()}
        options = SuiteOptions(environment, to_first_failure=True)
        ran = self.service.run_suite(course.cell, Stopwatch(), options)
        outcome, reason = self._judge(these, ran, options, mark, course)
        hosts = [each for each in these if each.host]
        if hosts:
            self._take_back(hosts, course)
        return outcome, reason

    def _as_run_with(self, these: Sequence[Remedy]) -> Cell:
        """The cell as these remedies have it run. Raises NotApplicable where the guest cannot."""
        more = [name for each in these if each.run for name in each.run.variants]
        if not more:
            return self.cell
        # What contradicts the remedy gives way to it: of two containers the suite runs in the remedy's.
        known = catalog.load()
        settings = [Change(name, known.variant(name).knobs) for name in more]
        wanted = reduce(lambda so_far, change: change.on(so_far), settings, self.cell.variant)
        reason = variant.why_not_applicable(wanted, self.service.facts)
        if reason:
            raise NotApplicable(f"{self.cell.guest.name}: {reason}")
        return replace(self.cell, variant=wanted)

    def _put_in_place(self, each: Remedy, course: _Course) -> tuple[RemedyOutcome, str] | None:
        """Run the remedy's script; the outcome where there is nothing more to be tried."""
        assert each.host is not None
        script = each.script()
        (course.folder / f"{each.name}.sh").write_text(script)
        done = remedy_script.apply(self.service.session, each.name, script, about_user=each.host.about_user)
        (course.folder / f"{each.name}.log").write_text(done.log())
        if done.found_in_place:
            return RemedyOutcome.DOES_NOT_HELP, "it is in place already, and the cell fails all the same"
        if done.last.status == remedy_script.CANNOT:
            said = done.last.output.strip().removeprefix(f"{each.name}: ")
            return RemedyOutcome.CANNOT, said.removeprefix("nothing can be done on this host: ")
        if done.last.status != remedy_script.DONE:
            return RemedyOutcome.ERROR, f"its script failed: {done.last.output.strip()}"
        if done.changed:
            course.defects.append(f"run again, its script changed {', '.join(done.changed)}")
        return None

    def _judge(
        self, these: Sequence[Remedy], ran: SuiteRun, options: SuiteOptions, mark: variant.Mark, course: _Course
    ) -> tuple[RemedyOutcome, str]:
        told = [test for test in ran.tests if test.outcome is not Outcome.NOT_RUN]
        failed = next((test for test in told if test.outcome.is_failure), None)
        if failed is None and not ran.killed:
            self.service.gather(course.cell, course.folder, mark=mark, full=False)
            outcome, reason = _without_failure(these, ran.tests)
            course.causes = () if outcome is RemedyOutcome.VERIFIED else None
            return outcome, reason
        self.service.gather(course.cell, course.folder, mark=mark, full=True)
        findings = self.service.diagnose(course.folder, [*told, *self._control(told, options, mark, course)])
        course.causes = tuple(finding.name for finding in findings)
        emulated = not self.service.lane.acceleration.kvm
        verdict = judge(
            self.service.work.suite, told, Expectation(), findings, killed=ran.killed, emulated=emulated
        )
        if verdict.status is Status.ERROR or failed is None:
            return RemedyOutcome.ERROR, verdict.reason
        passed = {test.name for test in self.before.tests if test.outcome is Outcome.PASS}
        if failed.name in passed:
            return RemedyOutcome.MAKES_WORSE, f"{failed.name} passed without it: {verdict.reason}"
        return RemedyOutcome.DOES_NOT_HELP, f"{failed.name} fails all the same: {verdict.reason}"

    def _control(
        self, told: Sequence[TestResult], options: SuiteOptions, mark: variant.Mark, course: _Course
    ) -> list[TestResult]:
        """The control, of a suite that stopped before it: without it the rules know too little.

        Where it passed without a remedy, that result does; where it failed, that may be just what is cured.
        """
        control = self.service.work.suite.control
        if any(test.name == control for test in told):
            return []
        if before := [
            test for test in self.before.tests if test.name == control and test.outcome is Outcome.PASS
        ]:
            return before
        options = replace(options, tests=(control,), to_first_failure=False)
        ran = self.service.run_suite(course.cell, Stopwatch(), options)
        folder = course.folder / CONTROL
        folder.mkdir(exist_ok=True)
        self.service.gather(course.cell, folder, mark=mark, full=False)
        return ran.tests

    def _take_back(self, hosts: Sequence[Remedy], course: _Course) -> None:
        """Undo the remedies; that it did not is a defect of theirs, whatever they did for the cell."""
        session = self.service.session
        for each in reversed(hosts):
            assert each.host is not None
            undone = remedy_script.undo(session, each.name, each.script(), about_user=each.host.about_user)
            with (course.folder / f"{each.name}.log").open("a") as log:
                log.write(undone.log())
            if undone.last.status != remedy_script.DONE:
                course.defects.append(f"its undo failed: {undone.last.output.strip()}")
        probes = variant.probe(session, self.cell.variant, probes=True)
        (course.folder / PROBES_UNDONE_FILE).write_text(json.dumps(probes, indent=2) + "\n")
        cell = self.service.work.folder / self.cell.folder
        before = evidence.read_probes(cell / evidence.PROBES_FILE)
        after = evidence.read_probes(course.folder / PROBES_UNDONE_FILE)
        different = [name for name, probe in before.items() if after[name].status != probe.status]
        if different:
            course.defects.append(f"its undo does not put back what was: {', '.join(different)}")


def _is_surprising(outcome: RemedyOutcome, course: _Course) -> bool:
    """Whether a failure may be a box that died for reasons of its own, as now and then under emulation."""
    unexplained = outcome is RemedyOutcome.DOES_NOT_HELP and course.causes == ()
    return unexplained or outcome is RemedyOutcome.MAKES_WORSE


def _without_failure(these: Sequence[Remedy], tests: Sequence[TestResult]) -> tuple[RemedyOutcome, str]:
    """The outcome where no test failed: a test that was skipped or did not run is no pass."""
    others = [test for test in tests if test.outcome is not Outcome.PASS]
    if not others:
        return RemedyOutcome.VERIFIED, ""
    names = ", ".join(test.name for test in others)
    skipped = all(test.outcome is Outcome.SKIP for test in others)
    if skipped and any(each.run for each in these):
        return RemedyOutcome.AVOIDS, f"skipped: {names}: {others[0].message.removeprefix('Skipped: ')}"
    return RemedyOutcome.ERROR, f"skipped or not run, which is no coverage: {names}"
