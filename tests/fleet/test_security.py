"""Who may take part in a run: only its own hosts, by credentials that nobody keeps."""

import json
import resource
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

pytest.importorskip("distributed")

from distributed import Client

from lab.fleet import engine
from lab.fleet.coordinator import CREDENTIALS
from tests.builders.runs import SMALL
from tests.fleet.dialled import decides, dialling, free_port
from tests.fleet.examples import Fleet, running
from tests.fleet.sockets import reachable

pytestmark = pytest.mark.timeout(900)


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
                Client(f"tls://127.0.0.1:{target}", security=engine.make_security(engine.make_key()), timeout=5)
            # Somebody who checks nothing, and shows nothing.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with (
                socket.create_connection(("127.0.0.1", target)) as plain,
                context.wrap_socket(plain) as secured,
                pytest.raises(ssl.SSLError, match="certificate required"),
            ):
                secured.recv(1)
        with Client(f"tls://127.0.0.1:{port}", security=engine.make_security(pem), set_as_default=False) as own:
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
    assert {cell.history.lane.partition(":")[0] for cell in result.cells} == {"own"}


# Opens connections that say nothing, or a part of what a peer with the run's key would say, and keeps them.
STRANGERS = """
import socket, sys
words = [b"", b"\\x16\\x03\\x01\\x02\\x00\\x01"]
kept = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(500)]
for number, connection in enumerate(kept):
    try:
        connection.sendall(words[number % 2])
    except OSError:
        pass  # It was closed.
print("there", flush=True)
sys.stdin.read()
"""


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def test_idle_connections_without_the_key_do_not_use_up_the_coordinator_s_files(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with dialling(fleet, monkeypatch, SMALL) as hosts:
        began = descriptors()
        with subprocess.Popen(
            [sys.executable, "-c", STRANGERS, str(hosts.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as strangers:
            assert strangers.stdout
            assert strangers.stdin
            resource.setrlimit(resource.RLIMIT_NOFILE, (began + 300, hard))
            try:
                assert strangers.stdout.readline() == b"there\n"
                hosts.add("good", decides("good"))
                run = hosts.run.finish()
                assert descriptors() - began < 300
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                strangers.stdin.close()
    assert {cell.status.value for cell in run.cells} == {"pass"}


def test_nobody_else_of_this_host_gets_a_way_to_a_worker(fleet: Fleet) -> None:
    """Each connection there would be a channel of the login, and two files of this process."""
    port, sockets = free_port(), reachable(psutil.Process())  # Servers of other tests may still be there.
    fleet.head = f"[coordinator]\nport = {port}\n"
    fleet.add("one", seconds=60)
    with running(fleet, SMALL) as run:
        run.told.wait(lambda: any(": suite" in text for _, text in run.told.lanes))
        [(_, way)] = reachable(psutil.Process()) - sockets - {("127.0.0.1", port)}
        code = "import socket, sys; print(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(1))"
        command = [sys.executable, "-c", code, str(way)]
        assert subprocess.run(command, check=True, capture_output=True).stdout == b"b''\n"
        fleet.hosts["one"].does()


@pytest.mark.parametrize("as_link", [False, True], ids=["file", "link"])
def test_the_run_s_key_is_read_by_nobody_else_whatever_was_there(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, as_link: bool
) -> None:
    key, elsewhere = tmp_path / "run" / CREDENTIALS, tmp_path / "elsewhere"
    key.parent.mkdir()
    (elsewhere if as_link else key).touch()
    (elsewhere if as_link else key).chmod(0o666)
    if as_link:
        key.symlink_to(elsewhere)
    before = (elsewhere if as_link else key).open()  # Whoever opened it then reads nothing of the key.
    with before, dialling(fleet, monkeypatch, SMALL) as hosts:
        assert stat.S_IMODE(key.lstat().st_mode) == 0o600
        assert stat.S_ISREG(key.lstat().st_mode)
        assert before.read() == ""
        hosts.add("good", decides("good"))
        hosts.run.finish()


def test_dask_s_files_are_in_a_folder_of_the_lab_s_own_which_goes(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """dask would follow a link that another user put in place of its folder, and load modules from there."""
    others, common = tmp_path / "others", tmp_path / "common"
    for folder in (others, common):
        folder.mkdir()
    (common / "dask-scratch-space").symlink_to(others)
    monkeypatch.setattr(tempfile, "tempdir", str(common))
    with dialling(fleet, monkeypatch, SMALL) as hosts:
        hosts.add("good", decides("good"))
        hosts.run.finish()
    assert [file.name for file in common.iterdir()] == ["dask-scratch-space"]
    assert list(others.iterdir()) == []
