"""Running a suite in a guest, and reading what pytest-reportlog wrote there."""

import json
from typing import Any

import pytest

from lab import catalog
from lab.base.wait import ORDINARY, Speed
from lab.builds import SuiteOptions, pytest_tests
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Suite
from lab.guest import suite as guest_suite
from lab.guest.session import Output
from lab.record import BoxGroups, Needs, Outcome, Protection, SuiteRun, TestResult
from tests.builders.cells import JAILED
from tests.builders.lanes import FakeSession, prints

SUITE = Suite(
    name="small",
    title="A small suite",
    subject="start",
    control="first",
    witness="third",
    test_seconds=10,
    suite_seconds=60,
    tests={"first": Needs.NOTHING, "second": Needs.BOX, "third": Needs.SANDBOX},
    subjects={"third": "confinement"},
)
SESSION: list[dict[str, Any]] = [
    {"pytest_version": "9.2.0", "$report_type": "SessionStart"},
    {"outcome": "passed", "longrepr": None, "nodeid": "jailer_suite.py", "$report_type": "CollectReport"},
]
CRASH = {
    "reprcrash": {"path": "/opt/lab/suite.py", "lineno": 7, "message": "assert 1 == 2"},
    "reprtraceback": {},
}
SKIP = ["/opt/lab/suite.py", 7, "Skipped: no /dev/kvm"]

KILLED = "was killed at its time limit of 60 s"

BUILD = Wheel("0.10.8", "0.10.8", suite=SUITE)

Entry = dict[str, Any]


def phase(name: str, when: str, outcome: str = "passed", longrepr: Any = None) -> Entry:
    return {
        "$report_type": "TestReport",
        "nodeid": f"jailer_suite.py::{name}",
        "when": when,
        "outcome": outcome,
        "longrepr": longrepr,
        "duration": 0.5,
    }


GROUPS = {"caller": "0::/system.slice/ssh.service", "box": ["0::/system.slice/ssh.service"]}


def whole(name: str, **failed: tuple[str, Any]) -> list[Entry]:
    """A test's three phases, passed but for the one given; without a call where its set-up did not pass."""
    phases = ["setup", "teardown"] if "setup" in failed else ["setup", "call", "teardown"]
    return [phase(name, when, *failed.get(when, ("passed", None))) for when in phases]


def results(entries: list[Entry], *, cut_short: str = "") -> list[TestResult]:
    began = pytest_tests.read_reportlog("\n".join(map(json.dumps, SESSION + entries)))
    assert began is not None
    return guest_suite.complete(SUITE, began, cut_short=cut_short)


def test_what_a_passed_test_recorded_of_its_box_is_in_its_result() -> None:
    entries = [*whole("first"), *whole("second"), *whole("third", call=("failed", CRASH))]
    for entry in entries:
        if entry["when"] == "call":
            entry["user_properties"] = [["other", 1], ["protection", JAILED], ["groups", GROUPS]]
    first, _, third = results(entries)
    assert (first.outcome, first.seconds) == (Outcome.PASS, 1.5)
    assert first.protection == Protection.model_validate(JAILED)
    assert third.protection is None
    # Why a test failed may be in the control groups.
    assert first.groups == third.groups == BoxGroups.model_validate(GROUPS)


def test_each_result_says_what_its_test_is_about_whether_it_ran_or_not() -> None:
    assert [test.subject for test in results(whole("first"))] == ["start", "start", "confinement"]


def test_tests_that_are_chosen_by_name_have_results_without_a_line_about_their_module() -> None:
    # As pytest reports an experiment's step: it stops at the first test that fails.
    began = pytest_tests.read_reportlog(
        "\n".join(map(json.dumps, [SESSION[0], *whole("third", call=("failed", CRASH))]))
    )
    assert began is not None
    assert began["third"] == TestResult(
        name="third", outcome=Outcome.FAIL, seconds=1.5, message="assert 1 == 2"
    )
    assert pytest_tests.read_reportlog(json.dumps(SESSION[0])) is None


