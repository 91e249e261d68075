"""A distribution's disk on two host workers of this machine: one prepares it, and both run what it made."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab import builds, plan
from lab.base.paths import PACKAGE, Paths
from lab.base.wait import Deadline, wait_for
from lab.catalog import loading
from lab.cli import cli
from lab.fleet import certificates, issuing, places
from lab.fleet.address import Address
from lab.fleet.coordinator import Coordinator
from lab.machine import leftovers
from lab.record import RunOptions, RunResult, Status
from lab.run import start
from tests.unit.told import Told
from tests.vm import cloud_disk, twins
from tests.vm.conftest import RELEASE

# A first boot with all its waits on a busy host, and the boots of two lanes.
pytestmark = [pytest.mark.twins, pytest.mark.timeout(5400)]

TWIN = twins.NOBLE
VARIANTS = ["userns-clone-off", "apparmor-userns-nocaps"]
NAMES = ["one", "two"]
SECONDS = 3000.0


class Hosts:
    """A coordinator and two workers, each with a home and a store of images of its own.

    Their lab is a copy whose definitions are the test's.
    """

    def __init__(self, base: Path, known: Paths) -> None:
        self.base = base
        self._workers: list[subprocess.Popen[bytes]] = []
        for name in ("coordinator", *NAMES):
            paths = self.paths(name)
            paths.make(paths.cache)
            if known.acceleration.exists():
                shutil.copy(known.acceleration, paths.cache)

    def paths(self, name: str) -> Paths:
        return Paths(cache=self.base / name / "cache", state=self.base / name / "state")

    def prepared(self) -> dict[str, list[str]]:
        """How the names of stored images begin, by host, without disks that were downloaded there."""
        return {
            name: sorted(
                folder.name.partition("-")[0]
                for folder in self.paths(name).images.iterdir()
                if folder.is_dir() and not folder.name.startswith("sha256-")
            )
            for name in ("coordinator", *NAMES)
        }

    def start(self, name: str, address: str, lab: Path, log: Path) -> None:
        certificate = places.worker_file(self.paths("coordinator"), name)
        with log.open("ab") as output:
            self._workers.append(
                subprocess.Popen(
                    [
                        *(sys.executable, "-m", "lab", "worker", address, "--lanes", "1"),
                        *("--certificate", str(certificate)),
                    ],
                    cwd=lab,
                    env={**os.environ, "LAB_HOME": str(self.base / name), "PYTHONPATH": str(lab)},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )

    def end(self) -> None:
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.wait(timeout=120)
        for name in NAMES:
            leftovers.reap(self.paths(name))
        subprocess.run(["rm", "-rf", self.base], check=True)


@pytest.fixture
def hosts(home: Path, paths: Paths) -> Iterator[Hosts]:
    made = Hosts(home / "hosts", paths)
    try:
        yield made
    finally:
        made.end()


def test_what_one_host_prepares_the_other_one_runs(
    hosts: Hosts, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = cloud_disk.ensure(paths, TWIN.recipe)
    own, log, told = hosts.paths("coordinator"), tmp_path / "log", Told()
    issuing.initialize(own, NAMES, days=30, authority_days=60)
    monkeypatch.setenv("LAB_HOME", str(hosts.base / "coordinator"))
    with ExitStack() as servers:
        servers.enter_context(twins.published(TWIN, built, tmp_path, monkeypatch))
        lab = tmp_path / "definitions"
        shutil.copytree(PACKAGE, lab / "lab")
        pulled = CliRunner().invoke(cli, ["images", "pull", "--update", TWIN.name], standalone_mode=False)
        assert pulled.exception is None, pulled.output
        loading._load.cache_clear()
        known = loading.load()
        cells = plan.choose(known, guests=[TWIN.name], variants=VARIANTS).cells([builds.resolve(RELEASE)])
        options = RunOptions(remedies=False)
        planned = start.begin(tmp_path / "run", cells, command="lab matrix", options=options, shard=None)
        done: list[RunResult | BaseException] = []

        def listening(address: str) -> None:
            for name in NAMES:
                hosts.start(name, address, lab, log)

        coordinator = Coordinator(
            planned,
            own,
            Address("127.0.0.1", 0),
            certificates.load_coordinator(own).security(),
            told,
            listening=listening,
            # Each cell is a part by itself.
            most_seconds=1.0,
        )

        def go() -> None:
            try:
                done.append(coordinator.run())
            except BaseException as error:
                done.append(error)

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        try:

            def pinned() -> bool:
                assert not done, (done, told.notes, log.read_text())
                return bool(coordinator.desk) and told.noted(f"{TWIN.name}: its image comes from ")

            wait_for(lambda: pinned() or None, Deadline(SECONDS, "an image to be prepared"))
            # The other host installs nothing in its guest.
            servers.close()
            wait_for(lambda: done or None, Deadline(SECONDS, "the run on two hosts"))
        finally:
            coordinator.stop()
            thread.join(120)
    (result,) = done
    assert isinstance(result, RunResult), (result, told.notes, log.read_text())
    found = {each.variant: (each.status, each.cause, each.confidence) for each in result.cells}
    assert found == {name: TWIN.cells[name] for name in VARIANTS}, [each.reason for each in result.cells]
    assert {each.status for each in result.cells} == {Status.XFAIL}
    assert {lane.host.name for lane in result.run.lanes if lane.host} == set(NAMES)
    assert len({lane.image for lane in result.run.lanes}) == 1
    assert not told.noted("is not the same image everywhere")
    kinds = hosts.prepared()
    assert kinds["coordinator"] == ["received"]
    # The one that prepared it received the distribution's disk, and the other one only what was made of that.
    assert sorted(kinds[name] for name in NAMES) == [["prepared", "received"], ["received"]]
