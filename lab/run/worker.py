"""A worker owns one lane, from its image to its last cell."""

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial

import libvirt

from lab.base.activity import Activity, Step
from lab.base.errors import Bug, ImageNotAvailable, LabError, NotApplicable
from lab.builds import SuiteOptions, shuffled
from lab.catalog import DebianImage
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.lane.cell import CellRunner, clear, fault_folder, keep_texts, set_aside
from lab.lane.running import RunningLane, Work, open_running_lane
from lab.machine import acceleration, leftovers
from lab.machine.acceleration import EMULATION, Acceleration
from lab.machine.connection import RESTART_SECONDS, connect, connection_for_lanes
from lab.machine.lane import BootFailed, Lane, LaneDied, as_fault
from lab.machine.leftovers import LeftBehind
from lab.plan import Machine
from lab.record import CellResult, Host, RunOptions, Status, Stress
from lab.run import lanes
from lab.run.backlog import Backlog, Ticket
from lab.run.decisions import Decisions
from lab.run.journal import Journal, ResultsNotWritten
from lab.run.lanes import Meter
from lab.run.observer import Observer
from lab.trials import experiment, remedies
from lab.trials.changes import Policy
from lab.verdict import status
from lab.verdict.status import is_lasting, missed_a_limit


@dataclass(frozen=True)
class Shared:
    """What all workers of a run share. `ended` tells whether no further cell is to be begun.

    `wake` has the scheduler look again whether another lane is worth its start. `on_bug` gets what is the error
    of no cell.
    """

    work: Work
    uri: str
    options: RunOptions
    policy: Policy
    journal: Journal
    backlog: Backlog
    observer: Observer
    decisions: Decisions
    ended: Callable[[], bool]
    wake: Callable[[], None]
    on_bug: Callable[[Exception], None]
    meter: Meter


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
            for same_build in [ticket, *self._drop_build(ticket)]:
                result = self.runner.not_applicable(same_build.cell, str(why))
                self._decisions.decide(same_build, result, self.label)
            return True
        except Exception as error:
            # If no other lane has this guest, all its cells with this build share the fault: another boot for
            # each of them would be wasted.
            alone = self.shared.backlog.is_alone(self.machine)
            for same_build in [ticket, *(self._drop_build(ticket) if alone else [])]:
                self._fault(same_build, as_fault(error))
            return False
        if deployed is not None:
            self.shared.journal.deployed(ticket.cell.build, deployed)
        return self._run_and_try(ticket)

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
        keep = partial(self._decisions.keep_trial, ticket)
        result = remedies.with_remedies(policy, self.runner, cell, result, keep)
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
        tried = {remedy.name for remedy in result.remedies}
        undecided = [path for path in folder.glob(f"{remedies.FOLDER}/*") if path.name not in tried]
        if not (result.experiment or ticket.steps.made):
            undecided.append(folder / experiment.FOLDER)
        for path in undecided:
            shutil.rmtree(path, ignore_errors=True)

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


# How the reason of a cell begins whose guest has no image.
NO_IMAGE = "image not available"


