"""The parts of the campaign of faults that need no guest."""

import random
import secrets
import socket
import stat
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.base.errors import UsageError
from lab.machine import leftovers
from lab.record import Outcome, RunResult, Status, TestResult
from lab.run.journal import RUN_LOG
from tests.builders.cells import cell
from tests.builders.runs import run_of
from tests.campaign import checks
from tests.campaign.attempt import TryRecord, wait_for
from tests.campaign.checks import Running, Square
from tests.campaign.host import Home
from tests.campaign.kinds import KINDS, exposed
from tests.campaign.moments import SUITE, Moment, Name, Step, Timeline, moment, names, steps

TIMELINE = Timeline(
    steps=[
        Step(text="debian-13: restoring the deployed build", seconds=2.0),
        Step(text=f"debian-13: userns-clone-off: {SUITE}", seconds=10.0),
        Step(text="debian-13: userns-clone-off: gathering evidence", seconds=30.0),
    ],
    seconds=35.0,
)
DOCS = Path(__file__).parents[2] / "docs" / "faults.md"


def test_the_same_seed_chooses_the_same_tries_and_every_kind_comes_once_before_any_comes_twice() -> None:
    chosen = names(7, 2 * len(KINDS), list(KINDS))
    assert chosen == names(7, 2 * len(KINDS), list(KINDS))
    assert chosen != names(8, 2 * len(KINDS), list(KINDS))
    for half in (chosen[: len(KINDS)], chosen[len(KINDS) :]):
        assert {name.fault for name in half} == set(KINDS)


def test_a_campaign_goes_on_at_any_number() -> None:
    assert names(7, 10, list(KINDS))[6:] == names(7, 4, list(KINDS), first=6)


def test_a_try_is_repeated_by_its_name_alone() -> None:
    name = Name.parse("3:14:qemu-sigkill")
    assert str(name) == "3:14:qemu-sigkill"
    once = moment(name.random(), TIMELINE, in_suite=False)
    assert once == moment(Name(3, 14, "qemu-sigkill").random(), TIMELINE, in_suite=False)


@pytest.mark.parametrize("wrong", ["", "3:14", "x:14:qemu-sigkill", "3:-1:qemu-sigkill", "1:2:3:4"])
def test_what_names_no_try_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="SEED:NUMBER:FAULT"):
        Name.parse(wrong)


def test_moments_are_spread_over_the_whole_run_and_each_lies_within_its_step() -> None:
    source = random.Random(1)
    chosen = [moment(source, TIMELINE, in_suite=False) for _ in range(400)]
    assert {each.after for each in chosen} == {None, 0, 1, 2}
    lengths = {None: 2.0, 0: 8.0, 1: 20.0, 2: 5.0}
    assert all(0.0 <= each.delay <= lengths[each.after] for each in chosen)
    assert {each.after: each.ends for each in chosen} == {None: 0, 0: 1, 1: 2, 2: None}


def test_what_happens_in_a_guest_happens_while_the_suite_runs() -> None:
    source = random.Random(1)
    chosen = [moment(source, TIMELINE, in_suite=True) for _ in range(50)]
    assert {each.after for each in chosen} == {1}
    assert str(Moment(1, 2.5, SUITE)) == "running the suite + 2.5 s"


@pytest.mark.parametrize(
    ("after", "lines", "met"), [(0, 3, True), (None, 1, True), (0, 1, False), (2, 3, False)]
)
def test_a_short_step_is_met_at_its_end(tmp_path: Path, after: int | None, lines: int, met: bool) -> None:
    home = Home(tmp_path)
    home.run.mkdir(parents=True)
    line = "2026-11-26T11:00:00.000Z debian-13: booting\n"
    (home.run / RUN_LOG).write_text(lines * line)
    following = 0 if after is None else after + 1
    ends = following if following < len(TIMELINE.steps) else None
    with subprocess.Popen(["sleep", "1"]) as lab:
        reached = wait_for(Moment(after, 600.0, "booting", ends), home, lab, time.monotonic() + 600)
        lab.kill()
    assert reached is met


TESTS = [TestResult(name="box_starts", outcome=Outcome.FAIL), TestResult(name="defaults", outcome=Outcome.PASS)]


def run_with(
    *, status: Status = Status.XFAIL, reason: str = "", cause: str | None = "userns-sysctl"
) -> RunResult:
    changed = cell(
        "debian-13", "userns-clone-off", status=status, reason=reason, cause=cause, tests=list(TESTS)
    )
    return run_of(changed, cell("debian-13", "stock"))


def test_a_table_is_true_if_it_is_the_reference_or_says_why_a_cell_could_not_run() -> None:
    reference = checks.table_of(run_with())
    assert checks.untrue(reference, run_with()) == []
    assert checks.untrue(reference, run_with(status=Status.ERROR, reason="QEMU is gone", cause=None)) == []
    assert checks.unfinished(run_with(status=Status.ERROR, reason="QEMU is gone")) == list(reference)[:1]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"status": Status.PASS, "cause": None}, "is pass"),
        ({"status": Status.FAIL, "cause": "unknown"}, "is fail unknown"),
        ({"cause": "kvm-denied"}, "is xfail kvm-denied"),
        ({"status": Status.ERROR, "reason": " ", "cause": None}, "without a reason"),
    ],
)
def test_wrong_statuses_and_causes_and_missing_reasons_are_found(changed: dict[str, str], words: str) -> None:
    [found] = checks.untrue(checks.table_of(run_with()), run_with(**changed))  # type: ignore[arg-type]
    assert words in found


