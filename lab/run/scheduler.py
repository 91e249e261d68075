"""The scheduler decides which lane is opened next, admits it, and ends the run. Workers do the rest."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import catalog
from lab.base import process
from lab.base.files import make_folder
from lab.base.paths import Paths
from lab.base.space import A_RUN, explained
from lab.builds import rootfs
from lab.catalog import remedies
from lab.lane import prepare_image
from lab.lane.running import Work
from lab.machine import clock
from lab.machine.budget import Limits, Memory, Processors, others_load
from lab.machine.connection import connection
from lab.plan import Cell
from lab.record import CellResult, RunInfo, RunResult, Status
from lab.run.backlog import Backlog
from lab.run.decisions import Decisions, Follow, nothing_follows
from lab.run.estimates import Estimates
from lab.run.journal import Journal, locked_folder
from lab.run.lanes import Labels, Meter
from lab.run.observer import LaneSteps, Observer, kept_apart
from lab.run.worker import NO_IMAGE, Shared, Worker
from lab.trials.changes import Policy

# How often the host's memory is looked at while a lane waits for it: another program may give some back.
MEMORY_SECONDS = 2.0


@dataclass
class Scheduler:
    """One run. `kept` are the results, by the folders of their cells, of a run that is resumed.

    `follow` is called with each result and may add cells, on guests of the run only. `offline`: no image is
    built, fetched or prepared.
    """

    cells: Sequence[Cell]
    paths: Paths
    folder: Path
    uri: str
    info: RunInfo
    limits: Limits
    observer: Observer
    estimates: Estimates = field(default_factory=Estimates)
    kept: Mapping[Path, CellResult] = field(default_factory=dict)
    follow: Follow = nothing_follows
    offline: bool = False
    _workers: dict[int, Worker] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)
    _labels: Labels = field(default_factory=Labels)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _meter: Meter = field(default_factory=Meter)
    _crowd_told: bool = False
    _crash: BaseException | None = None
    _bug: Exception | None = None

    def run(self) -> RunResult:
        """Run every cell that is left and return the record, which is then in the run's folder too.

        Raises LabError if nothing can be run at all. A KeyboardInterrupt ends the run with what there is:
        the cells that were not decided are `not-run`. A bug that is the error of no cell is raised at the end.
        """
        with connection(self.uri):
            pass  # Without libvirt nothing is worth starting.
        make_folder(self.folder)
        with locked_folder(self.folder):
            with explained(self.folder, A_RUN):
                self._shared = self._share()
            try:
                self._leave_out_absent()
                self._open_lanes()
            except KeyboardInterrupt:
                self._interrupt()
            for thread in self._threads:
                if thread.ident is not None:  # An interrupt can come just before its start.
                    thread.join()
            if self._crash:
                raise self._crash
            stopped = self._shared.decisions.stopped.is_set()
            run = self._shared.decisions.journal.finish(interrupted=stopped, spent=[self._meter.read()])
            if self._bug:
                raise self._bug
            return run

    def _share(self) -> Shared:
        """What the workers share; the record is on disk once it is complete."""
        options = self.info.options
        self._labels = Labels(self.info.lanes)
        self._memory = Memory(self.limits.memory_mib)
        journal = Journal(self.folder, self.cells, self.info, self.kept)
        self.observer = kept_apart(self._keep_bug, self.observer, LaneSteps(journal.add_step))
        more = {folder: result for folder, result in self.kept.items() if result.has_more_to_try}
        left = [cell for cell in self.cells if cell.folder in more or not journal.is_decided(cell)]
        unready = {cell.guest.name for cell in left if not prepare_image.is_ready(self.paths, cell.guest)}
        backlog = Backlog(
            left,
            self.estimates,
            decided=more,
            cold=options.cold,
            repeat=options.repeat,
            without_image=unready,
        )
        self.observer.time_left(backlog.seconds_left(self.limits.jobs))
        # The sysctls to read in each guest: those that variants set, and those that kept results hold, because
        # an experiment compares a cell with these. The catalog may have changed since they were made.
        kept = [result.facts for result in self.kept.values() if result.facts]
        of_variants = catalog.load().sysctls([cell.variant for cell in self.cells])
        shared = Shared(
            work=Work(
                paths=self.paths,
                folder=self.folder,
                rootfs=Path(options.rootfs) if options.rootfs else rootfs.make(self.folder / "rootfs"),
                processors=Processors(self.limits.processors),
                build=left[0].build if len({cell.build for cell in left}) == 1 else None,
                sysctls=sorted({*of_variants, *(name for facts in kept for name in facts.sysctls)}),
                checkpoints=not options.cold,
                cold=options.cold,
            ),
            uri=self.uri,
            policy=Policy(
                remedies=remedies.load() if options.remedies else {},
                experiments=options.experiments,
                retries=options.retries,
            ),
            decisions=Decisions(
                journal, backlog, self.observer, options.retries, self.limits.jobs, self._follow
            ),
            meter=self._meter,
            ended=lambda: self._crash is not None,
            wake=self._wake,
            on_bug=self._keep_bug,
        )
        # Last: what fails before this leaves no record, and the folder can be used again.
        journal.write()
        return shared

    @property
    def _backlog(self) -> Backlog:
        return self._shared.decisions.backlog

    def _leave_out_absent(self) -> None:
        """Decide the cells of all guests that have no image and can get none, before any lane is opened."""
        left = self._backlog.next_machines()
        guests = {machine.guest.name: machine.guest for machine in left}
        reasons = prepare_image.why_absent(self.paths, guests.values(), offline=self.offline)
        if not reasons:
            return
        by_reason: dict[str, list[str]] = {}
        for guest, reason in reasons.items():
            by_reason.setdefault(reason, []).append(guest)
        told = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
        self.observer.note(f"no image, so their cells are not-run: {told}\n  next: {prepare_image.WHEN_ABSENT}")
        with self._shared.decisions.journal.one_write():
            for machine in left:
                if machine.guest.name in reasons:
                    self._decide_not_run(machine.name, f"{NO_IMAGE}: {reasons[machine.guest.name]}")

    def _open_lanes(self) -> None:
        """Open lanes as long as one would help and the host can carry it, until nothing is left."""
        number = 1
        while True:
            with self._changed:
                refused: dict[str, str] = {}
                worker = self._admit(number, refused)
                if worker is None:
                    if not self._workers:
                        # No lane runs and none can be opened: what is left cannot be run on this host.
                        for machine, reason in refused.items():
                            self._decide_not_run(machine, reason)
                        return
                    self._changed.wait(timeout=MEMORY_SECONDS)
                    continue
            number += 1
            thread = threading.Thread(
                target=self._run_worker, args=(worker,), name=f"lane {worker.label}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _admit(self, number: int, refused: dict[str, str]) -> Worker | None:
        """A worker for the machine that needs a lane most and fits; `refused` gets why others do not fit."""
        lanes = len(self._workers)
        if self._crash or lanes >= self._most_lanes():
            return None
        for machine in self._backlog.next_machines():
            if lanes >= self.limits.jobs and self._backlog.lanes(machine.name):
                # Its lanes would take turns with this one, which would have been brought up for nothing.
                continue
            if reason := self._memory.admit(machine.guest.memory_mib):
                refused[machine.name] = reason
                continue
            label = self._labels.next(machine.name)
            worker = self._workers[number] = Worker(self._shared, machine, number, label)
            self._backlog.lane_opened(machine.name, number)
            return worker
        return None

    def _most_lanes(self) -> int:
        """How many lanes may be open at once: spare ones too, once a lane knows that guests are emulated.

        While other programs get more than half of the processors, only one, unless boxes are in time anyway:
        under KVM, or by a slower clock.
        """
        lanes = [worker.how for worker in self._workers.values() if worker.how is not None]
        others = others_load(len(self._workers))
        if others <= self.limits.processors:
            return self.limits.jobs + (0 if all(how.kvm for how in lanes) else self.limits.spare)
        if self._workers and not self._crowd_told:
            self._crowd_told = True
            self.observer.note(
                f"{others:.0f} other programs want the {self.limits.processors} processors of this host: "
                "this run takes longer"
            )
        in_time = all(how.kvm or how.clock.rate < 1 for how in lanes) if lanes else clock.library() is not None
        return self.limits.jobs if in_time else 1

    def _decide_not_run(self, machine: str, reason: str) -> None:
        for ticket in self._backlog.drop(machine):
            self._shared.decisions.decide(ticket, ticket.cell.result(Status.NOT_RUN, reason=reason))

    def _run_worker(self, worker: Worker) -> None:
        """A worker's thread, whatever happens to it."""
        try:
            worker.work()
        except BaseException as error:  # `run` raises it once the other lanes are down.
            self._crash = self._crash or error
        finally:
            with self._changed:
                del self._workers[worker.number]
                self._backlog.lane_closed(worker.machine.name, worker.number)
                self._memory.release(worker.machine.guest.memory_mib)
                self._changed.notify_all()
            self.observer.lane(worker.label, "")

    def _keep_bug(self, error: Exception) -> None:
        """Have `run` raise it at the end: no cell is worse for it."""
        self._bug = self._bug or error

    def _follow(self, result: CellResult) -> Sequence[Cell]:
        """What a decided cell leads to: nothing where a bug keeps that from being known."""
        try:
            return self.follow(result)
        except Exception as error:
            self._keep_bug(error)
            return ()

    def _wake(self) -> None:
        """Look again whether a lane can be opened."""
        with self._changed:
            self._changed.notify_all()

    def _interrupt(self) -> None:
        """End what runs: a worker whose machine is gone comes to its end by itself."""
        with self._changed:
            self._shared.decisions.stopped.set()
            self._shared.decisions.journal.info.interrupted = True
            running = list(self._workers.values())
        process.stop_all()
        for worker in running:
            worker.give_up()
