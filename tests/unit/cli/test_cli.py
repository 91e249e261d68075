"""The command line as users have it: what it refuses, when it needs libvirt, how it is interrupted."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rich.console import Console

from lab import catalog, causes, cli
from lab.base.activity import Progress, Task
from lab.base.errors import LabError, NotApplicable
from lab.base.paths import ANOTHER_HOME
from lab.catalog import remedies
from lab.cli import output
from lab.images import store
from lab.lane import shell
from lab.machine import leftovers
from lab.record import RunResult
from lab.record.folders import LOCK
from tests.builders.cells import cell
from tests.builders.processes import (
    IGNORING_SIGINT,
    ONE_CELL,
    TWO_CELLS,
    Printed,
    RunLab,
    interrupt_runs,
    rows_listed,
)
from tests.builders.runs import run_of
from tests.conftest import Mount

pytestmark = pytest.mark.usefixtures("releases", "home")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["matrix", "-g", "debain-13"], 2, "no guest is called 'debain-13'\n  next: did you mean debian-13"),
        ([*ONE_CELL, "--rootfs", "/nowhere"], 2, "--rootfs /nowhere: not an OCI image layout"),
        (
            ["remedies", "show", "jailer-of"],
            2,
            "no remedy is called 'jailer-of'\n  next: did you mean jailer-off",
        ),
        (
            ["remedies", "show", "jailer-off", "--script"],
            2,
            "jailer-off changes how boxlite is run, not the host",
        ),
        (["report", "yesterday"], 2, "no run 'yesterday'"),
        (["help", "images", "paint"], 2, "lab images has no command paint\n  next: lab images --help"),
        (["help", "matrix", "build"], 2, "lab matrix has no command build\n  next: lab matrix --help"),
        (["report", "yesterday", "--format", "pdf"], 2, "'pdf' is not one of 'table', 'markdown', 'html'"),
        (["matrix", "--resume", "yesterday"], 2, "no run 'yesterday'"),
        (["merge", "yesterday"], 2, "no run 'yesterday'"),
        (["merge"], 2, "Missing argument 'RUN...'"),
        (["matrix", "-g", "\udcff"], 2, r"an argument is not UTF-8: b'\xff'"),
        ([*ONE_CELL, "-o", "\udcff"], 2, r"an argument is not UTF-8: b'\xff'"),
        (
            ["--connect", "test+bogus:///x", *ONE_CELL, "--build", "0.10.8"],
            3,
            "cannot connect to test+bogus:///x",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    home: Path, run_lab: RunLab, arguments: list[str], status: int, message: str
) -> None:
    printed = run_lab(status, *arguments)
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert not (home / "state" / "lanes").exists()
    assert not list(home.glob("state/runs/*"))


DEAD_LANE = "could not remove the domain lab-debian-13-abc123 of a dead run"


@pytest.fixture
def stuck(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead run's machine that libvirt does not remove."""

    def refuse(_paths: object) -> NoReturn:
        raise LabError(DEAD_LANE)

    monkeypatch.setattr(leftovers, "reap_dead_lanes", refuse)


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "guests"],
        ["runs"],
        ["images", "list"],
        ["remedies"],
        ["probe"],
        ["completion", "bash"],
        [*ONE_CELL, "--list"],
        ["--connect", "test:///default", "doctor"],
    ],
    ids=shlex.join,
)
def test_a_command_without_machines_needs_no_libvirt(
    stuck: None, run_lab: RunLab, arguments: list[str]
) -> None:
    printed = run_lab(None, *arguments)
    assert (DEAD_LANE in printed.err, bool(printed.out)) == (False, True)


