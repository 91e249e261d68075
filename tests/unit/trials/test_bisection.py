"""A bisection over releases: what each step shows, which release is run next, and what is said in the end."""

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from rich.console import Console

from lab import builds, catalog
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.builds.kinds.wheel import Wheel
from lab.plan import Cell
from lab.record import CellResult, Outcome, RunResult, Status, TestResult
from lab.report import markdown_pages
from lab.repro import answer
from lab.repro.running import SUITE_ALONE, Runner
from lab.run import scheduler
from lab.run.worker import Worker
from lab.trials import bisection
from lab.trials.bisection import Bisection, Border, ReleaseState, compare, list_failing_tests
from tests.builders.cells import changed
from tests.builders.runs import run_of

# -- the search, without any run

STATES = {"b": ReleaseState.BAD, "g": ReleaseState.GOOD, "s": ReleaseState.SKIPPED}


def search(truth: str) -> tuple[Border, list[int]]:
    """Search among releases 0, 1, ... with these states; the border, and what was tried in order."""
    releases = [str(number) for number in range(len(truth))]
    states: dict[str, ReleaseState] = {}
    border = bisection.search(releases, states)
    while border.next is not None:
        assert border.next not in states, "a release was tried twice"
        states[border.next] = STATES[truth[int(border.next)]]
        border = bisection.search(releases, states)
    return border, [int(release) for release in states]


@pytest.mark.parametrize("count", [2, 3, 4, 7, 15, 100])
def test_every_first_bad_release_is_found_in_few_steps(count: int) -> None:
    for first in range(1, count):
        border, tried = search("g" * first + "b" * (count - first))
        assert border == Border(str(first - 1), str(first))
        assert border.is_found
        assert {first - 1, first} <= set(tried), "both neighbours were tried"
        assert len(tried) <= 2 + math.ceil(math.log2(count))


@pytest.mark.parametrize(
    ("truth", "good", "bad", "between"),
    [
        # Beside the border a skipped release may be the first bad one, elsewhere it may not.
        ("ggsbb", "1", "3", ("2",)),
        ("gsssb", "0", "4", ("1", "2", "3")),
        ("ggbsb", "1", "2", ()),
        ("gsgbb", "2", "3", ()),
        ("gssgb", "3", "4", ()),
        # The oldest cannot be run, so that a newer one stands for it.
        ("sssgggbbb", "5", "6", ()),
        ("sssssbbbb", None, "5", ()),
        ("sssb", None, "3", ()),
        ("bbbbb", None, "0", ()),
        ("b", None, "0", ()),
        # The reported release is not bad.
        ("gggg", None, None, ()),
        ("gggs", None, None, ()),
    ],
)
def test_the_border_between_good_and_bad(
    truth: str, good: str | None, bad: str | None, between: tuple[str, ...]
) -> None:
    border, tried = search(truth)
    assert border == Border(good, bad, between)
    assert border.is_found is (good is not None and not between)
    assert tried[:2] == ([len(truth) - 1, 0] if bad and len(truth) > 1 else [len(truth) - 1])
    if truth == "bbbbb":
        assert tried == [4, 0], "if the first release is bad all are taken to be bad"


# -- what a cell shows

KNOWN = catalog.load_catalog()
SUITE = KNOWN.suite
JAILED = "jailer_enabled_box_starts_and_executes"
ISOLATED, OTHER = SUITE.witness, "development_mode_disables_jailer"
BOTH = [JAILED, ISOLATED]
RELEASES = ["0.9.0", "0.9.5", "0.10.0", "0.10.1", "0.10.2", "0.10.3", "0.10.4"]


def reported(version: str = "0.10.4", name: str = "") -> Cell:
    return Cell(KNOWN.guest("debian-13"), KNOWN.variant("stock"), Wheel(name or version, version))


def outcomes(*failed: str) -> list[TestResult]:
    return [
        TestResult(name=name, outcome=Outcome.FAIL if name in failed else Outcome.PASS) for name in SUITE.tests
    ]


def ran(cell: Cell, status: Status, *failed: str, cause: str | None = None, **more: Any) -> CellResult:
    tests = [] if status is Status.ERROR else outcomes(*failed)
    return changed(cell.result(status), tests=tests, cause=cause, **more)


def release(state: str, cell: Cell) -> CellResult:
    """A cell whose release is good, bad, skipped, or broken: it cannot be run at all."""
    match state:
        case "g":
            return ran(cell, Status.PASS)
        case "b":
            return ran(cell, Status.FAIL, JAILED, ISOLATED, cause="userns-sysctl", reason="it is 0")
        case "s":
            return ran(cell, Status.NOT_APPLICABLE, reason="no wheel")
    return ran(cell, Status.ERROR, reason="the machine is gone")


