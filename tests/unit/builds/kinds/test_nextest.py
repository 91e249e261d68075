"""Upstream's own tests: archives of cargo-nextest, deployed and run as in a guest."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab import builds, catalog
from lab.base.activity import UNWATCHED
from lab.base.architecture import ARCHITECTURES, get_host_architecture
from lab.base.errors import NotApplicable, UsageError
from lab.base.paths import Paths
from lab.base.wait import ORDINARY
from lab.builds import WHOLE_SUITE, Build, SuiteOptions, elf
from lab.builds.kinds import nextest
from lab.catalog import load_suite, load_suites
from lab.guest import suite as guest_suite
from lab.guest.session import ADMIN, SUITE
from lab.plan import Cell
from lab.record import Confidence, FoundCause, Needs, Outcome, Status, SuiteRun, TestResult
from lab.verdict.status import judge_cell
from tests.builders import rust
from tests.builders.facts import facts
from tests.builders.rust import Crate
from tests.unit.builds.test_kinds_of_builds import Guest, put

UPSTREAM = load_suite("upstream-jailer")
STOCK = catalog.load_catalog().variant("stock")
CONTROL, WITNESS = UPSTREAM.control, UPSTREAM.witness
PLACE = "/opt/boxlite"

# The crate's tests: those that pass, and how the others fail.
PASSING = {
    "default_security_options_enable_jailer_on_supported_platforms",
    "development_mode_disables_jailer",
    CONTROL,
    "is_flaky",
}
FAILING = {
    "standard_mode_enables_jailer": r".*:\nafter 10 MB",  # It printed 10 MB before.
    "jailer_enabled_box_starts_and_executes": "was ended by SIGSEGV",
    "host_network_grants_off_box_starts_and_executes": "was ended by SIGSYS",
    WITNESS: r".*the namespaces are the same\n  left: 1\n right: 2",
    "deeper::aborts": "was ended by SIGABRT",
    "exits": "ended with exit status 7",
    "hangs": "was killed at its time limit of 6 s",
    "has_no_memory_left": r"memory allocation of 67108864 bytes failed\nwas ended by SIGABRT",
}


@pytest.fixture(scope="module")
def crate(rust_lab: Paths, tmp_path_factory: pytest.TempPathFactory) -> Crate:
    return rust.make(tmp_path_factory.mktemp("crate"), nextest.fetch_nextest(rust_lab))


def deployed(build: Build, paths: Paths, folder: Path) -> Guest:
    """A guest with the build in it."""
    (folder / "root").mkdir()
    (folder / "rootfs").mkdir()
    (folder / "rootfs" / "index.json").write_text("{}")
    guest = Guest(folder / "root")
    files = build.fetch(paths, facts(), UNWATCHED)
    # It stands for a session; see there.
    put(guest, build, files, folder / "rootfs")
    return guest


def started(root: Path) -> list[str]:
    """The tests in the order in which they were started in a guest, by their names in nextest's events."""
    report = root / "home" / "tester" / "results" / "report.jsonl"
    events = [json.loads(line) for line in report.read_text().splitlines()]
    return [event["name"] for event in events if (event["type"], event.get("event")) == ("test", "started")]


@dataclass(frozen=True)
class Deployed:
    build: Build
    guest: Any

    def run(self, options: SuiteOptions, build: Build | None = None) -> SuiteRun:
        return guest_suite.execute_suite(
            self.guest, build or self.build, STOCK, speed=ORDINARY, options=options
        )


