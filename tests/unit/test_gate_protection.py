"""The gate and boxes that work and are less protected than before."""

from pathlib import Path
from typing import Any

import pytest

from lab.gate import baseline
from lab.gate.compare import Difference, compare
from lab.gate.decision import Gate, decide
from lab.gate.expectations import ExpectedFailure, Judgement
from lab.record import CellResult, Outcome, Protection, Status
from lab.report import compare as shown
from tests.builders.cells import JAILED, compared, done, side


def boxed(status: Status = Status.PASS, guest: str = "debian-13", **other: Any) -> CellResult:
    """A cell whose test `starts` had a box that was confined like JAILED, but for `other`."""
    cell = done(status, guest=guest)
    seen = Protection.model_validate(JAILED | other)
    tests = [
        test.model_copy(update={"protection": seen if test.outcome is Outcome.PASS else None})
        for test in cell.tests
    ]
    return cell.model_copy(update={"tests": tests})


def test_a_box_that_lost_protection_blocks_although_it_works() -> None:
    comparison = compare(side(boxed()), side(boxed(seccomp=["off"], mounts=["/ rw", "/usr rw"])))
    [found] = comparison.cells
    assert found.difference is Difference.LESS_PROTECTED
    assert found.protection == [
        "the box of control, starts, isolates lacks seccomp filter, a /usr that is not writable"
    ]
    decision = decide(comparison)
    assert (decision.gate, decision.exit_status) == (Gate.BLOCKED, 1)
    assert shown.verdict(decision) == "gate blocked: 1 less protected"
    page = shown.render(comparison, decision)
    assert "- less protected: the box of control, starts, isolates lacks seccomp filter" in page


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {}),
        ({"seccomp": ["off"], "mounts": [*JAILED["mounts"], "/etc rw"]}, {}),  # It is better protected.
        ({}, {"seccomp": ["not told by the kernel"]}),
        ({"seccomp": ["not told by the kernel"]}, {"seccomp": ["off"]}),
        # One that shares the host's mounts has none of its own that could be writable.
        ({"namespaces": [], "mounts": []}, {"mounts": ["/ rw", "/usr rw"]}),
    ],
)
def test_no_less_protection_is_no_difference(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert compared(boxed(**old), boxed(**new)).difference is Difference.UNCHANGED


def test_only_boxes_that_worked_on_both_sides_are_compared() -> None:
    """In a cell that fails now, the failure is the difference; what its control box lost is told with it."""
    weak: dict[str, Any] = {"seccomp": ["off"]}
    assert compared(done(Status.PASS), boxed(**weak)).difference is Difference.UNCHANGED
    assert compared(boxed(), done(Status.PASS)).difference is Difference.UNCHANGED
    regressed = compared(boxed(), boxed(Status.FAIL, **weak))
    assert regressed.difference is Difference.REGRESSED
    assert regressed.protection == ["the box of control lacks seccomp filter"]
    assert compared(boxed(Status.XFAIL), boxed(**weak)).difference is Difference.LESS_PROTECTED


@pytest.mark.parametrize("status", [Status.PASS, Status.FAIL])
def test_an_expected_failure_excuses_no_loss_of_protection(status: Status) -> None:
    values = {"cause": "userns-limit", "bug": "https://b/1", "reason": "r", "owner": "o", "until": "1.0"}
    expected = ExpectedFailure.model_validate(values | {"guest": "debian-13", "variant": "stock"})
    known = Judgement(covered={("debian-13", "stock"): expected})
    weak: dict[str, Any] = {"seccomp": ["off"]}
    comparison = compare(side(boxed(status)), side(boxed(Status.FAIL, **weak)))
    assert decide(comparison, known).gate is Gate.BLOCKED
    assert decide(compare(side(boxed(status)), side(boxed(Status.FAIL))), known).gate is Gate.PASSED


def test_a_limit_that_was_asked_for_and_is_not_kept_any_more_is_lost() -> None:
    asked: dict[str, Any] = {"asked": {"max_open_files": 1024}, "own_limits": ["open files"]}
    [lost] = compared(boxed(**asked), boxed(**asked, limits={"open files": "4096"})).protection
    assert lost.endswith("lacks limit asked for by max_open_files")


def test_a_baseline_keeps_what_confines_boxes_once_for_all_cells(tmp_path: Path) -> None:
    guests = ("debian-12", "debian-13", "debian-14")
    old = side(*(boxed(guest=guest) for guest in guests), boxed(guest="fedora-44", cgroup=None))
    text = baseline.render(old)
    assert text.count("seccomp filter") == 2 * 3  # Two kinds of cells, each with three tests.
    assert len({line for line in text.splitlines() if line.startswith("stock = ")}) == 2
    file = tmp_path / "baseline.toml"
    baseline.write(old, file)
    assert [cell.protection for cell in baseline.read(file).cells.values()] == [
        cell.protection for cell in old.cells.values()
    ]
    weak = side(*(boxed(guest=guest, seccomp=["off"]) for guest in guests))
    found = {cell.guest: cell.difference for cell in compare(baseline.read(file), weak).cells}
    assert found == dict.fromkeys(guests, Difference.LESS_PROTECTED) | {"fedora-44": Difference.VANISHED}
