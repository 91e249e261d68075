"""The parts of a run that dask has: what it is given, and what becomes of each."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distributed import Client, Future

from lab.fleet import part
from lab.fleet.messages import LANE, MEMORY
from lab.fleet.part import Part
from lab.fleet.roster import JoinedHost, start_thread
from lab.images.store import BaseImage
from lab.machine.budget import Memory
from lab.run import backlog
from lab.run.backlog import Ticket
from lab.run.decisions import Decisions


@dataclass(eq=False)
class SubmittedPart:
    """A part that dask has, with its image. `lanes` maps what its `host` calls its lanes to their labels.

    `addresses` are those of the hosts that may run it; empty means all. `hosts` are those that began it.
    `fault` is why it was taken from its host.
    """

    number: int
    tickets: Sequence[Ticket]
    image: BaseImage
    future: Future
    addresses: frozenset[str] = frozenset()
    host: str = ""
    hosts: set[str] = field(default_factory=set)
    lanes: dict[str, str] = field(default_factory=dict)
    fault: str = ""

    @property
    def guest(self) -> str:
        """The guest of all its cells."""
        return self.tickets[0].cell.guest.name

    def withdraw(self) -> bool:
        """Take it from dask, so that it comes to its end soon; whether that was still to be done."""
        if self.future.cancelled():
            return False
        self.future.cancel()
        return True


class Dispatch:
    """The parts that dask has, by number. Only the thread that decides changes it.

    `deliver` gets each part that has come to its end, with the bytes or the exception that dask has of it, in
    another thread.
    """

    def __init__(
        self,
        client: Client,
        decisions: Decisions,
        deliver: Callable[[SubmittedPart, Any], None],
        *,
        offline: bool,
    ) -> None:
        self.parts: dict[int, SubmittedPart] = {}
        self._client, self._decisions, self._deliver, self._offline = client, decisions, deliver, offline
        self._last_number = 0
        # dask fetches together what is asked for at the same time, and what cannot be read fails all of it.
        self._fetch_lock = threading.Lock()
        # On which hosts the lab failed with a ticket.
        self._failures: dict[Ticket, set[str]] = {}

    @property
    def is_running(self) -> bool:
        """Whether a host has begun a part."""
        return any(submitted.host for submitted in self.parts.values())

    @property
    def tickets(self) -> set[Ticket]:
        """The tickets of all parts."""
        return {ticket for submitted in self.parts.values() for ticket in submitted.tickets}

    def submit(self, tickets: Sequence[Ticket], image: BaseImage, hosts: Mapping[str, JoinedHost]) -> None:
        """Give dask a part for one of these hosts: one where the lab did not fail with it, if there is one."""
        self._last_number += 1
        number, guest, journal = self._last_number, tickets[0].cell.guest, self._decisions.journal
        content = Part.of(tickets, journal, number=number, offline=self._offline, image=image.manifest)
        addresses = self._choose_addresses(tickets, hosts)
        seconds = sum(backlog.estimate_seconds(ticket, journal.info.options) for ticket in tickets)
        future = self._client.submit(
            part.run_part,
            content.model_dump_json(),
            key=f"part-{number}",
            # A host whose lab fails is idle at once. So dask's own `retries` would give it to the same host
            # again, and so would its balancing if other workers were allowed.
            workers=list(addresses) or None,
            resources={LANE: 1, MEMORY: Memory.need_mib(guest.memory_mib), guest.arch: 1},
            priority=int(seconds),
            pure=False,
        )
        submitted = self.parts[number] = SubmittedPart(number, tickets, image, future, addresses)
        future.add_done_callback(partial(start_thread, self._fetch_result, submitted))

    def _choose_addresses(self, tickets: Sequence[Ticket], hosts: Mapping[str, JoinedHost]) -> frozenset[str]:
        failed = {name for ticket in tickets for name in self._failures.get(ticket, ())}
        guest = tickets[0].cell.guest
        suited = {name: joined.address for name, joined in hosts.items() if joined.suits(guest)}
        return frozenset(suited[name] for name in suited.keys() - failed) if failed else frozenset()

    def _fetch_result(self, submitted: SubmittedPart, future: Future) -> None:
        """Fetch what became of a part. What its host said of it earlier is delivered already."""
        try:
            with self._fetch_lock:
                result = future.result()
        except BaseException as error:  # Whatever a host raised, and what cannot be read.
            result = error
        self._deliver(submitted, result)

    def remove(self, submitted: SubmittedPart) -> bool:
        """Forget a part that is at its end; whether it was withdrawn."""
        del self.parts[submitted.number]
        is_withdrawn: bool = submitted.future.cancelled()
        submitted.future.release()
        return is_withdrawn

    def note_failure(self, tickets: Sequence[Ticket], name: str) -> None:
        """Note that the lab of a host failed with tickets."""
        for ticket in tickets:
            self._failures.setdefault(ticket, set()).add(name)

    def failed_on_all(self, ticket: Ticket, hosts: Mapping[str, JoinedHost]) -> bool:
        """Whether the lab failed with a ticket on all these hosts."""
        return self._failures.get(ticket, set()) >= hosts.keys()

    def withdraw_unreachable(self, hosts: Mapping[str, JoinedHost]) -> None:
        """Withdraw the parts whose only hosts are not among these; they are submitted again."""
        addresses = {joined.address for joined in hosts.values()}
        for submitted in self.parts.values():
            if submitted.addresses and not submitted.addresses & addresses and not submitted.host:
                submitted.withdraw()

    # -- on its host

    def begin(self, submitted: SubmittedPart, name: str) -> None:
        """A host begins with a part."""
        submitted.host = name
        submitted.hosts.add(name)
        self._decisions.backlog.begin(submitted.tickets)

    def lose(self, submitted: SubmittedPart, *, is_failure: bool) -> None:
        """A part was lost with its host, if it had one. A failure costs its tickets a try."""
        if not submitted.host:
            return
        if is_failure:
            self._decisions.observer.note(f"{submitted.host} was lost with part {submitted.number}")
            for ticket in submitted.tickets:
                ticket.errors.append(f"{submitted.host} was lost")
        self.hide_lanes(submitted)
        submitted.host = ""

    def label_lane(self, submitted: SubmittedPart, name: str) -> str:
        """The label of a lane of a part; its host calls it `name`."""
        if name and name not in submitted.lanes:
            machine = f"{submitted.host}: {submitted.tickets[0].machine}"
            submitted.lanes[name] = self._decisions.labels.next(machine)
        return submitted.lanes.get(name, "")

    def hide_lanes(self, submitted: SubmittedPart) -> None:
        """Show the lanes of a part no more."""
        if submitted.host:
            for label in (*submitted.lanes.values(), f"{submitted.host}: {submitted.guest}"):
                self._decisions.observer.lane(label, None)
        submitted.lanes = {}
