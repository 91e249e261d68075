"""Cells whose suites have run and on which hosts only make trials: what is sent, and what is taken back."""

import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.base.files import bounded
from lab.evidence import PROBES_FILE, read_probes
from lab.fleet import part as parts
from lab.fleet.archive import DamagedResult
from lab.fleet.events import Event, EventLines
from lab.fleet.merging import Merger
from lab.fleet.names import LaneNames
from lab.fleet.part import Part, Refused
from lab.fleet.trials import Known, Shown
from lab.plan import Cell
from lab.record import (
    CellResult,
    Confidence,
    Experiment,
    ExperimentPolicy,
    Finding,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RunInfo,
    RunOptions,
    RunResult,
    Status,
    TestResult,
)
from lab.run.journal import Journal
from lab.run.labels import Labels
from tests.unit.examples import facts, probe, probed
from tests.unit.run_examples import KNOWN, PLAN, SMALL, begin
from tests.unit.told import Told

OPTIONS = RunOptions(remedies=True, experiments=ExperimentPolicy.UNCLEAR)
# The cell whose suite failed, and one of the same guest that passed.
FAILED, PASSED = SMALL[1], SMALL[0]
LIKELY = Finding(name="userns-limit", confidence=Confidence.LIKELY, why="it says so")
PROVED = LIKELY.model_copy(update={"confidence": Confidence.PROVED, "why": "it says so; by experiment, ..."})
TURNING = Experiment(tests=["b"], turning=[["a change"]])


def suite_ran(cell: Cell = FAILED, **update: Any) -> CellResult:
    """What is known of a cell whose trials were interrupted."""
    tests = [
        TestResult(name="a", outcome=Outcome.PASS, seconds=1.0),
        TestResult(name="b", outcome=Outcome.FAIL, message="no namespace " * 10_000),
    ]
    own = {
        "tests": tests,
        "cause": LIKELY.name,
        "confidence": Confidence.LIKELY,
        "causes": [LIKELY],
        "facts": facts(),
        "seconds": {"suite": 9.5},
        "lane": "one: debian-12",
        "retried": ["no SSH"],
        "unfinished": True,
    }
    return cell.result(Status.XFAIL, reason="it is blocked").model_copy(update={**own, **update})


def remedy(outcome: RemedyOutcome = RemedyOutcome.VERIFIED) -> RemedyResult:
    return RemedyResult(name="a", result=outcome, price="")


