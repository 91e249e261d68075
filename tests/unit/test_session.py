"""What a broken connection to a guest is called, with a machine that is not there."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from lab.guest import access, session
from lab.guest.session import Session, SessionLost
from lab.machine.keys import generate
from lab.machine.lane import Endpoint, LaneDied


def broken(alive_for: int) -> Session:
    """A session whose connections break. libvirt calls its machine alive so many times, and then dead."""
    asked = iter(range(alive_for))

    def alive() -> None:
        if next(asked, None) is None:
            raise LaneDied("the machine is gone")

    made = Session(Endpoint(1, generate("client"), generate("host")), alive=alive, factor=1.0)

    @contextmanager
    def unwatched() -> Iterator[None]:
        yield

    def connect(_user: str) -> None:
        raise paramiko.SSHException("Connection reset by peer")

    made._watched = unwatched  # type: ignore[method-assign]
    made._connection = connect  # type: ignore[method-assign,assignment]
    return made


def test_a_new_key_is_for_later_logins_and_breaks_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[tuple[str, str]] = []
    commands: list[str] = []

    class Connection:
        """As much of fabric's as a session asks for; it notes who logged in with which key."""

        transport = None

        def __init__(self, _host: str, *, user: str, connect_kwargs: dict[str, Any], **_: object) -> None:
            keys.append((user, connect_kwargs["pkey"].get_base64()))
            self.client = paramiko.SSHClient()

        def open(self) -> None:
            pass

        def run(self, command: str, **_: object) -> Any:
            commands.append(command)
            return SimpleNamespace(exited=0, stdout="", stderr="")

    monkeypatch.setattr(session, "Connection", Connection)
    first = Endpoint(1, generate("client"), generate("host"))
    made = Session(first, alive=lambda: None, factor=1.0)
    made.run("true", seconds=5)
    renewed = access.renew(made, first)
    made.run("false", seconds=5)
    made.run("true", seconds=5, user="tester")
    assert renewed.host_key == first.host_key
    assert renewed.client_key.public in commands[1]
    old, new = (each.client_key.public.split()[1] for each in (first, renewed))
    assert keys == [("lab", old), ("tester", new)]


def test_a_machine_whose_death_libvirt_notices_late_is_the_error_and_not_the_connection() -> None:
    with pytest.raises(LaneDied, match="the machine is gone"):
        broken(alive_for=2).run("true", seconds=5)


def test_a_connection_to_a_living_machine_that_breaks_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "NOTICE_SECONDS", 0.2)
    with pytest.raises(SessionLost, match="SSH broke during `true`: Connection reset by peer"):
        broken(alive_for=1000).run("true", seconds=5)
