"""Who may take part in a run: only its own hosts, by credentials that nobody keeps."""

import json
import socket
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from distributed import Client

from lab.fleet import engine
from lab.fleet.coordinator import CREDENTIALS
from tests.builders.runs import SMALL
from tests.fleet.examples import Fleet, running
from tests.fleet.sockets import reachable

pytestmark = pytest.mark.timeout(900)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def test_a_peer_without_the_run_s_certificate_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    port = free_port()
    fleet.head = f"[coordinator]\nport = {port}\n"
    one = fleet.add("one", seconds=60)
    with running(fleet, SMALL) as run:
        run.told.wait(lambda: any(": suite" in text for _, text in run.told.lanes))
        credentials = tmp_path / "run" / CREDENTIALS
        assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
        pem = credentials.read_text()
        [(_, worker)] = reachable(one.worker())
        for target in (port, worker):
            with pytest.raises(OSError, match=r"Timed out|CERTIFICATE|alert|closed|TLS"):
                Client(f"tls://127.0.0.1:{target}", security=engine.security(engine.new_key()), timeout=5)
            # Somebody who checks nothing, and shows nothing.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with (
                socket.create_connection(("127.0.0.1", target)) as plain,
                context.wrap_socket(plain) as secured,
                pytest.raises(ssl.SSLError, match="certificate required"),
            ):
                secured.recv(1)
        with Client(f"tls://127.0.0.1:{port}", security=engine.security(pem), set_as_default=False) as own:
            assert [peer["name"] for peer in own.scheduler_info()["workers"].values()] == ["one"]
        files = [file for file in one.home.rglob("*") if file.is_file()]
        assert not [file for file in files if b"PRIVATE KEY" in file.read_bytes()]
        one.does()
    assert not credentials.exists()


def test_a_host_dials_in_with_dask_s_own_command(fleet: Fleet, tmp_path: Path) -> None:
    """As docs/guides/several-hosts.md has it."""
    port = free_port()
    fleet.head = f"[coordinator]\nport = {port}\n"
    with running(fleet, SMALL) as run:
        run.told.wait(lambda: run.told.noted("hosts may dial in at "))
        pem = tmp_path / "run" / CREDENTIALS
        home = tmp_path / "own"
        home.mkdir()
        (home / "control.json").write_text(json.dumps({}))
        (home / "cache").symlink_to(fleet.paths.cache)
        process = subprocess.Popen(
            [
                *("env", f"LAB_HOME={home}", str(fleet.python), "-m", "distributed.cli.dask_worker"),
                *(f"tls://127.0.0.1:{port}", "--listen-address", f"tls://127.0.0.1:{free_port()}"),
                *("--tls-ca-file", str(pem), "--tls-cert", str(pem), "--tls-key", str(pem)),
                *("--no-nanny", "--no-dashboard", "--preload", "lab.fleet.host", "--memory-limit", "0"),
                *("--name", "own", "--nthreads", "1", "--resources", "lane=1 memory=8000"),
            ]
        )
        try:
            result = run.finish()
            process.wait(60)  # It ends with the run.
        finally:
            process.kill()
    assert {cell.lane.partition(":")[0] for cell in result.cells} == {"own"}
