"""Running a suite in a guest, and reading what pytest-reportlog wrote there."""

import json
from typing import Any

import pytest

from lab import catalog
from lab.base.speed import ORDINARY, Speed
from lab.builds import SuiteOptions, pytest_tests
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Suite
from lab.guest import suite as guest_suite
from lab.guest.session import Output
from lab.record import Needs, Outcome, Protection, TestResult
from tests.builders.cells import JAILED

SUITE = Suite(
    name="small",
    title="A small suite",
    control="first",
    witness="third",
    test_seconds=10,
    suite_seconds=60,
    tests={"first": Needs.NOTHING, "second": Needs.BOX, "third": Needs.SANDBOX},
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


def whole(name: str, **failed: tuple[str, Any]) -> list[Entry]:
    """A test's three phases, passed but for the one given; without a call where its set-up did not pass."""
    phases = ["setup", "teardown"] if "setup" in failed else ["setup", "call", "teardown"]
    return [phase(name, when, *failed.get(when, ("passed", None))) for when in phases]


def results(entries: list[Entry], *, cut_short: str = "") -> list[TestResult]:
    began = pytest_tests.read_reportlog("\n".join(map(json.dumps, SESSION + entries)))
    assert began is not None
    return guest_suite.complete(SUITE, began, cut_short=cut_short)


def outcomes(entries: list[Entry], *, cut_short: str = "") -> dict[str, tuple[str, str]]:
    tests = results(entries, cut_short=cut_short)
    return {test.name: (test.outcome, test.message) for test in tests}


def test_all_passed() -> None:
    tests = results([*whole("first"), *whole("second"), *whole("third")])
    assert tests == [TestResult(name=name, outcome=Outcome.PASS, seconds=1.5) for name in SUITE.tests]


def test_what_a_passed_test_recorded_of_its_box_is_in_its_result() -> None:
    entries = [*whole("first"), *whole("second"), *whole("third", call=("failed", CRASH))]
    for entry in entries:
        if entry["when"] == "call":
            entry["user_properties"] = [["other", 1], ["protection", JAILED]]
    first, _, third = results(entries)
    assert first.protection == Protection.model_validate(JAILED)
    assert third.protection is None


def test_what_a_test_recorded_is_checked() -> None:
    entries = whole("first")
    entries[1]["user_properties"] = [["protection", JAILED | {"capabilities": {"Eff": "all"}}]]
    with pytest.raises(guest_suite.SuiteBroken, match="capabilities"):
        suite_run("1 3\n" + report(*entries))


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


def test_results_are_in_the_suite_s_order_whatever_the_log_s() -> None:
    assert list(outcomes(whole("third") + whole("first") + whole("second"))) == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        ({"call": ("failed", CRASH)}, ("fail", "assert 1 == 2")),
        ({"setup": ("failed", CRASH)}, ("error", "assert 1 == 2")),
        ({"teardown": ("failed", CRASH)}, ("error", "assert 1 == 2")),
        ({"call": ("failed", CRASH), "teardown": ("failed", "later")}, ("fail", "assert 1 == 2")),
        ({"call": ("failed", "Failed: Timeout >10s")}, ("fail", "Failed: Timeout >10s")),
        ({"setup": ("skipped", SKIP)}, ("skip", "Skipped: no /dev/kvm")),
        ({"call": ("skipped", SKIP)}, ("skip", "Skipped: no /dev/kvm")),
    ],
)
def test_where_it_failed_tells_the_fault(failed: dict[str, tuple[str, Any]], expected: tuple[str, str]) -> None:
    found = outcomes(whole("first") + whole("second", **failed) + whole("third"))
    assert found["second"] == expected
    assert found["first"][0] == found["third"][0] == "pass"


def test_a_test_without_a_result_is_never_taken_for_a_pass() -> None:
    found = outcomes(whole("first") + whole("third"))
    assert found["second"] == ("not-run", "")


def test_a_test_without_a_call_is_never_taken_for_a_pass() -> None:
    entries = [phase("first", "setup"), phase("first", "teardown")]
    assert outcomes(entries)["first"] == ("error", "was not called")


def test_of_a_killed_suite_the_running_test_failed_and_the_rest_did_not_run() -> None:
    found = outcomes([*whole("first"), phase("second", "setup")], cut_short=KILLED)
    assert found["first"][0] == "pass"
    assert found["second"] == ("fail", f"was running when the suite {KILLED}")
    assert found["third"] == ("not-run", "")


def test_a_killed_suite_keeps_the_failures_from_before() -> None:
    found = outcomes(whole("first", call=("failed", CRASH)), cut_short=KILLED)
    assert [outcome for outcome, _ in found.values()] == ["fail", "fail", "not-run"]


