"""What becomes of each cell of a run: it is decided, or tried again on a fresh lane. Lanes share this."""

import threading
from collections.abc import Callable, Iterable, Sequence

from lab.base import process
from lab.base.activity import CancelToken
from lab.base.errors import ImageNotAvailable, LabError, UserCannotBuild
from lab.base.files import clean_text
from lab.images.store import BaseImage
from lab.plan import Cell, PlannedRun
from lab.record import CellHistory, CellResult, CellTrials, RemedyResult, RunResult, Status
from lab.run.backlog import Backlog, Estimates, Ticket
from lab.run.journal import Journal
from lab.run.lanes import Labels
from lab.run.observer import JoinedObserver, LaneSteps, Observer
from lab.run.reuse import EarlierRuns

# The cells that a decided cell leads to. They join the run.
Follow = Callable[[CellResult], Sequence[Cell]]

# What the note on a retried cell says.
AGAIN = "to be tried again on a fresh lane"
REST_AGAIN = "the rest of its trials is to be made on a fresh lane"
# How the reason of a cell begins whose guest has no image.
NO_IMAGE = "image not available"


def follow_with_nothing(_result: CellResult) -> Sequence[Cell]:
    """What a run's cells lead to if all of them are known from the start."""
    return ()


class Decisions:
    """A session of a run: its record (`journal`), what is left of it (`backlog`), and the names of its lanes.

    `cells` are those to run. `retries` is how often one is tried again after a fault of the lab; `jobs`, the
    lanes at once. `cancel_token` is cancelled when the run is interrupted: from then on no fault counts.
    `earlier` is a run whose results stand for cells that nothing has changed for.
    `changed` guards which lanes there are. `crash` ends the run as soon as its lanes are down.
    """

    def __init__(
        self,
        planned: PlannedRun,
        cells: Iterable[Cell],
        observer: Observer,
        *,
        retries: int,
        jobs: int = 1,
        follow: Follow = follow_with_nothing,
        in_order: bool = False,
        earlier: EarlierRuns | None = None,
    ) -> None:
        options = planned.info.options
        self.journal = Journal(planned.folder, planned.cells, planned.info, planned.earlier_results)
        self.backlog = Backlog(
            cells,
            Estimates(options),
            decided=planned.earlier_results,
            cold=options.cold,
            repeat=options.repeat,
            in_order=in_order,
        )
        self.labels = Labels(planned.info.lanes)
        # What only shows a run decides nothing in it.
        self.observer = JoinedObserver(observer, LaneSteps(self.journal.add_step), on_bug=self.keep_bug)
        self.retries, self.jobs = retries, jobs
        self.cancel_token, self.changed = CancelToken(), threading.Condition()
        self.crash: BaseException | None = None
        self._bug: Exception | None = None
        self._follow, self._earlier = follow, earlier

    def keep_bug(self, error: Exception) -> None:
        """Keep a bug that is the error of no cell."""
        self._bug = self._bug or error

    # -- a cell is at its end

    def decide(self, ticket: Ticket, result: CellResult, lane: str = "", *, unfinished: bool = False) -> None:
        """Keep a cell's result and show it; `lane` served it. Raises ResultsNotWritten.

        `unfinished`: trials are left on it, and this run makes none of them.
        """
        if ticket.decided and result.status.could_not_run:
            # The suite has run before: that nothing more could be tried does not change its result.
            history = ticket.decided.history
            if result.history.bug:
                history = history.after_try(result.reason, bug=True)
            result = ticket.decided.with_parts(history=history)
        else:
            result = self._with_history(ticket, result, lane, unfinished=unfinished)
        result = self.journal.decide(ticket.cell, result)
        self.observer.cell(result)
        following: Sequence[Cell] = ()
        try:
            following = self._follow(result)
        except Exception as error:
            self.keep_bug(error)
        # Before the lane asks for its next cell: it may serve these.
        for cell in following:
            self.journal.add(cell)
            self.backlog.add(cell)
        self.backlog.ended(ticket, result)
        self.observer.time_left(self.backlog.seconds_left(self.jobs))

    def decide_all(self, tickets: Iterable[Ticket], status: Status, reason: str) -> None:
        """Decide cells that cannot be run, all for the same reason. Raises ResultsNotWritten."""
        for ticket in tickets:
            self.decide(ticket, ticket.cell.result(status, reason=reason))

    def decide_without_image(self, tickets: Iterable[Ticket], guest: str, error: LabError) -> None:
        """Decide the cells of a guest that has no image. Raises ResultsNotWritten.

        Cells of a guest that the user cannot build are `n/a`: a baseline holds that, and a gate is complete.
        """
        if isinstance(error, ImageNotAvailable):
            # Each cell of the row shows the reason; the next step is told once.
            self.observer.note(f"{guest}: {error}")
            status = Status.NOT_APPLICABLE if isinstance(error, UserCannotBuild) else Status.NOT_RUN
            self.decide_all(tickets, status, f"{NO_IMAGE}: {error.args[0]}")
        else:
            self.decide_all(tickets, Status.ERROR, str(error))

    def keep_unchanged(self, machine: str, image: BaseImage) -> None:
        """Take over what an earlier run decided of a machine's cells that wait, now that its image is known.

        A cell whose evidence cannot be copied is run. Raises ResultsNotWritten.
        """
        info = self.journal.info
        if self._earlier is None:
            return
        for ticket in self.backlog.waiting(machine):
            judged = self._earlier.judge_cell(ticket.cell, info.definitions, info.options, image)
            kept, source = judged.kept, judged.source
            if kept is None or source is None or not self.backlog.withdraw(ticket):
                continue
            try:
                result = source.copy_result(kept, ticket.cell.rerun(info.options), self.journal.folder)
            except LabError as error:
                self.observer.note(f"{ticket.cell.guest.name} {ticket.cell.variant.name}: run again: {error}")
                self.backlog.put_back(ticket, after_lane=0)
                continue
            labels = {lane.label for lane in info.lanes}
            for lane in source.take_over_lanes([result]):
                if lane.label not in labels:
                    self.journal.add_lane(lane)
            self.journal.deployed(ticket.cell.build, source.get_files(ticket.cell.build.name))
            self.observer.cell(self.journal.decide(ticket.cell, result))

    def wake(self) -> None:
        """Have the scheduler look again whether another lane is worth its start."""
        with self.changed:
            self.changed.notify_all()

    # -- a cell goes on

    def decide_before_trials(self, ticket: Ticket, result: CellResult, lane: str, *, fault: str = "") -> None:
        """Keep the result of a cell on which something is still to be tried. Raises ResultsNotWritten.

        What the suite showed stands from here on, however the run ends. `fault`: why it is tried elsewhere.
        """
        result = self._with_history(ticket, result, lane, fault=fault, unfinished=True)
        ticket.decided = self.journal.decide(ticket.cell, result)

    def keep_trial(self, ticket: Ticket, remedy: RemedyResult) -> None:
        """Write down what came of a remedy while others are tried on the cell. Raises ResultsNotWritten.

        It stands from here on, however the run ends.
        """
        result = ticket.decided
        assert result is not None, "the suite's result was not decided"
        remedies = [*(trial for trial in result.remedies if trial.name != remedy.name), remedy]
        trials = CellTrials(remedies=remedies, experiment=result.trials.experiment)
        ticket.decided = self.journal.decide(ticket.cell, result.with_parts(trials=trials))

    def may_retry(self, ticket: Ticket) -> bool:
        return len(ticket.errors) < self.retries

    def retry(self, ticket: Ticket, reason: str, *, after_lane: int, next_step: str = AGAIN) -> None:
        """Send a cell to a later lane than number `after_lane`, which does `next_step` the note says."""
        ticket.errors.append(clean_text(reason))
        name = f"{ticket.cell.guest.name} {ticket.cell.variant.name}"
        first = next(iter(reason.splitlines()), "")
        self.observer.note(f"{name}: {next_step}: {first}")
        self.backlog.put_back(ticket, after_lane=after_lane)

    def _with_history(
        self, ticket: Ticket, result: CellResult, lane: str, *, fault: str = "", unfinished: bool
    ) -> CellResult:
        """A result with what happened to its cell: if the suite ran before, with what happened then.

        `fault` is another one, after which it is retried.
        """
        faults = [fault] if fault else []
        if ticket.decided:
            earlier = ticket.decided.history
            history = CellHistory(
                lane=earlier.lane,
                trials_lane=lane if lane != earlier.lane else "",
                retried=[*earlier.retried, *faults],
                faults=earlier.faults,
                bug=earlier.bug,
                unfinished=unfinished,
            )
        else:
            history = CellHistory(
                lane=lane,
                trials_lane=result.history.trials_lane,
                retried=[*ticket.errors, *faults],
                faults=[*ticket.faults, *result.history.faults],
                bug=result.history.bug,
                unfinished=unfinished,
            )
        return result.with_parts(history=history)

    # -- the run is at its end

    def interrupt(self) -> None:
        """Cells that are not decided stay so, and programs that run for them are ended."""
        self.cancel_token.cancel()
        self.journal.info.interrupted = True
        process.stop_programs()

    def finish(self) -> RunResult:
        """Write the end of the session down and return the record. Raises what ended the run, or its bug."""
        if self.crash:
            raise self.crash
        run = self.journal.finish(interrupted=self.cancel_token.is_cancelled)
        if self._bug:
            raise self._bug
        return run
