"""The systemd unit of a host worker."""

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.fleet import unit
from tests.unit.cli_examples import run_main

ARGUMENTS = ["worker", "tls://10.0.0.1:8786"]


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_HOME", raising=False)


def settings(text: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(delimiters="=", comment_prefixes="#", strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return dict(parser["Service"])


@pytest.mark.parametrize("system", [True, False], ids=["system", "user"])
@pytest.mark.parametrize("home", [None, "/srv/a b"], ids=["default", "own home"])
def test_systemd_accepts_the_unit(
    system: bool, home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    if home:
        monkeypatch.setenv("LAB_HOME", home)
    file = tmp_path / "lab-worker.service"
    file.write_text(unit.text(["/bin/true"], ARGUMENTS, system=system))
    command = ["systemd-analyze", *([] if system else ["--user"]), "--man=no", "verify", str(file)]
    # Without a session of its own it finds no folder of the user's manager.
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_starts_this_worker_and_stops_it_in_good_order() -> None:
    found = settings(unit.text(["/srv/lab/.venv/bin/lab"], ARGUMENTS, system=True))
    assert found["ExecStart"] == "/srv/lab/.venv/bin/lab worker tls://10.0.0.1:8786"
    assert found["KillMode"] == "mixed"
    assert int(found["TimeoutStopSec"]) >= 60
    assert found["Restart"] == "always"
    assert "Environment" not in found


@pytest.mark.parametrize("system", [True, False], ids=["system", "user"])
def test_nothing_is_taken_away_that_guests_need(system: bool) -> None:
    """/dev/kvm, user namespaces, newuidmap, /proc as it is."""
    names = set(settings(unit.text(["lab"], ARGUMENTS, system=system)))
    needed = {"NoNewPrivileges", "PrivateDevices", "DevicePolicy", "RestrictNamespaces", "PrivateUsers"}
    needed |= {"ProtectKernelTunables", "ProtectProc", "ProtectClock", "RestrictSUIDSGID", "PrivateTmp"}
    needed |= {"MemoryDenyWriteExecute", "SystemCallFilter", "PrivateNetwork"}
    assert names & needed == set()


def test_a_user_s_unit_has_nothing_that_implies_no_new_privileges() -> None:
    names = set(settings(unit.text(["lab"], ARGUMENTS, system=False)))
    assert (
        names & {"LockPersonality", "RestrictRealtime", "ProtectSystem", "ProtectHome", "ProtectHostname"}
        == set()
    )


def test_a_home_of_its_own_is_kept_and_may_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", "/home/100%/$x y")
    found = settings(unit.text(["lab"], ARGUMENTS, system=True))
    assert found["Environment"] == '"LAB_HOME=/home/100%%/$x y"'
    assert found["ReadWritePaths"] == '"-/home/100%%/$x y"'


def test_words_are_read_back_as_they_are() -> None:
    found = settings(unit.text(["/a b/lab"], ["worker", 'a"b', "c\\d", "100%", "$HOME"], system=True))
    assert found["ExecStart"] == '"/a b/lab" worker "a\\"b" "c\\\\d" 100%% $$HOME'


def test_a_relative_program_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = settings(unit.text([".venv/bin/lab"], ARGUMENTS, system=True))
    assert found["ExecStart"].startswith(f"{tmp_path}/.venv/bin/lab ")


def test_the_command_prints_a_unit_that_runs_it_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["worker", "tls://10.0.0.1", "--lanes", "2", "--certificate", "a.pem", "--unit"]
    assert run_main(monkeypatch, *command) == 0
    found = settings(capsys.readouterr().out)["ExecStart"].partition(" worker ")
    assert found[0] == f"{tmp_path}/lab"
    assert found[2] == f"tls://10.0.0.1:8786 --lanes 2 --certificate {tmp_path}/a.pem"


def test_a_unit_for_a_wrong_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "worker", "tcp://10.0.0.1", "--unit") == 2
    assert "hosts speak TLS" in capsys.readouterr().err