@pytest.fixture(scope="module")
def whole(crate: Crate, rust_lab: Paths, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """The crate's archive, deployed."""
    build = builds.resolve_build(f"nextest:{crate.archive},at={PLACE}")
    return Deployed(build, deployed(build, rust_lab, tmp_path_factory.mktemp("guest")))


def test_tests_of_an_executable_end_as_in_an_archive(crate: Crate, rust_lab: Paths, tmp_path: Path) -> None:
    build = builds.resolve_build(f"test-binary:{crate.executable},at={PLACE}")
    ran = Deployed(build, deployed(build, rust_lab, tmp_path)).run(SuiteOptions(stretch=0.5))
    passing = {test.name for test in ran.tests if test.outcome is Outcome.PASS}
    failing = {test.name for test in ran.tests if test.outcome is Outcome.FAIL}
    assert (passing, failing) == (PASSING, set(FAILING))
    text = tmp_path / "text"
    text.write_text("no program")
    with pytest.raises(UsageError, match="expected a test binary, a program for x86-64 or arm64"):
        builds.resolve_build(f"test-binary:{text},at={PLACE}")


def test_every_outcome_of_a_test_is_right(whole: Deployed) -> None:
    ran = whole.run(SuiteOptions(stretch=0.5))
    assert ran.cut_short == ""
    assert {test.name for test in ran.tests if test.outcome is Outcome.PASS} == PASSING
    failed = {test.name: test.message for test in ran.tests if test.outcome is Outcome.FAIL}
    assert len(failed) == len(ran.tests) - len(PASSING)
    assert failed.keys() == FAILING.keys()
    for name, expected in FAILING.items():
        assert re.fullmatch(expected, failed[name], re.DOTALL), failed[name]
    report = whole.guest.root / "home" / "tester" / "results" / "report.jsonl"
    assert report.stat().st_size < 100_000


def test_a_suite_that_is_killed_at_its_limit_keeps_the_results_so_far(whole: Deployed) -> None:
    limits = whole.build.suite.model_copy(update={"test_seconds": 60, "suite_seconds": 3})
    chosen = SuiteOptions(tests=["exits", "hangs", WITNESS])
    ran = whole.run(chosen, replace(whole.build, suite=limits))
    assert ran.cut_short == "was killed at its time limit of 3 s"
    assert {test.name: (test.outcome, test.message) for test in ran.tests} == {
        WITNESS: (Outcome.NOT_RUN, ""),
        "exits": (Outcome.FAIL, "ended with exit status 7"),
        "hangs": (Outcome.FAIL, f"was running when the suite {ran.cut_short}"),
    }


@pytest.mark.parametrize("order", [["exits", WITNESS, CONTROL], [CONTROL, WITNESS, "exits"]])
def test_tests_run_in_the_order_that_is_asked_for_or_to_a_failure(whole: Deployed, order: list[str]) -> None:
    whole.run(SuiteOptions(tests=order))
    assert [name.partition("$")[2] for name in started(whole.guest.root)] == order
    ran = whole.run(SuiteOptions(tests=order, to_first_failure=True))
    failing = next(name for name in order if name != CONTROL)
    outcomes = {test.name: test.outcome for test in ran.tests}
    assert [name for name in order if outcomes[name] is Outcome.FAIL] == [failing]
    after = order[order.index(failing) + 1 :]
    assert {outcomes[name] for name in after} == {Outcome.NOT_RUN}


def test_its_workspace_is_the_users_and_what_was_unpacked_is_gone(whole: Deployed) -> None:
    place = whole.guest.root / "opt" / "boxlite"
    assert (place / "src" / "boxlite" / "Cargo.toml").exists()
    assert ("sudo -n install -d -o tester /opt/boxlite", ADMIN, True) in whole.guest.calls
    left = {file.name for file in (whole.guest.root / "opt" / "lab" / "build").iterdir()}
    assert left == {"cargo-nextest", "run_nextest.py"}
    # The control ran once before any variant, to fill the cache of upstream's tests.
    [(command, user)] = [(command, user) for command, user, is_checked in whole.guest.calls if not is_checked]
    assert f"test(={CONTROL})" in command
    assert user == SUITE
    assert '"ok"' in (place / "target" / "lab-warm-up" / "report.jsonl").read_text()


def test_a_filter_chooses_tests_and_unknown_or_missing_ones_are_told(whole: Deployed, crate: Crate) -> None:
    tests = whole.build.suite.tests
    assert list(tests)[:7] == list(UPSTREAM.tests)
    assert tests["hangs"] is Needs.BOX
    assert list(whole.build.remarks) == [
        "tests that its suite does not name; the lab assumes that they need a box: deeper::aborts, exits, "
        "hangs, has_no_memory_left, is_flaky"
    ]
    expression = f"test(={CONTROL}) | test(/_namespace$/)"
    build = builds.resolve_build(f"nextest:{crate.archive},at={PLACE},filter={expression}")
    assert list(build.suite.tests) == [CONTROL, WITNESS]
    gone = "tests that its suite names and the build lacks: default_security_options_"
    assert build.remarks[0].startswith(gone)
    assert build.record().remarks == list(build.remarks)
    assert builds.resolve_build(str(build.argument)) == build
    assert whole.build.name != build.name
    assert whole.build.version == build.version == "0.10.8"


def test_the_tests_need_a_glibc_and_a_stored_state_is_of_one_runner(
    whole: Deployed, rust_lab: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = whole.build.fetch(rust_lab, facts(), UNWATCHED)
    with pytest.raises(NotApplicable, match=r"jailer-\w+ in jailer\.tar\.zst needs glibc 2\.\d+, and .* 2\.2$"):
        elf.check_files(files, facts(glibc="2.2"))
    # Nothing is fetched for a guest of another architecture.
    monkeypatch.setattr(nextest, "fetch_nextest", lambda *_: pytest.fail("nextest is fetched"))
    other = next(name for name in ARCHITECTURES if name != get_host_architecture().name)
    with pytest.raises(NotApplicable, match=r"jailer-\w+ in jailer\.tar\.zst is for the processor"):
        whole.build.fetch(rust_lab, facts(arch=other), UNWATCHED)
    before = whole.build.digest
    (tmp_path / "runner.py").write_text("other")
    monkeypatch.setattr(nextest, "RUNNER", tmp_path / "runner.py")
    assert whole.build.digest != before


def test_runtime_and_cache_are_deployed(crate: Crate, rust_lab: Paths, tmp_path: Path) -> None:
    for file in ("runtime/bwrap", "cache/bases/disk", "cache/.ready"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    more = f"runtime={tmp_path}/runtime,cache={tmp_path}/cache"
    build = builds.resolve_build(f"nextest:{crate.archive},at={PLACE},{more}")
    guest = deployed(build, rust_lab, tmp_path)
    assert build.environment["BOXLITE_RUNTIME_DIR"] == "/opt/lab/build/runtime"
    assert (guest.root / "opt" / "lab" / "build" / "runtime" / "bwrap").read_text() == "runtime/bwrap"
    cache = guest.root / "opt" / "boxlite" / "target" / "boxlite-test"
    assert {str(file.relative_to(cache)) for file in cache.rglob("*") if file.is_file()} == {
        "bases/disk",
        ".ready",
    }
    # What is shipped need not be warmed up.
    assert not any("lab-warm-up" in command for command, _, _ in guest.calls)
    (tmp_path / "cache" / ".ready").write_text("other")
    assert builds.resolve_build(str(build.argument)).name != build.name


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("nextest:none.tar.zst,sute=detach", "none.tar.zst,sute=detach: no such file.*\n.*ignored"),
        ("nextest:TEXT", "TEXT: expected an archive that `cargo nextest archive` made: "),
        ("ARCHIVE,filter=binary(other)", "binary\\(other\\).* no binary names matched.*\n.*boxlite::jailer"),
        ("ARCHIVE,filter=test(nothing)", "no test matches -E=test\\(nothing\\)"),
        ("ARCHIVE,at=PLACE,filter=test(hangs)", f"the suite upstream-jailer with {CONTROL}"),
        ("ARCHIVE,suite=jailer", "suite: no suite .* 'jailer'; the suites are child-reaper, detach, "),
        ("ARCHIVE,at=PLACE,suite=detach", "binary\\(detach\\).* no binary names matched"),
        ("ARCHIVE,ignored=some", "ignored: .* 'default', 'only' or 'all', found 'some'"),
        ("ARCHIVE", "built in WORKSPACE: .*\n.*at=/opt/boxlite"),
        ("ARCHIVE,at=boxlite", "at=boxlite: expected an absolute path"),
        ("ARCHIVE,runtime=none", "runtime: .* not point to a directory, found 'none'"),
    ],
)
def test_bad_input_is_refused(crate: Crate, tmp_path: Path, argument: str, expected: str) -> None:
    text = tmp_path / "some.tar.zst"
    text.write_text("text")
    where = {"TEXT": text, "ARCHIVE": f"nextest:{crate.archive}", "PLACE": PLACE}
    for name, value in {**where, "WORKSPACE": crate.workspace}.items():
        argument, expected = argument.replace(name, str(value)), expected.replace(name, str(value))
    with pytest.raises(UsageError, match=expected):
        builds.resolve_build(argument)


def test_an_archive_needs_nothing_of_its_workspace(whole: Deployed, crate: Crate, tmp_path: Path) -> None:
    alone = tmp_path / "jailer.tar.zst"
    alone.write_bytes(crate.archive.read_bytes())
    aside = crate.workspace.rename(crate.workspace.with_name("aside"))
    try:
        assert builds.resolve_build(f"nextest:{alone},at={PLACE}").name == whole.build.name
    finally:
        aside.rename(crate.workspace)


# -- suites besides that of the jailer, and tests of one name in several binaries

LOADED = catalog.load_catalog()
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
def crates(rust_lab: Paths, tmp_path_factory: pytest.TempPathFactory) -> Crate:
    program, folder = nextest.fetch_nextest(rust_lab), tmp_path_factory.mktemp("crates")
    return rust.make(folder, program, others={"detach": DETACH}, library=LIBRARY)


def resolve(crates: Crate, words: str) -> Build:
    return builds.resolve_build(f"nextest:{crates.archive},at={PLACE},{words}")


def ran(build: Build, rust_lab: Paths, folder: Path, tests: tuple[str, ...] = ()) -> dict[str, TestResult]:
    guest: Any = deployed(build, rust_lab, folder)
    options = SuiteOptions(tests=tests, stretch=0.25) if tests else replace(WHOLE_SUITE, stretch=0.25)
    done = guest_suite.execute_suite(guest, build, STOCK, speed=ORDINARY, options=options)
    return {test.name: test for test in done.tests}


def test_a_suite_is_chosen_by_name_and_has_its_own_tests(crates: Crate) -> None:
    build = resolve(crates, "suite=detach")
    assert build.suite.name == "detach"
    # The archive says which tests there are, and the suite what those that it does not name need.
    assert dict(build.suite.tests) == {"detached_box_creates_pid_file": Needs.SANDBOX, "hangs": Needs.SANDBOX}
    assert build.name.startswith("nextest-detach-0.10.8@")
    assert build.remarks == []
    assert builds.resolve_build(str(build.argument)) == build
    assert "suite=" not in str(resolve(crates, "suite=upstream-jailer").argument)


def test_a_suite_without_boxes_is_not_warmed_up(crates: Crate, rust_lab: Paths, tmp_path: Path) -> None:
    build = resolve(crates, "suite=jailer-unit")
    assert not any("lab-warm-up" in step.command for step in build.steps())
    results = ran(build, rust_lab, tmp_path)
    assert {name: test.outcome for name, test in results.items()} == {
        "jailer::tests::test_jailer_full_flow_with_real_tempdir": Outcome.PASS,
        "jailer::tests::aborts": Outcome.FAIL,
    }
    # JUnit files call a library's binary by another name than nextest's events.
    assert results["jailer::tests::aborts"].message == "was ended by SIGABRT"
    detach = resolve(crates, "suite=detach")
    [warm_up] = [step.command for step in detach.steps() if "lab-warm-up" in step.command]
    assert "test(=detached_box_creates_pid_file)" in warm_up


def test_tests_of_one_name_in_two_binaries_are_two(crates: Crate, rust_lab: Paths, tmp_path: Path) -> None:
    build = resolve(crates, "filter=test(/^hangs$/) | test(/^jailer_/) | test(/^exits$/)")
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

    def verdict(failed: set[str], *findings: FoundCause) -> tuple[Status, str]:
        tests = [
            TestResult(name=name, outcome=Outcome.FAIL if name in failed else Outcome.PASS, message="panicked")
            for name in suite.tests
        ]
        judged = judge_cell(suite, SuiteRun(tests), expected if findings else STOCK.expect, findings)
        return judged.status, judged.reason

    assert verdict({other}) == (
        Status.FAIL,
        "the evidence proves no known cause, and the suite has no control to compare with",
    )
    cause = FoundCause(name=str(expected.cause), confidence=Confidence.PROVED, reason="a probe says so")
    assert verdict(blocked, cause)[0] is Status.XFAIL
    assert verdict({*blocked, other}, cause)[0] is Status.FAIL
