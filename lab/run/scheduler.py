"""The scheduler decides which lane is opened next, admits it, and ends the run. Workers do the rest."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from lab import catalog
from lab.base.architecture import ARCHITECTURES
from lab.base.files import A_RUN, explain_full_disk, make_folder
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.lane import prepare_image
from lab.lane.running import Work
from lab.machine.budget import HostLimits, Memory, Processors
from lab.machine.connection import hold_connection
from lab.plan import PlannedRun
from lab.record import RunResult, Status
from lab.record.folders import lock_folder
from lab.run.decisions import NO_IMAGE, Decisions, Follow, follow_with_nothing
from lab.run.observer import Observer
from lab.run.priority import OVER_BUDGET, Budget
from lab.run.reuse import EarlierRuns
from lab.run.worker import Worker

# How often the host's memory is looked at while a lane waits for it: another program may give some back.
MEMORY_SECONDS = 2.0


@dataclass
class Scheduler:
    """Runs the cells of a run that are left, on this host.

    `follow` is called with each result and may add cells, on guests of the run only. `offline`: no image is
    built, fetched or prepared. `budget`: which cells come first, and when no other is begun. `earlier` is a run
    whose results stand for cells that nothing has changed for, as soon as the image of their guest is known.
    """

    planned: PlannedRun
    paths: Paths
    uri: str
    limits: HostLimits
    observer: Observer
    follow: Follow = follow_with_nothing
    offline: bool = False
    budget: Budget | None = None
    earlier: EarlierRuns | None = None
    _workers: dict[int, Worker] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)

    def run(self) -> RunResult:
        """Run every cell that is left and return the record, which is then in the run's folder too.

        Raises LabError if nothing can be run at all. A KeyboardInterrupt ends the run with what there is:
        the cells that were not decided are `not-run`. A bug that is the error of no cell is raised at the end.
        """
        with hold_connection(self.uri):
            pass  # Without libvirt nothing is worth starting.
        folder = self.planned.folder
        make_folder(folder)
        with lock_folder(folder):
            with explain_full_disk(folder, A_RUN):
                self.begin()
            try:
                self._leave_out_absent()
                self._open_lanes()
            except KeyboardInterrupt:
                self._interrupt()
            for thread in self._threads:
                if thread.ident is not None:  # An interrupt can come just before its start.
                    thread.join()
            return self._decisions.finish()

    def begin(self) -> None:
        """Make what the workers share, and write the first record."""
        planned, options = self.planned, self.planned.info.options
        self.memory, cells_to_run = Memory(self.limits.memory_mib), planned.cells_to_run
        if self.budget:
            cells_to_run = self.budget.order(cells_to_run)
        self._decisions = Decisions(
            planned,
            cells_to_run,
            self.observer,
            retries=options.retries,
            jobs=self.limits.jobs,
            follow=self.follow,
            in_order=self.budget is not None,
            earlier=self.earlier,
        )
        self.backlog = self._decisions.backlog
        # The sysctls to read in each guest: those that variants set, and those that kept results hold, because
        # an experiment compares a cell with these. The catalog may have changed since they were made.
        sysctls = set(catalog.load_catalog().sysctls([cell.variant for cell in planned.cells]))
        for result in planned.earlier_results.values():
            sysctls.update(result.facts.sysctls if result.facts else ())
        self.work = Work(
            paths=self.paths,
            folder=planned.folder,
            rootfs=dict.fromkeys(ARCHITECTURES, Path(options.rootfs))
            if options.rootfs
            else rootfs.make_layouts(
                planned.folder / "rootfs", self.paths, [cell.guest.architecture for cell in cells_to_run]
            ),
            processors=Processors(self.limits.processors),
            # Cells that follow may have other builds, and predictions need none.
            build=cells_to_run[0].build
            if len({cell.build for cell in cells_to_run}) == 1
            and self.follow is follow_with_nothing
            and not options.predict
            else None,
            sysctls=sorted(sysctls),
            checkpoints=not options.cold,
            cold=options.cold,
        )
        # Last: what fails before this leaves no record, and the folder can be used again.
        self._decisions.journal.write()

    def _leave_out_absent(self) -> None:
        """Decide the cells of all guests that have no image and can get none, before any lane is opened."""
        machines = self.backlog.next_machines()
        guests = {machine.guest.name: machine.guest for machine in machines}
        reasons = prepare_image.explain_absent_images(self.paths, guests.values(), offline=self.offline)
        if not reasons:
            return
        by_reason: dict[str, list[str]] = {}
        for guest, reason in reasons.items():
            by_reason.setdefault(reason, []).append(guest)
        summary = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
        self._decisions.observer.note(
            f"no image, so their cells are not-run: {summary}\n  next: {prepare_image.WHEN_ABSENT}"
        )
        for machine in machines:
            if machine.guest.name in reasons:
                self._decide_not_run(machine.name, f"{NO_IMAGE}: {reasons[machine.guest.name]}")

    def _open_lanes(self) -> None:
        """Open lanes as long as one would help and the host can carry it, until nothing is left."""
        number = 1
        while True:
            if self.budget and self.budget.is_over:
                for machine in {ticket.machine for ticket in self.backlog.waiting()}:
                    self._decide_not_run(machine, OVER_BUDGET)
            with self._decisions.changed:
                refused: dict[str, str] = {}
                worker = self.admit_lane(number, refused)
                if worker is None:
                    if not self._workers:
                        # No lane runs and none can be opened: what is left cannot be run on this host.
                        for machine, reason in refused.items():
                            self._decide_not_run(machine, reason)
                        return
                    self._decisions.changed.wait(timeout=MEMORY_SECONDS)
                    continue
            number += 1
            thread = threading.Thread(
                target=self._run_worker, args=(worker,), name=f"lane {worker.label}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def admit_lane(self, number: int, refused: dict[str, str]) -> Worker | None:
        """A worker for the machine that needs a lane most and fits; `refused` gets why others do not fit."""
        lanes = len(self._workers)
        if self._decisions.crash or lanes >= self._most_lanes():
            return None
        for machine in self.backlog.next_machines():
            if lanes >= self.limits.jobs and self.backlog.lanes(machine.name):
                # Its lanes would take turns with this one, which would have been brought up for nothing.
                continue
            if reason := self.memory.admit(machine.guest.memory_mib):
                refused[machine.name] = reason
                continue
            label = self._decisions.labels.next(machine.name)
            worker = Worker(machine, number, label, self.work, self.uri, self._decisions)
            self._workers[number] = worker
            self.backlog.lane_opened(machine.name, number)
            return worker
        return None

    def _most_lanes(self) -> int:
        """How many lanes may be open at once: spare ones too, once a lane knows that guests are emulated."""
        emulated = any(worker.acceleration and not worker.acceleration.kvm for worker in self._workers.values())
        return self.limits.jobs + (self.limits.spare if emulated else 0)

    def _decide_not_run(self, machine: str, reason: str) -> None:
        self._decisions.decide_all(self.backlog.drop(machine), Status.NOT_RUN, reason)

    def _run_worker(self, worker: Worker) -> None:
        """A worker's thread, whatever happens to it."""
        try:
            worker.work()
        except BaseException as error:  # `run` raises it once the other lanes are down.
            self._decisions.crash = self._decisions.crash or error
        finally:
            with self._decisions.changed:
                del self._workers[worker.number]
                self.backlog.lane_closed(worker.machine.name, worker.number)
                self.memory.release(worker.machine.guest.memory_mib)
                self._decisions.changed.notify_all()
            self._decisions.observer.lane(worker.label, None)

    def _interrupt(self) -> None:
        """End what runs: a worker whose machine is gone comes to its end by itself."""
        self._decisions.interrupt()
        with self._decisions.changed:
            running = list(self._workers.values())
        for worker in running:
            worker.give_up()
