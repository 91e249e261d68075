"""A run whose cells are run by other hosts. This process has the plan, the record and the evidence.

dask gives parts to hosts. What becomes of their cells is decided as in a run on one host: by `Decisions`, over
a `Backlog` and a `Journal`. One thread decides; all others put what they have to say into its inbox.
"""

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from distributed import KilledWorker
from pydantic import ValidationError

from lab.base import archives, scratch
from lab.base.errors import LabError, format_error
from lab.base.files import clean_text, cut_text, make_folder, write_atomically
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.fleet import engine, messages, part, results
from lab.fleet.dispatch import Dispatch, SubmittedPart
from lab.fleet.inventory import Inventory
from lab.fleet.messages import (
    Event,
    ImageLacks,
    ImagePrepared,
    LaneEvent,
    NoteEvent,
    PartBegins,
    PredictionEvent,
)
from lab.fleet.part import PartRefused
from lab.fleet.roster import Roster, start_thread
from lab.fleet.run_images import RunImages
from lab.images.store import ImageManifest
from lab.plan import PlannedRun
from lab.record import RunResult, Status
from lab.record.folders import lock_folder
from lab.run import backlog
from lab.run.backlog import Ticket
from lab.run.decisions import Decisions
from lab.run.journal import UNDECIDED
from lab.run.observer import Observer

# A part is no longer than this, in typical seconds: what a lost host costs, and how evenly hosts end.
MOST_SECONDS = 15 * 60.0
# The lab may fail so often with a part; once on each host, if there are more.
MOST_FAILURES = 3
# How long hosts have to come to an end after Ctrl-C: machines are taken down, and results sent.
STOP_SECONDS = 120.0
# How often it is looked which hosts there are, and what has come in.
LOOK_SECONDS, TICK_SECONDS = 1.0, 0.1
# How much of a failure is told, in characters.
LONGEST_FAULT = 1000
# Where results are unpacked, and where the run's key is for a host that dials in, in the run's folder.
ARRIVING, CREDENTIALS = ".arriving-", "credentials.pem"