BAD, GOOD = release("b", reported()), release("g", reported())


@pytest.mark.parametrize(
    ("status", "failed", "cause", "state", "why"),
    [
        (Status.FAIL, BOTH, "userns-sysctl", ReleaseState.BAD, ""),
        (Status.FAIL, [JAILED, ISOLATED, SUITE.control], "userns-sysctl", ReleaseState.BAD, ""),
        (Status.PASS, [], None, ReleaseState.GOOD, ""),
        # Another test that fails does not matter; one of two that passes does.
        (Status.FAIL, [OTHER], "unknown", ReleaseState.GOOD, f"other tests fail: {OTHER}"),
        (Status.FAIL, [JAILED], "userns-sysctl", ReleaseState.SKIPPED, f"1 of the 2 tests fail: {JAILED}"),
        (
            Status.FAIL,
            BOTH,
            "kvm-denied",
            ReleaseState.SKIPPED,
            "the same tests fail for another cause: kvm-denied",
        ),
        (Status.FAIL, BOTH, None, ReleaseState.SKIPPED, "the same tests fail for no cause that the lab knows"),
        *(
            (status, BOTH, "userns-sysctl", ReleaseState.SKIPPED, str(status))
            for status in (Status.ERROR, Status.NOT_RUN, Status.FLAKY, Status.NOT_APPLICABLE)
        ),
    ],
)
def test_what_a_cell_shows_is_compared_test_by_test_and_by_its_cause(
    status: Status, failed: list[str], cause: str | None, state: ReleaseState, why: str
) -> None:
    assert compare(BAD, ran(reported(), status, *failed, cause=cause)) == (state, why)


def not_judged(version: str, *failed: str, faulty: list[str]) -> CellResult:
    """A cell that the lab could not judge for the faulty ones of its tests."""
    cell = reported(version).result(Status.ERROR, reason="no registry")
    return changed(cell, tests=outcomes(*failed), faulty=faulty)


def test_what_other_tests_of_a_cell_show_holds_though_one_could_not_be_judged() -> None:
    default = "default_security_options_enable_jailer_on_supported_platforms"
    old = not_judged("0.9.0", JAILED, default, faulty=[JAILED])
    assert list_failing_tests(old) == [default]
    assert compare(old, old) == (ReleaseState.BAD, "other tests cannot be judged: no registry")
    nothing = not_judged("0.9.5", JAILED, faulty=[JAILED])
    assert compare(old, nothing)[0] is ReleaseState.GOOD
    assert compare(old, GOOD) == (ReleaseState.GOOD, "")
    # What a fault of the lab lets fail is neither good nor bad.
    assert compare(BAD, not_judged("0.9.5", JAILED, ISOLATED, faulty=[JAILED]))[0] is ReleaseState.SKIPPED
    assert compare(BAD, not_judged("0.10.4", *BOTH, faulty=BOTH))[0] is ReleaseState.SKIPPED
    assert compare(nothing, old) == (ReleaseState.SKIPPED, "no registry")


# -- the steps


@pytest.fixture(autouse=True)
def releases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "list_releases", lambda *_: list(map(Version, RELEASES)))


def run(truth: str, version: str = "0.10.4", python: str | None = None) -> tuple[Bisection, list[str]]:
    """Run a bisection without guests over releases with these states; and the releases that were run."""
    bisected = Bisection.of(reported(version), python)
    waiting = [bisected.reported]
    names = []
    while waiting:
        cell = waiting.pop(0)
        names.append(cell.build.name)
        waiting += bisected.follow(release(truth[RELEASES.index(cell.build.name)], cell))
    return bisected, names


@pytest.mark.parametrize(
    ("truth", "version", "first_failed", "first_fixed", "result"),
    [
        (
            "ggggbbb",
            "0.10.4",
            "0.10.2",
            None,
            ["No release is newer", "first release that fails: 0.10.1, the release before it"],
        ),
        (
            "ggbbbgg",
            "0.10.1",
            "0.10.0",
            "0.10.3",
            [
                "It is mended: 0.10.4, the newest release, passes.",
                "passes again: 0.10.2, the release before it",
                "fails: 0.9.5, the release before it",
            ],
        ),
        ("ggggsbb", "0.10.4", None, None, ["", "fails is one of 0.10.2 or 0.10.3: 0.10.1 passes."]),
        ("ggggbsg", "0.10.2", "0.10.2", None, ["mended", "again is one of 0.10.3 or 0.10.4", "fails: 0.10.1"]),
        ("bbbbbbb", "0.10.3", None, None, ["not mended: 0.10.4", "before 0.10.3: 0.9.0 is the oldest"]),
        ("bbbbbbs", "0.10.3", None, None, ["No newer release", "before 0.10.3: 0.9.0 is the oldest"]),
        (
            "ssbbbbb",
            "0.10.4",
            None,
            None,
            ["", "fails, and of the older ones none could be judged (tried: 0.9.0"],
        ),
        ("ggggggg", "0.10.4", None, None, ["boxlite 0.10.4, the build of the report, shows no failure"]),
        # A host that can run nothing is given up soon.
        (
            "xxxxxxb",
            "0.10.4",
            None,
            None,
            ["did not come to its end: the machine is gone.", "", "of the older ones none could be judged"],
        ),
    ],
)
def test_what_a_bisection_finds(
    truth: str, version: str, first_failed: str | None, first_fixed: str | None, result: list[str]
) -> None:
    bisected, names = run(truth, version)
    document = bisected.document()
    assert (document["first_failed"], document["first_fixed"]) == (first_failed, first_fixed)
    assert all(words in line for words, line in zip(result, bisected.result, strict=True))
    assert bisected.not_run == [name for name in RELEASES if name not in names]


