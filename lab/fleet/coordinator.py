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
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Future, KilledWorker
from pydantic import ValidationError

from lab.base import scratch
from lab.base.activity import Activity, Progress, Task
from lab.base.errors import LabError, one_line
from lab.base.files import bounded, make_folder, plain, write_atomically
from lab.base.paths import Paths
from lab.builds import archives
from lab.catalog import Guest
from lab.fleet import engine, host, images, messages, part, results
from lab.fleet.engine import Joined, Piece
from lab.fleet.inventory import Inventory
from lab.fleet.login import Login, end_all
from lab.fleet.messages import ImageLacks, ImagePrepared, LaneEvent, NoteEvent, PartBegins
from lab.fleet.part import Part, PartRefused
from lab.images.store import BaseImage, Manifest
from lab.machine.budget import Memory
from lab.plan import PlannedRun
from lab.record import RunResult, Status
from lab.record.folders import locked_folder
from lab.run import backlog
from lab.run.backlog import Ticket
from lab.run.decisions import Decisions
from lab.run.journal import UNDECIDED
from lab.run.observer import Observer

# A part is no longer than this, in typical seconds: what a lost host costs, and how evenly hosts end.
MOST_SECONDS = 15 * 60.0
# The lab may fail so often with a part; once on each host, if there are more.
MOST_FAILURES = 3
# A host whose lab fails so often in a row, and decides nothing, gets no more parts if there is another host.
FAILURES_OF_A_HOST = 2
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
    _pieces: dict[int, Piece] = field(default_factory=dict)
    _numbers: int = 0
    _hosts: dict[str, Joined] = field(default_factory=dict)
    _logins: dict[str, Login] = field(default_factory=dict)
    # By guest: its image, and whether lanes can start from it as it is. None while a prepared one is fetched.
    _pins: dict[str, tuple[BaseImage, bool]] = field(default_factory=dict)
    # On which hosts the lab failed with a ticket.
    _avoids: dict[Ticket, set[str]] = field(default_factory=dict)
    # Why hosts get no more parts.
    _refused: dict[str, str] = field(default_factory=dict)
    _stop_by: float | None = None
    _is_over: bool = False

    def run(self) -> RunResult:
        """Run every cell that is left and return the record, which is then in the run's folder too.

        A KeyboardInterrupt ends the run with what hosts have decided. Raises LabError if no host is left, and
        UsageError if nothing can listen where the inventory says.
        """
        folder, info = self.planned.folder, self.planned.info
        make_folder(folder)
        with locked_folder(folder):
            for abandoned in scratch.abandoned(folder, ARRIVING):
                shutil.rmtree(abandoned)
            # Trials that are left on a cell are made by a run on one host.
            earlier = self.planned.earlier_results
            left = [cell for cell in self.planned.cells_to_run if cell.folder not in earlier]
            most = max(MOST_FAILURES, len(self.inventory.hosts)) - 1
            self._decisions = Decisions(self.planned, left, self.observer, retries=most)
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

    def _fail(self, error: BaseException) -> None:
        self._decisions.crash = self._decisions.crash or error

    # -- the session

    def _serve(self) -> None:
        where, pem = self.inventory.coordinator, engine.new_key()
        try:
            listed, secured = self.inventory.hosts, engine.security(pem)
            with engine.running(where.address, where.port, secured, hosts=len(listed)) as (self._client, port):
                self._client.subscribe_topic(
                    part.TOPIC, lambda told: self._inbox.put(partial(self._event, told[1]))
                )
                if where.port is not None:
                    file = self.planned.folder / CREDENTIALS
                    write_atomically(file, pem, mode=0o600)
                    self.observer.note(f"hosts may dial in at tls://{where.address}:{port} with {file}")
                for name, own in listed.items():
                    self._logins[name] = Login(name, own, pem, (where.address, port), self.observer.note)
                    self._logins[name].start()
                self._apart(self._pin_all)
                try:
                    self._work()
                finally:
                    self._is_over = True
                    end_all(self._logins, self.observer.note)
        except BaseException as error:
            self._fail(error)
        finally:
            (self.planned.folder / CREDENTIALS).unlink(missing_ok=True)

    def _work(self) -> None:
        """Hand out parts until every cell is decided, or the run was stopped and its hosts have ended."""
        looked = 0.0
        while not self._decisions.crash and not self._is_done():
            self._hand_out()
            with suppress(Empty):
                self._inbox.get(timeout=TICK_SECONDS)()
                while True:
                    self._inbox.get_nowait()()
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                self._look()
                self._wait_no_longer()

    def _is_done(self) -> bool:
        if self._stop_by is not None:
            return time.monotonic() > self._stop_by or not any(piece.host for piece in self._pieces.values())
        return not self._pieces and not self._backlog.waiting()

    def _stop(self) -> None:
        """End all parts soon; what they decided is kept."""
        if self._is_stopping:
            return
        self._decisions.interrupt()
        self._stop_by = time.monotonic() + STOP_SECONDS
        for piece in self._pieces.values():
            if not piece.host:
                piece.future.cancel()
        for name in self._hosts:
            self._apart(self._call, name, part.stop)

    def _apart(self, what: Callable[..., None], *arguments: Any) -> None:
        """Do what may take long in a thread of its own."""
        threading.Thread(target=what, args=arguments, daemon=True).start()

    def _call(self, name: str, what: Callable[..., None], *arguments: Any) -> None:
        """Call a function in a host's worker, again if that fails, until it answers or has gone.

        What it tells is waited for without a limit, so one lost connection must not lose it.
        """
        while not self._is_over and (joined := self._hosts.get(name)):
            try:
                self._client.run(what, *arguments, workers=[joined.address])
                return
            except Exception:  # What dask raises for a worker that it does not reach, or that has gone.
                time.sleep(LOOK_SECONDS)

    # -- images

    def _pin_all(self) -> None:
        """Find an image for each guest, one after another; build or download those that are not stored."""
        for guest in {ticket.cell.guest.name: ticket.cell.guest for ticket in self._backlog.waiting()}.values():
            lane = f"coordinator: {guest.name}"

            def show(progress: Progress, lane: str = lane) -> None:
                self.observer.lane(lane, progress.within(Activity.IMAGE, prefix="image: "))

            try:
                task = Task(show, self._check_wanted)
                self._pins[guest.name] = images.pin(self.paths, guest, task, offline=self.offline)
            except LabError as error:
                self._inbox.put(partial(self._has_no_image, guest, error))
            except Exception as error:
                self._inbox.put(partial(self._fail, error))
            finally:
                self.observer.lane(lane, None)

    def _check_wanted(self) -> None:
        """Raise LabError if no image is needed any more."""
        if self._is_stopping or self._is_over:
            raise LabError("interrupted")

    def _has_no_image(self, guest: Guest, error: LabError) -> None:
        if self._is_stopping:
            return
        tickets = [ticket for ticket in self._backlog.waiting() if ticket.cell.guest.name == guest.name]
        self._decisions.decide_without_image(tickets, guest.name, error)

    def _push(self, name: str, piece: Piece, folder: str) -> None:
        """Bring its image to the host of a part, which waits for it."""
        on_its_way = Progress("image: on its way to this host", Activity.IMAGE)
        self.observer.lane(f"{name}: {piece.guest}", on_its_way)
        try:
            if name not in self._logins:
                raise LabError(f"{name} dialled in and lacks the image of {piece.guest}: copy it there")
            images.push(self._logins[name], piece.image, folder)
        except LabError as error:
            self._call(name, images.report_failure, piece.image.manifest.digest, str(error))

    def _fetch(self, name: str, piece: Piece, manifest: Manifest, folder: str) -> None:
        """Take over the image that the host of a part has prepared."""
        lane, pin = f"coordinator: {piece.guest}", (piece.image, False)
        self.observer.lane(lane, Progress(f"image: on its way from {name}", Activity.IMAGE))
        try:
            pin = images.fetch(self.paths, self._logins[name], manifest, folder), True
        except (LabError, KeyError) as error:
            self.observer.note(f"{piece.guest}: the image that {name} prepared did not come here: {error}")
        self.observer.lane(lane, None)
        self._pins[piece.guest] = pin

    # -- handing out

    def _hand_out(self) -> None:
        """Give dask what waits: parts of one machine, the longest with the highest priority."""
        if self._is_stopping or not self._usable:
            return
        given = {ticket for piece in self._pieces.values() for ticket in piece.tickets}
        waiting = [
            ticket
            for ticket in self._backlog.waiting()
            if ticket not in given
            and ticket.cell.guest.name in self._pins
            # Another host is on its way, and the lab failed with it on all that are there.
            and not (self._is_coming and self._avoids.get(ticket, set()) >= self._usable.keys())
        ]
        for tickets in backlog.cut(waiting, self.planned.info.options, self.most_seconds):
            guest = tickets[0].cell.guest.name
            image, is_ready = self._pins[guest]
            # The first part of a guest prepares its image, and the others wait for that.
            if is_ready or all(piece.guest != guest for piece in self._pieces.values()):
                self._submit(tickets, image)

    def _submit(self, tickets: list[Ticket], image: BaseImage) -> None:
        self._numbers += 1
        cell, options, number = tickets[0].cell, self.planned.info.options, self._numbers
        made = Part.of(tickets, self._journal, number=number, offline=self.offline, image=image.manifest)
        need = Memory.need_mib(cell.guest.memory_mib)
        avoided = set[str]().union(*(self._avoids.get(ticket, ()) for ticket in tickets))
        others = [
            joined.address
            for name, joined in self._usable.items()
            if name not in avoided and joined.suits(cell.guest)
        ]
        only = others if avoided else []
        future = self._client.submit(
            part.run_part,
            made.model_dump_json(),
            key=f"part-{number}",
            # A host whose lab fails is idle at once. So dask's own `retries` would give it to the same host
            # again, and so would its balancing if other workers were allowed.
            workers=only or None,
            resources={"lane": 1, "memory": need, cell.guest.arch: 1},
            priority=int(sum(backlog.typical_seconds(ticket, options) for ticket in tickets)),
            pure=False,
        )
        piece = self._pieces[number] = Piece(number, tickets, image, future, frozenset(only))
        future.add_done_callback(partial(self._apart, self._bring, piece))

    def _bring(self, piece: Piece, future: Future) -> None:
        """Fetch what became of a part. What its host told of it before is in the inbox already."""
        try:
            result = future.result()
        except BaseException as error:  # Whatever a host raised, and what cannot be read.
            result = error
        self._inbox.put(partial(self._ended, piece, result))

    # -- what hosts tell

    def _event(self, message: Any) -> None:
        """Take in what a host tells of a part."""
        # dask says who tells it. What is no dictionary is from no lab.
        content = dict(message) if isinstance(message, dict) else {}
        name = self._name_of(content.pop("worker", ""))
        if not name:
            return
        try:
            event = messages.read_event(content)
            piece = self._pieces.get(event.part)
            if isinstance(event, ImagePrepared) and piece:
                _check_prepared(event.image, piece.image.manifest)
        except (ValidationError, archives.Damaged) as error:
            self._misunderstood(name, content.get("part"), one_line(error))
            return
        if piece is None:
            return
        match event:
            case PartBegins() if not piece.fault:  # What was taken from its host may begin elsewhere meanwhile.
                # dask may have given it to another host before it was seen that the first one had gone.
                self._lost(piece)
                piece.host = name
                piece.hosts.add(name)
                self._backlog.begin(piece.tickets)
            case LaneEvent() if name == piece.host:  # A host that was lost may still tell what it does.
                self.observer.lane(self._lane(piece, event.lane), event.progress)
            case NoteEvent():
                self.observer.note(f"{name}: {event.text}")
            case ImageLacks():
                self._apart(self._push, name, piece, event.folder)
            case ImagePrepared() if self._pins.get(piece.guest) == (piece.image, False):
                del self._pins[piece.guest]
                self._apart(self._fetch, name, piece, event.image, event.folder)

    def _name_of(self, address: object) -> str:
        """The host whose worker has this address; empty if it has not joined, or has gone."""
        if all(joined.address != address for joined in self._hosts.values()):
            self._look()
        return next((name for name, joined in self._hosts.items() if joined.address == address), "")

    def _misunderstood(self, name: str, number: object, reason: str) -> None:
        """A host told what makes no sense: a fault of its part, or of the host if it has no such part."""
        fault = f"{name} sent something that the lab does not understand: {reason}"
        piece = self._pieces.get(number) if isinstance(number, int) else None
        if piece is None or piece.host != name:
            self.observer.note(fault)
            self._count_failure(name, fault)
        elif not piece.fault:
            piece.fault = fault
            piece.future.cancel()

    def _lane(self, piece: Piece, own: str) -> str:
        """The label of a lane of a part; its host calls it `own`."""
        if own and own not in piece.lanes:
            piece.lanes[own] = self._decisions.labels.next(f"{piece.host}: {piece.tickets[0].machine}")
        return piece.lanes.get(own, "")

    def _clear(self, piece: Piece) -> None:
        """Show the lanes of a part no more."""
        for label in [*piece.lanes.values(), f"{piece.host}: {piece.guest}"] if piece.host else ():
            self.observer.lane(label, None)
        piece.lanes = {}

    # -- results

    def _ended(self, piece: Piece, result: Any) -> None:
        """A part is at its end, one way or another."""
        del self._pieces[piece.number]
        is_cancelled = piece.future.cancelled()
        piece.future.release()
        try:
            if piece.fault:
                self._failed(piece, LabError(piece.fault))
            elif not isinstance(result, BaseException):
                self._take(piece, result)
            elif not is_cancelled and not self._is_stopping:
                self._failed(piece, result)
        except archives.Damaged as error:
            self._failed(piece, LabError(f"the result of {piece.host} cannot be used: {error}"))
        self._backlog.put_back_unfinished(piece.tickets)
        self._clear(piece)

    def _take(self, piece: Piece, archive: bytes) -> None:
        """Take in what the host of a part has decided: first the evidence, then the decision."""
        tickets = {ticket.cell.folder: ticket for ticket in piece.tickets}
        builds = {ticket.cell.build.name: ticket.cell.build for ticket in piece.tickets}
        with scratch.make_in(self.planned.folder, ARRIVING) as arriving:
            try:
                run, end = results.unpack(archive, arriving, tickets, builds)
                piece.host = piece.host or end.host
                for record in run.run.builds:
                    self._journal.deployed(builds[record.name], record.files)
                for lane in run.run.lanes:
                    label = self._lane(piece, lane.label)
                    self._journal.add_lane(lane.in_run(label, lane.host or run.run.host))
                # One that came to its end has tried everything, as often as a run on one host would.
                is_whole = run.run.finished is not None and not run.run.interrupted
                for sent in run.cells:
                    if sent.status is Status.NOT_RUN and sent.reason in UNDECIDED:
                        continue
                    with archives.reading():
                        results.keep_evidence(arriving / sent.folder, self.planned.folder / sent.folder)
                    ticket = tickets[sent.folder]
                    history = sent.history.on_lanes(partial(self._lane, piece))
                    ticket.errors += [fault for fault in history.retried if fault not in ticket.errors]
                    # What its suite showed stands, also if trials are left.
                    self._decisions.decide(
                        ticket,
                        sent.with_parts(history=history),
                        history.lane,
                        unfinished=history.unfinished and not is_whole,
                    )
                    if joined := self._hosts.get(piece.host):
                        joined.failures = 0
            finally:
                shutil.rmtree(arriving, ignore_errors=True)
        if self._backlog.open(piece.tickets) and not self._is_stopping:
            words = f"the lab on {piece.host} ended with exit status {end.status}: {end.words}"
            self._failed(piece, LabError(words.rstrip(": ")))

    def _failed(self, piece: Piece, error: BaseException) -> None:
        """The lab failed with a part: another host tries what is left of it, or its cells are given up."""
        name, left = piece.host, self._backlog.open(piece.tickets)
        fault, is_lost = bounded(plain(str(error)), LONGEST_FAULT), isinstance(error, KilledWorker)
        if len(piece.hosts) > 1 and not is_lost:
            # The first host went before its result was here, so whose this is cannot be told.
            self.observer.note(f"part {piece.number} is run again: {fault}")
            return None
        if isinstance(error, PartRefused) and name in self._hosts:
            return self._refuse(name, fault)
        if isinstance(error, KilledWorker):
            fault = f"lost with its host {error.allowed_failures + 1} times"
        self.observer.note(f"part {piece.number}: {fault}")
        for ticket in left:
            # The run ends the worker of a host that it has refused: that costs no try, as in `_lost`.
            if name not in self._refused:
                ticket.errors.append(fault)
            self._avoids.setdefault(ticket, set()).add(name)
        lost = [ticket for ticket in left if is_lost or len(ticket.errors) > self._decisions.retries]
        self._decisions.decide_all(lost, Status.ERROR, fault)
        self._count_failure(name, fault)
        return None

    def _count_failure(self, name: str, fault: str) -> None:
        """The lab of a host failed: it gets no more parts if that is so too often and there is another host."""
        if joined := self._usable.get(name):
            joined.failures += 1
            if joined.failures >= FAILURES_OF_A_HOST and len(self._usable) > 1:
                last = bounded(" ".join(fault.split()), 300)
                self._refuse(name, f"its lab failed {joined.failures} times in a row, the last time: {last}")

    # -- which hosts there are

    @property
    def _usable(self) -> dict[str, Joined]:
        """The hosts that have joined and get parts."""
        return {name: joined for name, joined in self._hosts.items() if name not in self._refused}

    @property
    def _is_coming(self) -> bool:
        """Whether a host is on its way."""
        return any(login.is_alive() and name not in self._hosts for name, login in self._logins.items())

    def _look(self) -> None:
        """Look which hosts have joined, and which have gone."""
        workers = self._client.scheduler_info()["workers"]
        present = [Joined.of(address, worker) for address, worker in workers.items()]
        alive = {joined.name: joined for joined in present}
        for name, joined in list(self._hosts.items()):
            if name not in alive or alive[name].address != joined.address:
                self._gone(name)
        for name, joined in alive.items():
            if name not in self._hosts:
                # A host that dials in may do so again after it got no more parts.
                self._hosts[name] = joined
                self._refused.pop(name, None)
                if joined.fault:
                    self._refuse(name, f"its name or its --resources make no sense: {joined.fault}")
                    continue
                self.observer.note(f"{name} joined: {joined}")
                if name not in self._journal.info.host_names:
                    self._journal.info.host_names.append(name)
        there = {joined.address for joined in self._usable.values()}
        for piece in self._pieces.values():
            if piece.only and not piece.only & there and not (piece.host or piece.future.cancelled()):
                piece.future.cancel()  # It is handed out again.
        self._decisions.jobs = max(1, sum(joined.lanes for joined in self._usable.values()))

    def _gone(self, name: str) -> None:
        """A host has gone: dask gives its parts to others."""
        self.observer.note(f"{name} has gone")
        for piece in self._pieces.values():
            if piece.host == name:
                self._lost(piece)
        del self._hosts[name]
        if name in self._logins and name not in self._refused:
            self._apart(self._logins[name].cut)  # It may stand still. The login starts another worker.

    def _lost(self, piece: Piece) -> None:
        """A part was lost with its host, if it had one. That costs a try, unless the run ended the worker."""
        if piece.host:
            if piece.host not in self._refused:
                self.observer.note(f"{piece.host} was lost with part {piece.number}")
                for ticket in piece.tickets:
                    ticket.errors.append(f"{piece.host} was lost")
            self._clear(piece)
            piece.host = ""

    def _refuse(self, name: str, why: str) -> None:
        """Give a host no more parts: its worker ends."""
        if name in self._usable:
            self._refused[name] = why
            self.observer.note(f"{name} gets no more parts: {why}")
            if name in self._logins:
                self._logins[name].end()
            else:
                self._apart(self._call, name, host.leave)

    def _wait_no_longer(self) -> None:
        """Decide what no host can run. Raise LabError if no host is left at all, and none can dial in."""
        if self._is_stopping or self._is_coming or any(piece.host for piece in self._pieces.values()):
            return
        hosts = self._usable
        if not hosts:
            if self.inventory.coordinator.port is not None:
                return
            faults = [login.fault for login in self._logins.values() if login.fault]
            faults += [f"{name} got no more parts: {why}" for name, why in self._refused.items()]
            raise LabError("\n".join(["no host is left:", *faults]), hint=self.again)
        for piece in self._pieces.values():
            guest = piece.tickets[0].cell.guest
            if not any(joined.suits(guest) for joined in hosts.values()) and not piece.future.cancelled():
                piece.future.cancel()
                self._decisions.decide_all(piece.tickets, Status.NOT_RUN, _why_nowhere(guest, hosts))


def _check_prepared(prepared: Manifest, given: Manifest) -> None:
    """Raise archives.Damaged if an image that a host has prepared is not one of the image that it was given."""
    if (prepared.guest, prepared.arch, prepared.base) != (given.guest, given.arch, given.disk_sha256):
        raise archives.Damaged("it prepared an image that does not belong to its part")


def _why_nowhere(guest: Guest, hosts: dict[str, Joined]) -> str:
    """Why no host can run a guest."""
    if not any(guest.arch in joined.architectures for joined in hosts.values()):
        return f"no host of the run can run guests of {guest.arch}: {', '.join(hosts)}"
    has = ", ".join(
        f"{name} has {joined.memory_mib} MiB"
        for name, joined in hosts.items()
        if guest.arch in joined.architectures
    )
    return f"a lane needs {Memory.need_mib(guest.memory_mib)} MiB of memory, and {has}"
