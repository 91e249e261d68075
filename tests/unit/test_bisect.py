"""A bisection over releases: what each step shows, which release is run next, and what is said in the end."""

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from lab import builds, catalog
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.builds.kinds.wheel import Wheel
from lab.machine.budget import Limits
from lab.plan import Cell
from lab.record import CellResult, Expectation, Outcome, RunResult, Status, TestResult
from lab.repro.bisection import Bisection, Candidates, State, Steps, bisect, compare, failing
from lab.run import scheduler
from lab.run.observer import Silent
from lab.run.worker import Worker
from lab.verdict.status import judge

KNOWN = catalog.load()
SUITE = KNOWN.suite
JAILED = "jailer_enabled_box_starts_and_executes"
ISOLATED = SUITE.witness
RELEASES = ["0.9.0", "0.9.5", "0.10.0", "0.10.1", "0.10.2", "0.10.3", "0.10.4"]


def reported(version: str = "0.10.4") -> Cell:
    return Cell(KNOWN.guest("debian-13"), KNOWN.variant("stock"), Wheel(version, version))


def outcomes(*failed: str) -> list[TestResult]:
    return [
        TestResult(name=name, outcome=Outcome.FAIL if name in failed else Outcome.PASS) for name in SUITE.tests
    ]


def shown(cell: Cell, status: Status, *failed: str, cause: str | None = None, **more: Any) -> CellResult:
    ran = [] if status is Status.ERROR else outcomes(*failed)
    return cell.result(status).model_copy(update={"tests": ran, "cause": cause} | more)


def good(cell: Cell) -> CellResult:
    return shown(cell, Status.PASS)


def bad(cell: Cell) -> CellResult:
    return shown(cell, Status.FAIL, JAILED, ISOLATED, cause="userns-sysctl", reason="it is 0")


def skipped(cell: Cell) -> CellResult:
    return shown(cell, Status.NOT_APPLICABLE, reason="no wheel")


def broken(cell: Cell) -> CellResult:
    return shown(cell, Status.ERROR, reason="the machine is gone")


@pytest.fixture(autouse=True)
def releases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "releases", lambda: list(map(Version, RELEASES)))


def run(truth: Mapping[str, Callable[[Cell], CellResult]], version: str = "0.10.4") -> tuple[Steps, list[str]]:
    """Run a bisection without guests: each release, unless it is good, does as `truth` says."""
    steps = Steps(Candidates.of(reported(version)))
    waiting = list(steps.candidates.ends)
    ran = []
    while waiting:
        cell = waiting.pop(0)
        ran.append(cell.build.name)
        waiting += steps.follow(truth.get(cell.build.name, good)(cell))
    return steps, ran


def found(steps: Steps) -> Bisection:
    return steps.bisection("20261126-050000", 90.0)


def test_the_first_release_that_fails_is_found_and_both_neighbours_were_run() -> None:
    steps, ran = run({"0.10.2": bad, "0.10.3": bad, "0.10.4": bad})
    assert ran[:2] == ["0.10.4", "0.9.0"]
    assert {"0.10.1", "0.10.2"} <= set(ran)
    assert len(ran) < len(RELEASES)
    answer = found(steps)
    assert (answer.first_failed, answer.first_fixed) == ("0.10.2", None)
    assert answer.result == [
        "boxlite 0.10.2 is the first release that fails: 0.10.1, the release before it, passes."
    ]


def test_for_an_older_build_the_release_that_passes_again_is_found_too() -> None:
    truth = {"0.10.0": bad, "0.10.1": bad, "0.10.2": bad}
    steps, ran = run(truth, "0.10.1")
    assert ran[:3] == ["0.10.1", "0.9.0", "0.10.4"]
    answer = found(steps)
    assert (answer.first_failed, answer.first_fixed) == ("0.10.0", "0.10.3")
    assert answer.result[1] == (
        "boxlite 0.10.3 is the first release that passes again: 0.10.2, the release before it, fails."
    )


