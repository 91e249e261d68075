"""`lab matrix --hosts FILE`: a run on the hosts of an inventory, over SSH, with stand-ins for their lanes."""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

pytest.importorskip("distributed")

from lab.base.errors import LabError, UsageError
from lab.cli import common, hosts_of_run
from lab.fleet import issuing
from lab.record import RunOptions, RunResult, Status
from lab.run import start
from tests.fleet.examples import ROOT
from tests.unit import ssh_examples
from tests.unit.image_examples import put_image
from tests.unit.run_examples import PLAN
from tests.unit.ssh_examples import User
from tests.unit.told import Told

pytestmark = pytest.mark.timeout(900)
PROGRAM = """#!/bin/sh
export PYTHONPATH={root} TMPDIR=$LAB_HOME
case $* in
"hosts list --json") echo '{{"certificates": []}}' ;;
"hosts install") umask 077; exec cat > $LAB_HOME/worker.pem ;;
*) echo $$ > $LAB_HOME/pid
   exec {python} -c '{worker}' "$2" "$4" $LAB_HOME/worker.pem $LAB_HOME/control.json ;;
esac
"""
WORKER = (
    "import sys; from lab.fleet import tether; from tests.fleet import host; "
    "tether.end_with_stdin(); host.main(*sys.argv[1:])"
)


class Site:
    """A coordinator, and an SSH server on this machine that stands for its hosts."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.lab = common.Lab("test:///default")
        self.told = Told()
        self.program = folder / "lab"
        self.program.write_text(PROGRAM.format(root=ROOT, python=sys.executable, worker=WORKER))
        self.program.chmod(0o755)

    def run(self, coordinator_port: int, **hosts: dict[str, object]) -> RunResult:
        """A run on these hosts; each says what its children do."""
        issuing.initialize(self.lab.paths, list(hosts))
        for guest in {cell.guest.name: cell.guest for cell in PLAN}.values():
            put_image(self.lab.paths, guest)
        lines = [f"[coordinator]\nport = {coordinator_port}"]
        for name, control in hosts.items():
            home = self.folder / name
            home.mkdir()
            (home / "control.json").write_text(json.dumps(control))
            command = json.dumps([str(control.pop("program", self.program))])
            lines.append(f'[hosts.{name}]\naddress = "127.0.0.1"\nport = {self.port}')
            lines.append(f'home = "{home}"\ncommand = {command}')
        (self.folder / "hosts.toml").write_text("\n".join(lines))
        several = hosts_of_run.read(self.lab, str(self.folder / "hosts.toml"), None, None)
        options = RunOptions()
        planned = start.begin(self.folder / "run", PLAN, command="lab matrix", options=options, shard=None)
        return several.run(planned, self.told, offline=False)

    def has_ended(self, name: str) -> bool:
        pid = int((self.folder / name / "pid").read_text())
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    user = User(tmp_path / "user")
    with ExitStack() as stack:
        port = stack.enter_context(ssh_examples.paramiko_server(user, ssh_examples.environment(user)))
        yield Site(tmp_path, port)


@pytest.fixture
def port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        found: int = free.getsockname()[1]
    return found


def test_a_run_uses_the_hosts_of_an_inventory_and_leaves_no_worker(site: Site, port: int) -> None:
    nowhere: dict[str, object] = {"program": "/nowhere/lab"}
    run = site.run(port, one={}, two={}, three=nowhere)
    assert [cell.status for cell in run.cells] == [Status.PASS] * len(PLAN)
    assert site.told.noted("host three: `env LAB_HOME=")
    assert site.has_ended("one")
    assert site.has_ended("two")


def test_a_run_that_no_host_joins_ends_with_their_reasons_and_can_be_resumed(site: Site, port: int) -> None:
    with pytest.raises(LabError, match="no host of the inventory is left") as raised:
        site.run(port, one={"program": "/nowhere/lab"})
    assert "host one: " in str(raised.value)
    assert raised.value.hint == f"lab matrix --resume {site.folder}/run --hosts {site.folder}/hosts.toml"
    record = RunResult.read(site.folder / "run")
    assert {cell.status for cell in record.cells} == {Status.NOT_RUN}


def test_an_inventory_that_is_wrong_or_missing_is_refused_before_anything_is_done(site: Site) -> None:
    (site.folder / "hosts.toml").write_text("[hosts.a]\n")
    with pytest.raises(UsageError, match=r"hosts\.toml: hosts\.a\.address: Field required"):
        hosts_of_run.read(site.lab, str(site.folder / "hosts.toml"), None, None)
    (site.folder / "hosts.toml").write_text('[hosts.z]\naddress = "::1"\n')
    issuing.initialize(site.lab.paths, [])
    with pytest.raises(UsageError, match=r"no certificate .*/workers/z\.pem"):
        hosts_of_run.read(site.lab, str(site.folder / "hosts.toml"), None, None)
    with pytest.raises(UsageError, match=r"nope\.toml: No such file or directory"):
        hosts_of_run.read(site.lab, "nope.toml", None, None)
