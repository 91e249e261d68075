"""Running a plan: lanes as the host can carry them, each taking cells until none is left."""

import shutil
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import libvirt

from lab import remedies
from lab.base import process
from lab.base.errors import ImageNotAvailable, LabError, NotApplicable
from lab.base.files import make_folder, plain
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.catalog import Guest, Suite
from lab.guest.ready import CloudInitFailed
from lab.images import store
from lab.lane import prepare_image
from lab.lane import service as serve
from lab.lane.attempts import clear, fault_folder, set_aside
from lab.machine import acceleration, lane
from lab.machine.budget import Limits, Memory, Processors
from lab.machine.connection import connection
from lab.machine.lane import FAULTS, Lane, LaneDied, keep_console
from lab.machine.states import States
from lab.plan import Cell, Machine
from lab.record import CellResult, RunInfo, RunResult, Status
from lab.run.backlog import Backlog, Ticket
from lab.run.estimates import Estimates
from lab.run.journal import Journal, ResultsNotWritten, keep_texts, locked_folder
from lab.run.observer import Observer
from lab.trials import experiment
from lab.trials import remedies as trial
from lab.verdict import repeats


@dataclass
class _Slot:
    """A place for one lane, from its admission to its end."""

    number: int
    machine: Machine
    label: str
    lane: Lane | None = None

    @property
    def guest(self) -> Guest:
        return self.machine.guest


