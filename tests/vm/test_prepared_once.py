"""A distribution's disk on two hosts that are this machine: one prepares it, and both run what it made."""

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
from lab.fleet import inventory
from lab.fleet.coordinator import Coordinator
from lab.machine import leftovers
from lab.record import RunOptions, RunResult, Status
from lab.run import start
from tests.builders.runs import Told
from tests.fleet.examples import Fleet
from tests.vm import cloud_disk, twins
from tests.vm.conftest import RELEASE

# A first boot with all its waits on a busy host, and the boots of two lanes.
pytestmark = [pytest.mark.twins, pytest.mark.timeout(5400)]

TWIN = twins.NOBLE
VARIANTS = ["userns-clone-off", "apparmor-userns-nocaps"]
NAMES = ["one", "two"]
SECONDS = 3000.0


class Hosts:
    """A coordinator and two hosts, each with a home and a store of images of its own.

    Their lab is a copy whose definitions are the test's.
    """

    def __init__(self, base: Path, known: Paths) -> None:
        self.base = base
        self.fleet: Fleet | None = None
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
                if folder.name.startswith(("prepared-", "received-")) and folder.is_dir()
            )
            for name in ("coordinator", *NAMES)
        }

    def known(self, lab: Path) -> inventory.Inventory:
        """Both hosts, which run the lab in a folder and are reached over SSH on loopback."""
        self.fleet = Fleet(self.base / "fleet")
        python = self.base / "python"
        python.write_text(f'#!/bin/sh\ncd {lab}\nexport PYTHONPATH={lab}\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        lines = [
            f'[hosts.{name}]\naddress = "127.0.0.1:{self.fleet.port}"\nlanes = 1\n'
            f'home = "{self.base / name}"\npython = "{python}"'
            for name in NAMES
        ]
        (self.base / "hosts.toml").write_text("\n".join(lines))
        return inventory.load(self.base / "hosts.toml")

    def end(self) -> None:
        if self.fleet:
            self.fleet.end()
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
    own, told = hosts.paths("coordinator"), Told()
    monkeypatch.setenv("LAB_HOME", str(hosts.base / "coordinator"))
    with ExitStack() as servers:
        servers.enter_context(twins.published(TWIN, built, tmp_path, monkeypatch))
        lab = tmp_path / "definitions"
        shutil.copytree(PACKAGE, lab / "lab")
        pulled = CliRunner().invoke(cli, ["images", "pull", "--update", TWIN.name], standalone_mode=False)
        assert pulled.exception is None, pulled.output
        loading.load.cache_clear()
        known = loading.load()
        cells = plan.choose(known, guests=[TWIN.name], variants=VARIANTS).cells([builds.resolve(RELEASE)])
        options = RunOptions(remedies=False)
        planned = start.begin(tmp_path / "run", cells, command="lab matrix", options=options)
        done: list[RunResult | BaseException] = []

        # Each cell is a part by itself.
        coordinator = Coordinator(planned, own, hosts.known(lab), told, most_seconds=1.0)
        assert hosts.fleet
        monkeypatch.setenv("HOME", str(hosts.fleet.user))

        def go() -> None:
            try:
                done.append(coordinator.run())
            except BaseException as error:
                done.append(error)

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        try:

            def pinned() -> bool:
                assert not done, (done, told.notes)
                return any(text.startswith("image: on its way from ") for _, text in told.lanes)

            wait_for(lambda: pinned() or None, Deadline(SECONDS, "an image to be prepared"))
            # The other host installs nothing in its guest.
            servers.close()
            wait_for(lambda: done or None, Deadline(SECONDS, "the run on two hosts"))
        finally:
            coordinator.stop()
            thread.join(120)
    (result,) = done
    assert isinstance(result, RunResult), (result, told.notes)
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
