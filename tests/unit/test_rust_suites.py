"""Suites of upstream's tests besides those of the jailer, and tests of one name in several binaries."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import builds, catalog
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.base.wait import ORDINARY
from lab.builds import WHOLE_SUITE, Build, SuiteOptions
from lab.builds.kinds import nextest
from lab.catalog import load_suite, load_suites
from lab.guest import suite as guest_suite
from lab.plan import Cell
from lab.record import Confidence, Finding, Needs, Outcome, Status, TestResult
from lab.verdict.status import judge
from tests.builders import rust
from tests.builders.rust import Crate
from tests.unit.test_rust_builds import PLACE, STOCK, deployed, started

LOADED = catalog.load()
LIBRARY = """
#[cfg(test)] mod jailer { mod tests {
    #[test] fn test_jailer_full_flow_with_real_tempdir() {}
    #[test] fn aborts() { std::process::abort() }
} }
#[cfg(test)] mod net { #[test] fn is_no_test_of_the_jailer() {} }
"""
DETACH = """
#[test] fn detached_box_creates_pid_file() {}
#[test] fn hangs() {}
"""


@pytest.fixture(scope="module")
def crate(rust_lab: Paths, tmp_path_factory: pytest.TempPathFactory) -> Crate:
    program, folder = nextest.program(rust_lab), tmp_path_factory.mktemp("crate")
    return rust.make(folder, program, others={"detach": DETACH}, library=LIBRARY)


def resolve(crate: Crate, words: str) -> Build:
    return builds.resolve(f"nextest:{crate.archive},at={PLACE},{words}")


def ran(build: Build, rust_lab: Paths, folder: Path, tests: tuple[str, ...] = ()) -> dict[str, TestResult]:
    guest: Any = deployed(build, rust_lab, folder)
    options = SuiteOptions(tests=tests, stretch=0.25) if tests else replace(WHOLE_SUITE, stretch=0.25)
    done = guest_suite.run(guest, build, STOCK, speed=ORDINARY, options=options)
    return {test.name: test for test in done.tests}


def test_a_suite_is_chosen_by_name_and_has_its_own_tests(crate: Crate) -> None:
    build = resolve(crate, "suite=detach")
    assert build.suite.name == "detach"
    # The archive says which tests there are, and the suite what those that it does not name need.
    assert dict(build.suite.tests) == {"detached_box_creates_pid_file": Needs.SANDBOX, "hangs": Needs.SANDBOX}
    assert build.name.startswith("nextest-detach-0.10.8@")
    assert build.remarks == []
    assert builds.resolve(str(build.argument)) == build
    assert "suite=" not in str(resolve(crate, "suite=upstream-jailer").argument)


def test_a_suite_without_boxes_is_not_warmed_up(crate: Crate, rust_lab: Paths, tmp_path: Path) -> None:
    build = resolve(crate, "suite=jailer-unit")
    assert not any("lab-warm-up" in step.command for step in build.steps())
    results = ran(build, rust_lab, tmp_path)
    assert {name: test.outcome for name, test in results.items()} == {
        "jailer::tests::test_jailer_full_flow_with_real_tempdir": Outcome.PASS,
        "jailer::tests::aborts": Outcome.FAIL,
    }
    # JUnit files call a library's binary by another name than nextest's events.
    assert results["jailer::tests::aborts"].message == "was ended by SIGABRT"
    detach = resolve(crate, "suite=detach")
    [warm_up] = [step.command for step in detach.steps() if "lab-warm-up" in step.command]
    assert "test(=detached_box_creates_pid_file)" in warm_up


def test_tests_of_one_name_in_two_binaries_are_two(crate: Crate, rust_lab: Paths, tmp_path: Path) -> None:
    build = resolve(crate, "filter=test(/^hangs$/) | test(/^jailer_/) | test(/^exits$/)")
    hang, passes = "boxlite::jailer$hangs", "boxlite::detach$hangs"
    assert {hang, passes, "exits"} < set(build.suite.tests)
    assert build.suite.tests[passes] is Needs.BOX
    results = ran(build, rust_lab, tmp_path, ("exits", passes, hang))
    assert started(tmp_path / "root") == ["boxlite::jailer$exits", passes, hang]
    assert {name: (test.outcome, test.message) for name, test in results.items()} == {
        hang: (Outcome.FAIL, "was killed at its time limit of 3 s"),
        passes: (Outcome.PASS, ""),
        "exits": (Outcome.FAIL, "ended with exit status 7"),
    }


def test_tests_that_nextest_itself_does_not_tell_apart_are_refused() -> None:
    tests = [(binary, "boxlite::boxlite$works", "works") for binary in ("boxlite", "boxlite::bin/boxlite")]
    with pytest.raises(UsageError, match=r"reports as boxlite::boxlite\$works\n.*binary_id"):
        nextest.expressions_of(tests)


@pytest.mark.parametrize(
    "suite", [suite for suite in load_suites() if suite.filter], ids=lambda suite: suite.name
)
def test_each_suite_has_limits_that_fit_each_other(suite: catalog.Suite) -> None:
    assert suite.test_seconds < suite.suite_seconds
    assert not suite.control or suite.tests[suite.control] is Needs.BOX
    assert not suite.witness or suite.tests[suite.witness] is Needs.SANDBOX
    assert suite.telling


@pytest.mark.parametrize(
    ("suite", "variant", "cause"),
    [
        ("jailer-unit", "stock", None),
        ("jailer-unit", "kvm-denied", None),
        ("jailer-unit", "userns-clone-off", "userns-sysctl"),
        ("detach", "kvm-denied", "kvm-denied"),
    ],
)
def test_what_a_suite_does_not_need_is_not_expected_to_fail_it(
    suite: str, variant: str, cause: str | None
) -> None:
    build = replace(builds.ANY, suite=load_suite(suite))
    assert Cell(LOADED.guest("debian-13"), LOADED.variant(variant), build).expected.cause == cause


def test_without_a_control_a_verdict_says_so_and_an_expected_failure_has_exactly_its_tests() -> None:
    special, other = load_suite("jailer-unit"), "jailer::cgroup::tests::test_cgroup_path"
    suite = special.model_copy(update={"tests": {**special.tests, other: special.others}})
    blocked = suite.needing(Needs.SANDBOX)
    assert len(blocked) == 3
    expected = LOADED.variant("userns-clone-off").expect

    def verdict(failed: set[str], *findings: Finding) -> tuple[Status, str]:
        tests = [
            TestResult(name=name, outcome=Outcome.FAIL if name in failed else Outcome.PASS, message="panicked")
            for name in suite.tests
        ]
        judged = judge(suite, tests, expected if findings else STOCK.expect, list(findings))
        return judged.status, judged.reason

    assert verdict({other}) == (
        Status.FAIL,
        "the evidence proves no known cause, and the suite has no control to compare with",
    )
    cause = Finding(name=str(expected.cause), confidence=Confidence.PROVED, why="a probe says so")
    assert verdict(blocked, cause)[0] is Status.XFAIL
    assert verdict({*blocked, other}, cause)[0] is Status.FAIL
