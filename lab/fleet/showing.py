"""What is shown of the hosts of a run while it goes on. Nothing is decided by it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from lab.fleet import events
from lab.fleet.attempt import Attempt, Host
from lab.fleet.events import Event
from lab.fleet.handout import Handout
from lab.fleet.intake import Intake
from lab.plan import Cell
from lab.run.observer import Observer
from lab.run.several import HostNow, HostsNow, ToldCell


class Silence(Protocol):
    """A host that has not said anything for some seconds."""

    name: str
    seconds: float


@dataclass
class Showing:
    """Tells the observer of a run what its hosts tell and how they are."""

    intake: Intake
    observer: Observer
    # The hosts that ever joined, and how they were when they were told of last.
    _known: dict[str, HostNow] = field(default_factory=dict)
    # By the token of an attempt: what its host decided, as far as that says.
    _told: dict[str, dict[tuple[str, str, str], ToldCell]] = field(default_factory=dict)
    _silent: set[str] = field(default_factory=set)

    def joined(self, host: Host) -> None:
        """A host has joined."""
        self._known[host.name] = _now(host, 0.0)
        self.observer.note(f"{host.name} joined: {host}")

    def event(self, attempt: Attempt, event: Event) -> None:
        """A host tells something of a part that it runs."""
        names = self.intake.names(attempt)
        key = (event.guest, event.variant, event.build)
        if event.kind == "cell" and event.status and any(_key(cell) == key for cell in attempt.piece.cells):
            told = ToldCell(*key, lane=names[event.lane], status=event.status)
            self._told.setdefault(attempt.token, {})[key] = told
        events.show(event, names, self.observer)

    def over(self, attempt: Attempt) -> None:
        """An attempt is at its end. What its host decided is in the record by now, or lost."""
        self._told.pop(attempt.token, None)
        for lane in self.intake.names(attempt).all():
            self.observer.lane(lane, "")

    def show(self, handout: Handout, silent: Sequence[Silence]) -> None:
        """Tell how all hosts are now; `silent` are those that do not answer. Called every second or so."""
        self._note_silence(handout, silent)
        seconds = {each.name: each.seconds for each in silent}
        for name, known in self._known.items():
            host = handout.hosts.get(name)
            self._known[name] = _now(host, seconds.get(name, 0.0)) if host else _gone(known)
        left = handout.seconds_left()
        journal = self.intake.merger.journal
        # Before it is looked which told cells are decided: none is ever counted twice.
        decided = self.intake.merger.decided
        told = [
            told[key]
            for attempt in handout.attempts.values()
            if (told := self._told.get(attempt.token))
            for key in map(_key, self.intake.undecided(attempt.piece))
            if key in told
        ]
        self.observer.time_left(left)
        hosts = tuple(sorted(self._known.values(), key=_place))
        is_typical = not handout.is_timed
        self.observer.hosts(HostsNow(hosts, tuple(told), decided, journal.cells, left, is_typical))

    def _note_silence(self, handout: Handout, silent: Sequence[Silence]) -> None:
        """Tell once of each host that stopped answering, or answers again."""
        for each in silent:
            if each.name not in self._silent:
                self.observer.note(f"{each.name} has not answered for {each.seconds:.0f} s")
        names = {each.name for each in silent}
        for name in sorted(self._silent - names):
            if name in handout.hosts:
                self.observer.note(f"{name} answers again")
        self._silent = names


def _now(host: Host, silent: float) -> HostNow:
    rests_after = host.failures if host.is_resting and not host.refused else 0
    return HostNow(
        host.name, host.lanes, len(host.running), host.kvm, silent, host.refused, rests_after=rests_after
    )


def _gone(known: HostNow) -> HostNow:
    return replace(known, used=0, silent=0.0, rests_after=0, gone=True)


def _place(host: HostNow) -> list[tuple[int, str]]:
    """Where a host stands among the others: by its name, lab-2 before lab-10."""
    return [(len(word), word) if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", host.name)]


def _key(cell: Cell) -> tuple[str, str, str]:
    return cell.guest.name, cell.variant.name, cell.build.name