@pytest.mark.parametrize(
    ("truth", "version", "names"),
    [
        ("ggggbbb", "0.10.4", "0.10.4 0.9.0 0.10.1 0.10.3 0.10.2"),
        ("bbbbbbb", "0.10.3", "0.10.3 0.10.4 0.9.0"),
        # The newest release, and which one mended it, come before what broke it.
        ("gbbbggg", "0.10.0", "0.10.0 0.10.4 0.10.2 0.10.1 0.9.0 0.9.5"),
        ("ggggggg", "0.10.4", "0.10.4"),
        ("xxxxxxb", "0.10.4", "0.10.4 0.9.0 0.10.1 0.10.3"),
    ],
)
def test_only_releases_that_decide_something_are_run(truth: str, version: str, names: str) -> None:
    assert run(truth, version)[1] == names.split()


@pytest.mark.parametrize(
    ("count", "result"),
    [
        (0, []),
        (
            1,
            ["Whether a newer release passes is not known.", "Which release first failed is not known: 0.10.0"],
        ),
        (
            2,
            [
                "It is mended: 0.10.4",
                "passes again is one of 0.10.1, 0.10.2, 0.10.3 or 0.10.4: 0.10.0",
                "Which",
            ],
        ),
        (3, ["It is mended: 0.10.4", "passes again is one of 0.10.1 or 0.10.2: 0.10.0 fails", "Which"]),
        (5, ["It is mended: 0.10.4", "passes again: 0.10.1", "fails is one of 0.9.5 or 0.10.0: 0.9.0 passes"]),
    ],
)
def test_a_bisection_that_is_interrupted_says_what_is_known_by_then(count: int, result: list[str]) -> None:
    whole, _ = run("gbbbggg", "0.10.0")
    stopped = replace(whole, results=whole.results[:count], stopped="interrupted")
    first, *known = stopped.result
    assert first.startswith("The bisection did not come to its end: interrupted. The next release to run is 0.")
    assert len(known) == len(result)
    assert all(words in line for words, line in zip(result, known, strict=True))


def test_an_interrupted_bisection_says_how_to_go_on() -> None:
    whole, names = run("gbbbggg", "0.10.0")
    stopped = replace(whole, results=whole.results[:2], run=run_of(interrupted=True, options=SUITE_ALONE).run)
    assert names[2] == "0.10.2"
    assert stopped.result[0].endswith("interrupted. The next release to run is 0.10.2.")
    text = markdown_pages.render_template("bisection.md", answer.TEMPLATES, it=stopped)
    command = "lab matrix -g debian-13 -v stock --build 0.10.2 --no-remedies --no-experiment"
    assert f"The command that runs the next release, 0.10.2:\n\n```sh\n{command}\n```\n" in text
    assert "2 of 7 releases were\nrun; not run yet: 0.9.0, 0.9.5, 0.10.1, 0.10.2, 0.10.3." in text
    assert "The command that runs the next release" not in markdown_pages.render_template(
        "bisection.md", answer.TEMPLATES, it=whole
    )


def leave_out(monkeypatch: pytest.MonkeyPatch, *left_out: str) -> None:
    """Have these releases no wheel for the Python of the guest, which has 3.13."""

    def list_releases(*guest: str) -> list[Version]:
        assert guest in {(), ("3.13", "x86_64")}
        return [Version(name) for name in RELEASES if not guest or name not in left_out]

    monkeypatch.setattr(builds, "list_releases", list_releases)


