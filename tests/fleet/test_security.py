"""Who may take part in a run: only its own hosts, by a key that nobody keeps."""

import socket
import ssl
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from distributed import Client

from lab.fleet import engine
from tests.builders.runs import SMALL
from tests.fleet.examples import Fleet, running

pytestmark = pytest.mark.timeout(900)


def test_a_peer_without_the_run_s_key_is_refused(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = engine.new_key(), engine.new_key()
    monkeypatch.setattr(engine, "new_key", lambda: own)
    one = fleet.add("one", seconds=60)
    with running(fleet, SMALL) as run:
        run.told.wait(lambda: any(": suite" in text for _, text in run.told.lanes))
        address: str = run.coordinator._client.scheduler_info()["address"]
        sockets = one.worker().net_connections("tcp")
        worker = next(connection.laddr.port for connection in sockets if connection.status == "LISTEN")
        for target in (int(address.rpartition(":")[2]), worker):
            with pytest.raises(OSError, match=r"Timed out|CERTIFICATE|alert|closed|TLS"):
                Client(f"tls://127.0.0.1:{target}", security=engine.security(other), timeout=5)
            # Somebody who checks nothing, and shows nothing.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with (
                socket.create_connection(("127.0.0.1", target)) as plain,
                context.wrap_socket(plain) as secured,
                pytest.raises(ssl.SSLError, match="certificate required"),
            ):
                secured.recv(1)
        with Client(address, security=engine.security(own), set_as_default=False) as client:
            assert [worker["name"] for worker in client.scheduler_info()["workers"].values()] == ["one"]
        kept = [file for folder in (one.home, tmp_path / "run") for file in folder.rglob("*") if file.is_file()]
        assert not [file for file in kept if b"PRIVATE KEY" in file.read_bytes()]
        one.does()
