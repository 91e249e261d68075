"""The one way to try something in a fork, with attempts that are made up."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import LabError, NotApplicable
from lab.guest.variant import NotInEffect
from lab.lane.cell import clear, fault_folder, set_aside
from lab.machine.lane import LaneDied
from lab.record import Fault, RemedyOutcome
from lab.trials.fork import Tried, Tries
from tests.builders.facts import facts
from tests.builders.guests import FakeRunner

HELPS, NOT, CANNOT, ERROR = (
    RemedyOutcome.VERIFIED,
    RemedyOutcome.DOES_NOT_HELP,
    RemedyOutcome.CANNOT,
    RemedyOutcome.ERROR,
)
Outcome = tuple[RemedyOutcome, str]


@dataclass
class Scripted:
    """Attempts that end as the steps say, one after another; `folders` are those they were made for.

    `alone`: whether no other lane was at work then.
    """

    runner: FakeRunner
    steps: list[Outcome | Exception]
    folders: list[str] = field(default_factory=list)
    alone: list[bool] = field(default_factory=list)

    def begin(self, folder: Path) -> "Step":
        self.folders.append(folder.name)
        return Step(self.steps.pop(0), folder, lambda: self.alone.append(self.runner.alone))


@dataclass
class Step:
    ends: Outcome | Exception
    folder: Path
    runs: Callable[[], None]
    fault: Fault | None = None

    def run(self) -> Outcome:
        self.runs()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "suite.log").write_text(str(self.ends))
        if isinstance(self.ends, Exception):
            raise self.ends
        self.fault = Fault(self.ends[1]) if self.ends[1] in list(Fault) else None
        return self.ends


@pytest.fixture
def runner(tmp_path: Path) -> FakeRunner:
    return FakeRunner(tmp_path, facts())


def settle(
    runner: FakeRunner,
    *steps: Outcome | Exception,
    retries: int = 0,
    impossible: tuple[type[Exception], ...] = (NotApplicable,),
) -> tuple[Tried[RemedyOutcome, Step], Scripted, Tries[RemedyOutcome]]:
    stands_for: Any = runner
    tries = Tries(stands_for, retries, CANNOT, ERROR, impossible)
    scripted = Scripted(runner, list(steps))
    tried = tries.run(scripted.begin, runner.folder / "try", is_surprising=lambda outcome, *_: outcome is NOT)
    return tried, scripted, tries


def test_what_does_not_surprise_is_tried_once(runner: FakeRunner) -> None:
    tried, scripted, tries = settle(runner, (HELPS, "it does"))
    assert (tried.outcome, tried.reason, len(tried.attempts)) == (HELPS, "it does", 1)
    assert (scripted.folders, tries.retried) == (["try"], [])


@pytest.mark.parametrize(
    ("second", "outcome", "reason"),
    [
        ((NOT, "b"), NOT, "twice: a"),
        ((HELPS, ""), ERROR, "two tries disagree: does not help: a; verified"),
        (LabError("SSH broke"), ERROR, "a second try, after does not help: a, met a fault: SSH broke"),
    ],
)
def test_a_surprise_counts_only_if_a_second_fork_agrees(
    runner: FakeRunner, second: Outcome | Exception, outcome: RemedyOutcome, reason: str
) -> None:
    runner.is_emulated = False
    tried, scripted, _ = settle(runner, (NOT, "a"), second)
    assert (tried.outcome, tried.reason, len(tried.attempts)) == (outcome, reason, 2)
    assert scripted.folders == ["try", "again"]
    assert tried.attempt.folder == runner.folder / "try" / "again"


TWO_OF_THREE = "in two of three tries under emulation; once: "


@pytest.mark.parametrize(
    ("third", "outcome", "reason"),
    [
        ((HELPS, ""), HELPS, f"{TWO_OF_THREE}does not help: a"),
        ((NOT, "b"), NOT, f"b ({TWO_OF_THREE}verified)"),
        ((CANNOT, "c"), ERROR, "three tries disagree: does not help: a; verified; cannot be tried here: c"),
        (LabError("SSH broke"), ERROR, "three tries disagree: does not help: a; verified; error: SSH broke"),
    ],
)
def test_under_emulation_a_third_fork_decides_between_two_that_disagree(
    runner: FakeRunner, third: Outcome | Exception, outcome: RemedyOutcome, reason: str
) -> None:
    tried, scripted, _ = settle(runner, (NOT, "a"), (HELPS, ""), third)
    assert (tried.outcome, tried.reason, len(tried.attempts)) == (outcome, reason, 3)
    assert scripted.folders == ["try", "again", "again"]
    assert tried.attempt.folder == runner.folder / "try" / "again" / "again"


def test_an_attempt_that_was_too_slow_is_repeated_while_no_other_lane_is_at_work(runner: FakeRunner) -> None:
    tried, scripted, _ = settle(runner, (ERROR, Fault.TOO_SLOW), (HELPS, ""), retries=1)
    assert (tried.outcome, scripted.alone) == (HELPS, [False, True])
    _, scripted, _ = settle(runner, LabError("SSH broke"), (HELPS, ""), retries=1)
    assert (scripted.alone, runner.alone) == ([False, False], False)


def test_a_fault_in_the_second_look_is_no_disagreement(runner: FakeRunner) -> None:
    tried, scripted, _ = settle(runner, (NOT, "a"), LabError("SSH broke"))
    assert (tried.outcome, len(scripted.folders)) == (ERROR, 2)


def test_a_fault_is_tried_again_in_another_fork_and_its_evidence_set_aside(runner: FakeRunner) -> None:
    tried, _, tries = settle(runner, LabError("SSH broke"), (ERROR, "too slow"), (HELPS, ""), retries=2)
    assert (tried.outcome, tries.retried) == (HELPS, ["SSH broke", "too slow"])
    folder = runner.folder / "try"
    assert sorted(entry.name for entry in folder.iterdir()) == ["fault-1", "fault-2", "suite.log"]
    assert (folder / "fault-1" / "suite.log").read_text() == "SSH broke"


def test_faults_of_both_looks_count_together(runner: FakeRunner) -> None:
    steps: list[Outcome | Exception] = [LabError("one"), (NOT, "a"), LabError("two"), (NOT, "a")]
    tried, _, tries = settle(runner, *steps, retries=1)
    assert (tried.outcome, tries.retried) == (ERROR, ["one"])
    assert tried.reason == "a second try, after does not help: a, met a fault: two"


def test_what_is_not_applicable_cannot_be_tried(runner: FakeRunner) -> None:
    tried, _, _ = settle(runner, NotApplicable("no podman"), retries=2)
    assert (tried.outcome, tried.reason) == (CANNOT, "no podman")


def test_a_variant_that_is_not_in_effect_is_a_fault(runner: FakeRunner) -> None:
    error = NotInEffect("variant not in effect: no")
    assert settle(runner, error)[0].outcome is ERROR
    assert settle(runner, error, impossible=(NotApplicable, NotInEffect))[0].outcome is CANNOT


def test_a_variant_that_is_not_in_effect_is_not_tried_in_another_fork(runner: FakeRunner) -> None:
    tried, scripted, tries = settle(runner, NotInEffect("variant not in effect: no"), retries=3)
    assert (tried.outcome, tried.reason) == (ERROR, "variant not in effect: no")
    assert (scripted.folders, tries.retried) == (["try"], [])


def test_on_a_dead_machine_nothing_is_tried_or_repeated(runner: FakeRunner) -> None:
    runner.alive = False
    tried, scripted, tries = settle(runner, (HELPS, ""), retries=3)
    assert (tried.outcome, tried.reason.splitlines()[0]) == (ERROR, "the machine is gone")
    assert (len(scripted.folders), tries.retried) == (1, [])


def test_an_interrupt_is_no_outcome(runner: FakeRunner) -> None:
    runner.given_up = True
    with pytest.raises(LaneDied, match="given up"):
        settle(runner, LabError("SSH broke"), retries=3)


# -- what attempts left


def left_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_all_that_a_try_left_is_kept_beside_the_faults_before(tmp_path: Path) -> None:
    write(tmp_path, "kernel.log", "boxlite/box-a/logs/boxlite.log")
    set_aside(tmp_path, fault_folder(tmp_path))
    write(tmp_path, "kernel.log", "boxlite/box-b/logs/boxlite.log")
    set_aside(tmp_path, fault_folder(tmp_path))
    assert left_in(tmp_path) == [
        "fault-1/boxlite/box-a/logs/boxlite.log",
        "fault-1/kernel.log",
        "fault-2/boxlite/box-b/logs/boxlite.log",
        "fault-2/kernel.log",
    ]
    assert fault_folder(tmp_path) == tmp_path / "fault-3"


def test_what_a_try_left_is_cleared_but_for_the_evidence_of_its_fault(tmp_path: Path) -> None:
    for name in ("kernel.log", "repeat-2/kernel.log", "fault-1/console.log", "fault-2/console.log"):
        file = tmp_path / "cell" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    clear(tmp_path / "cell")
    assert sorted(path.name for path in (tmp_path / "cell").iterdir()) == ["fault-1", "fault-2"]
    assert (tmp_path / "cell" / "fault-1" / "console.log").exists()
    clear(tmp_path / "never")
    assert not (tmp_path / "never").exists()
