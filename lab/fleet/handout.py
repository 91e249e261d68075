"""Which part is given to which host: what waits, what runs where, what was lost. No network in it."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from lab.fleet import part as parts
from lab.fleet.attempt import BUSY, Attempt, Host, Piece
from lab.images.content import Content
from lab.plan import Cell
from lab.record import RunOptions
from lab.run.estimates import BRING_UP_SECONDS

# A part is no longer than this, in typical seconds: what a lost host costs, and how evenly hosts end.
MOST_SECONDS = 15 * 60.0
# How many hosts may be lost with one part before its cells are given up: the part may be what ends them.
MOST_LOSSES = 3
# A part that takes so much of the time of the longest one that waits may be given out before it.
SIMILAR = 0.8


class Handout:
    """The parts of one run. A part waits while its guest is not among `images`, unless that is None.

    The image of the guests in `unprepared` has still to be prepared, by the host that gets a part of theirs;
    meanwhile their other parts wait.
    """

    def __init__(
        self,
        cells: Iterable[Cell],
        options: RunOptions,
        most_seconds: float = MOST_SECONDS,
        suite_ran: Callable[[Cell], bool] = lambda cell: False,
    ) -> None:
        """`suite_ran` says, at any time, on which cells only trials are left."""
        self._options = options
        self._suite_ran = suite_ran
        self._numbers = 0
        self.hosts: dict[str, Host] = {}
        self.images: Mapping[str, Content] | None = None
        self.unprepared: Collection[str] = ()
        self.waiting: list[Piece] = []
        # Seconds that parts took which ran to their end, and typical ones.
        self._spent = self._typical = 0.0
        self.attempts: dict[str, Attempt] = {}
        for own in parts.cut(cells, options, most_seconds, suite_ran):
            self.waiting.append(self._piece(own))

    def _piece(self, cells: list[Cell], before: Piece | None = None) -> Piece:
        self._numbers += 1
        seconds = sum(
            parts.typical_seconds(cell, self._options, suite_ran=self._suite_ran(cell)) for cell in cells
        )
        made = Piece(self._numbers, cells, BRING_UP_SECONDS + seconds, parts.memory_mib(cells))
        if before:
            made.faults, made.lost_with = [*before.faults], {*before.lost_with}
        return made

    @property
    def is_done(self) -> bool:
        """Whether no part waits or runs."""
        return not self.waiting and not self.attempts

    @property
    def usable(self) -> list[Host]:
        """The connected hosts that may get parts."""
        return [host for host in self.hosts.values() if not host.refused]

    def next(self) -> Attempt | None:
        """Give the next part to a host that has room for it now; None if there is none.

        A part that its host has to prepare an image for comes first, because others wait for that; then comes
        the longest. Of the hosts that have room for it, one with KVM is preferred, then one
        that booted its machine before, one that has its image, the one with the most free lanes. A part avoids
        the hosts that were lost with it, unless there is no other. Then they get the other parts before it.
        """
        for piece in sorted(self.waiting, key=lambda each: each.guest not in self.unprepared):
            if self._has_no_image(piece):
                continue
            able = [host for host in self.usable if host.why_not(piece) in ("", BUSY)]
            others = [host for host in able if host.name not in piece.lost_with]
            if free := [host for host in others or able if not host.why_not(piece)]:
                host = max(free, key=lambda each: (each.kvm, *self._at_home(each, piece), each.free_lanes))
                return self._give(host, self._instead(host, piece))
        return None

    def _has_no_image(self, piece: Piece) -> bool:
        if self.images is not None and piece.guest not in self.images:
            return True
        return piece.guest in self.unprepared and any(
            attempt.piece.guest == piece.guest for attempt in self.attempts.values()
        )

    def _at_home(self, host: Host, piece: Piece) -> tuple[bool, bool]:
        """Whether a host booted a part's machine before, and whether it has its image."""
        image = (self.images or {}).get(piece.guest)
        return piece.machine in host.booted, image is not None and image.digest in host.images

    def _instead(self, host: Host, piece: Piece) -> Piece:
        """What a host had better get in place of a part that it was lost with, or whose machine it has to boot.

        The former waits for all that the host was not lost with, or less often. In place of the latter it gets
        a part of much the same length: of a machine that it booted before, else of one whose image it has, else
        of the one with the most work left for each host that booted it.
        """
        able = [each for each in self.waiting if not (self._has_no_image(each) or host.why_not(each))]
        if host.name in piece.lost_with:
            return min(able, key=lambda each: len(each.faults) if host.name in each.lost_with else 0)
        if piece.machine in host.booted or piece.faults or piece.guest in self.unprepared:
            return piece
        work: dict[str, float] = {}
        for each in self.waiting:
            work[each.machine] = work.get(each.machine, 0.0) + each.seconds
        for machine in work:
            work[machine] /= 1 + sum(machine in other.booted for other in self.hosts.values())
        similar = [
            each for each in able if each.seconds >= SIMILAR * piece.seconds and host.name not in each.lost_with
        ]
        return max(similar or [piece], key=lambda each: (*self._at_home(host, each), work[each.machine]))

    def _give(self, host: Host, piece: Piece) -> Attempt:
        self.waiting.remove(piece)
        attempt = Attempt(piece, host.name)
        host.running[attempt.token] = self.attempts[attempt.token] = attempt
        host.booted.add(piece.machine)
        return attempt

    def ended(self, token: str, *, is_whole: bool = False) -> Attempt | None:
        """An attempt is over, one way or another; None if it was before.

        `is_whole`: all its cells were run, so that it shows how long parts take on these hosts.
        """
        attempt = self.attempts.pop(token, None)
        if attempt and (host := self.hosts.get(attempt.host)):
            host.running.pop(token, None)
        if attempt and is_whole:
            self._spent += time.monotonic() - attempt.begun
            self._typical += attempt.piece.seconds
        return attempt

    def has(self, cell: Cell) -> bool:
        """Whether a cell waits, or is being run."""
        pieces = [*self.waiting, *(attempt.piece for attempt in self.attempts.values())]
        return any(cell.folder == each.folder for piece in pieces for each in piece.cells)

    def lost(self, host: str) -> list[Attempt]:
        """A host has gone; its attempts are over."""
        self.hosts.pop(host, None)
        return [attempt for token in self._of(host) if (attempt := self.ended(token))]

    def _of(self, host: str) -> list[str]:
        return [token for token, attempt in self.attempts.items() if attempt.host == host]

    def put_back(self, piece: Piece, cells: Sequence[Cell], fault: str = "", host: str = "") -> Piece | None:
        """Let these cells of a part wait again; `fault` says what happened, on which host.

        None if that happened too often: then they are given up.
        """
        again = self._piece(list(cells), piece)
        if fault:
            again.faults.append(fault)
            again.lost_with.add(host)
            if len(again.faults) >= MOST_LOSSES:
                return None
        self.waiting.insert(0, again)
        return again

    def impossible(self) -> dict[int, str]:
        """Why no connected host will ever take a part that waits, by the part's number."""
        found = {}
        for piece in self.waiting:
            reasons = [host.why_not(piece) for host in self.hosts.values()]
            if reasons and all(reason and reason != BUSY for reason in reasons):
                found[piece.number] = "; ".join(dict.fromkeys(reasons))
        return found

    @property
    def is_timed(self) -> bool:
        """Whether a part has ended, or a host has said how long one takes."""
        return bool(self._typical) or any(each.told_seconds is not None for each in self.attempts.values())

    def seconds_left(self) -> float | None:
        """Estimated seconds until all parts have ended on the lanes that there are.

        By what parts took so far, and what hosts say of those that run; until then, by typical times.
        None while there is no lane, or none for a part that waits, and while a guest has no image:
        how long it takes to make one, nothing tells in advance.
        """
        lanes = sum(host.lanes for host in self.usable)
        if not lanes or self.impossible() or any(map(self._has_no_image, self.waiting)):
            return None
        factor = self._factor()
        left = [attempt.seconds_left(factor) for attempt in self.attempts.values()]
        left += [piece.seconds * factor for piece in self.waiting]
        return max(sum(left) / lanes, *left, 0.0)

    def _factor(self) -> float:
        """How many times longer than typical parts take on these hosts."""
        spent, typical = self._spent, self._typical
        for attempt in self.attempts.values():
            if (told := attempt.told_seconds) is not None:
                spent, typical = spent + told, typical + attempt.piece.seconds
        return spent / typical if typical else 1.0
