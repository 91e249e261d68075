"""Remedies tried on a cell that failed: each in a fresh fork of it, with its variant still in effect."""

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

from lab import catalog, causes
from lab.base.activity import Activity, Progress
from lab.base.wait import Stopwatch
from lab.builds import SuiteOptions
from lab.catalog import Change, Variant, remedies
from lab.catalog.remedies import AND, Remedy
from lab.causes import evidence
from lab.guest import remedy_script, variant
from lab.lane import cell as lane_cell
from lab.lane.running import RunningLane
from lab.plan import Cell
from lab.probes import Probes
from lab.record import (
    CellResult,
    CellTrials,
    Fault,
    Needs,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RunOptions,
    Status,
    SuiteRun,
    TestResult,
)
from lab.trials.fork import Fork, Tries, find_first_failure, list_evidence_files, list_run_tests

PROBES_UNDONE_FILE = "probes-undone.json"
# Where the evidence of the control goes if it had to be run alone.
CONTROL = "control"
# The runs of a remedy's script that put it in place: the check, and the first that changes something.
FIRST_RUNS = 2
# How much of what a script printed before it failed is part of the reason.
LAST_LINES = 2


@dataclass
class RemedyAttempt:
    """Remedies put in place in one fork of the cell. `defects`, `causes`, `fault`: what it found besides."""

    running: RunningLane
    cell: Cell
    earlier_result: CellResult
    remedies: Sequence[Remedy]
    folder: Path
    watch: Stopwatch = field(default_factory=Stopwatch)
    defects: list[str] = field(default_factory=list)
    causes: tuple[str, ...] | None = None
    fault: Fault | None = None

    def run(self) -> tuple[RemedyOutcome, str]:
        """Put them in place, run the suite to its first failure, judge, and undo them."""
        cell = self._cell_with_remedies()
        fork = Fork.make(self.running, cell, self.folder, self.watch)
        before = self._read_probes(cell) if self._hosts else None
        for remedy in self._hosts:
            if result := self._put_in_place(remedy):
                return result
        environment = {
            k: v for remedy in self.remedies if remedy.run for k, v in remedy.run.environment.items()
        }
        options = SuiteOptions(environment, to_first_failure=True)
        outcome, reason = self._read(fork, fork.run(options), options)
        if self._hosts:
            with self.watch.step("undo"):
                self._undo(cell.variant, before)
        return outcome, reason

    def _read_probes(self, cell: Cell) -> Probes | None:
        """What the probes say before anything of the host is changed; None if nobody knows."""
        if cell.variant != self.cell.variant:
            # In another container or service than the cell's they say something else to begin with.
            return variant.probe_user(self.running.session, cell.variant).probes
        probes = evidence.read_evidence(self.running.work.folder / self.cell.folder).probes
        return probes if probes.ran else None  # Somebody deleted that evidence.

    @property
    def _hosts(self) -> list[Remedy]:
        """Those that change the host."""
        return [remedy for remedy in self.remedies if remedy.host]

    def _cell_with_remedies(self) -> Cell:
        """The cell as these remedies have it run: what contradicts a remedy gives way to it.

        So of two containers the suite runs in the remedy's.
        """
        definitions = catalog.load_catalog()
        runs = [remedy.run for remedy in self.remedies if remedy.run]
        choices = [map(definitions.variant, names) for run in runs for names in run.variants]
        changes = [Change(each.name, each.knobs) for each in map(self._choose_variant, choices)]
        changes += [Change("service", {"service": run.service}) for run in runs if run.service]
        return replace(
            self.cell, variant=reduce(lambda so_far, change: change.on(so_far), changes, self.cell.variant)
        )

    def _choose_variant(self, variants: Iterable[Variant]) -> Variant:
        """The first of these variants that makes sense on the guest, or else the first."""
        first, *others = variants
        facts = self.running.facts
        return next((each for each in (first, *others) if not variant.explain_inapplicable(each, facts)), first)

    def _put_in_place(self, remedy: Remedy) -> tuple[RemedyOutcome, str] | None:
        """Run a remedy's script; the outcome if there is nothing more to try, otherwise None."""
        (self.folder / f"{remedy.name}.sh").write_text(remedy.script())
        with self.watch.step("remedy"):
            script_run = remedy_script.run_script(self.running.session, remedy)
        (self.folder / f"{remedy.name}.log").write_text(script_run.log())
        if script_run.found_in_place:
            return RemedyOutcome.DOES_NOT_HELP, "it is in place already, and the cell fails all the same"
        output = script_run.last.output.strip()
        if script_run.last.status == remedy_script.CANNOT:
            output = output.removeprefix(f"{remedy.name}: ")
            return RemedyOutcome.CANNOT, output.removeprefix("nothing can be done on this host: ")
        if script_run.last.status != remedy_script.DONE:
            subject = "run again, it" if len(script_run.runs) > FIRST_RUNS else "it"
            # The script explains itself first; all that it printed is in its log.
            last_lines = "; ".join(output.splitlines()[-LAST_LINES:])
            return (
                RemedyOutcome.SCRIPT_FAILS,
                f"{subject} ended with exit status {script_run.last.status}: {last_lines}",
            )
        if script_run.changed:
            self.defects.append(f"run again, its script changed {', '.join(script_run.changed)}")
        return None

    def _read(self, fork: Fork, suite_run: SuiteRun, options: SuiteOptions) -> tuple[RemedyOutcome, str]:
        """What the suite says of the remedies."""
        failure = find_first_failure(suite_run)
        if failure is None and not suite_run.cut_short:
            fork.gather(full=False)
            # A test that was skipped or did not run is no pass.
            not_passed = [test for test in suite_run.tests if test.outcome is not Outcome.PASS]
            if not not_passed:
                self.causes = ()
                return RemedyOutcome.VERIFIED, ""
            names = ", ".join(test.name for test in not_passed)
            are_skipped = all(test.outcome is Outcome.SKIP for test in not_passed)
            if are_skipped and any(remedy.run for remedy in self.remedies):
                message = not_passed[0].message.removeprefix("Skipped: ")
                return RemedyOutcome.AVOIDS, f"skipped: {names}: {message}"
            return RemedyOutcome.ERROR, f"skipped or not run, so not covered: {names}"
        fork.gather(full=True)
        tests = list_run_tests(suite_run)
        findings = lane_cell.diagnose_cell(
            self.cell, self.folder, [*tests, *self._control(fork, tests, options)]
        )
        if any(remedy.has_no_sandbox for remedy in self.remedies):
            # What blocks only the sandbox is still to be seen on the host if a box is started without one, but
            # it explains no failure of that box.
            rows = causes.list_causes()
            findings = [
                finding for finding in findings if not rows[finding.name].breaks.includes(Needs.SANDBOX)
            ]
        self.causes = tuple(finding.name for finding in findings)
        verdict = fork.judge(suite_run, findings)
        self.fault = verdict.fault
        if verdict.status is Status.ERROR or failure is None:
            return RemedyOutcome.ERROR, verdict.reason
        passed = {test.name for test in self.earlier_result.tests if test.outcome is Outcome.PASS}
        if failure.name in passed:
            return RemedyOutcome.MAKES_WORSE, f"{failure.name} passed without it: {verdict.reason}"
        return RemedyOutcome.DOES_NOT_HELP, f"{failure.name} fails all the same: {verdict.reason}"

    def _control(self, fork: Fork, tests: Sequence[TestResult], options: SuiteOptions) -> list[TestResult]:
        """The control's result if the suite stopped before it: without it the rules know too little.

        If it passed without a remedy, that result will do. If it failed, the remedy may have cured just that,
        so it is run again.
        """
        control = self.cell.build.suite.control
        if not control or any(test.name == control for test in tests):
            return []
        passed = [test for test in self.earlier_result.tests if test.outcome is Outcome.PASS]
        if control_results := [test for test in passed if test.name == control]:
            return control_results
        suite_run = fork.run(replace(options, tests=(control,), to_first_failure=False))
        fork.gather(full=False, folder=self.folder / CONTROL)
        return suite_run.tests

    def _undo(self, changed: Variant, before: Probes | None) -> None:
        """Undo the remedies. If that fails it is a defect of theirs, whatever they did for the cell.

        `changed` is the variant as they have it. `before`: what the probes said before the host was changed.
        """
        for remedy in reversed(self._hosts):
            undo_run = remedy_script.run_script(self.running.session, remedy, undo=True)
            with (self.folder / f"{remedy.name}.log").open("a") as log:
                log.write(undo_run.log())
            if undo_run.last.status != remedy_script.DONE:
                self.defects.append(f"its undo failed: {undo_run.last.output.strip()}")
        probed = variant.probe_user(self.running.session, changed)
        (self.folder / PROBES_UNDONE_FILE).write_text(probed.model_dump_json(indent=2) + "\n")
        probes, earlier = probed.probes.by_name(), before.by_name() if before else {}
        changed_probes = [name for name, probe in earlier.items() if probes[name].status != probe.status]
        if changed_probes:
            self.defects.append(f"its undo does not put back what was: {', '.join(changed_probes)}")


