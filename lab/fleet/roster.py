"""The hosts of a run: which have joined, which are on their way, and which get no more parts."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from distributed import Client
from pydantic import ValidationError

from lab.base.errors import format_error
from lab.base.files import LONGEST_NAME, clean_text, cut_text
from lab.catalog import Guest
from lab.fleet import host
from lab.fleet.inventory import HostEntry
from lab.fleet.login import Login, end_workers
from lab.fleet.messages import LANE, MEMORY, HostOffer
from lab.machine.budget import Memory
from lab.run.observer import Observer

# A host whose lab fails so often in a row, and decides nothing, gets no more parts if there is another host.
FAILURES_OF_A_HOST = 2
# How much of the last failure is told then, in characters.
LONGEST_FAULT = 300
# How long after a call to a host failed it is made again.
CALL_SECONDS = 1.0


@dataclass
class JoinedHost:
    """A host that has joined: the address of dask's worker, what it offers, its failures in a row.

    `fault` says what is wrong with its name or its offer.
    """

    address: str
    name: str
    lanes: int = 0
    memory_mib: int = 0
    architectures: frozenset[str] = frozenset()
    failures: int = 0
    fault: str = ""

    @classmethod
    def of(cls, address: str, worker: Any) -> "JoinedHost":
        """The host of a worker, from what dask knows about that."""
        try:
            offer = HostOffer.model_validate(worker)
        except ValidationError as error:
            return cls(address, clean_text(cut_text(address, LONGEST_NAME)), fault=format_error(error))
        amounts = {name: int(amount) for name, amount in offer.resources.items()}
        architectures = frozenset(name for name, amount in amounts.items() if amount)
        return cls(address, offer.name, amounts.get(LANE, 0), amounts.get(MEMORY, 0), architectures)

    def suits(self, guest: Guest) -> bool:
        """Whether it can run lanes of a guest."""
        is_large = self.memory_mib >= Memory.need_mib(guest.memory_mib)
        return is_large and bool(self.lanes) and guest.arch in self.architectures

    def __str__(self) -> str:
        lanes = f"{self.lanes} lane{'s' if self.lanes != 1 else ''}"
        return f"{lanes}, {self.memory_mib} MiB of memory"


@dataclass
class Roster:
    """The hosts of a run, by name. Only the thread that decides changes it.

    `on_gone` is called with the name of each host that has gone. `refusals` say why hosts get no more parts.
    """

    client: Client
    observer: Observer
    on_gone: Callable[[str], None]
    hosts: dict[str, JoinedHost] = field(default_factory=dict)
    logins: dict[str, Login] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    _is_over: bool = False

    def start_logins(self, entries: Mapping[str, HostEntry], key: str, scheduler: tuple[str, int]) -> None:
        """Log in on the hosts of an inventory; `key` is the run's, and dask's `scheduler` listens there."""
        for name, entry in entries.items():
            self.logins[name] = Login(name, entry, key, scheduler, self.observer.note)
            self.logins[name].start()

    def end(self) -> None:
        """End the workers of all logins; kill those that do not end."""
        self._is_over = True
        end_workers(self.logins, self.observer.note)

    @property
    def usable(self) -> dict[str, JoinedHost]:
        """The hosts that have joined and get parts."""
        return {name: joined for name, joined in self.hosts.items() if name not in self.refusals}

    @property
    def is_coming(self) -> bool:
        """Whether a host is on its way."""
        return any(login.is_alive() and name not in self.hosts for name, login in self.logins.items())

    def update(self) -> None:
        """Look which hosts have joined, and which have gone."""
        workers = self.client.scheduler_info()["workers"]
        present = [JoinedHost.of(address, worker) for address, worker in workers.items()]
        by_name = {joined.name: joined for joined in present}
        for name, joined in list(self.hosts.items()):
            if name not in by_name or by_name[name].address != joined.address:
                self._remove(name)
        for name, joined in by_name.items():
            if name not in self.hosts:
                self._add(name, joined)

    def _add(self, name: str, joined: JoinedHost) -> None:
        self.hosts[name] = joined
        # A host that dials in may do so again after it got no more parts.
        self.refusals.pop(name, None)
        if joined.fault:
            self.refuse(name, f"its name or its --resources make no sense: {joined.fault}")
        else:
            self.observer.note(f"{name} joined: {joined}")

    def _remove(self, name: str) -> None:
        self.observer.note(f"{name} has gone")
        self.on_gone(name)
        del self.hosts[name]
        if name in self.logins and name not in self.refusals:
            start_thread(self.logins[name].cut)  # It may stand still. The login starts another worker.

    def find_name(self, address: object) -> str:
        """The host whose worker has this address; empty if it has not joined, or has gone."""
        if all(joined.address != address for joined in self.hosts.values()):
            self.update()
        return next((name for name, joined in self.hosts.items() if joined.address == address), "")

    def count_failure(self, name: str, fault: str) -> None:
        """The lab of a host failed: refuse the host if that is so too often and there is another one."""
        if joined := self.usable.get(name):
            joined.failures += 1
            if joined.failures >= FAILURES_OF_A_HOST and len(self.usable) > 1:
                last = cut_text(" ".join(fault.split()), LONGEST_FAULT)
                self.refuse(name, f"its lab failed {joined.failures} times in a row, the last time: {last}")

    def count_success(self, name: str) -> None:
        """The lab of a host decided a cell."""
        if joined := self.hosts.get(name):
            joined.failures = 0

    def refuse(self, name: str, reason: str) -> None:
        """Give a host no more parts: its worker ends."""
        if name in self.usable:
            self.refusals[name] = reason
            self.observer.note(f"{name} gets no more parts: {reason}")
            if name in self.logins:
                self.logins[name].end()
            else:
                start_thread(self.call, name, host.end_worker)

    def call(self, name: str, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function in a host's worker, again if that fails, until it answers or has gone. In any thread.

        What it tells is waited for without a limit, so one lost connection must not lose it.
        """
        while not self._is_over and (joined := self.hosts.get(name)):
            try:
                self.client.run(function, *arguments, workers=[joined.address])
                return
            except Exception:  # What dask raises for a worker that it does not reach, or that has gone.
                time.sleep(CALL_SECONDS)

    def list_faults(self) -> list[str]:
        """Say of each host that the run does not use why that is so."""
        faults = [login.fault for login in self.logins.values() if login.fault]
        return faults + [f"{name} got no more parts: {reason}" for name, reason in self.refusals.items()]

    def explain_unsuited(self, guest: Guest) -> str:
        """Say why no host can run a guest."""
        hosts = self.usable
        suited = {name: joined for name, joined in hosts.items() if guest.arch in joined.architectures}
        if not suited:
            return f"no host of the run can run guests of {guest.arch}: {', '.join(hosts)}"
        memory = ", ".join(f"{name} has {joined.memory_mib} MiB" for name, joined in suited.items())
        return f"a lane needs {Memory.need_mib(guest.memory_mib)} MiB of memory, and {memory}"


def start_thread(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function that may take long in a thread of its own."""
    threading.Thread(target=function, args=arguments, daemon=True).start()
