"""The one way to try something in a fork, with attempts that are made up."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.base.errors import LabError, NotApplicable
from lab.guest.variant import NotInEffect
from lab.lane.cell import choose_fault_folder, clear_attempt, set_attempt_aside
from lab.lane.running import RunningLane
from lab.machine.lane import LaneDied
from lab.record import Fault, RemedyOutcome
from lab.trials.fork import Conclusion, Tries
from tests.builders.lanes import EMULATION, KVM, Bench

HELPS, NOT, CANNOT, ERROR = (
    RemedyOutcome.VERIFIED,
    RemedyOutcome.DOES_NOT_HELP,
    RemedyOutcome.CANNOT,
    RemedyOutcome.ERROR,
)
Outcome = tuple[RemedyOutcome, str]
BROKE, NOT_SO = LabError("SSH broke"), NotInEffect("variant not in effect: no")


@dataclass
class Scripted:
    """Attempts that end as the steps say, one after another; `folders` are those they were made for.

    `alone`: whether no other lane was at work then.
    """

    running: RunningLane
    steps: list[Outcome | Exception]
    folders: list[str] = field(default_factory=list)
    alone: list[bool] = field(default_factory=list)

    def begin(self, folder: Path) -> "Step":
        self.folders.append(folder.name)
        return Step(self.steps.pop(0), folder, lambda: self.alone.append(self.running.alone))


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
def running(bench: Bench) -> RunningLane:
    return bench.service(stores=False)


def settle(
    running: RunningLane,
    *steps: Outcome | Exception,
    retries: int = 0,
    impossible: tuple[type[Exception], ...] = (NotApplicable,),
) -> tuple[Conclusion[RemedyOutcome, Step], Scripted, Tries[RemedyOutcome]]:
    tries = Tries(running, retries, CANNOT, ERROR, impossible)
    scripted = Scripted(running, list(steps))
    tried = tries.run(
        scripted.begin, running.work.folder / "try", is_surprising=lambda outcome, *_: outcome is NOT
    )
    return tried, scripted, tries


NEW_FAULT = "a second try, after does not help: a, met a fault: "
THREE = "three tries disagree: does not help: a; verified; "
TWO_OF_THREE = "in two of three tries under emulation; once: "


@pytest.mark.parametrize(
    ("emulated", "retries", "steps", "outcome", "reason", "retried"),
    [
        (True, 0, [(HELPS, "it does")], HELPS, "it does", []),
        (True, 2, [NotApplicable("no podman")], CANNOT, "no podman", []),
        # It would be the same in another fork.
        (True, 3, [NOT_SO], ERROR, "variant not in effect: no", []),
        # A surprise counts only if a second fork agrees.
        (False, 0, [(NOT, "a"), (NOT, "b")], NOT, "twice: a", []),
        (False, 0, [(NOT, "a"), (HELPS, "")], ERROR, "two tries disagree: does not help: a; verified", []),
        (False, 0, [(NOT, "a"), BROKE], ERROR, f"{NEW_FAULT}SSH broke", []),
        # Under emulation a third fork decides between two that disagree, but for a fault.
        (True, 0, [(NOT, "a"), BROKE], ERROR, f"{NEW_FAULT}SSH broke", []),
        (True, 0, [(NOT, "a"), (HELPS, ""), (HELPS, "")], HELPS, f"{TWO_OF_THREE}does not help: a", []),
        (True, 0, [(NOT, "a"), (HELPS, ""), (NOT, "b")], NOT, f"b ({TWO_OF_THREE}verified)", []),
        (True, 0, [(NOT, "a"), (HELPS, ""), (CANNOT, "c")], ERROR, f"{THREE}cannot be tried here: c", []),
        (True, 0, [(NOT, "a"), (HELPS, ""), BROKE], ERROR, f"{THREE}error: SSH broke", []),
        # Faults are tried again, and those of all looks count together.
        (True, 2, [BROKE, (ERROR, "too slow"), (HELPS, "")], HELPS, "", ["SSH broke", "too slow"]),
        (True, 1, [BROKE, (NOT, "a"), LabError("2")], ERROR, f"{NEW_FAULT}2", ["SSH broke"]),
    ],
)
def test_what_comes_of_tries(
    running: RunningLane,
    emulated: bool,
    retries: int,
    steps: list[Outcome | Exception],
    outcome: RemedyOutcome,
    reason: str,
    retried: list[str],
) -> None:
    running.lane.acceleration = EMULATION if emulated else KVM
    tried, scripted, tries = settle(running, *steps, retries=retries)
    assert (tried.outcome, tried.reason, tries.retried) == (outcome, reason, retried)
    looks = len(scripted.folders) - len(retried)
    assert len(tried.attempts) == looks
    assert [*dict.fromkeys(scripted.folders)] == ["try", "again"][:looks]
    assert tried.attempt.folder == running.work.folder.joinpath("try", *["again"] * (looks - 1))


def test_an_attempt_that_was_too_slow_is_repeated_while_no_other_lane_is_at_work(running: RunningLane) -> None:
    tried, scripted, _ = settle(running, (ERROR, Fault.TOO_SLOW), (HELPS, ""), retries=1)
    assert (tried.outcome, scripted.alone) == (HELPS, [False, True])
    # The evidence of a fault is set aside.
    assert (running.work.folder / "try/fault-1/suite.log").is_file()
    _, scripted, _ = settle(running, BROKE, (HELPS, ""), retries=1)
    assert (scripted.alone, running.alone) == ([False, False], False)


def test_what_says_that_something_cannot_be_tried_depends_on_what_is_tried(running: RunningLane) -> None:
    assert settle(running, NOT_SO, impossible=(NotApplicable, NotInEffect))[0].outcome is CANNOT


def test_a_dead_machine_ends_all_tries_and_an_interrupt_is_no_outcome(
    bench: Bench, running: RunningLane
) -> None:
    with pytest.raises(LaneDied):
        bench.lane.die()
    tried, scripted, tries = settle(running, (HELPS, ""), retries=3)
    assert (tried.outcome, tried.reason.splitlines()[0]) == (ERROR, "the machine is gone")
    assert (len(scripted.folders), tries.retried) == (1, [])
    bench.lane.when.clear()
    bench.lane.given_up = True
    with pytest.raises(LaneDied, match="given up"):
        settle(running, BROKE, retries=3)


# -- what attempts left


def left_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_all_that_a_try_left_is_kept_beside_the_faults_before(tmp_path: Path) -> None:
    write(tmp_path, "kernel.log", "boxlite/box-a/logs/boxlite.log")
    set_attempt_aside(tmp_path, choose_fault_folder(tmp_path))
    write(tmp_path, "kernel.log", "boxlite/box-b/logs/boxlite.log")
    set_attempt_aside(tmp_path, choose_fault_folder(tmp_path))
    assert left_in(tmp_path) == [
        "fault-1/boxlite/box-a/logs/boxlite.log",
        "fault-1/kernel.log",
        "fault-2/boxlite/box-b/logs/boxlite.log",
        "fault-2/kernel.log",
    ]
    assert choose_fault_folder(tmp_path) == tmp_path / "fault-3"


def test_what_a_try_left_is_cleared_but_for_the_evidence_of_its_fault(tmp_path: Path) -> None:
    write(tmp_path / "cell", "kernel.log", "repeat-2/kernel.log", "fault-1/console.log", "fault-2/console.log")
    clear_attempt(tmp_path / "cell")
    assert sorted(path.name for path in (tmp_path / "cell").iterdir()) == ["fault-1", "fault-2"]
    assert (tmp_path / "cell" / "fault-1" / "console.log").exists()
    clear_attempt(tmp_path / "never")
    assert not (tmp_path / "never").exists()