class Worker:
    """One lane of a run. `number` counts the run's lanes; `label` is its name for people."""

    def __init__(self, shared: Shared, machine: Machine, number: int, label: str) -> None:
        self.machine = machine
        self.number = number
        self.label = label
        self._shared = shared
        self._decisions = shared.decisions
        self._host: Host | None = None
        self._how: Acceleration | None = None
        self._lane: Lane | None = None
        self._lock = threading.Lock()

    @property
    def is_stopped(self) -> bool:
        """Whether the run was interrupted."""
        return self._decisions.stopped.is_set()

    @property
    def is_emulated(self) -> bool:
        """Whether its guest is known to run under emulation."""
        return self._host is not None and self._host.acceleration == EMULATION

    @property
    def is_in_time(self) -> bool | None:
        """Whether its boxes are in time on a busy host: under KVM, or by a slower clock. None: not known."""
        return None if self._how is None else self._how.kvm or self._how.clock.rate < 1

    def give_up(self) -> None:
        """Take the lane down, from another thread: the worker then comes to its end by itself."""
        with self._lock:
            running = self._lane
        if running:
            running.give_up()

    def work(self) -> None:
        """Serve cells until none is left for this lane; a fault becomes a result. Raises ResultsNotWritten."""
        try:
            with connection_for_lanes(
                self._shared.uri, seconds=RESTART_SECONDS, waiting=self._wait_for_libvirt
            ) as opened:
                if image := self._find_image():
                    how = self._find_acceleration(opened, image)
                    if prepared := self._prepare(opened, image, how):
                        self._shared.backlog.image_is_ready(self.machine.guest.name)
                        self._shared.observer.image(prepared)
                        self._decisions.tell_time_left()
                        self._open_lane(opened, prepared, how)
        except ResultsNotWritten:
            raise
        except LeftBehind as error:
            # Its cells are decided or go to another lane; this one only waits for libvirt to take it down.
            self._shared.observer.note(str(error))
            with suppress(LabError):
                connect(self._shared.uri, seconds=RESTART_SECONDS, waiting=self._wait_for_libvirt).close()
                leftovers.reap(self._shared.work.paths)
        except Exception as error:
            self._did_not_come_up(as_fault(error))

    def _wait_for_libvirt(self) -> None:
        """Called while libvirt is away. Raises LabError when the run is interrupted."""
        if self.is_stopped:
            raise LabError("interrupted while libvirt was away")
        self._say(Step("waiting for libvirt to come back", Activity.WAITING))

    def _say(self, text: str) -> None:
        self._shared.observer.lane(self.label, text)

    def _say_or_stop(self, text: str) -> None:
        """Say what is waited for, or end the wait if the run was interrupted."""
        if self.is_stopped:
            raise LabError("interrupted")
        self._say(text)

    def _say_of_image(self, text: str) -> None:
        self._say_or_stop(Step.of(text, Activity.IMAGE, prefix="image: "))

    def _hold(self, opened: Lane | None) -> None:
        """Remember the lane, so that an interrupt can take it down, or forget one that is at its end."""
        with self._lock:
            before, self._lane = self._lane, opened
        if before:
            self._shared.meter.add_lane(before.processor_seconds)
        if opened and self.is_stopped:
            opened.give_up()

    # -- from the image to a lane

    def _find_image(self) -> BaseImage | None:
        """The guest's image; without one, all of its cells are decided at once, since no lane is to blame."""
        try:
            with self._holding_to_build():
                return store.ensure(self._shared.work.paths, self.machine.guest, self._say_of_image)
        except ImageNotAvailable as error:
            # Each cell of the row shows the reason; the next step is told once.
            self._shared.observer.note(f"{self.machine.guest.name}: {error}")
            self._decide_all(Status.NOT_RUN, f"{NO_IMAGE}: {error.args[0]}")
        except LabError as error:
            self._decide_all(Status.ERROR, str(error))
        return None

    def _holding_to_build(self) -> AbstractContextManager[None]:
        """Hold a processor if the image has to be built: that keeps one busy as long as a boot does."""
        work, guest = self._shared.work, self.machine.guest
        if not isinstance(guest.image, DebianImage) or store.find(work.paths, guest):
            return nullcontext()
        wait = Step("waiting for a processor", Activity.WAITING)
        return work.processors.hold(1, lambda: self._say_of_image(wait))

    def _find_acceleration(self, opened: libvirt.virConnect, image: BaseImage) -> Acceleration:
        self._say(Step("finding out about KVM", Activity.WAITING))
        how = acceleration.decide(
            opened,
            self._shared.work.paths,
            image,
            self._say_or_stop,
            # A distribution's kernel may be told to say nothing of its boot.
            unmeasured=image.firmware is None,
        )
        self._host, self._how = lanes.describe_host(opened, how), how
        if self._shared.journal.begin_on(self._host) and not how.kvm:
            speed = f"; {how.speed.compared}" if how.kernel_seconds is not None else ""
            self._shared.observer.note(f"guests run under software emulation: {how.reason}{speed}")
        if how.kernel_seconds is not None:
            self._say(how.told())
        return how

    def _prepare(self, opened: libvirt.virConnect, image: BaseImage, how: Acceleration) -> BaseImage | None:
        """The image as lanes start from it. If it cannot be prepared, its cells are decided at once."""
        work = self._shared.work
        preparation = prepare_image.Preparation(
            opened,
            work.paths,
            self._shared.uri,
            how,
            self._say_of_image,
            work.processors,
            self._hold,
        )
        try:
            return prepare_image.ensure(preparation, self.machine.guest, image)
        except LaneDied:
            raise  # Emulated machines sometimes do; another lane may try again.
        except LabError as error:
            self._decide_all(Status.ERROR, str(error), error.evidence)
            return None
        finally:
            self._hold(None)

    def _decide_all(self, status: Status, reason: str, evidence: Mapping[str, str] | None = None) -> None:
        """Decide every waiting cell of the machine: what keeps it from running is the same for all."""
        for ticket in [] if self.is_stopped else self._shared.backlog.drop(self.machine.name):
            keep_texts(self._shared.work.folder / ticket.cell.folder, evidence or {})
            self._decisions.decide(ticket, ticket.cell.result(status, reason=reason))

    # -- the lane

    def _open_lane(self, opened: libvirt.virConnect, image: BaseImage, how: Acceleration) -> None:
        with open_running_lane(
            opened,
            self._shared.work,
            machine=self.machine,
            image=image,
            acceleration=how,
            uri=self._shared.uri,
            say=self._say,
        ) as running:
            self._hold(running.lane)
            try:
                self._serve(running, opened)
            finally:
                self._hold(None)

    def _serve(self, running: RunningLane, opened: libvirt.virConnect) -> None:
        try:
            running.start()
        except Exception as error:
            self._did_not_come_up(as_fault(error), running.lane)
            return
        if acceleration.keep_speed(opened, self._shared.work.paths, running.lane.acceleration):
            self._shared.observer.note(running.lane.acceleration.told())
        self._shared.backlog.lane_is_up(self.machine.name, self.number)
        self._decisions.tell_time_left()
        # From here on another lane of its guest may be worth a start.
        self._shared.wake()
        serving = Serving(self._shared, CellRunner(running), self.machine.name, self.number, self.label)
        try:
            while not self.is_stopped and not self._shared.ended():
                ticket = self._shared.backlog.take(self.machine.name, self.number)
                if ticket is None:
                    running.store_deployment()
                    return
                if not serving.serve(ticket) or self._shared.options.cold:
                    return
        finally:
            own = {"label": self.label, "host": self._host}
            self._shared.journal.add_lane(running.record().model_copy(update=own))

    def _did_not_come_up(self, error: Exception, failed: Lane | None = None) -> None:
        """The lane did not come up: a fault of the cells that no other lane can take.

        A bug is told even if there is no such cell.
        """
        if isinstance(error, BootFailed):
            acceleration.measure_again(self._shared.work.paths)
        tickets = self._shared.backlog.lane_failed(self.machine.name, self.number)
        for ticket in tickets:
            self._decisions.fault(ticket, error, number=self.number, label=self.label, lane=failed)
        if isinstance(error, Bug) and not tickets and not self.is_stopped:
            self._shared.on_bug(error.error)