def test_a_test_with_another_outcome_and_a_missing_cell_are_found() -> None:
    run = run_with()
    reference = checks.table_of(run)
    test = run.cells[0].tests[0].name
    reference[next(iter(reference))].tests[test] = "skip"
    assert any(f"{test} is " in each and "expected skip" in each for each in checks.untrue(reference, run))
    reference["debian-13/never/0.10.8"] = Square(status="pass", cause=None, tests={})
    assert "debian-13/never/0.10.8 is missing from the results" in checks.untrue(reference, run)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.make()
    return made


def test_nothing_is_left_of_a_home_that_was_only_made(home: Home) -> None:
    (home.paths.state / "lanes").mkdir()
    (home.paths.state / "lanes" / ".gate").touch()
    assert checks.files_left(home) == []


@pytest.mark.parametrize(
    "left",
    [
        "state/lanes/lab-debian-13-0a1b2c/overlay.qcow2",
        "state/unknown/overlay.qcow2",
        "cache/states/.partial-debian-13-77/state.qcow2",
        "cache/wheels/.partial-boxlite/x",
        "tmp/boxlite-lab-tmp-1/x",
    ],
)
def test_folders_locks_and_half_written_files_are_found(home: Home, left: str) -> None:
    (home.base / left).parent.mkdir(parents=True, exist_ok=True)
    (home.base / left).touch()
    [found] = checks.files_left(home)
    assert left.startswith(found.removeprefix("file "))


@pytest.mark.parametrize("left", ["out/run/.lock", "out/run/.results.json.abc"])
def test_what_is_in_the_folder_of_a_run_is_told_apart(home: Home, left: str) -> None:
    home.run.mkdir()
    (home.base / left).touch()
    assert checks.files_left(home) == []
    assert checks.run_files_left(home) == [f"file {left}"]


def test_processes_of_a_try_are_told_from_those_of_others() -> None:
    base, lanes = Path("/var/tmp/boxlite-lab-campaign-1"), {"lab-debian-13-0a1b2c"}
    machine = Running(10, "qemu-system-x86", f"qemu -drive file={base}/state/lanes/x/overlay.qcow2", False)
    of_lane = Running(11, "qemu-system-x86", "qemu -name guest=lab-debian-13-0a1b2c,debug-threads=on", False)
    child = Running(12, "cp", "cp a b", True)
    others = [
        Running(13, "qemu-system-x86", "qemu -drive file=/var/lib/boxlite-lab/lanes/y/overlay.qcow2", False),
        Running(14, "qemu-system-x86", "qemu -name guest=lab-debian-13-ffffff,debug-threads=on", False),
        Running(15, "vim", f"vim {base}/out/run/results.json", False),
    ]
    found = checks.processes_left(base, lanes, [machine, of_lane, child, *others])
    assert [line.split()[1] for line in found] == ["10", "11", "12"]


def test_the_steps_of_a_log_are_its_lines_without_notes_and_times(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(
        "2026-11-26T07:33:54.000Z debian-13: booting\n"
        "2026-11-26T07:33:55.000Z note: guests run under software emulation\n"
        "2026-11-26T07:35:44.500Z debian-13 stock 0.10.8: pass (fork 1.4 s, suite 102.1 s)\n"
    )
    found = steps(tmp_path, datetime(2026, 11, 26, 7, 33, 50, tzinfo=UTC))
    assert [(step.text, step.seconds) for step in found] == [
        ("debian-13: booting", 4.0),
        ("debian-13 stock 0.10.8: pass", 114.5),
    ]
    assert steps(tmp_path / "none") == []


def test_files_that_others_can_write_and_keys_that_others_can_read_are_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name, mode, text in [
        ("open", 0o666, "x"),
        ("key", 0o644, "PRIVATE KEY"),
        ("fine", 0o600, "PRIVATE KEY"),
    ]:
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    closed = tmp_path / "lanes"
    closed.mkdir(mode=stat.S_IRWXU)
    (closed / "key").write_text("PRIVATE KEY")
    assert exposed(tmp_path) == ["others can read the key in key", "others can write open"]


def test_ports_are_taken_and_given_back(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "FIRST_PORT", 23400)
    monkeypatch.setattr(leftovers, "LAST_PORT", 23459)
    monkeypatch.setattr(secrets, "randbelow", lambda _count: 0)
    fault = KINDS["port-taken"]()
    fault.prepare(home)
    taken = fault._sockets  # type: ignore[attr-defined]
    number = taken[0].getsockname()[1]
    assert [each.getsockname()[1] for each in taken] == list(range(23400, 23410))
    with leftovers.lane_folder(home.paths, guest="debian-13", uri="test:///default") as (_, port):
        assert port == 23410
    with socket.socket() as probe, pytest.raises(OSError, match="in use"):
        probe.bind(("127.0.0.1", number))
    for each in taken:
        each.close()


def test_records_are_kept_line_by_line(tmp_path: Path) -> None:
    made = TryRecord(
        name="1:0:lab-sigkill",
        fault="lab-sigkill",
        started=datetime.now(UTC),
        lab="abc",
        moment="start + 1.0 s",
        happened="killed the lab",
        statuses=[("run", -9), ("clean", 0), ("resume", 0)],
        seconds=90.0,
    )
    made.append(tmp_path)
    made.append(tmp_path)
    lines = (tmp_path / "record.jsonl").read_text().splitlines()
    assert [TryRecord.model_validate_json(line) for line in lines] == [made, made]


def test_the_docs_name_every_kind_of_fault_with_its_promise() -> None:
    text = DOCS.read_text()
    for name, kind in KINDS.items():
        assert f"| `{name}` | {kind.happens} | {kind.promise} |" in text