class Resumed:
    """A run that is resumed with one cell of which only trials are left, and what hosts send of it."""

    def __init__(self, folder: Path, known: CellResult | None = None) -> None:
        self.folder, self.labels, self.told = folder, Labels(), Told()
        planned = begin(folder / "run", SMALL, options=OPTIONS)
        self.info: RunInfo = planned.info
        self.known = known or suite_ran()
        passed = PASSED.result(Status.PASS).model_copy(update={"facts": facts(), "reason": "long"})
        kept = {each.folder: each for each in (self.known, passed)}
        self.journal = Journal(planned.folder, planned.cells, planned.info, kept)
        self.own = planned.folder / FAILED.folder
        self.put(self.own, "kernel.log", "of the suite")
        self.put(self.own, PROBES_FILE, probed({"unshare_user": probe(1)}).model_dump_json())
        self.merger = Merger(self.journal, self.told, {FAILED.folder})

    @staticmethod
    def put(folder: Path, name: str, text: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    @property
    def what_is_told(self) -> Known:
        """What a host gets, as it arrives there."""
        sent = Part.of("run", 1, [FAILED], OPTIONS, None, Known.of([FAILED], self.journal))
        return Part.read(sent.model_dump_json()).known

    def host_makes(self, *, has_ended: bool = True, interrupted: bool = False, **update: Any) -> RunResult:
        """What the child of a host leaves in the folder `host`."""
        [result] = self.what_is_told.results.values()
        made = {"unfinished": False, "trials_lane": "debian-12", "remedies": [remedy()]}
        info = self.info.model_copy(
            update={"finished": datetime.now(UTC) if has_ended else None, "interrupted": interrupted}
        )
        self.put(self.folder / "host" / FAILED.folder, "remedies/a/a.log", "a new one")
        sent = RunResult(run=info, cells=[result.model_copy(update=made | update)])
        return RunResult.model_validate_json(sent.model_dump_json(by_alias=True))

    def take(
        self, sent: RunResult, faults: Sequence[str] = (), shown: dict[Path, CellResult] | None = None
    ) -> CellResult:
        names = LaneNames("two", self.labels)
        shown = Known.of([FAILED], self.journal).results if shown is None else shown
        self.merger.take([FAILED], sent, self.folder / "host", names, faults, shown)
        return self.result

    @property
    def result(self) -> CellResult:
        return self.journal.result().cells[1]

    def files(self) -> list[str]:
        return sorted(str(file.relative_to(self.own)) for file in self.own.rglob("*") if file.is_file())


@pytest.fixture
def resumed(tmp_path: Path) -> Resumed:
    return Resumed(tmp_path)


def test_a_host_is_told_what_the_suite_showed_and_runs_only_trials(resumed: Resumed, tmp_path: Path) -> None:
    part = Part.of("run", 1, [FAILED], OPTIONS, None, resumed.what_is_told)
    assert Part.read(part.model_dump_json()) == part
    planned = part.plan(tmp_path / "part", KNOWN)
    assert [cell.folder for cell in planned.left] == [FAILED.folder]
    kept = planned.kept[FAILED.folder]
    assert kept.has_more_to_try
    assert [(test.name, test.outcome) for test in kept.tests] == [("a", Outcome.PASS), ("b", Outcome.FAIL)]
    assert (kept.causes, kept.facts, kept.reason) == ([LIKELY], facts(), "it is blocked")
    part.known.put_evidence(planned.folder)
    found = read_probes(planned.folder / FAILED.folder / PROBES_FILE)
    assert found == read_probes(resumed.own / PROBES_FILE)


def test_an_experiment_is_told_the_facts_of_the_nearest_passing_cell(resumed: Resumed, tmp_path: Path) -> None:
    [passing] = resumed.what_is_told.passing
    assert (passing.folder, passing.facts, passing.reason) == (PASSED.folder, facts(), "")
    planned = Part.of("run", 1, [FAILED], OPTIONS, None, resumed.what_is_told).plan(tmp_path / "part", KNOWN)
    journal = Journal(planned.folder, planned.cells, planned.info, planned.kept)
    assert journal.passing(FAILED.build) == [passing]
    assert [cell.folder for cell in journal.result().cells] == [FAILED.folder]


def test_without_an_experiment_no_other_cell_is_sent(tmp_path: Path) -> None:
    proved = suite_ran(causes=[PROVED], confidence=Confidence.PROVED)
    assert Resumed(tmp_path, proved).what_is_told.passing == []


def test_what_is_sent_is_small_whatever_the_suite_said(resumed: Resumed) -> None:
    assert len(resumed.known.model_dump_json()) > 100_000
    assert len(resumed.what_is_told.model_dump_json()) < 20_000


def test_the_result_of_a_cell_of_another_part_is_refused(resumed: Resumed, tmp_path: Path) -> None:
    part = Part.of("run", 1, [PLAN[-1]], OPTIONS, None, resumed.what_is_told)
    with pytest.raises(Refused, match="the result of a cell that is not one of its own"):
        part.plan(tmp_path / "part", KNOWN)


def test_trials_join_what_the_suite_showed(resumed: Resumed) -> None:
    made = resumed.take(resumed.host_makes(retried=["a helper died"]), ["one was lost"])
    assert made.remedies == [remedy()]
    assert made.lanes == ("one: debian-12", "two: debian-12")
    assert made.retried == ["no SSH", "one was lost", "a helper died"]
    assert not made.has_more_to_try
    of_trials = {"remedies", "trials_lane", "retried", "unfinished", "evidence", "rerun"}
    assert made.model_dump(exclude=of_trials) == resumed.known.model_dump(exclude=of_trials)
    assert not resumed.merger.is_open(FAILED)
    assert resumed.told.cells == [made]


def test_evidence_of_the_suite_stays_and_that_of_the_trials_is_the_new_one(resumed: Resumed) -> None:
    for name in ("remedies/old/old.log", "experiment/01/old.log", "fault-1/console.log"):
        resumed.put(resumed.own, name, "of before")
    sent = resumed.host_makes()
    host = resumed.folder / "host" / FAILED.folder
    for name in ("kernel.log", PROBES_FILE, "more.log", "boxlite/forged.log", "fault-1/console.log"):
        resumed.put(host, name, "of the host")
    made = resumed.take(sent)
    own = ["fault-1/console.log", "fault-2/console.log", "kernel.log", PROBES_FILE, "remedies/a/a.log"]
    assert resumed.files() == own
    assert made.evidence == [f"{FAILED.folder}/{name}" for name in own]
    assert (resumed.own / "kernel.log").read_text() == "of the suite"
    assert (resumed.own / PROBES_FILE).read_text() != "of the host"
    assert (resumed.own / "fault-1/console.log").read_text() == "of before"


def test_a_remedy_that_was_tried_before_is_not_tried_again_and_keeps_its_evidence(tmp_path: Path) -> None:
    tried = [remedy().model_copy(update={"name": name}) for name in ("b", "a")]
    resumed = Resumed(tmp_path, suite_ran(remedies=tried[:1]))
    for name in ("b", "old"):
        resumed.put(resumed.own, f"remedies/{name}/suite.log", "of before")
    assert [each.remedies for each in resumed.what_is_told.results.values()] == [tried[:1]]
    sent = resumed.host_makes(remedies=tried)
    resumed.put(resumed.folder / "host" / FAILED.folder, "remedies/b/suite.log", "forged")
    assert resumed.take(sent).remedies == tried
    assert [name for name in resumed.files() if "remedies" in name] == [
        "remedies/a/a.log",
        "remedies/b/suite.log",
    ]
    assert (resumed.own / "remedies/b/suite.log").read_text() == "of before"


def test_an_experiment_that_found_something_is_not_made_again(tmp_path: Path) -> None:
    resumed = Resumed(tmp_path, suite_ran(experiment=TURNING))
    resumed.put(resumed.own, "experiment/01/old.log", "of before")
    made = resumed.take(resumed.host_makes())
    assert made.experiment == TURNING
    assert "experiment/01/old.log" in resumed.files()
    with pytest.raises(DamagedResult, match="another experiment than before"):
        resumed.take(resumed.host_makes(experiment=None))


FORGED: list[dict[str, Any]] = [
    {"status": Status.PASS},
    {"status": Status.NOT_RUN, "reason": "interrupted"},
    {"tests": [TestResult(name="a", outcome=Outcome.PASS), TestResult(name="b", outcome=Outcome.PASS)]},
    {"cause": "kvm-absent"},
    {"facts": None},
    {"seconds": {"suite": 1.0}},
    {"lane": "debian-12"},
    {"causes": []},
    {"causes": [PROVED]},
    {"reason": "it is something else"},
    {"confidence": Confidence.PROVED},
    # An experiment adds to causes and reasons; it takes none of them back.
    {"causes": [], "experiment": TURNING},
    {"reason": "it is something else", "experiment": TURNING},
]


@pytest.mark.parametrize("update", FORGED, ids=lambda update: bounded(str(update), 40))
def test_a_host_cannot_change_what_the_suite_showed(resumed: Resumed, update: dict[str, Any]) -> None:
    before, files = resumed.result, resumed.files()
    with pytest.raises(DamagedResult, match=r"did not show what it showed before|which no experiment proved"):
        resumed.take(resumed.host_makes(**update))
    assert (resumed.result, resumed.files()) == (before, files)
    assert resumed.merger.is_open(FAILED)


def test_what_an_experiment_proved_is_taken(resumed: Resumed) -> None:
    proved: dict[str, Any] = {
        "causes": [PROVED],
        "confidence": Confidence.PROVED,
        "reason": "it is blocked; by experiment, ...",
    }
    made = resumed.take(resumed.host_makes(experiment=TURNING, **proved))
    assert (made.causes, made.confidence, made.reason) == ([PROVED], "proved", proved["reason"])
    assert (made.status, made.tests) == (resumed.known.status, resumed.known.tests)


def test_a_cell_that_was_not_given_out_for_trials_keeps_its_result(resumed: Resumed) -> None:
    before, files = resumed.result, resumed.files()
    resumed.take(resumed.host_makes(), shown={})
    assert (resumed.result, resumed.files()) == (before, files)


@pytest.mark.parametrize("how", [{"has_ended": False}, {"interrupted": True}])
def test_trials_that_were_ended_are_left_for_another_host(resumed: Resumed, how: dict[str, bool]) -> None:
    before, files = resumed.result, resumed.files()
    resumed.take(resumed.host_makes(**how, unfinished=True, remedies=[]))
    assert (resumed.result, resumed.files()) == (before, files)
    assert resumed.merger.is_open(FAILED)
    assert (resumed.merger.decided, resumed.told.cells) == (1, [])


def test_trials_that_a_host_could_not_make_are_left_for_a_later_run(resumed: Resumed) -> None:
    sent = resumed.host_makes(unfinished=True, remedies=[])
    resumed.put(resumed.folder / "host" / FAILED.folder, "fault-1/console.log", "no boot")
    made = resumed.take(sent, ["one was lost"])
    assert made.has_more_to_try
    assert (made.remedies, made.retried) == ([], ["no SSH", "one was lost"])
    assert resumed.files() == ["fault-1/console.log", "kernel.log", PROBES_FILE]
    assert not resumed.merger.is_open(FAILED)


def test_a_suite_whose_child_was_ended_in_its_trials_is_taken_and_they_are_left(resumed: Resumed) -> None:
    cell = SMALL[2]
    info = resumed.info.model_copy(update={"finished": None})
    result = suite_ran(cell, lane="debian-13", retried=[])
    resumed.put(resumed.folder / "host" / cell.folder, "kernel.log", "of the suite")
    sent, names = RunResult(run=info, cells=[result]), LaneNames("two", resumed.labels)
    resumed.merger.take([cell], sent, resumed.folder / "host", names)
    assert (resumed.merger.is_open(cell), resumed.journal.is_decided(cell)) == (True, True)
    assert (resumed.merger.decided, resumed.told.cells) == (1, [])
    assert Known.of([cell], resumed.journal).results.keys() == {cell.folder}


@pytest.mark.parametrize(
    "end",
    [
        lambda merger: merger.give_up([FAILED], ["one was lost", "two was lost"]),
        lambda merger: merger.decide([FAILED], Status.NOT_RUN, "no host was there"),
    ],
)
def test_a_cell_whose_trials_no_host_can_make_keeps_its_result(
    resumed: Resumed, end: Callable[[Merger], None]
) -> None:
    end(resumed.merger)
    kept = {"status", "reason", "tests", "causes", "unfinished", "lane"}
    assert resumed.result.model_dump(include=kept) == resumed.known.model_dump(include=kept)
    assert resumed.told.noted("max-userns-zero: remedies or experiments are left to be tried: ")
    assert not resumed.merger.is_open(FAILED)


def test_trials_are_timed_without_their_suite() -> None:
    often = OPTIONS.model_copy(update={"repeat": 50})
    for cell in SMALL:
        assert 0 < parts.typical_seconds(cell, often, suite_ran=True) < 200.0
    assert len(parts.cut(SMALL[:2], often, 300.0, lambda cell: True)) == 1
    assert len(parts.cut(SMALL[:2], often, 300.0)) == 2


def test_without_a_file_of_probes_none_is_put_in_place(tmp_path: Path) -> None:
    shown = Shown.of(suite_ran(), tmp_path)
    shown.put_evidence(tmp_path)
    assert (shown.probes, list(tmp_path.iterdir())) == (None, [])


def test_a_child_tells_the_lane_that_made_the_trials() -> None:
    stream = io.StringIO()
    EventLines(stream).cell(suite_ran(lane="", trials_lane="debian-12"))
    told = Event.read(stream.getvalue())
    assert told is not None
    assert told.lane == "debian-12"