FIRST, SECOND, THIRD = (whole(name) for name in SUITE.tests)
NOT_RUN = ("not-run", "")


@pytest.mark.parametrize(
    ("entries", "cut_short", "others"),
    [
        (THIRD + FIRST + SECOND, "", {}),
        # Where it failed tells the fault.
        *(
            (FIRST + whole("second", **failed) + THIRD, "", {"second": outcome})
            for failed, outcome in (
                ({"call": ("failed", CRASH)}, ("fail", "assert 1 == 2")),
                ({"setup": ("failed", CRASH)}, ("error", "assert 1 == 2")),
                ({"teardown": ("failed", CRASH)}, ("error", "assert 1 == 2")),
                ({"call": ("failed", CRASH), "teardown": ("failed", "later")}, ("fail", "assert 1 == 2")),
                ({"call": ("failed", "Failed: Timeout >10s")}, ("fail", "Failed: Timeout >10s")),
                ({"setup": ("skipped", SKIP)}, ("skip", "Skipped: no /dev/kvm")),
                ({"call": ("skipped", SKIP)}, ("skip", "Skipped: no /dev/kvm")),
            )
        ),
        # A test without a result, or without a call, is never taken for a pass.
        (FIRST + THIRD, "", {"second": NOT_RUN}),
        ([], "", dict.fromkeys(SUITE.tests, NOT_RUN)),
        (
            [phase("first", "setup"), phase("first", "teardown"), *SECOND, *THIRD],
            "",
            {"first": ("error", "was not called")},
        ),
        (
            FIRST + SECOND + THIRD + whole("fourth"),
            "",
            {"fourth": ("error", "ran, but suite.toml does not name it")},
        ),
        # Of a suite that was ended, the test that was running failed, and the rest did not run.
        (
            whole("first", call=("failed", CRASH)),
            KILLED,
            {
                "first": ("fail", "assert 1 == 2"),
                "second": ("fail", f"was running when the suite {KILLED}"),
                "third": NOT_RUN,
            },
        ),
        (
            [*FIRST, phase("third", "setup")],
            "ended with exit status 7",
            {"second": NOT_RUN, "third": ("fail", "was running when the suite ended with exit status 7")},
        ),
    ],
)
def test_each_test_of_the_suite_has_its_outcome_in_the_suite_s_order(
    entries: list[Entry], cut_short: str, others: dict[str, tuple[str, str]]
) -> None:
    tests = results(entries, cut_short=cut_short)
    outcomes = [(test.name, (test.outcome, test.message)) for test in tests]
    assert outcomes == [*(dict.fromkeys(SUITE.tests, ("pass", "")) | others).items()]
    assert [test.name for test in tests if test.out_of_time] == [
        test.name for test in tests if test.message.startswith("Failed: Timeout")
    ]


def report(*entries: Entry) -> str:
    return "".join(f"{json.dumps(entry)}\n" for entry in [*SESSION, *entries])


FAILED = "1 3\n" + report(*whole("first", call=("failed", CRASH)))