def is_surprising(outcome: RemedyOutcome, _reason: str, attempt: RemedyAttempt) -> bool:
    """Whether a failure may be a box that died for its own reasons, as now and then under emulation."""
    is_unexplained = outcome is RemedyOutcome.DOES_NOT_HELP and attempt.causes == ()
    return is_unexplained or outcome is RemedyOutcome.MAKES_WORSE


FOLDER = "remedies"


@dataclass(frozen=True)
class RemedyTrial:
    """What came of remedies on a cell."""

    remedies: tuple[Remedy, ...]
    result: RemedyResult

    def lifted(self, cause: str) -> bool:
        """Whether the evidence no longer shows this cause; False if nobody looked."""
        return self.result.causes is not None and cause not in self.result.causes


def wants_remedies(options: RunOptions, result: CellResult) -> bool:
    """Whether remedies are to be tried on a cell."""
    return options.remedies and result.status.failed


def add_remedies(
    options: RunOptions,
    running: RunningLane,
    cell: Cell,
    result: CellResult,
    keep: Callable[[RemedyResult], None],
) -> CellResult:
    """A cell's result with what its remedies did, if it failed for a known cause.

    Remedies that the result has already are not tried again. `keep` is called with what came of each that is
    tried, unless it met a fault. No fault of the lab is raised: the results say what it kept from being tried.
    The lane may be dead afterwards.
    """
    if not wants_remedies(options, result):
        return result
    trials = RemedyTrials(options.retries, running, cell, result, keep)
    return result.with_parts(trials=CellTrials(remedies=trials.all(), experiment=result.trials.experiment))


