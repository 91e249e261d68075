import platform
import re
import socket
import time
from pathlib import Path

import libvirt
import pytest

from lab.base.activity import CancelToken, Task
from lab.base.errors import LabError
from lab.machine import connection
from lab.machine.connection import NoLibvirt, get_default_uri, how_to_start, open_connection
from tests.builders.guests import task_to

NO_SOCKET = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"


@pytest.mark.parametrize(
    ("chosen", "user", "uri"),
    [("", 0, "qemu:///system"), ("", 1000, "qemu:///session"), ("test:///default", 0, "test:///default")],
)
def test_each_user_has_a_libvirt(monkeypatch: pytest.MonkeyPatch, chosen: str, user: int, uri: str) -> None:
    monkeypatch.setenv("LAB_CONNECT", chosen)
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert get_default_uri() == uri


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        (NO_SOCKET, how_to_start(NO_SOCKET)),
        # Starting a daemon does not help if the address is wrong.
        ("nothing:///system", "see --connect and LAB_CONNECT"),
    ],
)
def test_a_libvirt_that_is_not_there_is_named_with_what_to_do(uri: str, hint: str) -> None:
    with pytest.raises(NoLibvirt, match=rf"cannot connect to {re.escape(uri)}: .*") as error:
        open_connection(uri)
    assert error.value.hint == hint


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What libvirt answers next; first nobody listens."""
    with pytest.raises(libvirt.libvirtError) as error:
        libvirt.open(NO_SOCKET.replace("system", "session"))
    next_answers: list[object] = [error.value, error.value, "a connection"]

    def open_(_uri: str) -> object:
        answer = next_answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(libvirt, "open", open_)
    return next_answers


def test_only_a_session_s_daemon_starts_by_itself(answers: list[object]) -> None:
    again = answers[:]
    assert open_connection("qemu:///session") == "a connection"
    answers[:] = again
    with pytest.raises(NoLibvirt, match="Failed to connect socket"):
        open_connection("qemu:///system")


def test_a_daemon_that_restarts_is_waited_for_unless_the_wait_is_ended(answers: list[object]) -> None:
    told: list[str] = []

    token = CancelToken()
    token.cancel()
    again = answers[:]
    opened = open_connection("qemu:///system", seconds=60, task=task_to(told))
    assert (opened, told) == ("a connection", ["waiting for libvirt to come back"] * 2)
    answers[:] = again
    with pytest.raises(LabError, match="interrupted"):
        open_connection("qemu:///system", seconds=60, task=Task(check=token.check))


def test_a_daemon_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(connection, "RETRY_SECONDS", 0.01)
    waits: list[str] = []
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(tmp_path / "sock"))
        stopped.listen()
        uri = f"qemu+unix:///system?socket={tmp_path / 'sock'}"
        with pytest.raises(NoLibvirt, match=r"cannot connect to .*: waited 0 s for libvirt's answer") as error:
            open_connection(uri, seconds=0.5, task=task_to(waits))
    assert waits, "it may go on a moment later, so it is asked again"
    assert "kill it and start it again" in str(error.value.hint)


@pytest.mark.parametrize(
    ("host", "systemd", "uri", "told"),
    [
        ("debian-13", True, "qemu:///session", "install libvirt-daemon-system libvirt-daemon-driver-qemu; "),
        ("fedora-43", True, "qemu:///session", "install libvirt-daemon-driver-qemu libvirt-daemon-log; "),
        ("debian-13", True, "qemu:///system", "systemctl start libvirtd.service ("),
        ("fedora-43", True, "qemu:///system", "systemctl start virtlogd.socket virtqemud.socket ("),
        ("debian-13", False, "qemu:///system", "virtlogd -d && libvirtd -d ("),
        ("arch-", True, "qemu:///system", "systemctl start libvirtd.service ("),
    ],
)
def test_how_to_start_libvirt_is_told_for_the_host(
    monkeypatch: pytest.MonkeyPatch, host: str, systemd: bool, uri: str, told: str
) -> None:
    name, _, version_id = host.partition("-")
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": name, "VERSION_ID": version_id})
    monkeypatch.setattr(Path, "is_dir", lambda _path: systemd)
    assert how_to_start(uri).startswith(told)