@pytest.mark.parametrize(
    ("truth", "version", "left_out", "result"),
    [
        (
            "gbbbbgg",
            "0.10.0",
            ["0.9.5", "0.10.2"],
            [
                "It is mended: 0.10.4, the newest release, passes.",
                "boxlite 0.10.3 is the first release that passes again: 0.10.1, the release before it with a"
                " wheel for the guest, fails (without a wheel for the guest: 0.10.2).",
                "boxlite 0.10.0 is the first release that fails: 0.9.0, the release before it with a wheel for"
                " the guest, passes (without a wheel for the guest: 0.9.5).",
            ],
        ),
        # What lies elsewhere is said of no border.
        (
            "ggbbsgg",
            "0.10.0",
            ["0.9.0", "0.10.4"],
            [
                "It is mended: 0.10.3, the newest release with a wheel for the guest, passes.",
                "The first release that passes again is one of 0.10.2 or 0.10.3: 0.10.1 fails.",
                "boxlite 0.10.0 is the first release that fails: 0.9.5, the release before it, passes.",
            ],
        ),
        (
            "bbbbbbb",
            "0.10.3",
            ["0.9.0", "0.10.4"],
            [
                "No release with a wheel for the guest is newer than 0.10.3, which fails.",
                "No release is known to pass before 0.10.3: 0.9.5 is the oldest release with a wheel for the"
                " guest and fails, too.",
            ],
        ),
    ],
)
def test_releases_without_a_wheel_for_the_guest_are_left_out_and_named(
    truth: str, version: str, left_out: list[str], result: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(monkeypatch, *left_out)
    bisected, names = run(truth, version, "3.13")
    assert not set(names) & set(left_out)
    assert bisected.result == result
    assert bisected.document()["left_out"] == left_out
    text = markdown_pages.render_template("bisection.md", answer.TEMPLATES, it=bisected)
    assert f"Left out, because they have no wheel for the guest: {', '.join(left_out)}." in text


def test_a_build_without_a_place_among_releases_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no place in the order of releases"):
        Bisection.of(reported("main"))
    monkeypatch.setattr(builds, "list_releases", lambda *_: [Version("0.10.4")])
    with pytest.raises(UsageError, match=r"no release of boxlite beside 0\.10\.4"):
        Bisection.of(reported())


def test_a_build_of_ones_own_is_newer_than_the_releases_before_it() -> None:
    bisected = Bisection.of(reported("0.10.5", name="0.10.5@12345678"))
    assert bisected.releases == [*RELEASES, "0.10.5@12345678"]
    assert bisected.borders[1] is None


def test_each_release_is_run_with_the_suite_of_the_cell_that_failed() -> None:
    stopped = replace(reported(), build=reported().build.with_suite("lifecycle"))
    assert {cell.build.suite.name for cell in Bisection.of(stopped).cells} == {"lifecycle"}
    assert {cell.build.suite.name for cell in Bisection.of(reported()).cells} == {"jailer"}


def test_all_steps_are_cells_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes: list[int] = []

    def serve(worker: Worker) -> None:
        lanes.append(worker.number)
        while ticket := worker.backlog.take(worker.machine.name, worker.number):
            state = "b" if Version(ticket.cell.build.version) >= Version("0.10.3") else "g"
            worker.decisions.decide(ticket, release(state, ticket.cell))

    monkeypatch.setattr(scheduler, "hold_connection", lambda uri: nullcontext())
    monkeypatch.setattr(rootfs, "make", lambda folder, *_: folder)
    monkeypatch.setattr(Worker, "work", serve)
    paths, folder = Paths(cache=tmp_path / "cache", state=tmp_path / "state"), tmp_path / "run"
    runner = Runner(paths, "", "lab repro report.md --bisect", Console(), quiet=True)
    bisected = runner.bisected(reported(), folder, {}, None)
    assert bisected.stopped == ""
    assert lanes == [1]
    record = RunResult.read(folder)
    assert [cell.build for cell in record.cells][:2] == ["0.10.4", "0.9.0"]
    assert {cell.build for cell in bisected.results} == {cell.build for cell in record.cells}
    document = json.loads(json.dumps(bisected.document()))
    assert (document["first_failed"], document["run"]) == ("0.10.3", "run")
    step = document["steps"][0]
    assert step["state"] == "bad"
    assert step["command"] == "lab matrix -g debian-13 -v stock --build 0.10.4 --no-remedies --no-experiment"


def test_the_answer_has_every_step() -> None:
    bisected, _ = run("ggsgbbb")
    text = markdown_pages.render_template("bisection.md", answer.TEMPLATES, it=bisected)
    assert f"Compared are the tests that fail with 0.10.4: {JAILED}, {ISOLATED}.\n" in text
    assert "\nboxlite 0.10.2 is the first release that fails: " in text
    assert "| 1 | 0.10.4 (reported) | bad | fail | userns-sysctl | 0 | it is 0 |" in text
    assert "not run, because the answer does not depend on them if they behave like their neighbours: " in text
    assert "lab matrix" not in text, "no cell of this test has a command"