@dataclass
class MatrixRun:
    """One `lab matrix`. `kept` are the results, by the folders of their cells, of a run that is resumed."""

    cells: Sequence[Cell]
    suite: Suite
    paths: Paths
    folder: Path
    uri: str
    info: RunInfo
    limits: Limits
    observer: Observer
    estimates: Estimates = field(default_factory=Estimates)
    kept: Mapping[Path, CellResult] = field(default_factory=dict)
    _slots: dict[int, _Slot] = field(default_factory=dict)
    _opened: Counter[str] = field(default_factory=Counter)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _crashed: BaseException | None = None

    def __post_init__(self) -> None:
        """Have each build run this run's suite."""
        self.cells = [replace(each, build=replace(each.build, suite=self.suite)) for each in self.cells]

    def run(self) -> RunResult:
        """Run every cell that is left and return the record, which is then in the run's folder too.

        Raises LabError where nothing can be run at all. A KeyboardInterrupt ends the run with what there is:
        the cells that were not decided are `not-run`.
        """
        with connection(self.uri):
            pass  # Without libvirt nothing is worth starting.
        make_folder(self.folder)
        with locked_folder(self.folder):
            self._journal = Journal(self.folder, self.cells, self.info, self.kept)
            self._journal.write()
            more = {folder: result for folder, result in self.kept.items() if result.has_more_to_try}
            left = [cell for cell in self.cells if cell.folder in more or not self._journal.is_decided(cell)]
            self._options = self.info.options
            self._backlog = Backlog(
                left,
                self.estimates,
                decided=more,
                cold=self._options.cold,
                repeat=self._options.repeat,
            )
            self._memory = Memory(self.limits.memory_mib)
            layout = self._options.rootfs
            self._work = serve.Work(
                paths=self.paths,
                folder=self.folder,
                suite=self.suite,
                rootfs=Path(layout) if layout else rootfs.make(self.folder / "rootfs"),
                processors=Processors(self.limits.processors),
                cold=self._options.cold,
                remedies=remedies.load() if self._options.remedies else {},
                experiments=self._options.experiments,
                retries=self._options.retries,
                build=left[0].build if len({cell.build for cell in left}) == 1 else None,
            )
            self.observer.left(self._backlog.seconds_left(self.limits.jobs))
            threads: list[threading.Thread] = []
            try:
                self._schedule(threads)
            except KeyboardInterrupt:
                self._interrupt()
            for thread in threads:
                if thread.ident is not None:  # An interrupt can come just before its start.
                    thread.join()
            if self._crashed:
                raise self._crashed
            return self._journal.finish(interrupted=self._stopped.is_set())

    def _schedule(self, threads: list[threading.Thread]) -> None:
        """Open lanes as long as one would help and the host can carry it, until nothing is left."""
        number = 0
        while True:
            with self._changed:
                refused: dict[str, str] = {}
                slot = self._admit(number + 1, refused)
                if slot is None:
                    if not self._slots:
                        self._refuse(refused)
                        return
                    # A timeout, so that memory that another program gave back is seen too.
                    self._changed.wait(timeout=2.0)
                    continue
                number = slot.number
            thread = threading.Thread(target=self._serve, args=(slot,), name=f"lane {slot.label}", daemon=True)
            threads.append(thread)
            thread.start()

    def _admit(self, number: int, refused: dict[str, str]) -> _Slot | None:
        if self._crashed or len(self._slots) >= self.limits.jobs:
            return None
        for machine in self._backlog.next_machines():
            name = machine.name
            reason = self._memory.admit(machine.guest.memory_mib)
            if reason:
                refused[name] = reason
                continue
            self._opened[name] += 1
            times = self._opened[name]
            slot = _Slot(number, machine, name if times == 1 else f"{name} #{times}")
            self._slots[number] = slot
            self._backlog.opened(name, number)
            return slot
        return None

    def _refuse(self, refused: Mapping[str, str]) -> None:
        """No lane runs and none can be opened: what is left cannot be run on this host."""
        for machine, reason in refused.items():
            for ticket in self._backlog.drop(machine):
                self._decide(ticket, ticket.cell.result(Status.NOT_RUN, reason=reason))

    def _interrupt(self) -> None:
        """End what runs: a lane whose machine is gone comes to its end by itself."""
        with self._changed:
            self._stopped.set()
            self._journal.info.interrupted = True
            running = [slot.lane for slot in self._slots.values() if slot.lane]
        process.stop_all()
        for each in running:
            each.give_up()

    def _serve(self, slot: _Slot) -> None:
        """A lane from its image to its last cell, whatever happens to it."""
        try:
            self._open(slot)
        except BaseException as error:  # `run` raises it, when the other lanes are down.
            self._crashed = self._crashed or error
        finally:
            with self._changed:
                del self._slots[slot.number]
                self._backlog.closed(slot.machine.name, slot.number)
                self._memory.release(slot.guest.memory_mib)
                self._changed.notify_all()
            self.observer.lane(slot.label, "")

    def _open(self, slot: _Slot) -> None:
        try:
            with connection(self.uri) as opened:
                image = self._image(slot)
                if image is None:
                    return
                self._say(slot, "finding out about KVM")
                how = acceleration.decide(opened, self.paths, image)
                if self._journal.describe_host(opened, how) and not how.kvm:
                    self.observer.note(
                        f"guests run under software emulation, about ten times slower: {how.reason}"
                    )
                prepared = self._prepared(slot, opened, image, how)
                if prepared:
                    self._lane(slot, opened, prepared, how)
        except ResultsNotWritten:
            raise
        except FAULTS as error:
            self._failed(slot, error)

    def _image(self, slot: _Slot) -> store.BaseImage | None:
        """The guest's image; where it cannot be had, its cells are decided at once: no lane is to blame."""
        try:
            return store.ensure(self.paths, slot.guest, lambda text: self._building(slot, text))
        except ImageNotAvailable as error:
            # Every square of the row shows the reason: the next step is told once.
            self.observer.note(f"{slot.guest.name}: {error}")
            self._drop(slot, error, Status.NOT_RUN, f"image not available: {error.args[0]}")
        except LabError as error:
            self._drop(slot, error)
        return None

    def _prepared(
        self,
        slot: _Slot,
        opened: libvirt.virConnect,
        image: store.BaseImage,
        how: acceleration.Acceleration,
    ) -> store.BaseImage | None:
        """The image as lanes start from it; where the guest cannot be prepared, no lane is to blame either."""
        say = partial(self._building, slot)
        turn = partial(serve.turn, self._work.processors, how=how, say=say)
        work = prepare_image.Preparation(
            opened, self.paths, self.uri, how, say, turn, partial(self._hold, slot)
        )
        try:
            return prepare_image.ensure(work, slot.guest, image)
        except LaneDied:
            raise  # Emulated machines sometimes do: another lane may try again.
        except LabError as error:
            self._drop(slot, error)
            return None
        finally:
            slot.lane = None

    def _drop(self, slot: _Slot, error: LabError, status: Status = Status.ERROR, reason: str = "") -> None:
        """What keeps the guest from running at all is the fault of each of its cells, and evidence in each."""
        for ticket in [] if self._stopped.is_set() else self._backlog.drop(slot.machine.name):
            if isinstance(error, prepare_image.NotPrepared):
                keep_texts(self.folder / ticket.cell.folder, error.evidence)
            self._decide(ticket, ticket.cell.result(status, reason=reason or str(error)))

    def _hold(self, slot: _Slot, made: Lane) -> None:
        """Let an interrupt take this lane down."""
        with self._changed:
            slot.lane = made
            if self._stopped.is_set():
                made.give_up()

    def _building(self, slot: _Slot, text: str) -> None:
        if self._stopped.is_set():
            raise LabError("interrupted")
        self._say(slot, f"image: {text}")

    def _lane(
        self,
        slot: _Slot,
        opened: libvirt.virConnect,
        image: store.BaseImage,
        how: acceleration.Acceleration,
    ) -> None:
        guest, arguments = slot.guest, slot.machine.arguments
        with lane.opened(
            opened, self.paths, guest=guest, image=image, acceleration=how, uri=self.uri, arguments=arguments
        ) as made:
            self._hold(slot, made)
            states = (
                None
                if self._options.cold or arguments
                else States(self.paths, opened, guest=guest, image=image, acceleration=how)
            )
            service = serve.Service(self._work, made, lambda text: self._say(slot, text), states=states)
            try:
                self._cells(slot, service)
            finally:
                service.session.close()
                slot.lane = None

    def _cells(self, slot: _Slot, service: serve.Service) -> None:
        try:
            service.start()
        except FAULTS as error:
            self._failed(slot, error, service.lane)
            return
        with self._changed:
            self._backlog.is_up(slot.machine.name, slot.number)
            self._changed.notify_all()
        try:
            while not self._stopped.is_set() and self._crashed is None:
                ticket = self._backlog.take(slot.machine.name, slot.number)
                if ticket is None:
                    service.keep()
                    return
                if not self._attempt(slot, service, ticket) or self._options.cold:
                    return
        finally:
            self._journal.add_lane(service.record())

    def _attempt(self, slot: _Slot, service: serve.Service, ticket: Ticket) -> bool:
        """Run a cell to its end, or as far as the lab's own faults let it; whether the lane can go on."""
        cell = ticket.cell
        decided = service.not_applicable(cell)
        if decided:
            self._decide(ticket, decided, slot)
            return True
        try:
            files = service.prepare(cell.build)
        except NotApplicable as why:
            for other in [ticket, *self._backlog.drop(slot.machine.name, cell.build)]:
                self._decide(other, service.left_out(other.cell, str(why)), slot)
            return True
        except FAULTS as error:
            # Where nobody else has the build, the fault is all its cells': none is worth a boot of its own.
            alone = self._backlog.is_alone(slot.machine.name)
            others = self._backlog.drop(slot.machine.name, cell.build) if alone else []
            for each in [ticket, *others]:
                self._fault(slot, each, service.lane, error)
            return False
        if files is not None:
            self._journal.deployed(cell.build, files)
        try:
            return self._repeat(slot, service, ticket)
        except ResultsNotWritten:
            raise
        except FAULTS as error:
            return self._after(slot, ticket, service, error)

    def _repeat(self, slot: _Slot, service: serve.Service, ticket: Ticket) -> bool:
        """Run a cell's suite as often as wanted and decide it; whether the lane can go on."""
        cell = ticket.cell
        if ticket.decided:
            return self._try(slot, service, ticket, ticket.decided.before_trials())
        while (number := len(ticket.done) + 1) <= self._options.repeat:
            if self._options.cold and service.served:
                self._backlog.put_back(ticket, after=slot.number)
                return False
            folder = self.folder / cell.folder / ("" if number == 1 else f"repeat-{number}")
            clear(folder)
            result = service.run(cell, folder)
            if self._stopped.is_set():
                return False
            if result.status is Status.ERROR and len(ticket.errors) < self._options.retries:
                set_aside(folder, fault_folder(self.folder / cell.folder))
                self._again(slot, ticket, result.reason)
                return True
            ticket.done.append(result)
        return self._try(slot, service, ticket, repeats.combine(ticket.done))

    def _try(self, slot: _Slot, service: serve.Service, ticket: Ticket, result: CellResult) -> bool:
        """Try on a cell whose suite was run what there is to be tried; whether the lane can go on.

        What the suite showed stands from here on, however the run ends.
        """
        cell = ticket.cell
        if experiment.is_wanted(service, result) or trial.is_wanted(service, result):
            ticket.decided = self._journal.decide(cell, self._told(ticket, result, slot, unfinished=True))
        for name in (trial.FOLDER, *([] if result.experiment else [experiment.FOLDER])):
            shutil.rmtree(self.folder / cell.folder / name, ignore_errors=True)
        passing = self._journal.passing(cell.build)
        result = experiment.with_experiment(service, cell, result, passing)
        self._decide(ticket, trial.with_remedies(service, cell, result), slot)
        return service.is_alive

    def _after(self, slot: _Slot, ticket: Ticket, service: serve.Service, error: Exception) -> bool:
        """A cell met a fault of the lab's own: whether its lane can serve others all the same."""
        try:
            service.lane.check_alive()
        except LaneDied as gone:
            if not isinstance(error, LaneDied):
                # Both: the first error is the cause, or the only trace of it.
                error = LaneDied(f"{error}\n{gone}")
            self._fault(slot, ticket, service.lane, error)
            return False
        self._fault(slot, ticket, service.lane, error)
        return not isinstance(error, LaneDied)

    def _fault(self, slot: _Slot, ticket: Ticket, made: Lane | None, error: Exception) -> None:
        """A fault of the lab's own: the cell is tried again on a fresh lane, or is an `error`."""
        if self._stopped.is_set():
            return
        folder = self.folder / ticket.cell.folder
        again = len(ticket.errors) < self._options.retries
        if made is not None:
            self._keep(made, fault_folder(folder) if again else folder, error)
        if again:
            self._again(slot, ticket, str(error))
        else:
            self._decide(ticket, ticket.cell.result(Status.ERROR, reason=str(error)), slot)

    def _again(self, slot: _Slot, ticket: Ticket, reason: str) -> None:
        ticket.errors.append(plain(reason))
        name = f"{ticket.cell.guest.name} {ticket.cell.variant.name}"
        first = next(iter(reason.splitlines()), "")
        self.observer.note(f"{name}: to be tried again on a fresh lane: {first}")
        self._backlog.put_back(ticket, after=slot.number)

    def _failed(self, slot: _Slot, error: Exception, made: Lane | None = None) -> None:
        """A lane did not come up: a fault of the cells that no other lane can take."""
        for ticket in self._backlog.lane_failed(slot.machine.name, slot.number):
            self._fault(slot, ticket, made, error)

    def _keep(self, made: Lane, folder: Path, error: Exception) -> None:
        """Keep the console, and cloud-init's log where that failed, as evidence of the lab's own fault."""
        # The cell and its fault are told all the same where they cannot be kept.
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            keep_console(made, folder / "console.log")
            if isinstance(error, CloudInitFailed):
                (folder / "cloud-init.log").write_text(error.log)

    def _decide(self, ticket: Ticket, result: CellResult, slot: _Slot | None = None) -> None:
        if ticket.decided and result.status.could_not_run:
            # That nothing more could be tried on it makes no other cell of it.
            result = ticket.decided
        else:
            result = self._told(ticket, result, slot)
        self.observer.cell(self._journal.decide(ticket.cell, result))
        self.observer.left(self._backlog.seconds_left(self.limits.jobs))

    def _told(
        self, ticket: Ticket, result: CellResult, slot: _Slot | None, *, unfinished: bool = False
    ) -> CellResult:
        """A result with what became of its ticket; of one from before, what became of it then."""
        if ticket.decided:
            update = {"retried": ticket.decided.retried, "lane": ticket.decided.lane}
        else:
            update = {"retried": ticket.errors, "lane": slot.label if slot else ""}
        return result.model_copy(update={**update, "unfinished": unfinished})

    def _say(self, slot: _Slot, text: str) -> None:
        self.observer.lane(slot.label, text)