@dataclass
class Coordinator:
    """Runs a planned run on the hosts of an inventory.

    `paths` has the store of images. `again` is the command that continues the run.
    """

    planned: PlannedRun
    paths: Paths
    inventory: Inventory
    observer: Observer
    offline: bool = False
    again: str = "lab matrix --resume"
    most_seconds: float = MOST_SECONDS
    _inbox: SimpleQueue[Callable[[], None]] = field(default_factory=SimpleQueue)
    _stop_by: float | None = None

    def run(self) -> RunResult:
        """Run every cell that is left and return the record, which is then in the run's folder too.

        A KeyboardInterrupt ends the run with what hosts have decided. Raises LabError if no host is left, and
        UsageError if nothing can listen where the inventory says.
        """
        folder, info = self.planned.folder, self.planned.info
        make_folder(folder)
        with lock_folder(folder):
            for abandoned in scratch.find_abandoned_folders(folder, ARRIVING):
                shutil.rmtree(abandoned)
            # Trials that are left on a cell are made by a run on one host.
            earlier = self.planned.earlier_results
            cells = [cell for cell in self.planned.cells_to_run if cell.folder not in earlier]
            retries = max(MOST_FAILURES, len(self.inventory.hosts)) - 1
            self._decisions = Decisions(self.planned, cells, self.observer, retries=retries)
            self._backlog, self._journal = self._decisions.backlog, self._decisions.journal
            self.observer = self._decisions.observer
            self._journal.write()
            # In a thread of its own: no signal must end it in the middle of a step.
            thread = threading.Thread(target=self._serve, name="coordinator", daemon=True)
            thread.start()
            while thread.is_alive():
                try:
                    thread.join()
                except KeyboardInterrupt:
                    self.stop()
            hosts = {lane.host.itself: lane.host for lane in info.lanes if lane.host}
            info.host = hosts.popitem()[1] if len(hosts) == 1 else None
            return self._decisions.finish()

    def stop(self) -> None:
        """End the run soon, from another thread, as Ctrl-C does: what hosts have decided is kept."""
        self._inbox.put(self._stop)

    @property
    def _is_stopping(self) -> bool:
        return self._decisions.cancel_token.is_cancelled

    def _crash(self, error: BaseException) -> None:
        """End the run with an error; the first one counts."""
        self._decisions.crash = self._decisions.crash or error

    # -- the thread that decides

    def _serve(self) -> None:
        """Run the session, from dask's start to its end."""
        listen, key, hosts = self.inventory.coordinator, engine.make_key(), self.inventory.hosts
        credentials = self.planned.folder / CREDENTIALS
        try:
            session = engine.start_engine(
                listen.address, listen.port, engine.make_security(key), hosts=len(hosts)
            )
            with session as (client, port):
                self._roster = Roster(client, self.observer, self._lose_parts_of)
                self._dispatch = Dispatch(client, self._decisions, self._deliver, offline=self.offline)
                self._images = RunImages(self.paths, self._roster, self.observer, offline=self.offline)
                client.subscribe_topic(
                    part.TOPIC, lambda event: self._inbox.put(partial(self._take_event, event[1]))
                )
                if listen.port is not None:
                    write_atomically(credentials, key, mode=0o600)
                    self.observer.note(f"hosts may dial in at tls://{listen.address}:{port} with {credentials}")
                self._roster.start_logins(hosts, key, (listen.address, port))
                start_thread(self._pin_images)
                try:
                    self._work()
                finally:
                    self._images.token.cancel()
                    self._roster.end()
        except BaseException as error:
            self._crash(error)
        finally:
            credentials.unlink(missing_ok=True)

    def _work(self) -> None:
        """Submit parts until every cell is decided, or the run was stopped and its hosts have ended."""
        last_look = 0.0
        while not self._decisions.crash and not self._is_done():
            self._submit_parts()
            with suppress(Empty):
                self._inbox.get(timeout=TICK_SECONDS)()
                while True:
                    self._inbox.get_nowait()()
            if time.monotonic() - last_look >= LOOK_SECONDS:
                last_look = time.monotonic()
                self._look()
                self._decide_unsuited()

    def _is_done(self) -> bool:
        if self._stop_by is not None:
            return time.monotonic() > self._stop_by or not self._dispatch.is_running
        return not self._dispatch.parts and not self._backlog.waiting()

    def _stop(self) -> None:
        """End all parts soon; what they decided is kept."""
        if self._is_stopping:
            return
        self._decisions.interrupt()
        self._images.token.cancel()
        self._stop_by = time.monotonic() + STOP_SECONDS
        for submitted in self._dispatch.parts.values():
            if not submitted.host:
                submitted.withdraw()
        for name in self._roster.hosts:
            start_thread(self._roster.call, name, part.stop_parts)

    def _look(self) -> None:
        """Look which hosts there are, and withdraw the parts that none of them may run."""
        self._roster.update()
        usable, info = self._roster.usable, self._journal.info
        info.host_names += [name for name in usable if name not in info.host_names]
        self._dispatch.withdraw_unreachable(usable)
        self._decisions.jobs = max(1, sum(joined.lanes for joined in usable.values()))

    def _decide_unsuited(self) -> None:
        """Decide what no host can run. Raise LabError if no host is left at all, and none can dial in."""
        if self._is_stopping or self._roster.is_coming or self._dispatch.is_running:
            return
        hosts = self._roster.usable.values()
        if hosts:
            for submitted in self._dispatch.parts.values():
                guest = submitted.tickets[0].cell.guest
                if not any(joined.suits(guest) for joined in hosts) and submitted.withdraw():
                    reason = self._roster.explain_unsuited(guest)
                    self._decisions.decide_all(submitted.tickets, Status.NOT_RUN, reason)
        elif self.inventory.coordinator.port is None:
            faults = self._roster.list_faults()
            raise LabError("\n".join(["no host is left:", *faults]), hint=self.again)

    # -- what waits

    def _pin_images(self) -> None:
        """Find an image for each guest, one after another, in a thread of its own."""
        for guest in {ticket.cell.guest.name: ticket.cell.guest for ticket in self._backlog.waiting()}.values():
            try:
                self._images.pin(guest)
            except LabError as error:
                self._inbox.put(partial(self._decide_without_image, guest, error))
            except Exception as error:
                self._inbox.put(partial(self._crash, error))

    def _decide_without_image(self, guest: Guest, error: LabError) -> None:
        if not self._is_stopping:
            tickets = [ticket for ticket in self._backlog.waiting() if ticket.cell.guest.name == guest.name]
            self._decisions.decide_without_image(tickets, guest.name, error)

    def _submit_parts(self) -> None:
        """Give dask what waits: parts of one machine, the longest with the highest priority."""
        hosts = self._roster.usable
        if self._is_stopping or not hosts:
            return
        submitted, pins = self._dispatch.tickets, self._images.pins
        waiting = [
            ticket
            for ticket in self._backlog.waiting()
            if ticket not in submitted
            and ticket.cell.guest.name in pins
            # Another host is on its way, and the lab failed with it on all that are there.
            and not (self._roster.is_coming and self._dispatch.failed_on_all(ticket, hosts))
        ]
        for tickets in backlog.cut_tickets(waiting, self.planned.info.options, self.most_seconds):
            guest = tickets[0].cell.guest.name
            image, is_ready = pins[guest]
            # The first part of a guest prepares its image, and the others wait for that.
            if is_ready or all(submitted.guest != guest for submitted in self._dispatch.parts.values()):
                self._dispatch.submit(tickets, image, hosts)

    # -- what hosts say

    def _take_event(self, message: Any) -> None:
        """Take in what a host says of a part."""
        # dask says who says it. What is no dictionary is from no lab.
        content = dict(message) if isinstance(message, dict) else {}
        name = self._roster.find_name(content.pop("worker", ""))
        if not name:
            return
        try:
            event = messages.read_event(content)
            submitted = self._dispatch.parts.get(event.part)
            if isinstance(event, ImagePrepared) and submitted:
                _check_prepared(event.image, submitted.image.manifest)
        except (ValidationError, archives.DamagedArchive) as error:
            self._blame(name, content.get("part"), format_error(error))
            return
        if submitted:
            self._act_on(event, name, submitted)
        elif isinstance(event, ImageLacks):
            # dask may start a part again although its result is here: that waits for its image, too.
            start_thread(self._images.refuse, name, event.part, event.folder)

    def _act_on(self, event: Event, name: str, submitted: SubmittedPart) -> None:
        """Do what a host's event asks for."""
        image = submitted.image
        match event:
            case PartBegins() if not submitted.fault:  # One that was withdrawn may begin elsewhere meanwhile.
                # dask may have given it to another host before it was seen that the first one had gone.
                self._lose(submitted)
                self._dispatch.begin(submitted, name)
            case LaneEvent() if name == submitted.host:  # A host that was lost may still say what it does.
                self.observer.lane(self._dispatch.label_lane(submitted, event.lane), event.progress)
            case PredictionEvent() if name == submitted.host:
                for ticket in submitted.tickets:
                    if ticket.cell.name == event.cell:
                        self.observer.prediction(ticket.cell, event.prediction)
            case NoteEvent():
                self.observer.note(f"{name}: {event.text}")
            case ImageLacks():
                start_thread(self._images.bring, name, image, event.folder)
            case ImagePrepared() if self._images.pins.get(submitted.guest) == (image, False):
                del self._images.pins[submitted.guest]
                start_thread(self._images.fetch, name, image, event.image, event.folder)

    def _blame(self, name: str, number: object, reason: str) -> None:
        """A host said what makes no sense: a fault of its part, or of the host if it has no such part."""
        fault = f"{name} sent something that the lab does not understand: {reason}"
        submitted = self._dispatch.parts.get(number) if isinstance(number, int) else None
        if submitted is None or submitted.host != name:
            self.observer.note(fault)
            self._roster.count_failure(name, fault)
        elif not submitted.fault:
            submitted.fault = fault
            submitted.withdraw()

    def _lose_parts_of(self, name: str) -> None:
        """A host has gone: dask gives its parts to others."""
        for submitted in self._dispatch.parts.values():
            if submitted.host == name:
                self._lose(submitted)

    def _lose(self, submitted: SubmittedPart) -> None:
        """A part was lost with its host, if it had one. That costs a try, unless the run ended the worker."""
        self._dispatch.lose(submitted, is_failure=submitted.host not in self._roster.refusals)

    # -- results

    def _deliver(self, submitted: SubmittedPart, result: Any) -> None:
        self._inbox.put(partial(self._end_part, submitted, result))

    def _end_part(self, submitted: SubmittedPart, result: Any) -> None:
        """A part is at its end, one way or another."""
        is_withdrawn = self._dispatch.remove(submitted)
        try:
            if submitted.fault:
                self._fail_part(submitted, LabError(submitted.fault))
            elif not isinstance(result, BaseException):
                self._take_result(submitted, result)
            elif not is_withdrawn and not self._is_stopping:
                self._fail_part(submitted, result)
        except archives.DamagedArchive as error:
            fault = LabError(f"the result of {submitted.host} cannot be used: {error}")
            self._fail_part(submitted, fault)
        self._backlog.put_back_unfinished(submitted.tickets)
        self._dispatch.hide_lanes(submitted)

    def _take_result(self, submitted: SubmittedPart, archive: bytes) -> None:
        """Take in what the host of a part has decided: first the evidence, then the decision."""
        tickets = {ticket.cell.folder: ticket for ticket in submitted.tickets}
        builds = {ticket.cell.build.name: ticket.cell.build for ticket in submitted.tickets}
        with scratch.make_locked_folder(self.planned.folder, ARRIVING) as arriving:
            try:
                run, end = results.unpack_part(archive, arriving, tickets, builds)
                submitted.host = submitted.host or end.host
                for record in run.run.builds:
                    self._journal.deployed(builds[record.name], record.files)
                for lane in run.run.lanes:
                    label = self._dispatch.label_lane(submitted, lane.label)
                    self._journal.add_lane(lane.in_run(label, lane.host or run.run.host))
                self._take_cells(submitted, run, tickets, arriving)
            finally:
                shutil.rmtree(arriving, ignore_errors=True)
        if self._backlog.open(submitted.tickets) and not self._is_stopping:
            words = f"the lab on {submitted.host} ended with exit status {end.status}: {end.words}"
            self._fail_part(submitted, LabError(words.rstrip(": ")))

    def _take_cells(
        self, submitted: SubmittedPart, run: RunResult, tickets: dict[Path, Ticket], arriving: Path
    ) -> None:
        """Decide the cells that a host has decided; their evidence is in the folder `arriving`."""
        # A run that came to its end has tried everything, as often as a run on one host would.
        is_whole = run.run.finished is not None and not run.run.interrupted
        for cell in run.cells:
            if cell.status is Status.NOT_RUN and cell.reason in UNDECIDED:
                continue
            with archives.guard_reading():
                results.keep_evidence(arriving / cell.folder, self.planned.folder / cell.folder)
            ticket = tickets[cell.folder]
            history = cell.history.on_lanes(partial(self._dispatch.label_lane, submitted))
            ticket.errors += [fault for fault in history.retried if fault not in ticket.errors]
            # What its suite showed stands, also if trials are left.
            self._decisions.decide(
                ticket,
                cell.with_parts(history=history),
                history.lane,
                unfinished=history.unfinished and not is_whole,
            )
            self._roster.count_success(submitted.host)

    def _fail_part(self, submitted: SubmittedPart, error: BaseException) -> None:
        """The lab failed with a part: another host tries what is left of it, or its cells are given up."""
        name, number, is_lost = submitted.host, submitted.number, isinstance(error, KilledWorker)
        fault = cut_text(clean_text(str(error)), LONGEST_FAULT)
        if len(submitted.hosts) > 1 and not is_lost:
            # The first host went before its result was here, so whose this is cannot be told.
            self.observer.note(f"part {number} is run again: {fault}")
            return
        if isinstance(error, PartRefused) and name in self._roster.hosts:
            self._roster.refuse(name, fault)
            return
        if isinstance(error, KilledWorker):
            fault = f"lost with its host {error.allowed_failures + 1} times"
        self.observer.note(f"part {number}: {fault}")
        undecided = self._backlog.open(submitted.tickets)
        # The run ends the worker of a host that it has refused: that costs no try, as in `_lose`.
        if name not in self._roster.refusals:
            for ticket in undecided:
                ticket.errors.append(fault)
        self._dispatch.note_failure(undecided, name)
        hopeless = [ticket for ticket in undecided if is_lost or len(ticket.errors) > self._decisions.retries]
        self._decisions.decide_all(hopeless, Status.ERROR, fault)
        self._roster.count_failure(name, fault)


def _check_prepared(prepared: ImageManifest, original: ImageManifest) -> None:
    """Raise archives.DamagedArchive if an image that a host has prepared is not one of the image that it was
    given.
    """
    if (prepared.guest, prepared.arch, prepared.base) != (original.guest, original.arch, original.disk_sha256):
        raise archives.DamagedArchive("it prepared an image that does not belong to its part")