def test_a_test_that_the_suite_does_not_name_is_an_error() -> None:
    found = outcomes(whole("first") + whole("second") + whole("third") + whole("fourth"))
    assert found["fourth"] == ("error", "ran, but suite.toml does not name it")


def test_a_suite_that_said_nothing_ran_nothing() -> None:
    assert {outcome for outcome, _ in outcomes([]).values()} == {"not-run"}


def test_the_test_that_began_and_has_no_end_was_running_wherever_it_stands() -> None:
    found = outcomes([*whole("first"), phase("third", "setup")], cut_short="ended with exit status 7")
    assert found["third"] == ("fail", "was running when the suite ended with exit status 7")
    assert found["second"] == ("not-run", "")


class Session:
    """Notes the commands, and prints what it is given of each."""

    def __init__(self, *printed: str) -> None:
        self.commands: list[str] = []
        self.printed = list(printed)

    def run(self, command: str, **_more: object) -> Output:
        self.commands.append(command)
        return Output(0, self.printed.pop(0), "")


def report(*entries: Entry) -> str:
    return "".join(f"{json.dumps(entry)}\n" for entry in [*SESSION, *entries])


FAILED = "1 3\n" + report(*whole("first", call=("failed", CRASH)))


def test_a_suite_can_be_run_in_another_way_and_end_at_its_first_failure() -> None:
    session: Any = Session(FAILED, FAILED)
    stock = catalog.load().variant("stock")
    options = SuiteOptions({"LAB_JAILER": "off now"}, to_first_failure=True)
    ran = guest_suite.run(session, BUILD, stock, speed=ORDINARY, options=options)
    assert [(test.outcome, test.message) for test in ran.tests] == [
        ("fail", "assert 1 == 2"),
        ("not-run", ""),
        ("not-run", ""),
    ]
    guest_suite.run(session, BUILD, stock, speed=ORDINARY)
    changed, plain = session.commands
    assert " LAB_JAILER='off now' timeout " in changed
    assert " -ra --exitfirst " in changed
    assert "LAB_JAILER" not in plain
    assert "--exitfirst" not in plain


@pytest.mark.parametrize(
    ("variant", "under"), [("stock", ""), ("apparmor-kvm-deny", "aa-exec -p lab-without-kvm --")]
)
def test_variables_and_the_limit_are_inside_of_what_the_suite_runs_under(variant: str, under: str) -> None:
    session: Any = Session(FAILED, FAILED)
    guest_suite.run(session, BUILD, catalog.load().variant(variant), speed=ORDINARY)
    [command] = session.commands
    inside = f"cd /opt/lab/suites/small && exec {under} env".replace("  ", " ")
    assert f"({inside} LAB_ROOTFS=/opt/lab/rootfs PYTHONPATH=/opt/lab/site " in command
    assert " timeout --kill-after=5 60 python3 -m pytest " in command


def test_a_suite_can_have_more_time_and_says_which_limit_ended_it() -> None:
    session: Any = Session("124 1200\n" + report(*whole("first"), phase("second", "setup")))
    stock = catalog.load().variant("stock")
    ran = guest_suite.run(session, BUILD, stock, speed=Speed(emulated=True), options=SuiteOptions(stretch=2.0))
    assert ran.cut_short == "was killed at its time limit of 1200 s"
    [command] = session.commands
    assert " timeout --kill-after=5 1200 python3 -m pytest " in command
    assert " --timeout=200 " in command


def test_some_tests_of_a_suite_can_be_run_alone() -> None:
    session: Any = Session(FAILED, FAILED)
    stock = catalog.load().variant("stock")
    ran = guest_suite.run(session, BUILD, stock, speed=ORDINARY, options=SuiteOptions(tests=["first", "third"]))
    assert [(test.name, test.outcome) for test in ran.tests] == [("first", "fail"), ("third", "not-run")]
    [command] = session.commands
    assert " -ra small_suite.py::first small_suite.py::third --timeout=" in command


def test_the_file_of_the_suite_s_tests_is_called_as_it_is_asked_for() -> None:
    suite = catalog.load().suite
    assert (suite.folder / f"{suite.name}_suite.py").is_file()
    assert suite.tests[suite.witness] is Needs.SANDBOX