def test_all_steps_are_cells_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes: list[int] = []

    def serve(worker: Worker) -> None:
        lanes.append(worker.number)
        while ticket := worker._shared.backlog.take(worker.machine.name, worker.number):
            does = bad if Version(ticket.cell.build.version) >= Version("0.10.3") else good
            worker._decisions.decide(ticket, does(ticket.cell))

    monkeypatch.setattr(scheduler, "connection", lambda uri: nullcontext())
    monkeypatch.setattr(rootfs, "make", lambda folder: folder)
    monkeypatch.setattr(Worker, "work", serve)
    paths, folder = Paths(cache=tmp_path / "cache", state=tmp_path / "state"), tmp_path / "run"
    answer = bisect(
        Candidates.of(reported()),
        paths,
        folder,
        uri="",
        limits=Limits(jobs=1),
        observer=Silent(),
        command="lab repro report.md --bisect",
    )
    assert (answer.first_failed, answer.stopped, answer.run) == ("0.10.3", "", "run")
    assert lanes == [1]
    record = RunResult.read(folder)
    assert [cell.build for cell in record.cells][:2] == ["0.10.4", "0.9.0"]
    assert {step.release for step in answer.steps} == {cell.build for cell in record.cells}
    assert answer.steps[0].command == (
        "lab matrix -g debian-13 -v stock --build 0.10.4 --no-remedies --no-experiment"
    )
    document = json.loads(json.dumps(answer.document()))
    assert document["first_failed"] == "0.10.3"
    assert document["steps"][0]["state"] == "bad"


def test_if_the_reported_build_passes_nothing_is_looked_for() -> None:
    steps, ran = run({})
    assert ran == ["0.10.4", "0.9.0"]
    assert found(steps).result == [
        "boxlite 0.10.4, the build of the report, shows no failure to look for: "
        "the reported build shows no failure to compare with."
    ]


def test_if_every_release_fails_none_is_called_the_first() -> None:
    steps, ran = run(dict.fromkeys(RELEASES, bad))
    assert ran == ["0.10.4", "0.9.0"]
    answer = found(steps)
    assert answer.first_failed is None
    assert answer.result == [
        "No release is known to pass before 0.10.4: 0.9.0 is the oldest release and fails, too."
    ]
    assert answer.not_run == RELEASES[1:-1]


def test_releases_that_cannot_be_run_are_neither_good_nor_bad() -> None:
    steps, _ = run(dict.fromkeys(RELEASES, bad) | {"0.9.0": skipped, "0.9.5": skipped})
    answer = found(steps)
    assert answer.first_failed is None
    assert answer.result == [
        "No release is known to pass before 0.10.4: 0.10.0 fails, and of the older ones none could be judged "
        "(tried: 0.9.0, 0.9.5)."
    ]
    steps, _ = run({"0.10.2": skipped, "0.10.3": bad, "0.10.4": bad})
    answer = found(steps)
    assert answer.first_failed is None
    assert answer.result == ["The first release that fails is one of 0.10.2 or 0.10.3: 0.10.1 passes."]


def test_a_host_that_can_run_nothing_is_given_up_soon() -> None:
    steps, ran = run(dict.fromkeys(RELEASES, broken) | {"0.10.4": bad})
    assert len(ran) == 4
    assert found(steps).result == ["The bisection did not come to its end: the machine is gone."]


def test_while_two_lanes_run_both_ends_nothing_else_is_begun() -> None:
    steps = Steps(Candidates.of(reported()))
    last, first = steps.candidates.ends
    assert steps.follow(good(first)) == ()
    [middle] = steps.follow(bad(last))
    assert middle.build.name == "0.10.1"


def test_with_no_other_release_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "releases", lambda: [Version("0.10.4")])
    with pytest.raises(UsageError, match=r"no release of boxlite beside 0\.10\.4"):
        Candidates.of(reported())


