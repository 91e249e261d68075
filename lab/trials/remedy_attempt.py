"""One attempt at remedies in one fork of a cell: put in place, judged by the suite, and undone."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

from lab import catalog, causes, evidence
from lab.base.stopwatch import Stopwatch
from lab.builds import SuiteOptions
from lab.guest import remedy_script
from lab.guest.suite import SuiteRun
from lab.lane.cell import CellRunner
from lab.plan import Cell
from lab.record import CellResult, Finding, Needs, Outcome, RemedyOutcome, Status, TestResult
from lab.remedies import Remedy
from lab.trials.changes import Change
from lab.trials.fork import Fork, first_failure, tests_that_ran

PROBES_UNDONE_FILE = "probes-undone.json"
# Where the evidence of the control goes if it had to be run alone.
CONTROL = "control"
# The runs of a remedy's script that put it in place: the check, and the first that changes something.
FIRST_RUNS = 2
# How much of what a script printed before it failed is part of the reason.
LAST_LINES = 2


@dataclass
class RemedyAttempt:
    """Remedies put in place in one fork of the cell. `defects` and `causes` are what it found besides."""

    runner: CellRunner
    cell: Cell
    before: CellResult
    these: Sequence[Remedy]
    folder: Path
    watch: Stopwatch = field(default_factory=Stopwatch)
    defects: list[str] = field(default_factory=list)
    causes: tuple[str, ...] | None = None

    def run(self) -> tuple[RemedyOutcome, str]:
        """Put them in place, run the suite to its first failure, judge, and undo them."""
        fork = Fork.make(self.runner, self._cell_with_remedies(), self.folder, self.watch)
        for each in self._hosts:
            if stopped := self._put_in_place(each):
                return stopped
        environment = {k: v for each in self.these if each.run for k, v in each.run.environment.items()}
        options = SuiteOptions(environment, to_first_failure=True)
        outcome, reason = self._read(fork, fork.run(options), options)
        if self._hosts:
            with self.watch.step("undo"):
                self._undo()
        return outcome, reason

    @property
    def _hosts(self) -> list[Remedy]:
        """Those that change the host."""
        return [each for each in self.these if each.host]

    def _cell_with_remedies(self) -> Cell:
        """The cell as these remedies have it run: what contradicts a remedy gives way to it.

        So of two containers the suite runs in the remedy's.
        """
        names = [name for each in self.these if each.run for name in each.run.variants]
        if not names:
            return self.cell
        known = catalog.load()
        changes = [Change(name, known.variant(name).knobs) for name in names]
        return replace(
            self.cell, variant=reduce(lambda so_far, change: change.on(so_far), changes, self.cell.variant)
        )

    def _put_in_place(self, each: Remedy) -> tuple[RemedyOutcome, str] | None:
        """Run a remedy's script; the outcome if there is nothing more to try, otherwise None."""
        (self.folder / f"{each.name}.sh").write_text(each.script())
        with self.watch.step("remedy"):
            done = self.runner.guest.apply_remedy(each)
        (self.folder / f"{each.name}.log").write_text(done.log())
        if done.found_in_place:
            return RemedyOutcome.DOES_NOT_HELP, "it is in place already, and the cell fails all the same"
        said = done.last.output.strip()
        if done.last.status == remedy_script.CANNOT:
            said = said.removeprefix(f"{each.name}: ")
            return RemedyOutcome.CANNOT, said.removeprefix("nothing can be done on this host: ")
        if done.last.status != remedy_script.DONE:
            when = "run again, it" if len(done.steps) > FIRST_RUNS else "it"
            # The script explains itself first; all that it printed is in its log.
            last = "; ".join(said.splitlines()[-LAST_LINES:])
            return RemedyOutcome.SCRIPT_FAILS, f"{when} ended with exit status {done.last.status}: {last}"
        if done.changed:
            self.defects.append(f"run again, its script changed {', '.join(done.changed)}")
        return None

    def _read(self, fork: Fork, ran: SuiteRun, options: SuiteOptions) -> tuple[RemedyOutcome, str]:
        """What the suite says of the remedies."""
        failed = first_failure(ran)
        if failed is None and not ran.cut_short:
            fork.gather(full=False)
            outcome, reason = _without_failure(self.these, ran.tests)
            self.causes = () if outcome is RemedyOutcome.VERIFIED else None
            return outcome, reason
        fork.gather(full=True)
        told = tests_that_ran(ran)
        findings = self._findings([*told, *self._control(fork, told, options)])
        self.causes = tuple(finding.name for finding in findings)
        verdict = fork.judge(ran, findings)
        if verdict.status is Status.ERROR or failed is None:
            return RemedyOutcome.ERROR, verdict.reason
        passed = {test.name for test in self.before.tests if test.outcome is Outcome.PASS}
        if failed.name in passed:
            return RemedyOutcome.MAKES_WORSE, f"{failed.name} passed without it: {verdict.reason}"
        return RemedyOutcome.DOES_NOT_HELP, f"{failed.name} fails all the same: {verdict.reason}"

    def _findings(self, tests: Sequence[TestResult]) -> list[Finding]:
        """The causes that the evidence shows and that can block a box as these remedies have it run.

        What blocks only the sandbox is still to be seen on the host if a box is started without one, but it
        explains no failure of that box.
        """
        found = self.runner.diagnose(self.cell, self.folder, tests)
        if not any(each.has_no_sandbox for each in self.these):
            return found
        known = causes.known()
        return [finding for finding in found if known[finding.name].breaks is not Needs.SANDBOX]

    def _control(self, fork: Fork, told: Sequence[TestResult], options: SuiteOptions) -> list[TestResult]:
        """The control's result if the suite stopped before it: without it the rules know too little.

        If it passed without a remedy, that result will do. If it failed, the remedy may have cured just that,
        so it is run again.
        """
        control = self.cell.build.suite.control
        if not control or any(test.name == control for test in told):
            return []
        passed = [test for test in self.before.tests if test.outcome is Outcome.PASS]
        if before := [test for test in passed if test.name == control]:
            return before
        ran = fork.run(replace(options, tests=(control,), to_first_failure=False))
        fork.gather(full=False, folder=self.folder / CONTROL)
        return ran.tests

    def _undo(self) -> None:
        """Undo the remedies. If that fails it is a defect of theirs, whatever they did for the cell."""
        for each in reversed(self._hosts):
            undone = self.runner.guest.undo_remedy(each)
            with (self.folder / f"{each.name}.log").open("a") as log:
                log.write(undone.log())
            if undone.last.status != remedy_script.DONE:
                self.defects.append(f"its undo failed: {undone.last.output.strip()}")
        probed = self.runner.guest.probe(self.cell.variant)
        (self.folder / PROBES_UNDONE_FILE).write_text(probed.model_dump_json(indent=2) + "\n")
        cell = self.runner.folder / self.cell.folder
        before = evidence.read_probes(cell / evidence.PROBES_FILE)
        if not before.ran:
            return  # Somebody deleted that evidence: nothing can be said about it.
        after = probed.probes.by_name()
        different = [name for name, probe in before.by_name().items() if after[name].status != probe.status]
        if different:
            self.defects.append(f"its undo does not put back what was: {', '.join(different)}")


def is_surprising(outcome: RemedyOutcome, _reason: str, attempt: RemedyAttempt) -> bool:
    """Whether a failure may be a box that died for its own reasons, as now and then under emulation."""
    unexplained = outcome is RemedyOutcome.DOES_NOT_HELP and attempt.causes == ()
    return unexplained or outcome is RemedyOutcome.MAKES_WORSE


def _without_failure(these: Sequence[Remedy], tests: Sequence[TestResult]) -> tuple[RemedyOutcome, str]:
    """The outcome if no test failed: a test that was skipped or did not run is no pass."""
    others = [test for test in tests if test.outcome is not Outcome.PASS]
    if not others:
        return RemedyOutcome.VERIFIED, ""
    names = ", ".join(test.name for test in others)
    skipped = all(test.outcome is Outcome.SKIP for test in others)
    if skipped and any(each.run for each in these):
        return RemedyOutcome.AVOIDS, f"skipped: {names}: {others[0].message.removeprefix('Skipped: ')}"
    return RemedyOutcome.ERROR, f"skipped or not run, which is no coverage: {names}"