def suite_run(*printed: str) -> guest_suite.SuiteRun:
    """What comes of a suite of which the guest prints this."""
    session: Any = Session(*printed)
    return guest_suite.run(session, BUILD, catalog.load().variant("stock"), speed=ORDINARY)


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
        ("200 12", "ended with exit status 200"),
    ],
)
def test_how_a_suite_was_cut_short_is_told(ended: str, cut_short: str) -> None:
    ran = suite_run(f"{ended}\n{report(*whole('first'), phase('second', 'setup'))}")
    assert ran.cut_short == cut_short
    assert [(test.outcome, test.message) for test in ran.tests] == [
        ("pass", ""),
        ("fail", f"was running when the suite {cut_short}"),
        ("not-run", ""),
    ]


@pytest.mark.parametrize("status", [0, 1])
def test_a_suite_that_comes_to_its_end_was_not_cut_short(status: int) -> None:
    assert (
        suite_run(f"{status} 70\n{report(*whole('first'), *whole('second'), *whole('third'))}").cut_short == ""
    )


def test_a_crash_after_the_last_test_is_told() -> None:
    ran = suite_run(f"139 5\n{report(*whole('first'), *whole('second'), *whole('third'))}")
    assert "SIGSEGV" in ran.cut_short
    assert {test.outcome for test in ran.tests} == {Outcome.PASS}


def test_a_crash_in_the_set_up_of_the_first_test_is_the_builds() -> None:
    ran = suite_run(f"139 5\n{report()}")
    assert [test.outcome for test in ran.tests] == ["fail", "not-run", "not-run"]


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("127 0\n", "ended with exit status 127\npython3: not found"),
        ("1 0\n", "ended with exit status 1\n"),
        ("2 1\n" + report(), "ended with exit status 2\n"),
        ("3 9\n" + report(*whole("first")), "ended with exit status 3\n"),
        ("0 9\n" + report(), "ended with exit status 0\n"),
        ("124 60\n" + json.dumps(SESSION[0]) + "\n", "was killed at its time limit of 60 s\n"),
        ("137 2\n", r"was ended by SIGKILL \(exit status 137\), before its time limit of 60 s\n"),
    ],
    ids=["no program", "no runner", "usage", "internal error", "no test", "no test in time", "no memory"],
)
def test_a_runner_that_fails_or_reaches_no_test_is_the_labs_fault(printed: str, told: str) -> None:
    with pytest.raises(guest_suite.SuiteBroken, match=f"the runner of the suite failed: it {told}"):
        suite_run(printed, "python3: not found\n")


@pytest.mark.parametrize(
    "ended", ["", "\n", " 3\n", "one 3\n", "1\n", "1 -3\n", "1 2 3\n", "9999 1\n", "\x1b[2J"]
)
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
        '{"$report_type": "TestReport"}',
        "1" * 5000,
        *[
            json.dumps(phase("first", "setup") | changed)
            for changed in (
                {"duration": float("nan")},
                {"duration": -1},
                {"duration": "long"},
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


@pytest.mark.parametrize("seconds", [1.7e308, 1e100, 5e8])
def test_durations_whose_sum_is_none_are_a_fault_of_their_cell(seconds: float) -> None:
    phases = [entry | {"duration": seconds} for entry in whole("first")]
    with pytest.raises(guest_suite.SuiteBroken, match="seconds: Input should be"):
        suite_run(f"0 3\n{report(*phases)}")


def test_a_last_line_that_is_cut_off_is_not_read() -> None:
    ran = suite_run(f"124 60\n{report(*whole('first'))}{json.dumps(phase('second', 'setup'))[:-1]}")
    assert [test.outcome for test in ran.tests] == ["pass", "fail", "not-run"]


def test_a_report_without_an_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_suite, "MOST_REPORT_BYTES", 1000)
    with pytest.raises(guest_suite.SuiteBroken, match="more than 1000 bytes"):
        suite_run("1 3\n" + report(*[entry for _ in range(10) for entry in whole("first")]))


def test_a_report_of_tests_without_an_end_is_not_read() -> None:
    many = [phase(f"test-{number}", "setup") for number in range(pytest_tests.MOST_TESTS + 1)]
    with pytest.raises(guest_suite.SuiteBroken, match="more than 1000 tests"):
        suite_run("1 3\n" + report(*many))


def test_what_a_test_says_is_bounded_and_plain() -> None:
    said = "no file \udc80\x1b[2J" + "x" * 2 * pytest_tests.LONGEST_MESSAGE
    entries = whole("first", call=("failed", {"reprcrash": {"message": said}}))
    [first, *_] = suite_run(f"1 3\n{report(*entries)}").tests
    assert first.outcome is Outcome.FAIL
    assert first.message.startswith("no file xxx")
    assert "more characters)" in first.message
    assert len(first.message) < pytest_tests.LONGEST_MESSAGE + 100
