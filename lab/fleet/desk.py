"""The coordinator's desk: gives parts to hosts, takes their results in, and gives out again what was lost."""

import asyncio
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from lab.base.errors import LabError
from lab.base.files import bounded, plain
from lab.base.space import is_full
from lab.fleet import events
from lab.fleet.attempt import Attempt, Host
from lab.fleet.events import Event
from lab.fleet.handout import Handout
from lab.fleet.intake import LONGEST_WORDS, End, Intake
from lab.fleet.merging import OtherBuild
from lab.fleet.part import Part
from lab.fleet.pinning import Pinning
from lab.fleet.showing import Showing, Silence
from lab.fleet.silence import Watch
from lab.fleet.trials import Known
from lab.record import RunOptions, Status
from lab.run.observer import Observer

# How long the run waits for a host: for any, and for another one while those that are there can run nothing.
WAIT_SECONDS = 600.0
WAIT_FOR_ANOTHER_SECONDS = 60.0
# How long hosts have to come to an end after Ctrl-C: machines are taken down, and results sent.
STOP_SECONDS = 120.0
# How often it is looked whether a host still answers.
LOOK_SECONDS = 1.0
# A host whose lab fails so often in a row, and decides nothing, gets no more parts if there is another one.
MOST_FAILURES = 2
# And so often if it is the only one.
MOST_FAILURES_ALONE = 6
# How much of its last failure is told as the reason, in characters.
LONGEST_REASON = 300


class Transport(Protocol):
    """What carries parts to hosts; `engine` has the real one."""

    def submit(self, part: Part, attempt: Attempt) -> None: ...

    def release(self, token: str) -> None: ...

    def stop(self, attempt: Attempt) -> None: ...

    async def ask_image(self, host: str, digest: str, name: str, offset: int) -> bytes: ...


