"""What all commands have in common: JSON on stdout, colours for terminals alone, pipes, full disks."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab import catalog, causes
from lab.cli import doctor, lists
from lab.images import store
from lab.record import Status
from tests.builders.cells import cell
from tests.builders.guests import base_image
from tests.builders.processes import RunLab, on_terminal
from tests.builders.runs import run_of

LAB = [sys.executable, "-m", "lab"]
# A select-graphic-rendition sequence that sets a colour; bold and dim are none.
COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")
FOLDER = Path("docs") / "reference" / "json.md"


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**kept, "LAB_HOME": str(home), "TERM": "xterm-256color", **more}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A lab with a run that has a failing cell, whose summary is coloured."""
    folder = tmp_path / "state" / "runs" / "a"
    folder.mkdir(parents=True)
    run_of(cell(), cell(variant="podman", status=Status.FAIL, reason="it broke")).write(folder)
    return tmp_path


def test_a_terminal_gets_colours_unless_the_user_wants_none(home: Path) -> None:
    command = [*LAB, "report", "a"]
    assert COLOUR.search(on_terminal(command, environment(home))[0])
    plain, _ = on_terminal(command, environment(home, NO_COLOR="1"))
    assert "it broke" in plain
    assert not COLOUR.search(plain)


@pytest.mark.parametrize("words", [["--help"], ["report", "nowhere"]], ids=" ".join)
def test_without_colours_no_command_writes_any(home: Path, words: list[str]) -> None:
    printed, _ = on_terminal([*LAB, *words], environment(home, NO_COLOR="1"))
    assert printed.strip()
    assert not COLOUR.search(printed)


@pytest.mark.parametrize("words", [["report", "a"], ["list", "nothing"]], ids=" ".join)
def test_a_pipe_gets_no_escapes(home: Path, words: list[str]) -> None:
    done = subprocess.run([*LAB, *words], capture_output=True, timeout=60, check=False, env=environment(home))
    assert done.stdout + done.stderr
    assert b"\x1b" not in done.stdout + done.stderr


# -- streams that cannot be written to: whoever only watches decides nothing

# The exit status of a command where all is well, and where its output is lost. None: the status is a decision,
# which holds whoever reads the output.
LOST = {"a pipe": 128 + signal.SIGPIPE, "a full disk": 3, "closed": 3}
COMMANDS: dict[str, tuple[int, dict[str, int] | None]] = {
    "report a": (1, LOST),
    "gate a --against good": (1, None),
}
# What a shell does with the streams of a command, and what that is for its standard output.
REDIRECTIONS = {
    ">&{pipe}": "a pipe",
    ">/dev/full": "a full disk",
    ">&-": "closed",
    ">&{pipe} 2>&{pipe}": "a pipe",
    "<&- >&- 2>&-": "closed",
    "2>&{pipe}": "",
    "2>/dev/full": "",
    "2>&-": "",
    "<&-": "",
}
PROBLEMS = {"a pipe": None, "a full disk": "No space left on device", "closed": "Bad file descriptor"}


