"""Runs on several hosts to test with: real workers as processes on 127.0.0.1, whose children are stand-ins."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from lab.base.paths import Paths
from lab.base.wait import Deadline, wait_for
from lab.catalog import Guest
from lab.fleet import certificates, issuing, places
from lab.fleet.address import Address
from lab.fleet.coordinator import Coordinator
from lab.fleet.desk import Desk
from lab.fleet.handout import MOST_SECONDS
from lab.images import store
from lab.plan import Cell
from lab.record import RunOptions, RunResult
from lab.run import start
from tests.unit.image_examples import put_image
from tests.unit.run_examples import PLAN
from tests.unit.told import SECONDS, Told

ROOT = Path(__file__).parents[2]


@dataclass
class HostProcess:
    """A worker as a process. `control` says what its children do, see `stand_in_child`."""

    name: str
    home: Path
    control: Path
    log: Path
    process: subprocess.Popen[bytes]

    def does(self, **control: Any) -> None:
        self.control.write_text(json.dumps(control))

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.process.pid, number)

    def said(self) -> str:
        return self.log.read_text()


@dataclass
class Fleet:
    """Certificates, by default issued now, and the hosts and commands that were started."""

    folder: Path
    hosts: dict[str, HostProcess] = field(default_factory=dict)
    commands: list[subprocess.Popen[bytes]] = field(default_factory=list)
    issued: datetime | None = None
    names: Sequence[str] = ("one", "two", "three")

    def __post_init__(self) -> None:
        self.paths = Paths(cache=self.folder / "cache", state=self.folder / "state")
        issuing.initialize(self.paths, self.names, days=30, authority_days=60, now=self.issued)

    def paths_of(self, host: str) -> Paths:
        """The folders of a host, whether or not it was started."""
        home = self.folder / host
        return Paths(cache=home / "cache", state=home / "state")

    def put_images(self, guests: Iterable[Guest]) -> None:
        """Give the coordinator the images of these guests, which hosts then get from it."""
        for guest in guests:
            if store.find(self.paths, guest) is None:
                put_image(self.paths, guest)

    @property
    def security(self) -> dict[str, Any]:
        return certificates.load_coordinator(self.paths).security()

    def start(
        self,
        name: str,
        address: str,
        *,
        certificate: Path | None = None,
        temporary: Path | None = None,
        within: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        **control: Any,
    ) -> HostProcess:
        """Start a worker; `within` are words before its command, and `control` is for its children."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        own = home / "control.json"
        own.write_text(json.dumps(control))
        log = home / "log"
        file = certificate or places.worker_file(self.paths, name)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*within, sys.executable, "-m", "tests.fleet.host", address, name, str(file), str(own)],
                cwd=ROOT,
                env={
                    **os.environ,
                    "LAB_HOME": str(home),
                    "PYTHONPATH": str(ROOT),
                    "TMPDIR": str(temporary or home),
                    **(environment or {}),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        made = self.hosts[name] = HostProcess(name, home, own, log, process)
        return made

    def end(self) -> None:
        """End all commands, which may wait for hosts, all hosts, and what these started."""
        for command in self.commands:
            command.kill()
            command.wait()
        for host in self.hosts.values():
            with_children = [*host.children()] if host.process.poll() is None else []
            for number in (signal.SIGCONT, signal.SIGKILL):
                if host.process.poll() is None:
                    host.kill(number)
            host.process.wait()
            for child in with_children:
                if child.is_running():
                    child.kill()


@dataclass
class Running:
    """A run on several hosts, in a thread of this process."""

    fleet: Fleet
    told: Told
    coordinator: Coordinator
    address: str = ""
    result: RunResult | None = None
    error: BaseException | None = None

    def start_host(self, name: str, **control: Any) -> HostProcess:
        return self.fleet.start(name, self.address, **control)

    @property
    def desk(self) -> Desk:
        assert self.coordinator.desk is not None
        return self.coordinator.desk

    def finish(self) -> RunResult:
        wait_for(lambda: self.result or self.error, Deadline(SECONDS, "the run to end"), interval=0.05)
        if self.error:
            raise self.error
        assert self.result is not None
        return self.result


@contextmanager
def running(
    fleet: Fleet,
    folder: Path,
    cells: Sequence[Cell] = PLAN,
    *,
    most_seconds: float = MOST_SECONDS,
    port: int = 0,
    has_images: bool = True,
) -> Iterator[Running]:
    """A run on several hosts that has begun; hosts are started by the test.

    `has_images`: whether the coordinator has all images, which the hosts then get from it.
    """
    if has_images:
        fleet.put_images({cell.guest.name: cell.guest for cell in cells}.values())
    planned = start.begin(folder, cells, command="lab matrix", options=RunOptions(), shard=None)
    listens = threading.Event()

    def listening(address: str) -> None:
        run.address = address
        listens.set()

    told = Told()
    coordinator = Coordinator(
        planned,
        fleet.paths,
        Address("127.0.0.1", port),
        fleet.security,
        told,
        listening=listening,
        most_seconds=most_seconds,
    )
    run = Running(fleet, told, coordinator)

    def go() -> None:
        try:
            run.result = coordinator.run()
        except BaseException as error:
            run.error = error
            listens.set()

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    assert listens.wait(SECONDS)
    if run.error:
        raise run.error
    try:
        yield run
    finally:
        coordinator.stop()
        fleet.end()
        thread.join(SECONDS)
