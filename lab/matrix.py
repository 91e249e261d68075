"""Running a plan: a lane for each guest, cells one after another in it, every result on disk as it comes."""

import os
import platform
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Protocol

import libvirt
import psutil

from lab import __version__, process, rootfs, serve
from lab.catalog import Suite
from lab.errors import LabError, NotApplicable, UsageError
from lab.guest.ready import CloudInitFailed
from lab.images import store
from lab.machine import acceleration, lane
from lab.machine.connection import connection, version
from lab.machine.lane import Lane, LaneDied, keep_console
from lab.paths import Paths
from lab.plan import Cell
from lab.results import RESULTS_FILE, CellResult, Host, RunInfo, RunResult, Status

# QEMU's own, beside the guest's memory: code it translated, and the checkpoint while it is saved.
QEMU_OVERHEAD_MIB = 1024


class Observer(Protocol):
    """What a run tells whoever shows it. Called from several threads."""

    def lane(self, guest: str, text: str) -> None:
        """What the guest's lane does now; empty when it is done."""

    def cell(self, result: CellResult) -> None:
        """A cell is decided."""

    def note(self, text: str) -> None:
        """Something to be said once."""


@dataclass(frozen=True)
class Options:
    """How a plan is run."""

    command: str
    jobs: int
    cold: bool = False
    rootfs: Path | None = None


