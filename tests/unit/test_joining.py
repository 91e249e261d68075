"""Host workers that are started over SSH: real servers, and stand-ins for `lab worker`."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.base.errors import LabError, UsageError
from lab.base.paths import PACKAGE, Paths
from lab.base.wait import Deadline, wait_for
from lab.fleet import issuing, joining, joining_worker, places
from lab.fleet.inventory import Host, Inventory
from lab.fleet.joining_worker import JoiningWorker
from lab.machine.keys import generate
from tests.unit import ssh_examples
from tests.unit.ssh_examples import User

# Stands for `lab worker`: $1 says what it does.
WORKER = """
import os, signal, sys, time
from pathlib import Path
from typing import Any
from lab.fleet import tether
what, home = sys.argv[1], Path(os.environ["LAB_HOME"])
(home / "pid").write_text(str(os.getpid()))
if what == "refuses":
    sys.exit("lab: this host has another lab")
if what == "silent":
    print("still looking", flush=True)
def end(*_):
    if what != "deaf":
        (home / "ended").touch()
        sys.exit(130)
signal.signal(signal.SIGTERM, end)
if what == "counts":
    for _ in range(3):
        os.read(0, 1)
    (home / "heard").touch()
tether.end_with_stdin(grace=600.0)
if what != "silent":
    print("joined tls://127.0.0.1:1", flush=True)
while not (what == "dies" and (home / "die").exists()):
    time.sleep(0.01)
sys.exit("lab: the disk is full")
"""

Server = Callable[[User, dict[str, str]], AbstractContextManager[int]]


with_both = pytest.mark.parametrize("server", ["paramiko", "openssh"], indirect=True)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """A server of paramiko's parts; of OpenSSH's for a test that asks for both."""
    if getattr(request, "param", "paramiko") == "paramiko":
        return ssh_examples.paramiko_server
    if not ssh_examples.has_openssh():
        pytest.skip("OpenSSH's server is not installed (package openssh-server), or root has no /run/sshd")
    return ssh_examples.openssh_server


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return User(tmp_path / "user")


# Stands for the lab there, as far as it is asked before its worker is started.
PROGRAM = """#!/bin/sh
export PYTHONPATH={source}
case $1 in worker) shift; exec {python} {worker} "$@" ;; esac
echo "$*" >> $LAB_HOME/commands
case $* in
"hosts list --json") echo '{{"certificates": []}}' ;;
"hosts install") exec cat > $LAB_HOME/installed ;;
esac
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    worker, script = tmp_path / "worker.py", tmp_path / "lab"
    worker.write_text(WORKER)
    script.write_text(PROGRAM.format(source=PACKAGE.parent, python=sys.executable, worker=worker))
    script.chmod(0o755)
    return script


def use_the_lab_itself(program: Path) -> None:
    """Let all but the worker be done by the lab."""
    text, _, _ = program.read_text().partition("case $* in")
    program.write_text(f'{text}exec {sys.executable} -m lab "$@"\n')


class Site:
    """A coordinator with hosts a, b, ..., all on this machine and each with a home of its own."""

    def __init__(self, paths: Paths, tmp_path: Path, port: int, program: Path) -> None:
        self.paths, self.tmp_path, self.port, self.program = paths, tmp_path, port, program
        self.said: list[str] = []
        self.none_left = threading.Event()
        self.does: dict[str, str] = {}

    def home(self, name: str) -> Path:
        return self.tmp_path / name

    def host(self, name: str, does: str = "works", **other: object) -> Host:
        self.home(name).mkdir(exist_ok=True)
        self.does[str(self.home(name))] = does
        settings: dict[str, object] = {"address": "127.0.0.1", "port": self.port, "home": str(self.home(name))}
        return Host.model_validate({**settings, "command": [str(self.program)], **other})

    def inventory(self, **hosts: Host) -> Inventory:
        issuing.initialize(self.paths, list(hosts))
        return Inventory(hosts=hosts)

    def joined(self, inventory: Inventory) -> AbstractContextManager[Mapping[str, JoiningWorker]]:
        return joining.joined(
            inventory,
            self.paths,
            lambda _name, host: ["worker", self.does[str(host.home)]],
            self.said.append,
            self.none_left.set,
        )

    def pid(self, name: str) -> int:
        return int((self.home(name) / "pid").read_text())

    def commands(self, name: str) -> list[str]:
        return (self.home(name) / "commands").read_text().splitlines()


