"""The command line as users have it: a process, its output, its exit status."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from lab import cli, shell
from lab.errors import NotApplicable
from lab.results import Status
from tests.unit.examples import cell, run_of

ONE_CELL = ["matrix", "-g", "debian-13", "-v", "stock"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where these labs keep their things; nobody has made it yet."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def lab(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lab", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["matrix", "-g", "debain-13"], 2, "no guest is called 'debain-13'\n  next: did you mean debian-13"),
        (["matrix", "-v", "stok"], 2, "no variant is called 'stok'\n  next: did you mean stock"),
        (["matrix", "--set", "quik"], 2, "no set is called 'quik'\n  next: did you mean quick"),
        ([*ONE_CELL, "--build", "latest!"], 2, "--build latest!: neither a version nor"),
        ([*ONE_CELL, "--rootfs", "/nowhere"], 2, "--rootfs /nowhere: not an OCI image layout"),
        (["report", "yesterday"], 2, "no run 'yesterday'"),
        (
            ["--connect", "test+bogus:///x", *ONE_CELL, "--build", "0.10.8"],
            3,
            "cannot connect to test+bogus:///x",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_started(
    home: Path, arguments: list[str], status: int, said: str
) -> None:
    done = lab(*arguments)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "state" / "lanes").exists()
    assert not list(home.glob("state/runs/*"))


def test_without_libvirt_it_is_said_how_to_start_it(home: Path) -> None:
    done = lab("--connect", "test+bogus:///x", "doctor")
    assert done.returncode == 3
    line = next(line for line in done.stdout.splitlines() if line.startswith("libvirt"))
    assert "broken" in line
    assert "-> " in done.stdout.split(line)[1].splitlines()[1]
    assert done.stderr == ""


def test_a_folder_with_a_run_in_it_is_refused(home: Path, tmp_path: Path) -> None:
    before = run_of(cell()).write(tmp_path).read_text()
    done = lab(*ONE_CELL, "--build", "0.10.8", "-o", tmp_path)
    assert done.returncode == 2
    assert f"-o {tmp_path}: there is a run in it already" in done.stderr
    assert (tmp_path / "results.json").read_text() == before


def test_list_shows_the_cells_and_makes_nothing(home: Path) -> None:
    done = lab("matrix", "--set", "quick", "-v", "max-userns-zero", "--list")
    assert done.returncode == 0
    lines = [line.split(maxsplit=4) for line in done.stdout.splitlines()[1:]]
    assert [line[:2] for line in lines] == [
        [guest, "max-userns-zero"] for guest in ("debian-12", "debian-13", "debian-13-backports")
    ]
    assert "lab matrix -g debian-12 -v max-userns-zero" in done.stdout
    assert not home.exists()


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit status of a command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["lab", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize(("status", "expected"), [(Status.PASS, 0), (Status.FAIL, 1), (Status.ERROR, 3)])
def test_a_report_ends_with_the_status_of_its_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, status: Status, expected: int
) -> None:
    folder = home / "state" / "runs" / "20261124-160000"
    folder.mkdir(parents=True)
    run_of(cell(status=status)).write(folder)
    assert run_main(monkeypatch, "report", "20261124-160000") == expected
    assert run_main(monkeypatch, "report", str(folder)) == expected


@pytest.mark.parametrize(
    ("kind", "begins"), [("json", '{\n  "schema": 1'), ("markdown", "# boxlite"), ("table", "\nguest")]
)
def test_a_report_has_the_format_that_was_asked_for(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    begins: str,
) -> None:
    run_of(cell()).write(tmp_path)
    run_main(monkeypatch, "report", str(tmp_path), "--format", kind)
    assert capsys.readouterr().out.startswith(begins)


def test_an_unknown_run_says_the_nearest(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "state" / "runs" / "20261124-160000").mkdir(parents=True)
    assert run_main(monkeypatch, "report", "20261124-16000") == 2
    assert "did you mean 20261124-160000?" in capsys.readouterr().err


def test_results_that_cannot_be_read_are_no_traceback(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"schema": 9}))
    assert run_main(monkeypatch, "report", str(tmp_path)) == 2
    assert "results.json: " in capsys.readouterr().err


def test_a_shell_that_makes_no_sense_says_why(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise NotApplicable("AppArmor 3.0.8 does not mediate user namespaces")

    monkeypatch.setattr(shell, "ready", refuse)
    status = run_main(monkeypatch, "shell", "debian-12", "apparmor-userns-deny", "--build", "0.10.8")
    assert status not in (0, None)
    assert "AppArmor 3.0.8 does not mediate user namespaces" in capsys.readouterr().err


def test_an_interrupt_is_said_and_ends_with_the_shell_s_status(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(shell, "ready", interrupt)
    assert run_main(monkeypatch, "shell", "debian-13", "--build", "0.10.8") == 130
    assert "interrupted" in capsys.readouterr().err
