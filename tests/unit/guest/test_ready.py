import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import catalog
from lab.base.wait import DeadlineExpired
from lab.catalog import Firmware
from lab.guest import ready
from lab.guest.ready import (
    MOST_WAITS,
    RESULT,
    CloudInitFailed,
    NotAsDefined,
    check_as_defined,
    wait_for_boot,
    wait_ready,
)
from lab.guest.session import Output
from lab.machine import acceleration, console
from lab.machine import lane as machine_lane
from lab.machine.lane import BootFailed
from tests.builders.facts import facts
from tests.builders.guests import base_image
from tests.builders.lanes import EMULATION, FakeLane, FakeSession, prints

KNOWN = catalog.load_catalog()
RESULT_OF_SUCCESS = '{"v1": {"errors": [], "datasource": "DataSourceNoCloud [seed=/dev/vdb]", "more": 1}}'


@pytest.mark.parametrize(
    ("selinux", "state"),
    [
        (None, "SELinux is not in use"),
        ({"mode": "permissive", "policy": "default"}, "SELinux is permissive with policy default"),
        ({"mode": "enforcing", "policy": "mls"}, "SELinux is enforcing with policy mls"),
    ],
)
def test_a_guest_has_to_enforce_its_policy(selinux: dict[str, Any] | None, state: str) -> None:
    check_as_defined(KNOWN.guest("debian-13"), facts(selinux=selinux))
    check_as_defined(
        KNOWN.guest("debian-13-selinux"), facts(selinux={"mode": "enforcing", "policy": "default"})
    )
    with pytest.raises(NotAsDefined, match=f"should enforce the SELinux policy default, but {state}"):
        check_as_defined(KNOWN.guest("debian-13-selinux"), facts(selinux=selinux))


def left_by_cloud_init(result: str) -> dict[str, Output]:
    """The answers of a guest whose cloud-init left this result."""
    return {RESULT: Output(0, result, ""), **prints("its log")}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("", "left no result"),
        ('{"v1": {"errors": [], "datasource"', "left no result"),
        ('{"v1": {"datasource": "NoCloud"}}', r"left no result: v1\.errors: Field required"),
        ('{"v1": {"errors": [{"a": 1}], "datasource": "NoCloud"}}', "failed: {'a': 1}"),
        ('{"v1": {"errors": [], "datasource": null}}', "failed: it used None"),
    ],
)
def test_a_guest_whose_cloud_init_left_no_result_is_not_up(result: str, message: str) -> None:
    session = FakeSession(left_by_cloud_init(result))
    with pytest.raises(CloudInitFailed, match=message) as failed:
        wait_ready(session, listens=lambda: True, cloud_init=True)
    assert failed.value.evidence == {"cloud-init.log": "its log"}


@pytest.mark.parametrize(("result", "cloud_init"), [(RESULT_OF_SUCCESS, True), ("no result", False)])
def test_a_guest_is_up_if_its_cloud_init_succeeded_or_it_has_none(result: str, cloud_init: bool) -> None:
    session = FakeSession(left_by_cloud_init(result))
    wait_ready(session, listens=lambda: True, cloud_init=cloud_init)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many programs want each of the host's processors; the newest counts."""
    loads = [1.0]
    for module in (machine_lane, acceleration):
        monkeypatch.setattr(module, "measure_load", lambda: loads[-1])
    return loads


@pytest.fixture
def lane(tmp_path: Path, load: list[float]) -> FakeLane:
    """A lane whose guest comes from a distribution's disk, on a host with nothing else to do."""
    lane = FakeLane(tmp_path, EMULATION)
    lane.image = base_image(tmp_path, Firmware.BIOS)
    return lane


class SlowSession(FakeSession):
    """A guest that is waited for so often, and writes this much to its console meanwhile."""

    def __init__(self, waits: int, lane: FakeLane, written: str) -> None:
        super().__init__(left_by_cloud_init(RESULT_OF_SUCCESS), speed=lane.speed)
        self.waits, self.lane, self.written = waits, lane, written

    def wait_open(self, seconds: float, *, listens: Callable[[], bool] = lambda: True) -> None:
        self.lane.boot_log += self.written
        listens()
        if self.waits:
            self.waits -= 1
            raise DeadlineExpired("waited 300 s for the guest's SSH server")


