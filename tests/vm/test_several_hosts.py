"""Real guests on three hosts that are this machine, each with a LAB_HOME, and the same run on one host."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from lab.record import RunResult
from tests.fleet.examples import ROOT, Server
from tests.fleet.sockets import is_loopback, watched
from tests.vm import shared
from tests.vm.conftest import RELEASE

pytestmark = [pytest.mark.several_hosts, pytest.mark.timeout(5400)]

GUESTS = ["debian-12", "debian-13", "debian-13-podman"]
CELLS = [
    *(word for guest in GUESTS for word in ("-g", guest)),
    *("-v", "kvm-denied", "-v", "userns-clone-off"),
    *("--build", RELEASE, "--no-remedies", "--no-experiment"),
]
NAMES = ["one", "two", "three"]
SECONDS = 2400.0


class Homes:
    """A coordinator and its hosts, each with a home of its own; their caches are the user's."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.server: Server | None = None
        self.running: list[subprocess.Popen[bytes]] = []
        for name in ("coordinator", *NAMES):
            shared.make_home(self.home(name))

    def home(self, name: str) -> Path:
        return self.base.with_name(f"{self.base.name}-{name}")

    def lab(self, name: str, *arguments: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        # The coordinator's known_hosts and key are the test's.
        user = self.server.user if self.server and name == "coordinator" else Path.home()
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", *arguments],
            env={**os.environ, "LAB_HOME": str(self.home(name)), "HOME": str(user)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        self.running.append(process)
        return process

    def inventory(self, folder: Path) -> Path:
        """The inventory of the three hosts, which are reached over SSH on loopback."""
        self.server = Server(folder / "user")
        python = folder / "python"
        # The SSH server has a home of its own, where an ordinary user's libvirt would start another daemon.
        python.write_text(
            f'#!/bin/sh\nexport PYTHONPATH={ROOT} HOME={Path.home()}\nexec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        lines = [
            f'[hosts.{name}]\naddress = "127.0.0.1:{self.server.port}"\nlanes = 1\n'
            f'home = "{self.home(name)}"\npython = "{python}"'
            for name in NAMES
        ]
        (folder / "hosts.toml").write_text("\n".join(lines))
        return folder / "hosts.toml"

    def end(self) -> None:
        if self.server:
            self.server.end()
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(timeout=120)
        for name in ("coordinator", *NAMES):
            shared.remove_home(self.home(name))


@pytest.fixture
def homes(home: Path) -> Iterator[Homes]:
    made = Homes(home)
    try:
        yield made
    finally:
        made.end()


def table(run: RunResult) -> dict[tuple[str, str], tuple[object, ...]]:
    """What a run found: of each cell its status, causes, and the outcome of each test."""
    return {
        (cell.guest, cell.variant): (
            cell.status,
            [(finding.name, finding.confidence) for finding in cell.causes],
            {test.name: test.outcome for test in cell.tests},
        )
        for cell in run.cells
    }


def kind(homes: Homes) -> Callable[[list[str]], str]:
    """What a process of a run on several hosts is, by the words of its command."""

    def tell(words: list[str]) -> str:
        command = " ".join(words)
        if "guest=lab-" in command:
            return "qemu"
        if "lab.fleet.host" in words:
            return "worker"
        if "-m lab" not in command:
            return ""
        return "child" if "part" in words else "coordinator" if "--hosts" in words else ""

    return tell


def test_three_workers_find_what_one_host_finds(homes: Homes, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output, watched(kind(homes)) as reachable:
        several = homes.lab(
            *("coordinator", "matrix", *CELLS, "--hosts", str(homes.inventory(tmp_path))),
            *("-o", str(tmp_path / "several")),
            output=output,
        )
        assert several.wait(timeout=SECONDS) == 0, log.read_text()
        one = homes.lab("one", "matrix", *CELLS, "-o", str(tmp_path / "one"), output=output)
        assert one.wait(timeout=SECONDS) == 0, log.read_text()
    assert reachable.keys() == {"coordinator", "worker", "child", "qemu"}
    assert reachable["child"] == set()
    assert all(is_loopback(each) for found in reachable.values() for each in found), reachable
    print(f"sockets: {reachable}")
    first, second = RunResult.read(tmp_path / "one"), RunResult.read(tmp_path / "several")
    assert table(first) == table(second)
    assert len(second.cells) == 2 * len(GUESTS)
    hosts = {lane.host.name for lane in second.run.lanes if lane.host}
    assert hosts == set(NAMES)
    for cell in second.cells:
        assert cell.lane.partition(":")[0] in hosts
        assert cell.evidence
        assert all((tmp_path / "several" / file).is_file() for file in cell.evidence)
        assert {Path(file).name for file in cell.evidence} == {
            Path(file).name for each in first.cells if each.folder == cell.folder for file in each.evidence
        }
    # The file with which labs take turns stays.
    left = {file.name for name in NAMES for file in (homes.home(name) / "state" / "lanes").glob("*")}
    assert left <= {".gate"}
