"""A worker owns one lane, from its image to its last cell."""

import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import libvirt

from lab.base.errors import ImageNotAvailable, LabError, NotApplicable
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.lane.attempts import clear, fault_folder, set_aside
from lab.lane.cell import CellRunner
from lab.lane.guest import LaneGuest, holding
from lab.lane.running import RunningLane, Work
from lab.machine import acceleration, lane, leftovers, network
from lab.machine.acceleration import Acceleration
from lab.machine.connection import RESTART_SECONDS, connect, connection_for_lanes
from lab.machine.lane import FAULTS, BootFailed, Lane, LaneDied
from lab.machine.leftovers import LeftBehind
from lab.machine.states import States
from lab.plan import Machine
from lab.record import CellResult, Host, RunOptions, Status
from lab.run import hosts
from lab.run.backlog import Backlog, Ticket
from lab.run.decisions import Decisions
from lab.run.journal import Journal, ResultsNotWritten, keep_texts
from lab.run.observer import Observer
from lab.trials import experiment, remedies, series
from lab.trials.policy import Policy
from lab.verdict import repeats
from lab.verdict.status import is_lasting

# How the reason of a cell begins whose guest has no image.
NO_IMAGE = "image not available"


@dataclass(frozen=True)
class Shared:
    """What all workers of a run share. `ended` tells whether no further cell is to be begun."""

    work: Work
    uri: str
    options: RunOptions
    policy: Policy
    journal: Journal
    backlog: Backlog
    observer: Observer
    decisions: Decisions
    ended: Callable[[], bool]


