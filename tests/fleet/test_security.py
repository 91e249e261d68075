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

pytestmark = pytest.mark.timeout(900)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        found: int = free.getsockname()[1]
    return found


@pytest.fixture
def port() -> int:
    """A port that is free now."""
    return free_port()


def test_a_peer_without_the_run_s_certificate_is_refused(fleet: Fleet, tmp_path: Path, port: int) -> None:
    fleet.head = f"[coordinator]\nport = {port}\n"
    one = fleet.add("one", seconds=60)
    with running(fleet, SMALL) as run:
        run.told.wait(lambda: any(": suite" in text for _, text in run.told.lanes))
        file = tmp_path / "run" / CREDENTIALS
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        pem = file.read_text()
        worker = next(
            each.laddr.port for each in one.worker().net_connections("tcp") if each.status == "LISTEN"
        )
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
            assert [each["name"] for each in own.scheduler_info()["workers"].values()] == ["one"]
        assert not [each for each in one.home.rglob("*") if each.is_file() and "PRIVATE KEY" in _text(each)]
        one.does()
    assert not file.exists()


def _text(file: Path) -> str:
    return file.read_bytes().decode(errors="replace")


def test_a_host_dials_in_with_dask_s_own_command(fleet: Fleet, tmp_path: Path, port: int) -> None:
    """As docs/guides/several-hosts.md has it."""
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