@dataclass
class Desk:
    """One run on several hosts. All of it is called in one event loop; results are taken in by a thread."""

    handout: Handout
    intake: Intake
    observer: Observer
    options: RunOptions
    run: str
    pinning: Pinning
    offline: bool = False
    needs_kvm: bool = False
    stopping: bool = False
    transport: Transport | None = None
    _late: dict[str, Attempt] = field(default_factory=dict)
    _taking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _crash: BaseException | None = None
    _stop_by: float = 0.0
    _is_closed: bool = False

    def __post_init__(self) -> None:
        self._showing = Showing(self.intake, self.observer)
        self.handout.images, self.handout.unprepared = self.pinning.pins, self.pinning.unprepared
        self.pinning.hosts = self.handout.hosts
        self.pinning.changed = self._changed.set

    # -- what the transport tells

    def joined(self, host: Host) -> None:
        self.handout.hosts[host.name] = host
        self._showing.joined(host)
        if self.needs_kvm and not host.kvm:
            self._refuse(host, f"guests of {host.name} run without KVM, and --kvm asks for it")
        self.pinning.joined()
        self._changed.set()

    def left(self, name: str) -> None:
        if self._is_closed:
            return  # The coordinator goes, not the host.
        lost = self.handout.lost(name)
        self.observer.note(f"{name} has gone{', in the middle of a part' if lost else ''}")
        for attempt in lost:
            self._late[attempt.token] = attempt
            self._over(attempt)
            self._again(attempt, f"{name} was lost")
        self._changed.set()

    def refused(self, what: str) -> None:
        self.observer.note(f"refused, and the connection closed: {plain(what)}")

    def event(self, token: str, line: str) -> None:
        attempt = self.handout.attempts.get(token)
        try:
            event = Event.read(line[: events.LONGEST_LINE])
            if attempt and event:
                if event.kind == "left":
                    attempt.tell_left(event.seconds)
                if event.kind == "image":
                    self.pinning.prepared(attempt.host, attempt.piece.guest, event.text)
                self._showing.event(attempt, event)
        except Exception as error:
            self._log_bug(error)

    def chunk(self, token: str, offset: int, data: bytes) -> bool:
        attempt = self.handout.attempts.get(token) or self._late.get(token)
        if attempt is None or not self.intake.undecided(attempt.piece):
            return False
        self.intake.receiver.add(token, offset, data)
        return True

    def failed(self, token: str, error: str) -> None:
        if attempt := self.handout.ended(token):
            self.intake.receiver.forget(token)
            self._over(attempt)
            fault = f"the worker on {attempt.host} failed: {bounded(plain(error), LONGEST_WORDS)}"
            if (host := self.handout.hosts.get(attempt.host)) and self.intake.undecided(attempt.piece):
                self._has_failed(host, attempt, fault)
            self._again(attempt, fault)
            self._changed.set()

    def ended(self, token: str, said: Mapping[str, Any]) -> None:
        attempt = self.handout.attempts.get(token) or self._late.get(token)
        if attempt is None:
            self.intake.receiver.forget(token)
            return
        task = asyncio.get_running_loop().create_task(self._take(attempt, End.read(said)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def image(self, digest: str, name: str, offset: int) -> bytes:
        return self.pinning.chunk(digest, name, offset)

    # -- results

    async def _take(self, attempt: Attempt, end: End) -> None:
        try:
            async with self._taking:
                await self._take_one(attempt, end)
        except BaseException as error:
            self._crash = self._crash or error
        finally:
            self._changed.set()

    async def _take_one(self, attempt: Attempt, end: End) -> None:
        """Take the result of an attempt in; what nobody decided is given out again."""
        host, number = self.handout.hosts.get(attempt.host), attempt.piece.number
        before, shown = len(self.intake.undecided(attempt.piece)), self.intake.shown(attempt.piece)
        fault = ""
        if not before:
            self.observer.note(f"{attempt.host} sent part {number} a second time; the first result stands")
        try:
            if before:
                fault = await asyncio.to_thread(self.intake.take, attempt, end)
        except OtherBuild as error:
            end = End(refused=str(error))
        except Exception as error:
            if isinstance(error, LabError) or is_full(error):
                raise
            # The result is the part's, so the fault is too: the other parts go on.
            fault = self._log_bug(error)
        self._late.pop(attempt.token, None)
        left = len(self.intake.undecided(attempt.piece))
        self.handout.ended(attempt.token, is_whole=bool(before) and not left)
        self._over(attempt)
        if end.refused and host:
            self._refuse(host, end.refused)
        elif left and not self.stopping:
            fault = (
                fault
                or f"the lab on {attempt.host} ended with exit status {end.status}: {end.words}".rstrip(": ")
            )
        if host:
            if left < before or self.intake.shown(attempt.piece) > shown:
                host.succeeds()
                if image := self.pinning.pins.get(attempt.piece.guest):
                    host.images[image.digest] = image
            elif fault:
                self._has_failed(host, attempt, fault)
        self._again(attempt, fault)
        self._end_twins()

    def _log_bug(self, error: Exception) -> str:
        """Put the traceback of a bug into the run's log; return the bug as a fault of a part."""
        self.observer.note("".join(traceback.format_exception(error)))
        return f"the lab met a bug: {bounded(plain(f'{type(error).__name__}: {error}'), LONGEST_REASON)}"

    def _has_failed(self, host: Host, attempt: Attempt, fault: str) -> None:
        """A host's lab failed and decided nothing: the host rests, or gets no more parts."""
        host.fails(attempt)
        others = [each for each in self.handout.usable if each is not host]
        if host.failures >= (MOST_FAILURES if others else MOST_FAILURES_ALONE) and not host.refused:
            last = bounded(" ".join(plain(fault).split()), LONGEST_REASON)
            self._refuse(host, f"its lab failed {host.failures} times in a row, the last time: {last}")

    def _refuse(self, host: Host, why: str) -> None:
        host.refused = why
        self.observer.note(f"{host.name} gets no more parts: {why}")

    def _again(self, attempt: Attempt, fault: str) -> None:
        """Let the cells that nobody decided wait for another host, or give them up."""
        piece, cells = attempt.piece, self.intake.undecided(attempt.piece)
        if not cells or self.handout.has(cells[0]):
            return
        if fault:
            self.observer.note(f"part {piece.number} ({cells[0].machine.name}): {fault}")
        if self.handout.put_back(piece, cells, fault, attempt.host) is None and not self.stopping:
            self.intake.merger.give_up(cells, [*piece.faults, fault])

    def _end_twins(self) -> None:
        """End what was given out again and is decided by now: its host was not lost after all."""
        for piece in list(self.handout.waiting):
            piece.cells = self.intake.undecided(piece)
            if not piece.cells:
                self.handout.waiting.remove(piece)
        for twin in self.handout.attempts.values():
            if not self.intake.undecided(twin.piece) and self.transport:
                self.transport.stop(twin)

    def _over(self, attempt: Attempt) -> None:
        """An attempt is at its end: so are its lanes."""
        if self.transport:
            self.transport.release(attempt.token)
        self._showing.over(attempt)

    # -- giving parts out

    async def work(self, silent: Callable[[], Sequence[Silence]]) -> None:
        """Give out parts until every cell is decided, or `stop` was called and all hosts have ended.

        Raises what was raised while a result was taken in.
        """
        idle, watch = 0.0, Watch()
        assert self.transport is not None
        self.pinning.begin(self.transport.ask_image)
        while not self._crash and not self._is_over():
            self._crash = self._crash or self.pinning.crash
            self._decide_without_image()
            while not self.stopping and (attempt := self.handout.next()):
                self._give(attempt)
            rests = any(host.is_resting for host in self.handout.usable)
            is_busy = self.handout.attempts or self._tasks or self.pinning.is_busy or rests
            passed = watch.passed()
            idle = 0.0 if is_busy else idle + passed
            self._wait_no_longer(idle)
            self._showing.show(self.handout, silent())
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_SECONDS)
        self._is_closed = True
        await self.pinning.end()
        if self._crash:
            raise self._crash

    def _decide_without_image(self) -> None:
        """Decide the cells of guests that have no image; after an interrupt that is no reason."""
        if self.stopping:
            return
        for piece in [each for each in self.handout.waiting if each.guest in self.pinning.failed]:
            self.handout.waiting.remove(piece)
            self.intake.merger.decide(piece.cells, *self.pinning.failed[piece.guest])

    def _is_over(self) -> bool:
        """Whether there is nothing more to give out, or to wait for."""
        if self._tasks:
            return False
        if self.stopping:
            return not self.handout.attempts or time.monotonic() > self._stop_by
        return self.handout.is_done

    def _give(self, attempt: Attempt) -> None:
        assert self.transport is not None
        piece = attempt.piece
        image = self.pinning.pins.get(piece.guest)
        known = Known.of(piece.cells, self.intake.merger.journal)
        attempt.shown = known.results
        part = Part.of(self.run, piece.number, piece.cells, self.options, image, known, offline=self.offline)
        self.transport.submit(part, attempt)

    def stop(self) -> None:
        """End all parts soon; what they decided is kept."""
        self.stopping = True
        self.pinning.stop()
        self._stop_by = time.monotonic() + STOP_SECONDS
        self.intake.merger.journal.info.interrupted = True
        for attempt in self.handout.attempts.values():
            if self.transport:
                self.transport.stop(attempt)
        self._changed.set()

    def _wait_no_longer(self, seconds: float) -> None:
        """Decide what waits as not-run if no host came for so long that could run it."""
        limit = WAIT_FOR_ANOTHER_SECONDS if self.handout.hosts else WAIT_SECONDS
        if seconds < limit:
            return
        reasons = self.handout.impossible()
        for piece in list(self.handout.waiting):
            self.handout.waiting.remove(piece)
            none = f"no host that could run it was there for {limit:.0f} s"
            self.intake.merger.decide(piece.cells, Status.NOT_RUN, reasons.get(piece.number, none))