def test_a_build_of_ones_own_is_newer_than_the_releases_before_it() -> None:
    own = Wheel("0.10.5@12345678", "0.10.5")
    candidates = Candidates.of(Cell(KNOWN.guest("debian-13"), KNOWN.variant("stock"), own))
    assert [cell.build.name for cell in candidates.all] == [*RELEASES, "0.10.5@12345678"]
    assert len(candidates.newer) == 1


def test_what_a_cell_shows_is_compared_test_by_test_and_by_its_cause() -> None:
    cell = reported()
    before = bad(cell)

    def state(result: CellResult) -> State:
        return compare(before, result)[0]

    assert state(before) is State.BAD
    assert state(good(cell)) is State.GOOD
    # Another test that fails does not matter; one of two that passes does.
    other = shown(cell, Status.FAIL, "development_mode_disables_jailer", cause="unknown")
    assert compare(before, other) == (State.GOOD, "other tests fail: development_mode_disables_jailer")
    assert state(shown(cell, Status.FAIL, JAILED, ISOLATED, SUITE.control, cause="userns-sysctl")) is State.BAD
    assert state(shown(cell, Status.FAIL, JAILED, cause="userns-sysctl")) is State.SKIPPED
    assert compare(before, shown(cell, Status.FAIL, JAILED, ISOLATED, cause="kvm-denied")) == (
        State.SKIPPED,
        "the same tests fail for another cause: kvm-denied",
    )
    for status in (Status.ERROR, Status.NOT_RUN, Status.FLAKY, Status.NOT_APPLICABLE):
        assert state(shown(cell, status, JAILED, ISOLATED, cause="userns-sysctl")) is State.SKIPPED


def test_what_other_tests_of_a_cell_show_holds_though_one_could_not_be_judged() -> None:
    pull = "Failed to pull image 'debian:bookworm-slim'"
    default = "default_security_options_enable_jailer_on_supported_platforms"

    def without_registry(version: str, *failed: str) -> CellResult:
        """A cell of boxlite 0.9, whose boxes need a registry."""
        ran = [
            each.model_copy(update={"outcome": Outcome.FAIL, "message": pull}) if each.name == JAILED else each
            for each in outcomes(*failed)
        ]
        return reported(version).result(Status.ERROR, reason="no registry").model_copy(update={"tests": ran})

    old = without_registry("0.9.0", default)
    assert failing(old) == [default]
    assert compare(old, old) == (State.BAD, "other tests cannot be judged: no registry")
    assert compare(old, without_registry("0.9.5"))[0] is State.GOOD
    assert compare(old, good(reported())) == (State.GOOD, "")
    # What a registry that cannot be reached lets fail, is neither good nor bad.
    assert compare(bad(reported()), without_registry("0.9.5", ISOLATED))[0] is State.SKIPPED
    assert compare(without_registry("0.9.5"), old) == (State.SKIPPED, "no registry")


def test_what_failed_in_a_guest_without_memory_is_neither_good_nor_bad() -> None:
    tests = outcomes(JAILED, ISOLATED)
    judged = judge(SUITE, tests, Expectation(), [], killed_for_memory=["libkrun VM"])
    cell = reported().result(judged.status, reason=judged.reason).model_copy(update={"tests": tests})
    assert (cell.status, failing(cell)) == (Status.ERROR, [])
    assert compare(bad(reported()), cell)[0] is State.SKIPPED


def test_what_was_found_is_shown_with_every_step_and_its_command() -> None:
    steps, _ = run({"0.10.2": bad, "0.10.3": bad, "0.10.4": bad, "0.10.0": skipped})
    text = found(steps).render()
    assert "### Which release\n" in text
    assert f"Compared are the tests that fail with 0.10.4: {JAILED}, {ISOLATED}.\n" in text
    assert "\nboxlite 0.10.2 is the first release that fails: " in text
    assert "| 1 | 0.10.4 (reported) | bad | fail | userns-sysctl | 0 | it is 0 |" in text
    assert "not run, because the answer does not depend on them if they behave like their neighbours: " in text
    assert "lab matrix" not in text, "no cell of this test has a command"
    assert len(text.splitlines()) < 40
