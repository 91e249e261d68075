"""A worker owns one lane, from its image to its last cell."""

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial

import libvirt

from lab.base.errors import Bug, ImageNotAvailable, LabError
from lab.catalog import DebianImage
from lab.guest import programs
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.lane.attempts import keep_texts
from lab.lane.cell import CellRunner
from lab.lane.guest import LaneGuest, holding
from lab.lane.running import RunningLane
from lab.machine import acceleration, leftovers, opening
from lab.machine.acceleration import EMULATION, Acceleration
from lab.machine.connection import RESTART_SECONDS, connect, connection_for_lanes
from lab.machine.lane import BootFailed, Lane, LaneDied, as_fault
from lab.machine.leftovers import LeftBehind
from lab.machine.states import States
from lab.plan import Machine
from lab.record import Host, Status
from lab.run import hosts
from lab.run.journal import ResultsNotWritten
from lab.run.serving import Serving
from lab.run.shared import Shared

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
        return work.processors.hold(1, lambda: self._say_of_image("waiting for a processor"))

    def _find_acceleration(self, opened: libvirt.virConnect, image: BaseImage) -> Acceleration:
        self._say("finding out about KVM")
        how = acceleration.decide(
            opened,
            self._shared.work.paths,
            image,
            self._say_or_stop,
            # A distribution's kernel may be told to say nothing of its boot.
            unmeasured=image.firmware is None,
        )
        self._host, self._how = hosts.describe(opened, how), how
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
            partial(holding, work.processors, how=how, say=self._say_of_image),
            self._hold,
            self._shared.observer.note,
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
        work, guest, arguments = self._shared.work, self.machine.guest, self.machine.arguments
        with opening.open_lane(
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
                    work.paths,
                    opened,
                    guest=guest,
                    image=image,
                    acceleration=how,
                    agent=programs.agent(),
                )
            running = RunningLane(work, LaneGuest(made, work.processors, self._say), states)
            try:
                self._serve(running, opened)
            finally:
                running.close()
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
                    if offered := self._shared.backlog.offered(self.machine.name):
                        if serving.help(offered):
                            continue
                        return
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