STOCK = catalog.load_catalog().variant("stock")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            SuiteOptions(),
            ["(cd /opt/lab/suites/small && exec env LAB_ROOTFS=/opt/lab/rootfs PYTHONPATH=/opt/lab/site"],
        ),
        (
            SuiteOptions({"LAB_JAILER": "off now"}, to_first_failure=True),
            [" LAB_JAILER='off now' timeout ", " -ra --exitfirst "],
        ),
        (
            SuiteOptions(tests=["third", "first"]),
            [" -ra small_suite.py::third small_suite.py::first --timeout="],
        ),
        (SuiteOptions(stretch=2.0), [" timeout --kill-after=5 120 python3 -m pytest ", " --timeout=20 "]),
    ],
)
def test_options_of_a_suite_are_in_its_command(options: SuiteOptions, parts: list[str]) -> None:
    session = FakeSession(prints(FAILED))
    ran = guest_suite.execute_suite(session, BUILD, STOCK, speed=ORDINARY, options=options)
    outcomes = {test.name: (test.outcome, test.message) for test in ran.tests}
    assert outcomes.keys() == set(options.tests or SUITE.tests)
    assert outcomes.pop("first") == ("fail", "assert 1 == 2")
    assert set(outcomes.values()) == {("not-run", "")}
    [command] = session.commands
    assert [part for part in parts if part not in command] == []
    assert ("--exitfirst" in command) is options.to_first_failure
    assert ("LAB_JAILER" in command) is bool(options.environment)


def test_variables_and_the_limit_are_inside_of_what_the_suite_runs_under() -> None:
    session = FakeSession(prints("124 1200\n" + report(*whole("first"), phase("second", "setup"))))
    variant = catalog.load_catalog().variant("apparmor-kvm-deny")
    options = SuiteOptions(stretch=2.0)
    ran = guest_suite.execute_suite(session, BUILD, variant, speed=Speed(emulated=True), options=options)
    assert ran.cut_short == "was killed at its time limit of 1200 s"
    [command] = session.commands
    assert " && exec aa-exec -p lab-without-kvm -- env LAB_ROOTFS=" in command
    assert " timeout --kill-after=5 1200 python3 -m pytest " in command


def suite_run(printed: str, log: str = "") -> SuiteRun:
    """What comes of a suite of which the guest prints this, and whose log ends like this."""
    session = FakeSession({"tail -n 30": Output(0, log, ""), **prints(printed)})
    return guest_suite.execute_suite(session, BUILD, STOCK, speed=ORDINARY)


@pytest.mark.parametrize(
    ("ended", "cut_short"),
    [
        ("124 60", "was killed at its time limit of 60 s"),
        ("124 59", "was killed at its time limit of 60 s"),
        # As `timeout` of coreutils in Rust says it.
        ("125 60", "was killed at its time limit of 60 s"),
        ("125 12", "ended with exit status 125"),
        ("137 65", "was killed at its time limit of 60 s"),
        ("137 12", "was ended by SIGKILL (exit status 137), before its time limit of 60 s"),
        ("139 12", "was ended by SIGSEGV (exit status 139)"),
        ("124 12", "ended with exit status 124"),
        ("1 12", "ended with exit status 1"),
    ],
)
def test_how_a_suite_was_cut_short_is_told(ended: str, cut_short: str) -> None:
    ran = suite_run(f"{ended}\n{report(*whole('first'), phase('second', 'setup'))}")
    assert ran.cut_short == cut_short
    is_late = "killed at its time limit" in cut_short
    assert (ran.out_of_time, [test.out_of_time for test in ran.tests]) == (is_late, [False, is_late, False])
    assert [(test.outcome, test.message) for test in ran.tests] == [
        ("pass", ""),
        ("fail", f"was running when the suite {cut_short}"),
        ("not-run", ""),
    ]


