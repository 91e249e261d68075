"""The login on a host of a run, to an SSH server on 127.0.0.1; a shell script is in place of dask's worker."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("paramiko")

from lab.base.wait import Deadline, wait_for
from lab.fleet.inventory import HostEntry
from lab.fleet.login import Login
from lab.fleet.messages import WorkerSettings
from tests.builders.processes import SECONDS
from tests.fleet.server import User, environment, paramiko_server

pytestmark = pytest.mark.timeout(120)
# Keeps its first line of input, says where it listens, and ends with its input.
WORKER = """#!/bin/sh
read -r settings
echo "$settings" > {folder}/settings
echo '{{"pid": 99999999, "port": {port}}}'
cat > /dev/null
echo the last words
exit 5
"""


class LoginExample:
    """A login whose worker listens on a port that the test has."""

    def __init__(self, folder: Path, server_port: int) -> None:
        self.notes: list[str] = []
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self._file = folder / "settings"
        python = folder / "python"
        python.write_text(WORKER.format(folder=folder, port=self.socket.getsockname()[1]))
        python.chmod(0o755)
        host = HostEntry(address=f"127.0.0.1:{server_port}", python=str(python), lanes=3)
        self.login = Login("one", host, "the key", ("127.0.0.1", 1), self.notes.append)

    def start(self) -> WorkerSettings:
        """Start the login, and wait for its worker; return what that was told."""
        self.login.start()
        wait_for(lambda: self.login.worker, Deadline(SECONDS, "the worker to start"), interval=0.05)
        return WorkerSettings.model_validate_json(self._file.read_text())

    def end(self) -> None:
        self.login.end()
        self.login.join(SECONDS)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoginExample]:
    user = User(tmp_path / "home")
    monkeypatch.setenv("HOME", str(user.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with paramiko_server(user, environment(user)) as port:
        example = LoginExample(tmp_path, port)
        try:
            yield example
        finally:
            example.end()
            example.socket.close()


def test_a_worker_is_told_its_settings_and_ends_with_its_login(example: LoginExample) -> None:
    settings = example.start()
    assert (settings.name, settings.key, settings.lanes, settings.memory_mib) == ("one", "the key", 3, None)
    example.end()
    assert not example.login.is_alive()
    assert "exit status 5" in example.login.fault
    assert example.login.fault.endswith("the last words")
    assert example.notes == []  # The run ended it.


def test_a_connection_that_fails_leaves_the_way_to_the_worker_open(example: LoginExample) -> None:
    """As when dask's scheduler connects before the worker is ready."""
    address = example.start().contact.removeprefix("tls://").split(":")
    contact = (address[0], int(address[1]))
    with socket.create_connection(contact, timeout=SECONDS) as early:
        assert early.recv(1) == b""
    example.socket.listen()
    with socket.create_connection(contact, timeout=SECONDS) as connection:
        example.socket.settimeout(SECONDS)
        worker, _ = example.socket.accept()
        with worker:
            connection.sendall(b"x")
            assert worker.recv(1) == b"x"