@dataclass
class MatrixRun:
    """One `lab matrix`."""

    cells: Sequence[Cell]
    suite: Suite
    paths: Paths
    folder: Path
    uri: str
    options: Options
    observer: Observer
    _results: dict[Path, CellResult] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _running: list[Lane] = field(default_factory=list)
    _noted: set[str] = field(default_factory=set)

    def run(self) -> RunResult:
        """Run every cell and return the record, which is then in the run's folder too.

        Raises LabError where nothing can be run at all. A KeyboardInterrupt ends the run with what there is:
        the cells that were not decided are `not-run`.
        """
        with connection(self.uri):
            pass  # Without libvirt nothing is worth starting.
        self.folder.mkdir(parents=True, exist_ok=True)
        self._info = RunInfo(
            id=self.folder.name,
            started=datetime.now(UTC),
            command=self.options.command,
            lab=__version__,
            builds=[build.record() for build in dict.fromkeys(cell.build for cell in self.cells)],
        )
        work = serve.Work(
            paths=self.paths,
            folder=self.folder,
            suite=self.suite,
            rootfs=self.options.rootfs or rootfs.make(self.folder / "rootfs"),
            cold=self.options.cold,
        )
        lanes = [list(group) for _, group in groupby(self.cells, key=lambda cell: cell.guest.name)]
        pool = ThreadPoolExecutor(self.options.jobs, thread_name_prefix="lane")
        try:
            futures = [pool.submit(self._serve, work, cells) for cells in lanes]
            for future in futures:
                future.result()
        except KeyboardInterrupt:
            self._interrupt()
        finally:
            pool.shutdown(cancel_futures=True)
        self._finish()
        return self.record()

    def record(self) -> RunResult:
        """The run as it stands: a cell that is not decided yet is `not-run`."""
        reason = "interrupted" if self._stopped.is_set() else "not reached yet"
        with self._lock:
            cells = [
                self._results.get(cell.folder) or self._whole(cell, cell.result(Status.NOT_RUN, reason=reason))
                for cell in self.cells
            ]
            return RunResult(schema=1, run=self._info, cells=cells)

    def _interrupt(self) -> None:
        """End what runs: a lane whose machine is gone comes to its end by itself."""
        self._stopped.set()
        self._info.interrupted = True
        process.stop_all()
        with self._lock:
            for running in self._running:
                running.give_up()

    def _finish(self) -> None:
        self._info.finished = datetime.now(UTC)
        with self._lock:
            self.record().write(self.folder)

    def _serve(self, work: serve.Work, cells: list[Cell]) -> None:
        """All cells of one guest, whatever happens to it."""
        guest = cells[0].guest
        try:
            with connection(self.uri) as opened:
                image = store.ensure(self.paths, guest, lambda text: self._building(guest.name, text))
                self.observer.lane(guest.name, "finding out about KVM")
                how = acceleration.decide(opened, self.paths, image)
                self._describe_host(opened, how)
                groups = [[cell] for cell in cells] if work.cold else [cells]
                for group in groups:
                    if not self._stopped.is_set():
                        self._lane(work, opened, group, image, how)
        except (LabError, libvirt.libvirtError, OSError) as error:
            self._fail(cells, str(error))
        finally:
            self.observer.lane(guest.name, "")

    def _building(self, guest: str, text: str) -> None:
        if self._stopped.is_set():
            raise LabError("interrupted")
        self.observer.lane(guest, f"image: {text}")

    def _lane(
        self,
        work: serve.Work,
        opened: libvirt.virConnect,
        cells: list[Cell],
        image: store.BaseImage,
        how: acceleration.Acceleration,
    ) -> None:
        guest = cells[0].guest
        with lane.opened(opened, self.paths, guest=guest, image=image, acceleration=how, uri=self.uri) as made:
            with self._lock:
                self._running.append(made)
                if self._stopped.is_set():
                    made.give_up()
            service = serve.Service(work, made, lambda text: self.observer.lane(guest.name, text))
            try:
                self._cells(service, cells)
            except NotApplicable as why:
                for cell in cells:
                    self._decide(cell, cell.result(Status.NOT_APPLICABLE, reason=str(why)))
            except LabError as error:
                self._keep(made, cells, error)
                self._fail(cells, str(error))
            finally:
                service.session.close()
                with self._lock:
                    self._running.remove(made)

    def _cells(self, service: serve.Service, cells: list[Cell]) -> None:
        wheels = service.bring_up(cells[0].build)
        self._deployed(cells[0], wheels)
        if not service.work.cold:
            service.take_checkpoint()
        self._info.lanes.append(service.record())
        for cell in cells:
            if self._stopped.is_set():
                return
            self._decide(cell, service.not_applicable(cell) or self._run(service, cell))

    def _run(self, service: serve.Service, cell: Cell) -> CellResult:
        """One cell. A fault of its own is its own `error`; a dead machine is the whole lane's (LaneDied)."""
        try:
            return service.run(cell)
        except LaneDied:
            raise
        except LabError as error:
            try:
                service.lane.check_alive()
            except LaneDied as gone:
                # Both: the first error is the cause, or the only trace of it.
                raise LaneDied(f"{error}\n{gone}") from error
            self._keep(service.lane, [cell], error)
            return cell.result(Status.ERROR, reason=str(error))

    def _keep(self, made: Lane, cells: list[Cell], error: LabError) -> None:
        """Keep the console, and cloud-init's log where that failed, as evidence of cells without a result."""
        for cell in cells:
            if cell.folder not in self._results:
                folder = self.folder / cell.folder
                folder.mkdir(parents=True, exist_ok=True)
                keep_console(made, folder / "console.log")
                if isinstance(error, CloudInitFailed):
                    (folder / "cloud-init.log").write_text(error.log)

    def _fail(self, cells: list[Cell], reason: str) -> None:
        for cell in cells:
            if cell.folder not in self._results and not self._stopped.is_set():
                self._decide(cell, cell.result(Status.ERROR, reason=reason))

    def _decide(self, cell: Cell, result: CellResult) -> None:
        result = self._whole(cell, result)
        with self._lock:
            self._results[cell.folder] = result
            try:
                self.record().write(self.folder)
            except OSError as error:
                raise LabError(
                    f"the results cannot be written into {self.folder}: {error.strerror}",
                    hint="free some disk space; the cells that ran before are in results.json",
                ) from error
        self.observer.cell(result)

    def _whole(self, cell: Cell, result: CellResult) -> CellResult:
        """The result with what can be said of every cell, whatever came of it."""
        return result.model_copy(
            update={
                "evidence": serve.evidence_of(self.folder, cell),
                "rerun": cell.rerun(cold=self.options.cold, rootfs=self.options.rootfs),
            }
        )

    def _deployed(self, cell: Cell, wheels: list[Path]) -> None:
        with self._lock:
            for record in self._info.builds:
                if record.name == cell.build.name:
                    record.files.update(cell.build.record(wheels).files)

    def _describe_host(self, opened: libvirt.virConnect, how: acceleration.Acceleration) -> None:
        with self._lock:
            if self._info.host is not None:
                return
            self._info.host = Host(
                kernel=platform.release(),
                system=platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
                cpus=os.cpu_count() or 1,
                memory_mib=psutil.virtual_memory().total // 2**20,
                libvirt=version(opened.getLibVersion()),
                qemu=version(opened.getVersion()),
                connect=self.uri,
                acceleration=how.name,
                acceleration_reason=how.reason,
            )
        if not how.kvm:
            self.observer.note(f"guests run under software emulation, about ten times slower: {how.reason}")


def default_jobs(cells: Sequence[Cell]) -> int:
    """As many lanes as this host's processors and free memory carry, and at most one for each guest."""
    guests = {cell.guest.name: cell.guest for cell in cells}.values()
    memory = max(guest.memory_mib for guest in guests) + QEMU_OVERHEAD_MIB
    by_memory = psutil.virtual_memory().available // 2**20 // memory
    return max(1, min(len(guests), os.cpu_count() or 1, by_memory))


def new_folder(paths: Paths, wanted: Path | None) -> Path:
    """The folder of a new run. An own one must not hold a run already."""
    if wanted is None:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        base = paths.make(paths.runs) / stamp
        folder, number = base, 1
        while folder.exists():
            number += 1
            folder = base.with_name(f"{stamp}-{number}")
        return folder
    if (wanted / RESULTS_FILE).exists():
        raise UsageError(f"-o {wanted}: there is a run in it already", hint="name a new folder")
    return wanted.resolve()
