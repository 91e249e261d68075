"""A run whose cells are run by other hosts. This process has the plan, the record and the evidence."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lab.base import scratch
from lab.base.errors import LabError
from lab.base.files import make_folder
from lab.base.paths import Paths
from lab.fleet.address import Address
from lab.fleet.desk import Desk
from lab.fleet.engine import Engine
from lab.fleet.handout import MOST_SECONDS, Handout
from lab.fleet.intake import Intake
from lab.fleet.merging import Merger
from lab.fleet.pinning import Pinning
from lab.fleet.receiving import Receiver
from lab.plan import Cell
from lab.record import RunResult
from lab.run.journal import Journal, locked_folder
from lab.run.observer import Observer
from lab.run.start import PlannedRun

# Where results arrive, in the run's folder.
ARRIVING = ".arriving-"


@dataclass
class Coordinator:
    """Runs a planned run on the hosts that join at `address`.

    `security` are the arguments of dask's `Security`; `paths` has the store of images. `needs_kvm`: no
    cells go to a host without KVM.
    """

    planned: PlannedRun
    paths: Paths
    address: Address
    security: dict[str, Any]
    observer: Observer
    offline: bool = False
    listening: Callable[[str], None] = lambda address: None
    most_seconds: float = MOST_SECONDS
    needs_kvm: bool = False
    desk: Desk | None = None
    _session: "_Session | None" = None
    _is_stopped: bool = False

    def run(self) -> RunResult:
        """Run every cell that is left and return the record, which is then in the run's folder too.

        A KeyboardInterrupt ends the run with what hosts have decided. Raises LabError.
        """
        folder, info = self.planned.folder, self.planned.info
        make_folder(folder)
        with locked_folder(folder), scratch.make_in(folder, ARRIVING) as arriving:
            for abandoned in scratch.abandoned(folder, ARRIVING):
                shutil.rmtree(abandoned)
            journal = Journal(folder, self.planned.cells, info, self.planned.kept)
            journal.write()
            left = self.planned.left
            to_try = {cell.folder for cell in left if journal.is_decided(cell)}
            desk = self.desk = Desk(
                Handout(left, info.options, self.most_seconds, journal.is_decided),
                Intake(Merger(journal, self.observer, to_try), Receiver(arriving)),
                self.observer,
                info.options,
                info.id,
                self._pinning(left),
                offline=self.offline,
                needs_kvm=self.needs_kvm,
            )
            try:
                self._serve(desk)
            finally:
                shutil.rmtree(arriving)
            journal.info.host = _only_host(journal)
            return journal.finish(interrupted=desk.stopping, spent=desk.intake.spending.sessions())

    def _pinning(self, cells: Sequence[Cell]) -> Pinning:
        guests = {cell.guest.name: cell.guest for cell in cells}
        return Pinning(self.paths, list(guests.values()), self.observer, self.offline)

    def stop(self) -> None:
        """End the run soon, or as soon as it begins, from another thread, as Ctrl-C does."""
        self._is_stopped = True
        if self._session:
            self._session.interrupt()

    def _serve(self, desk: Desk) -> None:
        """Serve in a thread of its own: no signal must end the loop in the middle of a step."""
        session = self._session = _Session(desk, self.address, self.security, self.listening)
        thread = threading.Thread(target=session.run, name="coordinator", daemon=True)
        thread.start()
        if self._is_stopped:
            session.interrupt()
        try:
            session.ended.wait()
        except KeyboardInterrupt:
            session.interrupt()
            session.ended.wait()
        thread.join()
        if session.error:
            raise session.error


class _Session:
    """The event loop of a coordinator."""

    def __init__(
        self, desk: Desk, address: Address, security: dict[str, Any], listening: Callable[[str], None]
    ) -> None:
        self._desk, self._address, self._security = desk, address, security
        self._listening = listening
        self._loop = asyncio.new_event_loop()
        self.ended = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._run())
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()

    def interrupt(self) -> None:
        """End the run soon, from another thread."""
        with suppress(RuntimeError):  # The loop has ended.
            self._loop.call_soon_threadsafe(self._desk.stop)

    async def _run(self) -> None:
        async with Engine(self._desk, self._security) as engine:
            self._desk.transport = engine
            try:
                address = await engine.listen(self._address)
            except OSError as error:
                raise LabError(
                    f"the coordinator cannot listen on {self._address}: {error.strerror or error}",
                    hint="name another port with --hosts, or end the program that has this one",
                ) from error
            self._listening(address)
            await self._desk.work(engine.silent)


def _only_host(journal: Journal) -> Any:
    """What all lanes ran on, if it is the same; each lane says its own."""
    hosts = {lane.host for lane in journal.info.lanes}
    return hosts.pop() if len(hosts) == 1 else None