@pytest.fixture
def site(server: Server, user: User, paths: Paths, tmp_path: Path, program: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        port = stack.enter_context(server(user, ssh_examples.environment(user)))
        yield Site(paths, tmp_path, port, program)


def all_joined(workers: Mapping[str, JoiningWorker]) -> None:
    wait_for(lambda: all(each.has_joined for each in workers.values()) or None, Deadline(60, "all to join"))


def run_until_none_is_left(site: Site) -> None:
    """A run that ends only when no host is left."""
    assert site.none_left.wait(300), "nobody ended the run"


def has_gone(pid: int) -> bool | None:
    """Whether a process ended; one of the stand-in server's children may be a zombie for a moment."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE or None
    except psutil.NoSuchProcess:
        return True


def is_ended(pid: int) -> None:
    wait_for(lambda: has_gone(pid), Deadline(60, f"process {pid} to end"))


@with_both
def test_workers_are_started_with_a_certificate_and_taken_down(site: Site) -> None:
    use_the_lab_itself(site.program)
    with site.joined(site.inventory(a=site.host("a"), b=site.host("b"))) as workers:
        all_joined(workers)
        pids = [site.pid(name) for name in "ab"]
        for name in "ab":
            file = site.home(name) / "state" / "hosts" / "worker.pem"
            assert file.read_text() == places.worker_file(site.paths, name).read_text()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for pid in pids:
        is_ended(pid)
    assert all((site.home(name) / "ended").exists() for name in "ab")
    assert site.said == []


def test_a_certificate_is_copied_if_it_is_missing_or_another_one(site: Site) -> None:
    use_the_lab_itself(site.program)
    inventory = site.inventory(a=site.host("a"))
    for renew, copied in ((False, True), (False, False), (True, True)):
        if renew:
            issuing.renew(site.paths, ["a"])
        (site.home("a") / "commands").unlink(missing_ok=True)
        with site.joined(inventory) as workers:
            all_joined(workers)
        assert site.commands("a") == ["hosts list --json", *(["hosts install"] if copied else [])]
    installed = site.home("a") / "state" / "hosts" / "worker.pem"
    assert installed.read_text() == places.worker_file(site.paths, "a").read_text()


def test_a_host_that_fails_does_not_end_the_others(site: Site) -> None:
    inventory = site.inventory(
        a=site.host("a"), b=site.host("b", "refuses"), c=site.host("c", command=["/nowhere/lab"])
    )
    with site.joined(inventory) as workers:
        wait_for(lambda: len(site.said) == 2 or None, Deadline(60, "two faults"))
        all_joined({"a": workers["a"]})
    said = {line.split(":")[0]: line for line in site.said}
    assert "worker refuses`: exit status 1\nlab: this host has another lab" in said["host b"]
    assert "/nowhere/lab hosts list --json`: exit status 127\n" in said["host c"]
    assert "next: set `lab` or `command` of hosts.c to where the lab is there" in said["host c"]
    assert workers["b"].fault == said["host b"]


def test_no_host_at_all_is_an_error_with_all_their_reasons(site: Site) -> None:
    inventory = site.inventory(a=site.host("a", "refuses"), b=site.host("b", command=["/nowhere/lab"]))
    with pytest.raises(LabError, match="no host of the inventory is left") as raised, site.joined(inventory):
        run_until_none_is_left(site)
    assert raised.value.exit_status == 3
    assert "host a: " in str(raised.value)
    assert "host b: " in str(raised.value)


def test_a_host_without_a_certificate_is_refused_before_anything_is_started(site: Site) -> None:
    inventory = site.inventory(a=site.host("a"))
    more = Inventory(hosts={**inventory.hosts, "z": site.host("z")})
    with pytest.raises(UsageError, match="lab hosts add z"), site.joined(more):
        pytest.fail("the run began")
    assert not (site.home("a") / "commands").exists()


def test_a_worker_that_ends_by_itself_is_told_with_its_last_words(site: Site) -> None:
    with pytest.raises(LabError), site.joined(site.inventory(a=site.host("a", "dies"))) as workers:
        all_joined(workers)
        (site.home("a") / "die").touch()
        run_until_none_is_left(site)
    [said] = site.said
    assert "exit status 1\njoined tls://127.0.0.1:1\nlab: the disk is full" in said


def test_a_worker_that_never_joins_is_given_up_at_a_deadline(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining_worker, "JOIN_SECONDS", 2.0)
    inventory = site.inventory(a=site.host("a", "silent"))
    with (
        pytest.raises(LabError, match=r"waited 2 s for a to join; `.* worker silent` printed "),
        site.joined(inventory),
    ):
        run_until_none_is_left(site)
    wait_for(lambda: (site.home("a") / "ended").exists() or None, Deadline(60, "its worker to end"))


def test_a_worker_that_does_not_end_is_told_and_left_without_a_connection(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "END_SECONDS", 0.5)
    with site.joined(site.inventory(a=site.host("a", "deaf"))) as workers:
        all_joined(workers)
        pid = site.pid("a")
    [said] = site.said
    assert "host a: its worker did not end within 0 s; lab clean there removes what is left" in said
    os.kill(pid, signal.SIGKILL)


def test_a_worker_is_sent_something_now_and_then(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining_worker, "BEAT_SECONDS", 0.0)
    monkeypatch.setattr(joining_worker, "LOOK_SECONDS", 0.1)
    with site.joined(site.inventory(a=site.host("a", "counts"))):
        wait_for(lambda: (site.home("a") / "heard").exists() or None, Deadline(60, "the third beat"))
    assert site.said == []


@with_both
def test_ctrl_c_takes_them_down(site: Site) -> None:
    with pytest.raises(KeyboardInterrupt), site.joined(site.inventory(a=site.host("a"))) as workers:
        all_joined(workers)
        pid = site.pid("a")
        raise KeyboardInterrupt
    is_ended(pid)
    assert (site.home("a") / "ended").exists()


COORDINATOR = """
import sys, time
from pathlib import Path
from typing import Any
from lab.base.paths import Paths
from lab.fleet import inventory, joining
state, file = map(Path, sys.argv[1:])
words = lambda name, host: ["worker", "works"]
with joining.joined(inventory.load(file), Paths(state, state), words, print, lambda: None) as workers:
    while not workers["a"].has_joined:
        time.sleep(0.01)
    print("running", flush=True)
    time.sleep(600)
"""


@with_both
def test_a_coordinator_that_is_killed_leaves_no_worker(site: Site) -> None:
    host = site.host("a")
    site.inventory(a=host)
    file = site.tmp_path / "hosts.toml"
    settings = {"address": host.address, "port": host.port, "home": host.home, "command": host.command}
    file.write_text(
        "[hosts.a]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    )
    command = [sys.executable, "-c", COORDINATOR, str(site.paths.state), str(file)]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as coordinator:
        assert coordinator.stdout is not None
        assert coordinator.stdout.readline() == b"running\n"
        pid = site.pid("a")
        coordinator.kill()
    is_ended(pid)
    assert (site.home("a") / "ended").exists()


def refused(site: Site, **other: Any) -> str:
    """What is said of a host that cannot be logged in to."""
    with pytest.raises(LabError) as raised, site.joined(site.inventory(a=site.host("a", **other))):
        run_until_none_is_left(site)
    assert not (site.home("a") / "commands").exists()
    return str(raised.value)


@with_both
def test_a_host_whose_key_nobody_knows_is_refused(site: Site, user: User) -> None:
    user.known_hosts.write_text("")
    said = refused(site)
    assert f"host a: no connection to 127.0.0.1:{site.port}: Server '[127.0.0.1]:{site.port}' not found" in said
    assert f"run `ssh -p {site.port} 127.0.0.1 true` once, and compare the host key" in said
    assert user.known_hosts.read_text() == ""


def test_a_host_with_another_key_is_refused(site: Site, user: User) -> None:
    user.known_hosts.write_text("")
    user.knows(site.port, generate("other"))
    said = refused(site)
    assert "127.0.0.1 shows another host key than known_hosts has" in said
    assert "ssh-keygen -R" in said


def test_a_login_that_is_refused_names_the_user_and_asks_nothing(site: Site, user: User) -> None:
    user.use(generate("other"))
    said = refused(site, user="somebody")
    assert "host a: the login of somebody was refused" in said
    assert f"`ssh -p {site.port} somebody@127.0.0.1 true` has to work without a question" in said


def test_a_host_where_nothing_listens_is_told(site: Site) -> None:
    said = refused(site, port=1)
    assert "host a: no connection to 127.0.0.1:1: " in said
    assert "`ssh -p 1 127.0.0.1 true` has to work without a question" in said


def test_a_program_there_that_is_no_lab_is_told(site: Site) -> None:
    inventory = site.inventory(a=site.host("a", command=["echo"]))
    with (
        pytest.raises(LabError, match="which certificate it has: 'hosts list") as raised,
        site.joined(inventory),
    ):
        run_until_none_is_left(site)
    assert "install the same lab there as here" in str(raised.value)


def test_a_host_that_has_to_have_kvm_and_has_none_is_not_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining_worker, "KVM", "/dev/no-kvm")
    said = refused(site, kvm=True)
    assert "host a: `test -r /dev/no-kvm -a -w /dev/no-kvm`: exit status 1" in said
    assert "next: let the user open /dev/kvm there, or leave `kvm` of hosts.a out" in said


def test_a_certificate_that_ends_soon_is_told(site: Site) -> None:
    inventory = site.inventory(a=site.host("a"))
    issuing.renew(site.paths, ["a"], days=5)
    with site.joined(inventory) as workers:
        all_joined(workers)
    [said] = site.said
    assert said.startswith("the certificate of a ends on ")


def test_a_clock_an_hour_off_is_told_and_the_host_still_joins(site: Site, user: User) -> None:
    date = user.home / "bin" / "date"
    date.parent.mkdir()
    date.write_text(f"#!/bin/sh\necho {int(time.time()) - 3600}\n")
    date.chmod(0o755)
    inventory = site.inventory(a=site.host("a"))
    with site.joined(inventory) as workers:
        all_joined(workers)
    [said] = site.said
    assert said.startswith("host a: its clock is 60 min behind this host's")