class Worker:
    """One lane of a run. `number` counts the run's lanes; `label` is its name for people.

    `on_up` is called when its guest is up: another lane may be worth its start from then on.
    """

    def __init__(
        self, shared: Shared, machine: Machine, number: int, label: str, on_up: Callable[[], None]
    ) -> None:
        self.machine = machine
        self.number = number
        self.label = label
        self._shared = shared
        self._decisions = shared.decisions
        self._on_up = on_up
        self._host: Host | None = None
        self._lane: Lane | None = None
        self._lock = threading.Lock()

    @property
    def is_stopped(self) -> bool:
        """Whether the run was interrupted."""
        return self._decisions.stopped.is_set()

    def give_up(self) -> None:
        """Take the lane down, from another thread: the worker then comes to its end by itself."""
        with self._lock:
            running = self._lane
        if running:
            running.give_up()

    def work(self) -> None:
        """Serve cells until none is left for this lane. Raises ResultsNotWritten; a fault becomes a result."""
        try:
            with connection_for_lanes(
                self._shared.uri, seconds=RESTART_SECONDS, waiting=self._wait_for_libvirt
            ) as opened:
                if image := self._find_image():
                    how = self._find_acceleration(opened, image)
                    if prepared := self._prepare(opened, image, how):
                        self._shared.backlog.image_is_ready(self.machine.guest.name)
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
        except FAULTS as error:
            self._did_not_come_up(error)

    def _wait_for_libvirt(self) -> None:
        """Called while libvirt is away. Raises LabError when the run is interrupted."""
        if self.is_stopped:
            raise LabError("interrupted while libvirt was away")
        self._say("waiting for libvirt to come back")

    def _say(self, text: str) -> None:
        self._shared.observer.lane(self.label, text)

    def _say_or_stop(self, text: str) -> None:
        """Say what is waited for, or end the wait if the run was interrupted."""
        if self.is_stopped:
            raise LabError("interrupted")
        self._say(text)

    def _say_of_image(self, text: str) -> None:
        self._say_or_stop(f"image: {text}")

    def _hold(self, opened: Lane | None) -> None:
        """Remember the lane, so that an interrupt can take it down."""
        with self._lock:
            self._lane = opened
        if opened and self.is_stopped:
            opened.give_up()

    # -- from the image to a lane

    def _find_image(self) -> BaseImage | None:
        """The guest's image; without one, all of its cells are decided at once, since no lane is to blame."""
        try:
            return store.ensure(self._shared.work.paths, self.machine.guest, self._say_of_image)
        except ImageNotAvailable as error:
            # Each cell of the row shows the reason; the next step is told once.
            self._shared.observer.note(f"{self.machine.guest.name}: {error}")
            self._decide_all(Status.NOT_RUN, f"{NO_IMAGE}: {error.args[0]}")
        except LabError as error:
            self._decide_all(Status.ERROR, str(error))
        return None

    def _find_acceleration(self, opened: libvirt.virConnect, image: BaseImage) -> Acceleration:
        self._say("finding out about KVM")
        how = acceleration.decide(opened, self._shared.work.paths, image, self._say_or_stop)
        self._host = hosts.describe(opened, how)
        if self._shared.journal.begin_on(self._host):
            if not how.kvm:
                self._shared.observer.note(f"guests run under software emulation: {how.reason}; {how.speed}")
            if instead := network.instead(opened, self._shared.work.paths):
                self._shared.observer.note(instead)
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
            partial(holding, work.processors, how=how, say=self._say_of_image),
            self._hold,
        )
        try:
            return prepare_image.ensure(preparation, self.machine.guest, image)
        except LaneDied:
            raise  # Emulated machines sometimes do; another lane may try again.
        except LabError as error:
            texts = error.evidence if isinstance(error, prepare_image.NotPrepared) else {}
            self._decide_all(Status.ERROR, str(error), texts)
            return None
        finally:
            self._hold(None)

    def _decide_all(self, status: Status, reason: str, evidence: Mapping[str, str] | None = None) -> None:
        """Decide every waiting cell of the machine: what keeps it from running is the same for all."""
        for ticket in [] if self.is_stopped else self._shared.backlog.drop(self.machine.name):
            if evidence:
                keep_texts(self._shared.work.folder / ticket.cell.folder, evidence)
            self._decisions.decide(ticket, ticket.cell.result(status, reason=reason))

    # -- the lane

    def _open_lane(self, opened: libvirt.virConnect, image: BaseImage, how: Acceleration) -> None:
        work, guest, arguments = self._shared.work, self.machine.guest, self.machine.arguments
        with lane.open_lane(
            opened,
            work.paths,
            guest=guest,
            image=image,
            acceleration=how,
            uri=self._shared.uri,
            arguments=arguments,
        ) as made:
            self._hold(made)
            # A guest that is booted with further arguments neither uses a stored state nor leaves one.
            stores = not work.cold and not arguments
            states = None
            if stores:
                states = States(
                    work.paths, opened, guest=guest, image=image, acceleration=how, network=made.network
                )
            running = RunningLane(work, LaneGuest(made, work.processors, self._say), states)
            try:
                self._serve(running)
            finally:
                running.close()
                self._hold(None)

    def _serve(self, running: RunningLane) -> None:
        try:
            running.start()
        except FAULTS as error:
            self._did_not_come_up(error, running.lane)
            return
        self._shared.backlog.lane_is_up(self.machine.name, self.number)
        self._decisions.tell_time_left()
        self._on_up()
        runner = CellRunner(running)
        try:
            while not self.is_stopped and not self._shared.ended():
                ticket = self._shared.backlog.take(self.machine.name, self.number)
                if ticket is None:
                    running.store_deployment()
                    return
                if not self._serve_cell(runner, ticket) or self._shared.options.cold:
                    return
        finally:
            own = {"label": self.label, "host": self._host}
            self._shared.journal.add_lane(running.record().model_copy(update=own))

    def _did_not_come_up(self, error: Exception, failed: Lane | None = None) -> None:
        """The lane did not come up: a fault of the cells that no other lane can take."""
        if isinstance(error, BootFailed):
            acceleration.measure_again(self._shared.work.paths)
        for ticket in self._shared.backlog.lane_failed(self.machine.name, self.number):
            self._fault(ticket, error, failed)

    def _fault(self, ticket: Ticket, error: Exception, failed: Lane | None) -> None:
        self._decisions.fault(ticket, error, number=self.number, label=self.label, lane=failed)

    # -- cells; each of these says whether the lane can serve another one

    def _serve_cell(self, runner: CellRunner, ticket: Ticket) -> bool:
        """Run a cell to its end, or until it meets a fault of the lab."""
        if reason := runner.why_not(ticket.cell):
            self._decisions.decide(ticket, runner.not_applicable(ticket.cell, reason), self.label)
            return True
        try:
            deployed = runner.running.deploy(ticket.cell.build)
        except NotApplicable as why:
            for each in [ticket, *self._drop_build(ticket)]:
                self._decisions.decide(each, runner.not_applicable(each.cell, str(why)), self.label)
            return True
        except FAULTS as error:
            # If no other lane has this guest, all its cells with this build share the fault: another boot for
            # each of them would be wasted.
            alone = self._shared.backlog.is_alone(self.machine.name)
            for each in [ticket, *(self._drop_build(ticket) if alone else [])]:
                self._fault(each, error, runner.running.lane)
            return False
        if deployed is not None:
            self._shared.journal.deployed(ticket.cell.build, deployed)
        try:
            return self._run_and_try(runner, ticket)
        except ResultsNotWritten:
            raise
        except FAULTS as error:
            return self._after_fault(runner, ticket, error)

    def _drop_build(self, ticket: Ticket) -> list[Ticket]:
        """Take out the waiting cells of the machine that have the same build."""
        return self._shared.backlog.drop(self.machine.name, ticket.cell.build)

    def _run_and_try(self, runner: CellRunner, ticket: Ticket) -> bool:
        """Run a cell's suite as often as wanted, and then its experiment and its remedies."""
        if ticket.decided:
            return self._try(runner, ticket, ticket.decided.before_trials())
        evidence = self._shared.work.folder / ticket.cell.folder
        while (number := len(ticket.done) + 1) <= self._shared.options.repeat:
            if self._shared.options.cold and runner.served:
                self._shared.backlog.put_back(ticket, after=self.number)
                return False
            folder = evidence if number == 1 else evidence / f"repeat-{number}"
            clear(folder)
            result = runner.run(ticket.cell, folder, ticket.options)
            if self.is_stopped:
                return False
            lasts = is_lasting(result.reason)
            if result.status is Status.ERROR and not lasts and self._decisions.may_retry(ticket):
                set_aside(folder, fault_folder(evidence))
                self._decisions.retry(ticket, result.reason, after=self.number)
                return True
            ticket.done.append(result)
        return self._try(runner, ticket, repeats.combine(ticket.done))

    def _try(self, runner: CellRunner, ticket: Ticket, result: CellResult) -> bool:
        """Try experiments and remedies on a cell whose suite has run, and decide it."""
        cell = ticket.cell
        policy = self._shared.policy if cell.trials else Policy()
        if experiment.is_wanted(policy, result) or remedies.is_wanted(policy, result):
            self._decisions.decide_before_trials(ticket, result, self.label)
        kept = {remedies.FOLDER: ticket.trials, series.FOLDER: result.experiment or ticket.steps.made}
        for name in [name for name, made in kept.items() if not made]:
            shutil.rmtree(self._shared.work.folder / cell.folder / name, ignore_errors=True)
        passing = self._shared.journal.passing(cell.build)
        result = experiment.with_experiment(policy, runner, cell, result, passing, ticket.steps)
        result = remedies.with_remedies(policy, runner, cell, result, ticket.trials)
        try:
            runner.running.lane.check_alive()
        except LaneDied as error:
            self._decisions.decide_after_death(
                ticket, result, error, number=self.number, label=self.label, lane=runner.running.lane
            )
            return False
        self._decisions.decide(ticket, result, self.label)
        return True

    def _after_fault(self, runner: CellRunner, ticket: Ticket, error: Exception) -> bool:
        """A cell met a fault of the lab: whether its lane can still serve others."""
        try:
            runner.running.lane.check_alive()
        except LaneDied as gone:
            if not isinstance(error, LaneDied):
                # Report both: the first error may be the cause, or the only trace of it.
                error = LaneDied(f"{error}\n{gone}")
        self._fault(ticket, error, runner.running.lane)
        return not isinstance(error, LaneDied)