@pytest.mark.parametrize(
    "arguments",
    [
        [*ONE_CELL, "--build", "0.10.8"],
        ["shell", "debian-13", "--build", "0.10.8"],
        ["exec", "debian-13", "--build", "0.10.8", "--keep", "--", "true"],
        ["attach", "--list"],
        ["copy", "lab-debian-13-abc123:log", "."],
        ["images", "prune"],
        ["clean"],
    ],
    ids=shlex.join,
)
def test_a_command_that_uses_or_counts_machines_first_removes_those_of_dead_labs(
    stuck: None, home: Path, run_lab: RunLab, arguments: list[str]
) -> None:
    assert DEAD_LANE in run_lab(3, *arguments)
    assert not list(home.glob("state/runs/*"))


@pytest.mark.parametrize("folder", ["a-file", "a-file/run"])
def test_a_folder_that_cannot_be_made_is_refused(
    tmp_path: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    # Any libvirt will do: the run asks for one before it makes its folder, and this host may run none.
    monkeypatch.setenv("LAB_CONNECT", "test:///default")
    (tmp_path / "a-file").touch()
    for number in (1, 2):
        line = [*TWO_CELLS, "--build", "0.10.8", "--shard", f"{number}/2", "-o", str(tmp_path / str(number))]
        with monkeypatch.context() as patched:
            interrupt_runs(patched)
            run_lab(cli.INTERRUPTED, *line)
    parts = [str(tmp_path / "1"), str(tmp_path / "2")]
    for line in (["merge", *parts], [*ONE_CELL, "--build", "0.10.8"]):
        printed = run_lab(2, *line, "-o", str(tmp_path / folder))
        assert f"lab: cannot create the folder {tmp_path / folder}: " in printed
        assert "\n  next: choose another folder with -o DIR\n" in printed


def test_a_shell_that_makes_no_sense_says_why(run_lab: RunLab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise NotApplicable("AppArmor 3.0.8 does not mediate user namespaces")

    monkeypatch.setattr(shell, "enter_guest", refuse)
    printed = run_lab(2, "shell", "debian-12", "apparmor-userns-deny", "--build", "0.10.8")
    assert "AppArmor 3.0.8 does not mediate user namespaces" in printed.err


@pytest.mark.parametrize(
    "line", [["shell", "debian-13", "--build", "0.10.8"], ["images", "build", "debian-13"]]
)
def test_what_is_going_on_is_no_markup_and_an_interrupt_is_told(
    run_lab: RunLab, monkeypatch: pytest.MonkeyPatch, line: list[str]
) -> None:
    def say_and_end(*arguments: Any, **_: Any) -> NoReturn:
        last = arguments[-1]
        show = last.show if isinstance(last, Task) else last
        show(Progress("QEMU's snapshot-load: no such device [/machine]"))
        raise KeyboardInterrupt

    monkeypatch.setattr(shell, "enter_guest", say_and_end)
    monkeypatch.setattr(store, "ensure_image", say_and_end)
    assert "interrupted" in run_lab(130, *line)


BUSY = """
import time
from lab import cli
from lab.lane import shell

def wait():
    # A signal that comes right before signal.pause() would not end that.
    while True:
        time.sleep(0.05)

def busy(*_, **__):
    try:
        print("at work", flush=True)
        wait()
    finally:
        print("taking down", flush=True)
        wait()

shell.enter_guest = busy
cli.main()
"""


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)]
)
def test_whoever_interrupts_twice_does_not_wait(first: int, second: int) -> None:
    command = [sys.executable, "-c", BUSY, "shell", "debian-13", "--build", "0.10.8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "at work\n"
            child.send_signal(first)
            assert child.stdout.readline() == "taking down\n"
            child.send_signal(second)
            _, printed = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == cli.INTERRUPTED
    assert printed.endswith("\nstopped at once; lab clean, or the next run, removes what is left\n")
    assert "Traceback" not in printed


def test_a_lab_that_was_started_with_sigint_ignored_is_ended_by_sigterm() -> None:
    command = [*IGNORING_SIGINT, sys.executable, "-c", BUSY, "shell", "debian-13", "--build", "0.10.8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "at work\n"
            assert ignores(child.pid, signal.SIGINT)
            child.send_signal(signal.SIGTERM)
            assert child.stdout.readline() == "taking down\n"
            assert ignores(child.pid, signal.SIGINT)
            child.send_signal(signal.SIGTERM)
            assert child.wait(timeout=60) == cli.INTERRUPTED
        finally:
            child.kill()


def ignores(process: int, number: int) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    [mask] = re.findall("^SigIgn:\t(.+)$", status, re.MULTILINE)
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_where_the_lab_was_started_in_a_folder_that_is_gone_it_says_so(
    tmp_path: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("LAB_HOME", "home")
    gone.rmdir()
    for line in ("list guests", "report a", "runs", "doctor", "check", "clean", "matrix --list", "matrix"):
        printed = run_lab(2, *line.split())
        first, hint = printed.splitlines()
        assert first.startswith(
            "lab: the folder in which this command was started cannot be used: No such file"
        )
        assert hint.startswith("  next: cd to a folder that exists")
    assert "Usage: " in run_lab(0, "--help")


# -- a home that cannot be written: what only reads works, and all else says so

UNWRITABLE = {
    "list guests": 0,
    "runs": 0,
    "images list": 0,
    "report a": 0,
    "matrix -g debian-13 --build 0.10.8": 2,
    "images build debian-13": 2,
    "--connect test:///default exec debian-13 --build 0.10.8 -- true": 2,
    "--connect test:///default doctor -g debian-13": 3,
}


def said(printed: Printed, folder: Path) -> bool:
    """Whether a folder of the lab is named, and what to do about it."""
    return str(folder) in printed and ANOTHER_HOME in printed and "Traceback" not in printed


def test_a_home_that_cannot_be_made_is_named(
    tmp_path: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"
    monkeypatch.setenv("LAB_HOME", str(home))
    for line, status in UNWRITABLE.items():
        if line != "report a":
            printed = run_lab(status, *line.split())
            assert said(printed, home) == bool(status), line


def test_a_home_that_is_read_only_is_read(
    tmp_path: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch, mount: Mount
) -> None:
    home = mount(tmp_path / "read-only", "size=4m")
    folder = home / "state" / "runs" / "a"
    folder.mkdir(parents=True)
    run_of(cell()).write(folder)
    (folder / LOCK).touch()
    (home / "state" / "lanes").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", home], check=True)
    monkeypatch.setenv("LAB_HOME", str(home))
    for line, status in {**UNWRITABLE, "clean": 2, "attach --list": 2, "runs delete a --yes": 2}.items():
        printed = run_lab(status, *line.split())
        assert said(printed, home) == bool(status), line
    assert rows_listed(run_lab(0, "runs"))[1][:2] == ["a", "2026-11-24 16:00"]


def test_an_error_with_text_from_a_guest_controls_neither_terminal_nor_ci(
    tmp_path: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_folder: Path) -> None:
        raise LabError("x\x1b[31m\u202e\n::error::forged\n##[add-path]" + "y" * 100_000)

    monkeypatch.setattr(RunResult, "read", fail)
    printed = run_lab(3, "report", str(tmp_path))
    assert "forged" in printed
    assert not re.search("[\x1b\u202e]", printed)
    assert not [line for line in printed.splitlines() if line.startswith("::") or "##[" in line]
    assert len(printed) < 30_000


def test_the_doctor_names_what_other_guests_need(run_lab: RunLab, monkeypatch: pytest.MonkeyPatch) -> None:
    really = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, *more, **path: None if name == "gpgv" else really(name, *more, **path)
    )
    lines = run_lab(None, "--connect", "test:///default", "doctor", "-g", "debian-13").splitlines()
    where = next(number for number, line in enumerate(lines) if line.startswith("gpgv"))
    assert lines[where].split(maxsplit=3)[1:] == ["not", "needed", "gpgv is not installed"]
    assert "fedora-43" in lines[where + 1]
    run_lab(2, "doctor", "-g", "debain-13")


@pytest.mark.parametrize("command", ["", "matrix", "images build"])
def test_help_is_a_command_as_well_as_an_option(run_lab: RunLab, command: str) -> None:
    assert run_lab(0, "help", *command.split()) == run_lab(0, *command.split(), "--help")


@pytest.mark.parametrize(("given", "kept"), [(0o000, 0o022), (0o002, 0o022), (0o022, 0o022), (0o077, 0o077)])
def test_whatever_the_umask_is_others_cannot_write_the_labs_files(given: int, kept: int) -> None:
    script = """
import os, sys
from lab.cli import main
sys.argv = ["lab", "--version"]
try:
    main()
finally:
    print(os.umask(0))
"""
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, umask=given)
    assert int(ran.stdout.split()[-1]) == kept


@pytest.mark.parametrize(
    ("arguments", "modules"),
    [
        (["--version"], {"libvirt", "paramiko", "pydantic", "rich", "lab.run"}),
        (["repro", "-", "--text-only", "--json"], {"pydantic", "rich", "lab.catalog", "lab.causes"}),
        (["repro", "-", "--text-only"], {"httpx2", "libvirt", "psutil", "rich", "lab.builds", "lab.images"}),
    ],
)
def test_a_short_command_imports_nothing_that_takes_long(arguments: list[str], modules: set[str]) -> None:
    assert all(map(find_spec, modules))
    code = f"import sys; from lab.cli import main; sys.argv[1:] = {arguments}\ntry: main()\n"
    code += f"except SystemExit: print(sorted({modules} & sys.modules.keys()))"
    text = "Debian 13\n\nbwrap: setting up uid map: Permission denied"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, input=text)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_no_command_needs_what_only_runs_on_several_hosts_need() -> None:
    code = "import sys; sys.modules['distributed'] = sys.modules['dask'] = None\n"
    code += "import click; from lab.cli import COMMANDS, cli\n"
    code += "for name in COMMANDS: assert cli.get_command(click.Context(cli), name)"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- lists


def test_list_shows_the_cells_and_makes_nothing(home: Path, run_lab: RunLab) -> None:
    printed = run_lab(0, "matrix", "--set", "quick", "-v", "max-userns-zero", "--list")
    lines = [line.split(maxsplit=4) for line in printed.out.splitlines()[1:]]
    assert [line[:2] for line in lines] == [[guest, "max-userns-zero"] for guest in ("debian-12", "debian-13")]
    assert "lab matrix -g debian-12 -v max-userns-zero" in printed
    assert not home.exists()


def test_a_list_tells_builds_apart(home: Path, run_lab: RunLab) -> None:
    printed = run_lab(0, *ONE_CELL, "--build", "0.10.0", "--build", "0.10.8", "--list")
    again = "lab matrix -g debian-13 -v stock --build"
    assert rows_listed(printed.out) == [
        ["guest", "variant", "build", "expected", "again"],
        ["debian-13", "stock", "0.10.0", "pass", f"{again} 0.10.0"],
        ["debian-13", "stock", "0.10.8", "pass", f"{again} 0.10.8"],
    ]


@pytest.mark.parametrize(
    ("more", "trials"),
    [
        (["--no-experiment", "--no-remedies"], ""),
        (["--no-remedies"], "; experiments may add 30 min (15 min for each cell that fails unexpectedly)"),
        (
            ["--experiment"],
            "; experiments may add 30 min (15 min for each cell)"
            "; remedies may add about 3 min 50 s (1 min 55 s for each cell that fails)",
        ),
        (["--cold"], ""),
    ],
)
def test_a_list_says_beside_the_table_what_the_cells_may_take(
    home: Path, run_lab: RunLab, more: list[str], trials: str
) -> None:
    printed = run_lab(0, *TWO_CELLS, "--build", "0.10.8", *more, "--list")
    # 45 s to bring the machine up, and 45 and 20 s for a cell that passes and one that is blocked.
    assert printed.err == (
        f"guests: 1 (debian-13)\ntime: about 1 min 50 s under emulation, one cell after another{trials}\n"
    )
    assert len(rows_listed(printed.out)) == 3


@pytest.mark.parametrize(
    ("suite", "added"),
    [("lifecycle", "15 min 20 s (7 min 40 s for"), ("all", "26 min 50 s (58 s to 7 min 40 s for")],
)
def test_remedies_of_a_longer_suite_may_add_more(home: Path, run_lab: RunLab, suite: str, added: str) -> None:
    printed = run_lab(0, *TWO_CELLS, "--build", "0.10.8", "--suite", suite, "--list")
    assert f"; remedies may add about {added} each cell that fails)" in printed.err


@pytest.mark.parametrize("what", ["guests", "variants", "sets", "suites", "causes"])
def test_no_line_of_a_list_is_cut_on_a_pipe(home: Path, run_lab: RunLab, what: str) -> None:
    printed = run_lab(0, "list", what)
    assert "\u2026" not in printed
    guests = catalog.load_catalog().guests.items()
    if what == "guests":
        expected = [[name, guest.title, guest.arch, guest.image.origin] for name, guest in guests]
        assert rows_listed(printed) == expected
    if what == "causes":
        lines = [f"{name}: {cause.explanation}" for name, cause in causes.list_causes().items()]
        assert printed.splitlines() == lines


def test_every_suite_is_listed_the_one_of_wheels_first(home: Path, run_lab: RunLab) -> None:
    suites = json.loads(run_lab(0, "list", "suites", "--json"))["suites"]
    filters = {suite["name"]: suite["filter"] for suite in suites}
    assert suites[0]["name"] == "jailer"
    assert (filters["upstream-jailer"], filters["npm"]) == ("binary(jailer)", None)
    lines = run_lab(0, "list", "suites").splitlines()
    assert "  suite=detach behind nextest:FILE or checkout:DIR runs binary(detach)" in lines
    assert "  all others need sandbox and are about stop" in lines
    titles = [line for line in lines if not line.startswith(" ")]
    assert titles == [f"{suite['name']}: {suite['title']}" for suite in suites]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_rows_are_aligned_and_never_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    narrow = Console(width=20, force_terminal=is_terminal, color_system=None, highlight=False)
    monkeypatch.setattr(output, "get_console", lambda: narrow)
    output.print_rows([["name", "what it is"], ["[bold]a", "x" * 40 + " " + "語" * 20]])
    assert capsys.readouterr().out == f"name     what it is\n[bold]a  {'x' * 40} {'語' * 20}\n"


def test_remedies_are_listed_with_what_they_give_up(home: Path, run_lab: RunLab) -> None:
    printed = run_lab(0, "remedies")
    names = [line.split()[0] for line in printed.splitlines() if line[:1].strip()]
    defined = list(remedies.load_remedies())
    assert names[: len(defined) + 1] == ["remedy", *defined]
    assert (printed.err, "userns-sysctl" in printed) == ("", True)


@pytest.mark.parametrize("name", remedies.load_remedies())
def test_a_remedy_is_shown_with_its_price_and_how_it_is_done(home: Path, run_lab: RunLab, name: str) -> None:
    remedy = remedies.find_remedy(name)
    printed = run_lab(0, "remedies", "show", name)
    assert printed.err == ""
    words = " ".join(printed.split())
    assert " ".join(remedy.price.split()) in words
    assert ", ".join(remedy.cures) in words
    how = remedy.host.apply if remedy.host else remedy.run.example if remedy.run else ""
    assert how.strip() in printed


def test_the_script_that_is_printed_is_the_one_that_the_lab_runs(home: Path, run_lab: RunLab) -> None:
    printed = run_lab(0, "remedies", "show", "userns-clone-on", "--script")
    assert printed == remedies.find_remedy("userns-clone-on").script()
