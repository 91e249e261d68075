"""Runs on several hosts to test with: dask's own workers over SSH on loopback; their children are stand-ins."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest

from lab.base.paths import Paths
from lab.base.wait import Deadline, wait_for
from lab.fleet import inventory, login
from lab.fleet.coordinator import MOST_SECONDS, Coordinator
from lab.images import store
from lab.lane import upkeep
from lab.machine import leftovers
from lab.plan import Cell, PlannedRun
from lab.record import RunOptions, RunResult
from lab.run import start
from tests.builders.guests import put_image
from tests.builders.processes import SECONDS
from tests.builders.runs import KNOWN, PLAN, Told

ROOT = Path(__file__).parents[2]
# In place of the Python that has the lab: its children are stand-ins, and its libvirt is the one for tests.
PYTHON = """#!/bin/sh
export PYTHONPATH={root} TMPDIR=${{LAB_TMP:-$LAB_HOME}} LAB_CONNECT=test:///default
[ ! -f $LAB_HOME/environment ] || . $LAB_HOME/environment
case "$2 $3" in
*lab.fleet.host*|*tls://*) shift; set -- -m tests.fleet.worker $LAB_HOME/control.json "$@" ;;
esac
exec {python} "$@"
"""


@dataclass
class HostExample:
    """A host of a fleet. Its control file says what its children do, see `stand_in_child`."""

    name: str
    home: Path

    def does(self, **control: Any) -> None:
        (self.home / "control.json").write_text(json.dumps(control))

    def worker(self) -> psutil.Process:
        mark = str(self.home / "control.json")

        def look() -> psutil.Process | None:
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                if "tests.fleet.worker" in words and mark in words and words[0] != "sh":
                    return process
            return None

        return wait_for(look, Deadline(SECONDS, f"the worker of {self.name}"))

    def children(self) -> list[psutil.Process]:
        return self.worker().children(recursive=True)

    def below(self) -> list[psutil.Process]:
        """All processes that were started with a path of this host."""
        processes = psutil.process_iter(["cmdline"])
        return [own for own in processes if any(str(self.home) in word for word in own.info["cmdline"] or [])]


class Server:
    """An SSH server, and the home of its user."""

    def __init__(self, user: Path) -> None:
        self.user = user
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet.server", str(user)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Fleet:
    """Hosts, and the SSH server through which they are reached."""

    folder: Path
    server: Server
    hosts: dict[str, HostExample] = field(default_factory=dict)
    commands: list[subprocess.Popen[bytes]] = field(default_factory=list)
    head: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.paths = Paths(cache=self.folder / "home/cache", state=self.folder / "home/state")
        self.python = self.folder / "python"
        self.python.write_text(PYTHON.format(root=ROOT, python=sys.executable))
        self.python.chmod(0o755)

    def add(self, name: str, *, table: str = "", environment: str = "", **control: Any) -> HostExample:
        """Add a host to the inventory; `table` are more lines of its table."""
        home = self.folder / name
        home.mkdir()
        made = self.hosts[name] = HostExample(name, home)
        made.does(**control)
        (home / "environment").write_text(environment)
        own = {
            "address": f"127.0.0.1:{self.server.port}",
            "home": str(home),
            "lanes": 1,
            "memory_mib": 8192,
            "python": str(self.python),
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in own.items() if f"{key} =" not in f"\n{table}"]
        self.head += "\n".join([f"[hosts.{name}]", *lines, table, ""])
        return made

    def inventory(self) -> Path:
        file = self.folder / "hosts.toml"
        file.write_text(self.head)
        return file

    def end(self) -> None:
        for command in self.commands:
            command.kill()
            command.wait()
        for host in self.hosts.values():
            for process in host.below():
                with suppress(psutil.NoSuchProcess):
                    process.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server") / "user")
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def fleet(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Hosts of one test. A worker that was lost is started again at once."""
    made = Fleet(tmp_path, server)
    monkeypatch.setattr(login, "AGAIN_SECONDS", 0.2)
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(server.user))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    try:
        yield made
    finally:
        made.end()