@pytest.mark.parametrize("waits", [0, MOST_WAITS - 1])
def test_a_boot_that_goes_on_is_not_given_up_by_the_clock(lane: FakeLane, waits: int) -> None:
    lane.boot_log = "[  OK  ] Reached target emergency-ready.target\n"
    session = SlowSession(waits, lane, "[  OK  ] Started one more service\n")
    wait_for_boot(session, lane)
    assert session.waits == 0


@pytest.mark.parametrize(
    ("written", "waits", "times"),
    [("", 1, ""), ("[*   ] A start job is running\n", MOST_WAITS, f" {MOST_WAITS} times")],
    ids=["silent", "endless"],
)
def test_a_boot_that_stands_still_or_never_ends_is_given_up(
    lane: FakeLane, written: str, waits: int, times: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(0, 100)
    monkeypatch.setattr(ready, "time", SimpleNamespace(monotonic=lambda: next(now) if not written else 0.0))
    lane.boot_log = "[ 0.0] Linux version\n"
    session = SlowSession(100, lane, written)
    message = rf"debian-13 did not come up: waited 300 s for the guest's SSH server{times}\n"
    with pytest.raises(BootFailed, match=message):
        wait_for_boot(session, lane)
    assert session.waits == 100 - waits


def test_a_boot_that_systemd_gave_up_is_not_waited_for(lane: FakeLane) -> None:
    frozen = (
        "[  491.966350] systemd[1]: Failed to fork off sandboxing environment for executing generators: "
        "Protocol error\n[!!!!!!] Failed to start up manager.\n[  493.880333] systemd[1]: Freezing execution.\n"
    )
    session = SlowSession(100, lane, frozen)
    with pytest.raises(
        BootFailed, match=r"(?s)did not come up: its systemd gave up\n.*Failed to start up manager"
    ):
        wait_for_boot(session, lane)
    assert session.waits == 100


@pytest.mark.parametrize(
    ("boot_log", "load_then", "factor"),
    [
        (f"[    9.0] {console.KERNEL_RAN}\n", 1.0, 18.0),
        ("[    0.0] Linux version\n", 3.0, 30.0),
        (f"[    9.0] {console.KERNEL_RAN}\n", 3.0, 30.0),
    ],
    ids=["slower kernel", "busier host", "as slow as it is busy"],
)
def test_a_silent_boot_has_longer_on_a_host_that_is_slower_than_was_known(
    lane: FakeLane,
    load: list[float],
    monkeypatch: pytest.MonkeyPatch,
    boot_log: str,
    load_then: float,
    factor: float,
) -> None:
    now = itertools.count(0, 100)
    monkeypatch.setattr(ready, "time", SimpleNamespace(monotonic=lambda: next(now)))
    session = SlowSession(1, lane, "")
    session.set_speed(replace(lane.speed, more=2.0))
    lane.boot_log = boot_log
    load.append(load_then)
    wait_for_boot(session, lane)
    assert session.waits == 0
    assert session.speed.factor == 2.0 * factor


@pytest.mark.parametrize(
    ("line", "up"),
    [
        ("[  OK  ] Started OpenBSD Secure Shell server.", True),
        ("[  OK  ] Listening on ssh.socket - OpenBSD Secure Shell server socket.", True),
        ("[  OK  ] Started sshd.service - OpenSSH server daemon.", True),
        ("         Starting ssh.service - OpenBSD Secure Shell server...", False),
        ("[  OK  ] Listening on sshd-unix-local.socket - OpenSSH Server Socket.", False),
    ],
)
def test_a_console_shows_when_the_ssh_server_is_up(line: str, up: bool) -> None:
    assert console.shows_ssh(f"[  OK  ] Reached target network.target\n{line}\n") is up
