"""Serving cells on a lane whose guest is up: each from its suite to its last trial."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from lab.base.errors import Bug, NotApplicable
from lab.builds import SuiteOptions, shuffled
from lab.lane.attempts import clear, fault_folder, set_aside
from lab.lane.cell import CellRunner
from lab.machine.lane import Lane, LaneDied, as_fault
from lab.record import CellResult, Status, Stress
from lab.run.backlog import Ticket
from lab.run.decisions import Decisions
from lab.run.journal import ResultsNotWritten
from lab.run.shared import Shared
from lab.trials import experiment, remedies, series
from lab.trials.policy import Policy
from lab.trials.remedies import Trial
from lab.trials.sharing import Offer, Task
from lab.verdict import status
from lab.verdict.status import is_lasting, missed_a_limit


@dataclass(frozen=True)
class Serving:
    """Runs cells on one lane, and decides them or hands them on.

    `machine` is the name of the lane's machine; `number` and `label` are those of its worker.
    """

    shared: Shared
    runner: CellRunner
    machine: str
    number: int
    label: str

    @property
    def _lane(self) -> Lane:
        return self.runner.running.lane

    @property
    def _decisions(self) -> Decisions:
        return self.shared.decisions

    @property
    def _is_stopped(self) -> bool:
        return self._decisions.stopped.is_set()

    def serve(self, ticket: Ticket) -> bool:
        """Run a cell to its end, or until it meets a fault of the lab. Whether the lane can serve another one.

        What nobody expected is a fault, too: a bug in the lab, which costs this cell and no other. Raises
        ResultsNotWritten.
        """
        try:
            return self._serve(ticket)
        except ResultsNotWritten:
            raise
        except Exception as error:
            return self._after_fault(ticket, as_fault(error))

    def _serve(self, ticket: Ticket) -> bool:
        """Deploy a cell's build and run the cell; see `serve`."""
        if reason := self.runner.why_not(ticket.cell):
            self._decisions.decide(ticket, self.runner.not_applicable(ticket.cell, reason), self.label)
            return True
        try:
            deployed = self.runner.running.deploy(ticket.cell.build)
        except NotApplicable as why:
            for each in [ticket, *self._drop_build(ticket)]:
                self._decisions.decide(each, self.runner.not_applicable(each.cell, str(why)), self.label)
            return True
        except Exception as error:
            # If no other lane has this guest, all its cells with this build share the fault: another boot for
            # each of them would be wasted.
            alone = self.shared.backlog.is_alone(self.machine)
            for each in [ticket, *(self._drop_build(ticket) if alone else [])]:
                self._fault(each, as_fault(error))
            return False
        if deployed is not None:
            self.shared.journal.deployed(ticket.cell.build, deployed)
        return self._run_and_try(ticket)

    def help(self, ticket: Ticket) -> bool:
        """Make one of the trials that a cell on another lane offers. Whether this lane can do more."""
        offer = ticket.offer
        if offer is None:
            return True  # Its own lane came to the end meanwhile.

        def keep_fault(error: Exception) -> None:
            self._decisions.helper_failed(ticket, as_fault(error), self._lane)

        try:
            self.runner.running.deploy(ticket.cell.build)
        except Exception as error:
            keep_fault(error)
            return False
        try:
            offer.help_once(self.runner, keep_fault)
        except ResultsNotWritten:
            raise
        except Exception:
            return False
        return True

    def _share(self, ticket: Ticket, result: CellResult, tasks: Sequence[Task[Trial]]) -> list[Trial]:
        """Make trials of a cell on this lane, and on those of its machine that have nothing else to do.

        Each takes about as long as the cell did.
        """
        ticket.offer = offer = Offer(tasks, sum(result.seconds.values()))
        self.shared.wake()
        try:
            return offer.finish(self.runner)
        finally:
            ticket.offer = None

    def _drop_build(self, ticket: Ticket) -> list[Ticket]:
        """Take out the waiting cells of the machine that have the same build."""
        return self.shared.backlog.drop(self.machine, ticket.cell.build)

    def _run_and_try(self, ticket: Ticket) -> bool:
        """Run a cell's suite as often as wanted, and then its experiment and its remedies; see `serve`."""
        if before := ticket.decided:
            # Whether the bug of an earlier run is still met shows now.
            ticket.decided = before.model_copy(update={"bug": False})
            return self._try(ticket, before.before_trials())
        evidence, options = self.shared.work.folder / ticket.cell.folder, self.shared.options
        while (number := len(ticket.done) + 1) <= options.repeat:
            if options.cold and self.runner.served:
                self.shared.backlog.put_back(ticket, after=self.number)
                return False
            folder = evidence if number == 1 else evidence / f"repeat-{number}"
            clear(folder)
            seed = None if options.shuffle is None else options.shuffle + number - 1
            self.runner.alone = ticket.missed_a_limit
            try:
                result = self.runner.run(ticket.cell, folder, _suite_options(ticket, seed, options.stress))
            finally:
                self.runner.alone = False
            result = result.model_copy(update={"seed": seed})
            if self._is_stopped:
                return False
            lasts = is_lasting(result.reason)
            if result.status is Status.ERROR and not lasts and self._decisions.may_retry(ticket):
                set_aside(folder, fault_folder(evidence))
                if missed_a_limit(result.reason):
                    self._decisions.retry(ticket, result.reason, after=0, what="to be tried again alone")
                else:
                    self._decisions.retry(ticket, result.reason, after=self.number)
                return True
            ticket.done.append(result)
            if options.until_fail and status.has_failure(result):
                break
        return self._try(ticket, status.combine(ticket.done, wanted=options.repeat))

    def _try(self, ticket: Ticket, result: CellResult) -> bool:
        """Try experiments and remedies on a cell whose suite has run, and decide it."""
        cell = ticket.cell
        policy = self.shared.policy if cell.trials else Policy()
        if experiment.is_wanted(policy, result) or remedies.is_wanted(policy, result):
            self._decisions.decide_before_trials(ticket, result, self.label)
        self._delete_undecided(ticket, result)
        passing = self.shared.journal.passing(cell.build)
        before = result
        result = experiment.with_experiment(policy, self.runner, cell, result, passing, ticket.steps)
        if result is not before and remedies.is_wanted(policy, result):
            self._decisions.decide_before_trials(ticket, result, self.label)
        share, keep = partial(self._share, ticket, result), partial(self._decisions.keep_trial, ticket)
        result = remedies.with_remedies(policy, self.runner, cell, result, keep, share)
        try:
            self._lane.check_alive()
        except LaneDied as error:
            self._decisions.decide_after_death(
                ticket, result, error, number=self.number, label=self.label, lane=self._lane
            )
            return False
        self._decisions.decide(ticket, result, self.label)
        return True

    def _delete_undecided(self, ticket: Ticket, result: CellResult) -> None:
        """Delete the folders of trials that the result does not have: they are to be made again, if at all."""
        folder = self.shared.work.folder / ticket.cell.folder
        tried = {each.name for each in result.remedies}
        old = [each for each in folder.glob(f"{remedies.FOLDER}/*") if each.name not in tried]
        if not (result.experiment or ticket.steps.made):
            old.append(folder / series.FOLDER)
        for each in old:
            shutil.rmtree(each, ignore_errors=True)

    def _after_fault(self, ticket: Ticket, error: Exception) -> bool:
        """A cell met a fault of the lab: whether its lane can still serve others."""
        is_alive = not isinstance(error, LaneDied)
        try:
            self._lane.check_alive()
        except LaneDied as gone:
            if is_alive and not isinstance(error, Bug):
                # Report both: the first error may be the cause, or the only trace of it.
                error = LaneDied(f"{error}\n{gone}")
            is_alive = False
        self._fault(ticket, error)
        return is_alive

    def _fault(self, ticket: Ticket, error: Exception) -> None:
        self._decisions.fault(ticket, error, number=self.number, label=self.label, lane=self._lane)


def _suite_options(ticket: Ticket, seed: int | None, stress: Sequence[Stress]) -> SuiteOptions:
    """How a cell's suite is run under this load, and if a seed shuffles its tests."""
    tests = () if seed is None else shuffled(ticket.cell.suite.tests, seed)
    return replace(ticket.options, tests=tests, stress=tuple(stress))
