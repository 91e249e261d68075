"""`lab matrix --hosts` and `lab worker`: what is refused before anything is started."""

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from lab.base.paths import Paths
from lab.fleet import issuing, places
from lab.fleet.address import Address
from tests.unit.cli_examples import ONE_CELL, run_main

HOSTS = ["--hosts", "tls://127.0.0.1:0"]


def test_without_several_hosts_dask_is_not_imported() -> None:
    program = "import sys, lab.cli; print(sorted({'dask', 'distributed', 'msgpack'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", [[*ONE_CELL, *HOSTS], ["worker", "tls://127.0.0.1:8786"]])
def test_without_dask_the_next_step_is_told(
    home: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "distributed"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("lab.fleet.task", "lab.fleet.worker"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run_main(monkeypatch, *command) == 2
    assert (
        "needs dask.distributed, which is not installed\n  next: ./setup.sh installs it"
        in capsys.readouterr().err
    )


def test_an_address_is_read_in_both_spellings() -> None:
    assert Address.parse("tcp+tls://10.0.0.1:99", "--hosts") == Address.parse("tls://10.0.0.1:99", "--hosts")
    assert str(Address.parse("tcp+tls://10.0.0.1", "--hosts")) == "tls://10.0.0.1:8786"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("tcp://127.0.0.1:8786", "hosts speak TLS, and nothing else"),
        ("127.0.0.1:8786", "expected tls://HOST:PORT"),
        ("tls://", "expected tls://HOST:PORT"),
        ("tls://127.0.0.1:99999", "Port out of range"),
        ("tls://127.0.0.1:8786/x", "expected tls://HOST:PORT"),
    ],
)
def test_an_address_that_is_none_is_wrong_usage(
    home: Path, address: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *ONE_CELL, "--hosts", address) == 2
    assert told in capsys.readouterr().err


def test_without_certificates_nothing_is_started(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *ONE_CELL, *HOSTS) == 2
    assert "there is no certificate" in capsys.readouterr().err
    assert run_main(monkeypatch, "worker", "tls://127.0.0.1:8786") == 2
    assert "there is no certificate" in capsys.readouterr().err
    assert list(home.glob("state/runs/*")) == []


@pytest.mark.parametrize("option", ["--jobs", "--memory"])
def test_limits_of_this_host_are_none_of_the_others(
    home: Path, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    issuing.initialize(Paths(cache=home / "cache", state=home / "state"), ["one"], days=1, authority_days=2)
    assert run_main(monkeypatch, *ONE_CELL, *HOSTS, option, "2") == 2
    assert "give each host its own: lab worker ADDRESS" in capsys.readouterr().err


def test_a_part_needs_a_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "part.json").write_text("{}")
    assert run_main(monkeypatch, "matrix", "--part", str(tmp_path / "part.json")) == 2
    assert "--part needs -o DIR" in capsys.readouterr().err


def test_a_part_of_another_lab_is_refused_by_an_event_and_the_exit_status(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "part.json").write_text('{"lab": "99.0"}')
    folder = tmp_path / "run"
    assert run_main(monkeypatch, "matrix", "--part", str(tmp_path / "part.json"), "-o", str(folder)) == 2
    out, err = capsys.readouterr()
    assert out.startswith('{"kind":"refused","text":"the coordinator is lab 99.0, and this host has lab ')
    assert "the coordinator is lab 99.0" in err
    assert not folder.exists()


def test_a_second_worker_of_a_host_waits_and_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each would offer all of the host's memory."""
    paths = Paths(cache=home / "cache", state=home / "state")
    issuing.initialize(paths, ["one"], days=1, authority_days=2)
    certificate = ["--certificate", str(places.worker_file(paths, "one"))]
    monkeypatch.setattr("lab.cli.worker.OTHER_SECONDS", 0.1)
    with FileLock(paths.state / "worker.lock"):
        assert run_main(monkeypatch, "worker", "tls://127.0.0.1:9", *certificate) == 2
    out, err = capsys.readouterr()
    assert "waiting for another worker of this host to end" in out + err
    assert "another worker of this host runs already" in err


def test_kvm_is_asked_of_other_hosts_only(
    monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *ONE_CELL, "--kvm") == 2
    assert "--kvm chooses among the hosts of --hosts" in capsys.readouterr().err