@dataclass(frozen=True)
class RemedyTrials:
    """All trials of one cell. The remedies in `earlier_result`, its result before them, are not tried again."""

    retries: int
    running: RunningLane
    cell: Cell
    earlier_result: CellResult
    keep: Callable[[RemedyResult], None]

    def all(self) -> list[RemedyResult]:
        """Try every candidate, the one that gives up least first.

        If none cures alone, the cheapest that lifts the first cause is the base, and on top of it come the
        candidates for the next cause that shows, until one lifts that, and so on.
        """
        by_name, names = remedies.load_remedies(), [finding.name for finding in self.earlier_result.causes]
        trials = [self._try((remedy,)) for remedy in remedies.choose_candidates(by_name, names)]
        is_cured = any(trial.result.result is RemedyOutcome.VERIFIED for trial in trials)
        base = None if is_cured else next((trial for trial in trials if trial.lifted(names[0])), None)
        while base is not None and (remaining := base.result.causes):
            below, base = base.remedies, None
            for remedy in remedies.choose_candidates(by_name, remaining[:1]):
                # What only tells boxlite something else is an answer alone, or none.
                if remedy in below or (remedy.run and remedy.run.environment):
                    continue
                trials.append(self._try((*below, remedy)))
                if trials[-1].lifted(remaining[0]):
                    base = trials[-1]
                    break
        results = [trial.result for trial in trials]
        # A combination that nothing leads to now was tried all the same.
        names_tried = {result.name for result in results}
        return results + [result for result in self.earlier_result.remedies if result.name not in names_tried]

    def _try(self, combination: tuple[Remedy, ...]) -> RemedyTrial:
        """What came of these before, or why they are not tried at all, or what comes of them now, in forks."""
        name = AND.join(remedy.name for remedy in combination)
        price = " ".join(remedy.price for remedy in combination)
        if earlier := next((result for result in self.earlier_result.remedies if result.name == name), None):
            return RemedyTrial(combination, earlier)
        if reason := "; ".join(self._not_judged(combination)):
            not_judged = RemedyOutcome.NOT_JUDGED
            return RemedyTrial(
                combination, RemedyResult(name=name, result=not_judged, reason=reason, price=price)
            )
        running = self.running
        running.show(Progress(f"{self.cell.variant.name}: trying {name}", Activity.TRIALS))
        folder = running.work.folder / self.cell.folder / FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)  # From a lane that died.
        start = time.monotonic()
        watch = Stopwatch()
        tries = Tries(running, self.retries, RemedyOutcome.CANNOT, RemedyOutcome.ERROR)
        conclusion = tries.run(
            lambda place: RemedyAttempt(running, self.cell, self.earlier_result, combination, place, watch),
            folder,
            is_surprising=is_surprising,
        )
        disagreed = len(conclusion.attempts) > 1 and conclusion.outcome is RemedyOutcome.ERROR
        result = RemedyResult(
            name=name,
            result=conclusion.outcome,
            reason=conclusion.reason,
            price=price,
            seconds=round(time.monotonic() - start, 2),
            steps=watch.seconds,
            scripts={remedy.name: remedy.digest for remedy in combination if remedy.host},
            defects=list(dict.fromkeys(text for attempt in conclusion.attempts for text in attempt.defects)),
            retried=tries.retried,
            causes=None if disagreed or conclusion.attempt.causes is None else list(conclusion.attempt.causes),
            bug=tries.bug,
            evidence=list_evidence_files(folder, running.work.folder),
        )
        if conclusion.outcome is not RemedyOutcome.ERROR:
            self.keep(result)
        return RemedyTrial(combination, result)

    def _not_judged(self, combination: Sequence[Remedy]) -> list[str]:
        """Why the cell's variant or suite cannot tell what these do on a real host; empty if they can."""
        by_remedy = self.cell.variant.not_judged
        reasons = [by_remedy[remedy.name] for remedy in combination if remedy.name in by_remedy]
        variables = sorted({name for remedy in combination if remedy.run for name in remedy.run.environment})
        if variables and not self.cell.build.heeds_remedies:
            reasons.append(f"the tests of {self.cell.suite.name} ignore {' and '.join(variables)}")
        return reasons
