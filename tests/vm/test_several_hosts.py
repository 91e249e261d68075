"""Real guests on three hosts that are this machine, each with a LAB_HOME, and the same run on one host."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lab.record import RunResult
from tests.fleet.examples import ROOT, Server
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


@pytest.fixture
def homes(home: Path) -> Iterator[dict[str, Path]]:
    """The homes of a coordinator and its hosts; their caches are the user's."""
    made = {name: home.with_name(f"{home.name}-{name}") for name in ("coordinator", *NAMES)}
    for own in made.values():
        shared.make_home(own)
    yield made
    for own in made.values():
        shared.remove_home(own)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "user")
    yield made
    made.end()


def inventory(folder: Path, server: Server, homes: Mapping[str, Path]) -> Path:
    """The inventory of the three hosts, which are reached over SSH on loopback."""
    python = folder / "python"
    # The SSH server has a home of its own, where an ordinary user's libvirt would start another daemon.
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH={ROOT} HOME={Path.home()}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    lines = [
        f'[hosts.{name}]\naddress = "127.0.0.1:{server.port}"\nlanes = 1\n'
        f'home = "{homes[name]}"\npython = "{python}"'
        for name in NAMES
    ]
    (folder / "hosts.toml").write_text("\n".join(lines))
    return folder / "hosts.toml"


def matrix(home: Path, user: Path, folder: Path, *words: str) -> RunResult:
    """Run the cells from a home, with the keys of a user's."""
    shell = {**os.environ, "LAB_HOME": str(home), "HOME": str(user)}
    command = [sys.executable, "-m", "lab", "matrix", *CELLS, *words, "-o", str(folder)]
    done = subprocess.run(command, env=shell, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return RunResult.read(folder)


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


def test_three_workers_find_what_one_host_finds(homes: dict[str, Path], server: Server, tmp_path: Path) -> None:
    hosts_file = inventory(tmp_path, server, homes)
    several = tmp_path / "several"
    second = matrix(homes["coordinator"], server.user, several, "--hosts", str(hosts_file))
    first = matrix(homes["one"], Path.home(), tmp_path / "one")
    assert table(first) == table(second)
    assert len(second.cells) == 2 * len(GUESTS)
    hosts = {lane.host.name for lane in second.run.lanes if lane.host}
    assert hosts == set(NAMES)
    for cell in second.cells:
        assert cell.history.lane.partition(":")[0] in hosts
        assert cell.evidence
        assert all((several / file).is_file() for file in cell.evidence)
        assert {Path(file).name for file in cell.evidence} == {
            Path(file).name for other in first.cells if other.folder == cell.folder for file in other.evidence
        }
    # The file with which labs take turns stays.
    left = {file.name for name in NAMES for file in (homes[name] / "state" / "lanes").glob("*")}
    assert left <= {".gate"}