@dataclass
class Running:
    """A run on several hosts, in a thread of this process."""

    told: Told
    coordinator: Coordinator
    result: RunResult | None = None
    error: BaseException | None = None

    def finish(self) -> RunResult:
        wait_for(lambda: self.result or self.error, Deadline(SECONDS, "the run to end"), interval=0.05)
        if self.error:
            raise self.error
        assert self.result is not None
        return self.result


@contextmanager
def running(
    fleet: Fleet,
    cells: Sequence[Cell] = PLAN,
    *,
    most_seconds: float = MOST_SECONDS,
    planned: PlannedRun | None = None,
) -> Iterator[Running]:
    """A run on the hosts of a fleet that has begun. Its coordinator has the images, which hosts get from it."""
    for guest in {cell.guest.name: cell.guest for cell in cells}.values():
        if store.find_image(fleet.paths, guest) is None:
            put_image(fleet.paths, guest)
    folder = fleet.folder / "run"
    planned = planned or start.begin_run(folder, cells, command="lab matrix", options=RunOptions())
    told = Told()
    hosts = inventory.load_inventory(fleet.inventory())
    run = Running(told, Coordinator(planned, fleet.paths, hosts, told, most_seconds=most_seconds))

    def go() -> None:
        try:
            run.result = run.coordinator.run()
        except BaseException as error:
            run.error = error

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield run
    finally:
        run.coordinator.stop()
        thread.join(SECONDS)


class Command:
    """`lab matrix --hosts` as a process, as a user runs it; a shell redirects its streams."""

    def __init__(self, fleet: Fleet, *arguments: str, redirection: str = "") -> None:
        release = fleet.paths.cache / "wheels/boxlite-0.10.8-02e3de1a-cp313-x86_64"
        release.mkdir(parents=True, exist_ok=True)
        for option, word in pairwise(arguments):
            if option == "-g" and store.find_image(fleet.paths, KNOWN.guest(word)) is None:
                put_image(fleet.paths, KNOWN.guest(word))
        self.out = fleet.folder / "out"
        words = [sys.executable, "-m", "lab", "matrix", *arguments, "--hosts", str(fleet.inventory())]
        own = {"LAB_HOME": str(fleet.folder / "home"), "HOME": str(fleet.server.user), "PYTHONPATH": str(ROOT)}
        shell = ["bash", "-c", f'exec "$@" {redirection}', "bash"]
        with self.out.open("wb") as output:
            self.process = subprocess.Popen(
                [*shell, *words], cwd=ROOT, env={**os.environ, **own}, stdout=output, stderr=subprocess.STDOUT
            )
        fleet.commands.append(self.process)

    def printed(self) -> str:
        return self.out.read_text()

    def wait_for(self, pattern: str) -> None:

        def look() -> bool | None:
            is_there = bool(re.search(pattern, self.printed()))
            assert is_there or self.process.poll() is None, self.printed()
            return is_there or None

        wait_for(look, Deadline(SECONDS, pattern), interval=0.05)

    def ends(self) -> int:
        return self.process.wait(timeout=SECONDS)


def left_on(fleet: Fleet) -> list[str]:
    """What is left on the hosts of a fleet, after what every command that uses machines does first."""
    left = []
    for host in fleet.hosts.values():
        left += [" ".join(process.cmdline()) for process in host.below()]
        paths = Paths(cache=host.home / "cache", state=host.home / "state")
        with patch.object(tempfile, "tempdir", str(host.home)):
            leftovers.reap_dead_lanes(paths)
            upkeep.sweep_leftovers(paths)
        for pattern in ("boxlite-lab-tmp-*", "cache/images/.partial-*", "state/lanes/*"):
            left += [str(path) for path in host.home.glob(pattern) if path.name != ".gate"]
    return left
