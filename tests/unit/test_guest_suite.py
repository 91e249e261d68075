"""Running a suite in a guest, and reading what pytest-reportlog wrote there."""

import json
from typing import Any

import pytest

from lab import catalog
from lab.builds import SuiteOptions, reportlog
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Suite
from lab.guest import suite as guest_suite
from lab.guest.session import Output
from lab.record import Needs, Outcome, TestResult

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


def results(entries: list[Entry], *, killed: bool = False) -> list[TestResult]:
    began = reportlog.read("\n".join(map(json.dumps, SESSION + entries)))
    return guest_suite.complete(SUITE, began, killed=killed, limit=60)


def outcomes(entries: list[Entry], *, killed: bool = False) -> dict[str, tuple[str, str]]:
    tests = results(entries, killed=killed)
    return {test.name: (test.outcome, test.message) for test in tests}


def test_all_passed() -> None:
    tests = results([*whole("first"), *whole("second"), *whole("third")])
    assert tests == [TestResult(name=name, outcome=Outcome.PASS, seconds=1.5) for name in SUITE.tests]


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
def test_where_a_test_failed_decides_whose_fault_it_is(
    failed: dict[str, tuple[str, Any]], expected: tuple[str, str]
) -> None:
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
    found = outcomes([*whole("first"), phase("second", "setup")], killed=True)
    assert found["first"][0] == "pass"
    assert found["second"] == ("fail", "was running when the suite was killed at its limit of 60 s")
    assert found["third"] == ("not-run", "")


def test_a_killed_suite_keeps_the_failures_from_before() -> None:
    found = outcomes(whole("first", call=("failed", CRASH)), killed=True)
    assert [outcome for outcome, _ in found.values()] == ["fail", "fail", "not-run"]


def test_a_test_that_the_suite_does_not_name_is_an_error() -> None:
    found = outcomes(whole("first") + whole("second") + whole("third") + whole("fourth"))
    assert found["fourth"] == ("error", "ran, but suite.toml does not name it")


def test_a_suite_that_said_nothing_ran_nothing() -> None:
    assert {outcome for outcome, _ in outcomes([]).values()} == {"not-run"}


class Session:
    """Notes the command, and prints a report of a first test that failed."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def run(self, command: str, **_more: object) -> Output:
        self.commands.append(command)
        lines = [json.dumps(entry) for entry in whole("first", call=("failed", CRASH))]
        return Output(0, "\n".join(["1", *lines]), "")


def test_a_suite_can_be_run_in_another_way_and_end_at_its_first_failure() -> None:
    session: Any = Session()
    stock = catalog.load().variant("stock")
    options = SuiteOptions({"LAB_JAILER": "off now"}, to_first_failure=True)
    ran = guest_suite.run(session, BUILD, stock, factor=1.0, options=options)
    assert [(test.outcome, test.message) for test in ran.tests] == [
        ("fail", "assert 1 == 2"),
        ("not-run", ""),
        ("not-run", ""),
    ]
    guest_suite.run(session, BUILD, stock, factor=1.0)
    changed, plain = session.commands
    assert " LAB_JAILER='off now' timeout " in changed
    assert " -ra --exitfirst " in changed
    assert "LAB_JAILER" not in plain
    assert "--exitfirst" not in plain


@pytest.mark.parametrize(
    ("variant", "under"), [("stock", ""), ("apparmor-userns-nocaps", "aa-exec -p unprivileged_userns --")]
)
def test_variables_and_the_limit_are_inside_of_what_the_suite_runs_under(variant: str, under: str) -> None:
    session: Any = Session()
    guest_suite.run(session, BUILD, catalog.load().variant(variant), factor=1.0)
    [command] = session.commands
    inside = f"cd /opt/lab/suites/small && exec {under} env".replace("  ", " ")
    assert f"({inside} LAB_ROOTFS=/opt/lab/rootfs PYTHONPATH=/opt/lab/site " in command
    assert " timeout --kill-after=5 60 python3 -m pytest " in command


def test_some_tests_of_a_suite_can_be_run_alone() -> None:
    session: Any = Session()
    stock = catalog.load().variant("stock")
    ran = guest_suite.run(session, BUILD, stock, factor=1.0, options=SuiteOptions(tests=["first", "third"]))
    assert [(test.name, test.outcome) for test in ran.tests] == [("first", "fail"), ("third", "not-run")]
    [command] = session.commands
    assert " -ra small_suite.py::first small_suite.py::third --timeout=" in command


def test_the_file_of_the_suite_s_tests_is_called_as_it_is_asked_for() -> None:
    suite = catalog.load().suite
    assert (suite.folder / f"{suite.name}_suite.py").is_file()
    assert suite.tests[suite.witness] is Needs.SANDBOX
