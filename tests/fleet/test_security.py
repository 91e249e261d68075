"""Peers that a coordinator and its hosts do not take: without their certificates, or with code."""

import asyncio
import os
import pickle
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed")

from distributed import Security
from distributed.comm import connect
from distributed.protocol.serialize import ToPickle

from lab.base.paths import Paths
from lab.fleet import certificates, issuing, places
from lab.fleet.authority import Authority
from lab.fleet.certificates import Role
from lab.record import Status
from tests.fleet.examples import ROOT, Fleet, HostProcess, Running, running
from tests.unit.run_examples import SMALL
from tests.unit.told import run_in_a_loop

pytestmark = pytest.mark.timeout(900)
RAN: list[str] = []


class Rogue(Exception):
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return RAN.append, ("unpickled",)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    RAN.clear()
    yield
    assert RAN == []


class Peer:
    """Somebody with a good certificate who says what no host says."""

    def __init__(self, run: Running) -> None:
        self._run = run
        file = places.worker_file(run.fleet.paths, "two")
        self._security = certificates.load_worker(run.fleet.paths, file).security()

    def says(self, *messages: Any) -> Any:
        """Say these one after another; return the last answer, or None if the connection was closed."""
        return run_in_a_loop(self._say(messages))

    async def _say(self, messages: tuple[Any, ...]) -> Any:
        comm = await connect(self._run.address, **Security(**self._security).get_connection_args("worker"))
        answer = None
        try:
            for message in messages:
                await comm.write(message)
                answer = await asyncio.wait_for(comm.read(), 60)
        except OSError:
            return None
        finally:
            comm.abort()
        return answer


def test_a_pickled_object_closes_the_connection_and_is_told(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", SMALL) as run:
        for message in (
            {"op": "heartbeat_worker", "address": "x", "metrics": ToPickle(Rogue())},
            ToPickle({"op": Rogue()}),
            {"op": "lab_chunk", "token": "x", "offset": 0, "data": ToPickle(Rogue())},
        ):
            run.told.notes.clear()
            assert Peer(run).says(message) is None
            run.told.wait(lambda: run.told.noted("the connection closed: a message with a pickled object"))


def test_whoever_has_a_certificate_of_a_host_is_no_client(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", SMALL) as run:
        calls: dict[str, dict[str, Any]] = {
            "run_function": {"function": pickle.dumps(Rogue()), "args": (), "kwargs": {}},
            "register_scheduler_plugin": {"plugin": pickle.dumps(Rogue()), "name": "x"},
            "register-client": {"client": "x", "versions": {}},
            "proxy": {"msg": {"op": "run"}, "worker": "x"},
            "terminate": {},
        }
        for op, more in calls.items():
            assert Peer(run).says({"op": op, **more}) is None
            run.told.wait(partial(run.told.noted, f"a call of '{op}', which no host's worker makes"))
        run.start_host("one")
        assert {cell.status for cell in run.finish().cells} == {Status.PASS}


@pytest.mark.parametrize("kind", ["type", "bytes"])
def test_a_host_that_answers_with_an_object_runs_nothing_here(fleet: Fleet, tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "unpickled"
    with running(fleet, tmp_path / "run", SMALL[:1]) as run:
        file = places.worker_file(fleet.paths, "two")
        command = [sys.executable, "-m", "tests.fleet.rogue_host", run.address, str(file), kind, str(marker)]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=300)
        run.told.wait(lambda: run.told.noted("rogue has gone"))
        run.start_host("one")
        result = run.finish()
        assert [cell.status for cell in result.cells] == [Status.PASS]
        assert len(result.cells[0].retried) == 1
        assert not marker.exists()


# -- certificates


def foreign(fleet: Fleet, tmp_path: Path) -> Path:
    """A certificate of another CA."""
    paths = Paths(cache=tmp_path / "other", state=tmp_path / "other")
    issuing.initialize(paths, ["one"], days=1, authority_days=2)
    return places.worker_file(paths, "one")


def expired(fleet: Fleet, tmp_path: Path) -> Path:
    """A certificate of the right CA that ended yesterday; the worker is made not to look at its dates."""
    authority = Authority.load(places.authority_file(fleet.paths))
    file = tmp_path / "expired.pem"
    file.write_text(authority.bundle("one", Role.WORKER, 1, datetime.now(UTC) - timedelta(days=2)))
    file.chmod(0o600)
    return file


def ended(host: HostProcess) -> str:
    host.process.wait(timeout=300)
    return host.said()


def test_a_foreign_certificate_is_refused_at_once_and_both_sides_say_so(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", SMALL) as run:
        host = fleet.start("one", run.address, certificate=foreign(fleet, tmp_path))
        assert "is not trusted: " in ended(host)
        assert host.process.returncode == 2
        run.told.wait(
            lambda: run.told.noted("refused, and the connection closed: a TLS handshake with 'tls://127.")
        )


def test_an_expired_certificate_is_refused_at_once_and_both_sides_say_so(fleet: Fleet, tmp_path: Path) -> None:
    file = expired(fleet, tmp_path)
    with running(fleet, tmp_path / "run", SMALL) as run:
        host = fleet.start("one", run.address, certificate=file)
        assert "the certificate of one" in ended(host)
        assert "expired on" in host.said()
        late = fleet.start("two", run.address, certificate=file, any_date=True)
        assert "refuses this host: the certificate of this host has expired" in ended(late)
        run.told.wait(lambda: run.told.noted("certificate has expired"))


def test_without_a_certificate_nobody_is_heard_and_it_is_told(fleet: Fleet, tmp_path: Path) -> None:
    with running(fleet, tmp_path / "run", SMALL) as run:
        port = int(run.address.rpartition(":")[2])
        context = ssl.create_default_context(
            cafile=None, cadata=fleet.security["tls_ca_file"], purpose=ssl.Purpose.SERVER_AUTH
        )
        context.check_hostname = False
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain) as secured,
            pytest.raises(ssl.SSLError, match="certificate required"),
        ):
            secured.recv(1)
        run.told.wait(lambda: run.told.noted("peer did not return a certificate"))
        # And without TLS at all.
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(b"\0" * 100)
            with suppress(ConnectionResetError):
                assert plain.recv(100)[:1] in (b"", b"\x15")  # Nothing, or an alert of TLS.


def test_a_host_does_not_join_a_coordinator_of_another_lab(fleet: Fleet, tmp_path: Path) -> None:
    other = Fleet(tmp_path / "other")
    with running(other, tmp_path / "run", SMALL) as run:
        host = fleet.start("one", run.address)
        assert "is not trusted: " in ended(host)
