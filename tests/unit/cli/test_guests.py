"""The command lines of shells, single commands, kept guests and copies. What runs in a guest is run here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from lab.base.wait import Speed
from lab.lane import shell
from lab.lane.shell import EnteredGuest
from lab.machine.lane import Endpoint, LaneDied
from lab.machine.seed import make_keys
from lab.plan import Cell
from lab.record import RunResult, Status
from tests.builders.cells import cell
from tests.builders.lanes import EMULATION, FakeLane
from tests.builders.processes import RunLab
from tests.builders.runs import run_of

# Instead of OpenSSH's: runs the command as the server does.
SSH = """#!/bin/bash
exec bash -c "${@: -1}"
"""


class Host:
    """A host whose guests are folders. `opened` are the cells that guests were brought up for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[tuple[str, Path | None]] = []
        self.lane = FakeLane(folder, EMULATION)

    @contextmanager
    def ready(self, cell: Cell, *_: object, own_rootfs: Path | None = None) -> Iterator[EnteredGuest]:
        self.opened.append((cell.name, own_rootfs))
        endpoint = Endpoint(22100, make_keys("client"), make_keys("host"))
        made = shell.make_entrance(endpoint, self.folder, cell, speed=Speed(emulated=True))
        state = f"cd {self.folder} && exec env SEEN=yes"
        yield EnteredGuest(self.lane, made.model_copy(update={"state": state, "state_with_stdin": state}))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(SSH)
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    made = Host(tmp_path / "lane")
    monkeypatch.setattr(shell, "enter_guest", made.ready)
    return made


CELL = ["debian-13", "userns-clone-off", "--build", "0.10.8"]


def test_a_command_gets_its_words_and_the_lab_its_status(host: Host, run_lab: RunLab) -> None:
    words = ["sh", "-c", 'echo "$SEEN" "$@"; echo apart >&2; exit 7', "sh", "--build", "--", "-h"]
    printed = run_lab(7, "exec", *CELL, "--", *words)
    assert host.opened == [("debian-13/userns-clone-off/0.10.8", None)]
    assert (printed.out, printed.err) == ("yes --build -- -h\n", "apart\n")
    # One that fails as ssh does is told apart from a dead guest.
    run_lab(255, "exec", *CELL, "--", "sh", "-c", "exit 255")
    with pytest.raises(LaneDied):
        host.lane.die()
    printed = run_lab(3, "exec", *CELL, "--", "sh", "-c", "exit 255")
    assert printed.splitlines()[-2:] == ["lab: the machine is gone", "its console stayed empty"]


def test_a_command_must_be_named(host: Host, run_lab: RunLab) -> None:
    for words in (["exec", "debian-13", "true"], ["exec", "debian-13", "--"]):
        assert "after --: lab exec GUEST [VARIANT] -- COMMAND" in run_lab(2, *words)
    assert host.opened == []


def test_a_shell_without_terminal_runs_what_it_reads(host: Host, tmp_path: Path, run_lab: RunLab) -> None:
    (tmp_path / "script").write_text("echo $SEEN; exit 4\n")
    before = os.dup(0)
    with (tmp_path / "script").open() as script:
        os.dup2(script.fileno(), 0)
    try:
        printed = run_lab(4, "shell", *CELL)
    finally:
        os.dup2(before, 0)
        os.close(before)
    assert printed == "yes\n"


# -- cells of runs


@pytest.fixture
def recorded(host: Host, tmp_path: Path) -> RunResult:
    """A run with a failed cell, in the lab's own folder."""
    made = run_of(cell(), cell("debian-13", "userns-clone-off", status=Status.FAIL, cause="userns-sysctl"))
    builds = [{"name": "0.10.8", "version": "0.10.8", "source": "PyPI"}]
    made = RunResult.model_validate(
        made.model_dump(by_alias=True)
        | {"run": made.run.model_dump() | {"builds": builds, "definitions": {"seed": "0" * 64}}}
    )
    folder = tmp_path / "home" / "state" / "runs" / "earlier"
    folder.mkdir(parents=True)
    made.write(folder)
    return made


def test_a_cell_of_a_run_is_opened_with_its_build(host: Host, recorded: RunResult, run_lab: RunLab) -> None:
    words = ["--run", "earlier", "debian-13/userns-clone-off", "--", "true"]
    printed = run_lab(0, "exec", *words)
    assert host.opened == [("debian-13/userns-clone-off/0.10.8", None)]
    assert "lab: warning: changed since run" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "earlier", "debian-13", "stock"], "for example: --run earlier debian-13/stock"),
        (["--run", "earlier", "debian-13/stock", "--build", "0.9.0"], "is 0.9.0, and the run has 0.10.8"),
        (["--run", "earlier", "debian-13/stok"], "did you mean debian-13/stock"),
        (["--run", "later", "debian-13/stock"], "no run is called 'later'"),
    ],
)
def test_what_does_not_name_a_cell_of_the_run_is_refused(
    host: Host, recorded: RunResult, run_lab: RunLab, words: list[str], message: str
) -> None:
    assert message in " ".join(run_lab(2, "shell", *words).split())
    assert host.opened == []


# -- kept guests


def test_without_a_kept_guest_the_next_step_is_told(host: Host, run_lab: RunLab) -> None:
    for words in (["attach"], ["copy", "lab-debian-13-000000:/tmp/x", "."]):
        assert "no guest is kept\n  next: keep one: lab shell GUEST [VARIANT] --keep" in run_lab(2, *words)
    assert "no guest is kept" in run_lab(0, "attach", "--list")
    assert "--list goes with nothing else" in run_lab(2, "attach", "--list", "--end")


@pytest.mark.parametrize("paths", [("a", "b"), ("x:a", "y:b"), ("./x:a", "/b"), ("a", ":b")])
def test_one_side_of_a_copy_is_in_a_guest(host: Host, paths: tuple[str, str], run_lab: RunLab) -> None:
    assert "one of SRC and DST is a path of this host" in run_lab(2, "copy", *paths)


def test_a_kept_guest_has_its_own_process(host: Host, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> NoReturn:
        raise LaneDied("the keeper was started")

    monkeypatch.setattr(shell, "start_keeper", start)
    run_lab(3, "exec", *CELL, "--keep", "--", "true")
    assert host.opened == []