def run_redirected(home: Path, command: str, redirection: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell does; `{pipe}` is a pipe whose reader has gone. All other output is captured."""
    reading, writing = os.pipe()
    os.close(reading)
    redirection = redirection.format(pipe=writing)
    try:
        return subprocess.run(
            ["bash", "-c", f'exec "$@" {redirection}', "bash", *LAB, *command.split()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment(home),
            pass_fds=[writing],
        )
    finally:
        os.close(writing)


@pytest.fixture
def two_runs(home: Path) -> Path:
    """The lab with a second run, in which nothing failed."""
    good = home / "state" / "runs" / "good"
    good.mkdir()
    run_of(cell(), cell(variant="podman")).write(good)
    return home


@pytest.mark.parametrize("redirection", REDIRECTIONS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_stream_that_cannot_be_written_decides_nothing(
    two_runs: Path, command: str, redirection: str
) -> None:
    own, lost = COMMANDS[command]
    stdout = REDIRECTIONS[redirection]
    done = run_redirected(two_runs, command, redirection)
    assert done.returncode == (lost[stdout] if lost and stdout else own), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert bool(done.stdout) == (not stdout)
    if "2>" in redirection or not PROBLEMS.get(stdout):
        assert done.stderr == ""
    else:
        warning = "" if lost else "warning: "
        first, hint = done.stderr.splitlines()
        assert first == f"lab: {warning}standard output could not be written: {PROBLEMS[stdout]}"
        assert hint.startswith("  next: run it again ")


@pytest.mark.parametrize(
    "command",
    [
        "--version",
        "list variants --json",
        "matrix --list -g debian-13 --build 0.10.8",
        "compare a a",
        "report a --format json",
        "runs",
        "remedies",
        "images list",
        "expect a -o {home}/expected.toml --dry-run",
    ],
)
def test_a_command_that_only_prints_fails_where_the_disk_is_full(home: Path, command: str) -> None:
    done = run_redirected(home, command.format(home=home), ">/dev/full")
    assert done.returncode == 3, done.stderr
    # A list of cells says on standard error which guests they boot and what they take.
    first, *_ = (
        line for line in done.stderr.splitlines(keepends=True) if not line.startswith(("guests: ", "time: "))
    )
    assert first == "lab: standard output could not be written: No space left on device\n"


def test_a_file_that_the_lab_opens_gets_the_number_of_no_closed_stream(home: Path) -> None:
    program = (
        "import os, subprocess, sys; from lab.cli import output; output.open_streams()\n"
        "opened = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)\n"
        "print('lost'); print('lost', file=sys.stderr)\n"
        "subprocess.run(['sh', '-c', 'echo lost; echo lost >&2'])\n"
        "os.write(opened, f'{opened > 2} {sys.stdin.read()!r}'.encode())\n"
    )
    file = home / "opened"
    command = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", sys.executable, "-c", program, str(file)]
    subprocess.run(command, timeout=60, check=True)
    assert file.read_text() == "True ''"


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_everything(home: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    program = "from lab.cli import output; output.open_streams(); print('x' * 1_000_000)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=writing) as child:
        os.close(writing)
        with os.fdopen(reading, "rb") as out:
            assert out.read() == b"x" * 1_000_000 + b"\n"
    assert child.returncode == 0


# -- JSON


def listed(what: str, run_lab: RunLab) -> list[dict[str, Any]]:
    document = json.loads(run_lab(0, "list", what, "--json").out)
    assert list(document) == [what]
    entries: list[dict[str, Any]] = document[what]
    return entries


@pytest.mark.parametrize("what", lists.LISTS)
def test_each_list_is_json_with_documented_keys(what: str, run_lab: RunLab) -> None:
    entries = listed(what, run_lab)
    assert entries
    assert len({tuple(entry) for entry in entries}) == 1
    told = (Path(__file__).parents[3] / FOLDER).read_text()
    assert [key for key in entries[0] if f"`{key}`" not in told] == []


def test_the_lists_hold_the_catalog(run_lab: RunLab) -> None:
    definitions = catalog.load_catalog()
    assert [entry["name"] for entry in listed("guests", run_lab)] == list(definitions.guests)
    omissions = {entry["name"]: entry["omissions"] for entry in listed("guests", run_lab)}
    assert {"packages", "units", "reason"} == omissions["debian-13"][0].keys()
    assert omissions["ubuntu-24.04"] == []
    architectures = {entry["name"]: entry["arch"] for entry in listed("guests", run_lab)}
    assert (architectures["debian-13"], architectures["debian-13-arm64"]) == ("x86_64", "aarch64")
    assert [entry["name"] for entry in listed("variants", run_lab)] == list(definitions.variants)
    assert [entry["name"] for entry in listed("causes", run_lab)] == list(causes.list_causes())
    assert listed("suites", run_lab)[0]["tests"][0].keys() == {"name", "needs", "subject"}
    [blocked] = [entry for entry in listed("variants", run_lab) if entry["name"] == "userns-clone-off"]
    assert blocked["expected"] == {"status": "xfail", "cause": "userns-sysctl"}


def test_images_are_listed_with_those_who_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_lab: RunLab
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    folder = tmp_path / "image"
    folder.mkdir()
    image = base_image(folder)
    monkeypatch.setattr(store, "list_images", lambda _paths: [image])
    users = ["debian-12", "debian-13"]
    monkeypatch.setattr(store, "find_image", lambda _paths, guest: image if guest.name in users else None)
    document = json.loads(run_lab(0, "images", "list", "--json").out)
    told = {"folder": str(folder), "bytes": 0, "built": "today", "sha256": "1" * 64, "source": "built"}
    assert document["images"] == [{"guests": users, **told}]
    assert document["without_image"] == [name for name in catalog.load_catalog().guests if name not in users]


@pytest.mark.parametrize(
    ("state", "status"), [(doctor.RequirementState.SLOW, 0), (doctor.RequirementState.BROKEN, 3)]
)
def test_the_doctor_says_in_json_whether_the_host_is_ready(
    state: doctor.RequirementState, status: int, monkeypatch: pytest.MonkeyPatch, run_lab: RunLab
) -> None:
    lines = [doctor.RequirementLine("memory", state, "64 MiB", "buy some", ["a"])]
    monkeypatch.setattr(doctor, "examine_host", lambda _examination: iter(lines))
    check = {"what": "memory", "state": str(state), "found": "64 MiB", "mend": "buy some"}
    assert json.loads(run_lab(status, "doctor", "--json").out) == {
        "ready": status == 0,
        "checks": [{**check, "needed_by": ["a"]}],
    }
