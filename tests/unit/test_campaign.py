"""The parts of the campaign of faults that need no guest."""

import random
import secrets
import socket
import stat
import subprocess
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import UsageError
from lab.machine import leftovers
from lab.record import Outcome, RunResult, Status, TestResult
from lab.run.journal import RUN_LOG
from tests.builders.cells import cell
from tests.builders.runs import run_of
from tests.campaign import tries
from tests.campaign.faults import FAULTS, Scene, exposed
from tests.campaign.host import Home, is_machine
from tests.campaign.tries import SUITE, Moment, Name, Step, moment, names, steps

KINDS = list(FAULTS)
UNDISTURBED = [Step("", 2.0), Step("restoring", 8.0), Step(f"stock: {SUITE}", 20.0), Step("evidence", 5.0)]
DOCS = Path(__file__).parents[2] / "docs" / "faults.md"


def test_the_docs_name_every_kind_of_fault_with_what_happens_and_its_promise() -> None:
    rows = [line.split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows] == [f"| `{name}`" for name in FAULTS]
    assert {len(row) for row in rows} == {3}


def test_the_same_seed_chooses_the_same_tries_and_every_kind_comes_once_before_any_comes_twice() -> None:
    chosen = names(7, 2 * len(KINDS), KINDS)
    assert chosen == names(7, 2 * len(KINDS), KINDS) != names(8, 2 * len(KINDS), KINDS)
    assert [name.number for name in chosen] == list(range(2 * len(KINDS)))
    for half in (chosen[: len(KINDS)], chosen[len(KINDS) :]):
        assert {name.fault for name in half} == set(KINDS)
    assert names(7, 3, KINDS) == chosen[:3]


def test_a_try_is_repeated_by_its_name_alone() -> None:
    assert str(Name.parse("3:14:qemu-sigkill")) == "3:14:qemu-sigkill"
    for wrong in ("", "3:14", "x:14:qemu-sigkill", "3:-1:qemu-sigkill", "1:2:3:4", "3:14:no-such-fault"):
        with pytest.raises(UsageError, match="names no try"):
            Name.parse(wrong)


def test_moments_are_spread_over_the_whole_run_and_each_lies_within_its_step() -> None:
    chosen = [moment(random.Random(number), UNDISTURBED, in_suite=False) for number in range(400)]
    assert {when.lines for when in chosen} == {0, 1, 2, 3}
    assert all(0.0 <= when.delay <= UNDISTURBED[when.lines].seconds for when in chosen)
    in_suite = [moment(random.Random(number), UNDISTURBED, in_suite=True) for number in range(50)]
    assert {when.lines for when in in_suite} == {2}
    assert str(Moment(1, 2.5, SUITE)) == "running the suite + 2.5 s"


@pytest.mark.parametrize(("after", "lines", "met"), [(1, 3, True), (0, 1, True), (1, 1, False), (3, 3, False)])
def test_a_short_step_is_met_at_its_end(tmp_path: Path, after: int, lines: int, met: bool) -> None:
    (tmp_path / RUN_LOG).write_text(lines * "2026-11-26T11:00:00.000Z debian-13: booting\n")
    with subprocess.Popen(["sleep", "0.3"]) as lab:
        assert tries.wait_for(Moment(after, 600.0), tmp_path, lab, time.monotonic() + 600) is met


def test_the_steps_of_a_log_are_its_lines_without_notes_and_times(tmp_path: Path) -> None:
    (tmp_path / RUN_LOG).write_text(
        "2026-11-26T07:33:54.000Z debian-13: booting\n"
        "2026-11-26T07:33:55.000Z note: guests run under software emulation\n"
        "2026-11-26T07:35:44.500Z debian-13 stock 0.10.8: pass (fork 1.4 s, suite 102.1 s)\n"
    )
    assert steps(tmp_path, datetime(2026, 11, 26, 7, 35, 50, tzinfo=UTC)) == [
        ("", tries.START_SECONDS),
        ("debian-13: booting", 110.5),
        ("debian-13 stock 0.10.8: pass", 5.5),
    ]
    assert tries.last_line(tmp_path) == "debian-13 stock 0.10.8: pass"
    assert tries.last_line(tmp_path / "none") == "before the first step"


TESTS = [TestResult(name="box_starts", outcome=Outcome.FAIL), TestResult(name="defaults", outcome=Outcome.PASS)]
OTHERS = [TestResult(name="box_starts", outcome=Outcome.SKIP), TESTS[1]]