@pytest.mark.parametrize(
    ("ended", "entries", "cut_short", "outcomes"),
    [
        ("0 70", FIRST + SECOND + THIRD, "", ["pass", "pass", "pass"]),
        ("1 70", FIRST + SECOND + THIRD, "", ["pass", "pass", "pass"]),
        # A crash after the last test, and one in the set-up of the first.
        ("139 5", FIRST + SECOND + THIRD, "was ended by SIGSEGV (exit status 139)", ["pass", "pass", "pass"]),
        ("139 5", [], "was ended by SIGSEGV (exit status 139)", ["fail", "not-run", "not-run"]),
    ],
)
def test_what_a_suite_that_ends_or_crashes_gives(
    ended: str, entries: list[Entry], cut_short: str, outcomes: list[str]
) -> None:
    ran = suite_run(f"{ended}\n{report(*entries)}")
    assert (ran.cut_short, [test.outcome for test in ran.tests]) == (cut_short, outcomes)


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("127 0\n", "ended with exit status 127\npython3: not found"),
        ("2 1\n" + report(), "ended with exit status 2\n"),
        ("3 9\n" + report(*whole("first")), "ended with exit status 3\n"),
        ("0 9\n" + report(), "ended with exit status 0\n"),
        ("124 60\n" + json.dumps(SESSION[0]) + "\n", "was killed at its time limit of 60 s\n"),
        ("137 2\n", r"was ended by SIGKILL \(exit status 137\), before its time limit of 60 s\n"),
    ],
)
def test_a_runner_that_fails_or_reaches_no_test_is_the_labs_fault(printed: str, told: str) -> None:
    with pytest.raises(guest_suite.SuiteBroken, match=f"the runner of the suite failed: it {told}"):
        suite_run(printed, "python3: not found\n")


@pytest.mark.parametrize("ended", ["", " 3\n", "one 3\n", "1\n", "1 -3\n", "1 2 3\n", "9999 1\n", "\x1b[2J"])
def test_a_guest_that_does_not_say_how_its_suite_ended_is_a_fault_of_its_cell(ended: str) -> None:
    with pytest.raises(
        guest_suite.SuiteBroken, match="expected its exit status and its seconds, found"
    ) as broken:
        suite_run(ended)
    assert "\x1b" not in str(broken.value)


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[1]",
        '{"a": 1',
        DEEP,
        "1" * 5000,
        *[
            json.dumps(phase("first", "setup") | changed)
            for changed in (
                {"duration": float("nan")},
                {"when": "never"},
                {"outcome": ["passed"]},
                {"nodeid": None},
            )
        ],
    ],
)
def test_a_damaged_report_is_a_fault_of_its_cell(line: str) -> None:
    with pytest.raises(guest_suite.SuiteBroken, match="what the suite reported cannot be read"):
        suite_run(f"1 3\n{report()}{line}\n{report(*whole('first'))}")


def test_a_last_line_that_is_cut_off_is_not_read() -> None:
    ran = suite_run(f"124 60\n{report(*whole('first'))}{json.dumps(phase('second', 'setup'))[:-1]}")
    assert [test.outcome for test in ran.tests] == ["pass", "fail", "not-run"]


@pytest.mark.parametrize(
    ("most_bytes", "entries", "message"),
    [
        (1000, FIRST * 10, "more than 1000 bytes"),
        (2**20, [phase(f"test-{number}", "setup") for number in range(1001)], "more than 1000 tests"),
        *(
            (2**20, [entry | {"duration": seconds} for entry in FIRST], "seconds: Input should be")
            for seconds in (1.7e308, 1e100, 5e8)
        ),
        (
            2**20,
            [entry | {"user_properties": [["protection", JAILED | {"limits": 1}]]} for entry in FIRST],
            "limits",
        ),
    ],
)
def test_a_report_that_no_suite_writes_is_a_fault_of_its_cell(
    most_bytes: int, entries: list[Entry], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_suite, "MOST_REPORT_BYTES", most_bytes)
    with pytest.raises(guest_suite.SuiteBroken, match=message):
        suite_run(f"1 3\n{report(*entries)}")


def test_what_a_test_says_is_bounded_and_plain() -> None:
    message = "no file \udc80\x1b[2J" + "x" * 2 * pytest_tests.LONGEST_MESSAGE
    entries = whole("first", call=("failed", {"reprcrash": {"message": message}}))
    [first, *_] = suite_run(f"1 3\n{report(*entries)}").tests
    assert first.outcome is Outcome.FAIL
    assert first.message.startswith("no file xxx")
    assert "more characters)" in first.message
    assert len(first.message) < pytest_tests.LONGEST_MESSAGE + 100