def run_with(**changed: Any) -> RunResult:
    blocked = {"status": Status.XFAIL, "cause": "userns-sysctl", "tests": TESTS, **changed}
    return run_of(cell("debian-13", "userns-clone-off", **blocked), cell("debian-13", "stock"))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, []),
        ({"status": Status.ERROR, "reason": "QEMU is gone", "cause": None}, []),
        ({"status": Status.ERROR, "reason": " ", "cause": None}, ["is error without a reason"]),
        ({"status": Status.PASS, "cause": None}, ["is pass ()"]),
        ({"status": Status.FAIL, "cause": "unknown"}, ["is fail unknown"]),
        ({"cause": "kvm-denied"}, ["is xfail kvm-denied"]),
        ({"tests": OTHERS}, ["is xfail userns-sysctl", "box_starts is skip, expected fail"]),
    ],
)
def test_a_table_is_true_if_it_is_the_reference_or_says_why_a_cell_could_not_run(
    changed: dict[str, Any], told: list[str]
) -> None:
    found = sorted(tries.untrue(run_with(), run_with(**changed)))
    assert len(found) == len(told)
    assert all(any(words in line for line in found) for words in told)
    could_not_run = changed.get("status") is Status.ERROR
    assert tries.unfinished(run_with(**changed)) == [run_with().cells[0].name] * could_not_run


def test_a_missing_cell_and_one_that_was_not_planned_are_found() -> None:
    one, both = (
        run_of(cell("debian-13", "stock")),
        run_of(cell("debian-13", "stock"), cell("debian-12", "stock")),
    )
    assert tries.untrue(both, one) == [f"{both.cells[1].name} is missing from the results"]
    assert tries.untrue(one, both) == [f"{both.cells[1].name} was not planned"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.make()
    return made


@pytest.mark.parametrize(
    ("file", "is_left"),
    [
        ("state/lanes/.gate", False),
        ("state/lanes/lab-debian-13-0a1b2c/overlay.qcow2", True),
        ("state/unknown/overlay.qcow2", True),
        ("cache/states/.partial-debian-13-77/state.qcow2", True),
        ("cache/wheels/.partial-boxlite/x", True),
        ("tmp/boxlite-lab-tmp-1/x", True),
    ],
)
def test_folders_and_half_written_files_are_found(home: Home, file: str, is_left: bool) -> None:
    assert home.files_left(resumed=True) == []
    (home.base / file).parent.mkdir(parents=True)
    (home.base / file).touch()
    left = home.files_left(resumed=False)
    assert [file.startswith(str(path)) for path in left] == [True] * is_left


@pytest.mark.parametrize("file", ["out/run/.lock", "out/run/.results.json.abc"])
def test_what_is_in_the_folder_of_a_run_counts_once_it_was_resumed(home: Home, file: str) -> None:
    home.run.mkdir()
    (home.base / file).touch()
    assert home.files_left(resumed=False) == []
    assert home.files_left(resumed=True) == [Path(file)]


@pytest.mark.parametrize(
    ("name", "command", "is_its"),
    [
        ("qemu-system-x86", "qemu -drive file=/var/tmp/a-home/state/lanes/x/overlay.qcow2", True),
        ("qemu-system-x86", "qemu -name guest=lab-debian-13-0a1b2c,debug-threads=on", True),
        ("qemu-system-x86", "qemu -drive file=/var/lib/boxlite-lab/lanes/y/overlay.qcow2", False),
        ("qemu-system-x86", "qemu -name guest=lab-debian-13-ffffff,debug-threads=on", False),
        ("vim", "vim /var/tmp/a-home/out/run/results.json", False),
    ],
)
def test_machines_of_a_try_are_told_from_those_of_others(name: str, command: str, is_its: bool) -> None:
    assert is_machine(name, command, ["/var/tmp/a-home/", "lab-debian-13-0a1b2c"]) is is_its


def test_files_that_others_can_write_and_keys_that_others_can_read_are_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "lanes").mkdir(mode=stat.S_IRWXU)
    for name, mode, text in [
        ("open", 0o666, "x"),
        ("key", 0o644, "PRIVATE KEY"),
        ("fine", 0o600, "PRIVATE KEY"),
        ("lanes/key", 0o644, "PRIVATE KEY"),
    ]:
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    assert exposed(tmp_path) == ["others can read the key in key", "others can write open"]


def test_ports_are_taken_and_given_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "FIRST_PORT", 23400)
    monkeypatch.setattr(leftovers, "LAST_PORT", 23459)
    monkeypatch.setattr(secrets, "randbelow", lambda _count: 0)
    with ExitStack() as afterwards:
        scene = Scene(home, random.Random(), lambda *_: (0, ""), afterwards)
        FAULTS["port-taken"].prepare(scene)
        for number in (23400, 23409):
            with socket.socket() as probe, pytest.raises(OSError, match="in use"):
                probe.bind(("127.0.0.1", number))
        with leftovers.lane_folder(home.paths, guest="debian-13", uri="test:///default") as (_, port):
            assert port == 23410
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 23400))


def test_a_record_is_a_line_without_the_folders_of_the_host(home: Home) -> None:
    attempt = tries.Try(home, "1:0:lab-sigkill", "abc", findings=[f"left: {home.base}/x"])
    assert attempt.record().count("\n") == 1
    assert '"left: LAB_HOME/x"' in attempt.record()
    assert str(home.base) not in attempt.record()
