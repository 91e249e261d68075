"""The gate and boxes that work and are less protected than before."""

from pathlib import Path
from typing import Any

import pytest

from lab.gate import baseline
from lab.gate.compare import Difference, compare
from lab.gate.decision import Gate, decide
from lab.gate.expectations import Expectations, ExpectedFailure
from lab.record import CellResult, Outcome, Status
from lab.report import compare as report
from tests.builders.cells import JAILED, box, compared, done, side


def boxed(status: Status = Status.PASS, guest: str = "debian-13", **other: Any) -> CellResult:
    """A cell whose test `starts` had a box that was confined like JAILED, but for `other`."""
    cell = done(status, guest=guest)
    tests = [
        test.model_copy(update={"protection": box(**other) if test.outcome is Outcome.PASS else None})
        for test in cell.tests
    ]
    return cell.model_copy(update={"tests": tests})


def test_a_box_that_lost_protection_blocks_although_it_works() -> None:
    decision = decide(side(boxed()), side(boxed(seccomp=["off"], mounts=["/ rw", "/usr rw"])))
    [cell] = decision.comparison.cells
    assert cell.difference is Difference.LESS_PROTECTED
    assert cell.protection == [
        "the box of control, starts, isolates lacks seccomp filter, a /usr that is not writable"
    ]
    assert (decision.gate, decision.exit_status) == (Gate.BLOCKED, 1)
    assert report.verdict(decision) == "gate blocked: 1 less protected"
    page = report.render(decision.comparison, decision)
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
    expected_failures = Expectations(Path("expect.toml"), {"1": expected})
    weak: dict[str, Any] = {"seccomp": ["off"]}
    before = side(boxed(status))
    assert decide(before, side(boxed(Status.FAIL, **weak)), expected_failures).gate is Gate.BLOCKED
    assert decide(before, side(boxed(Status.FAIL)), expected_failures).gate is Gate.PASSED


def test_a_limit_that_was_asked_for_and_is_not_kept_any_more_is_lost() -> None:
    limited: dict[str, Any] = {"asked": {"max_open_files": 1024}, "own_limits": ["open files"]}
    [lost] = compared(boxed(**limited), boxed(**limited, limits={"open files": "4096"})).protection
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
    differences = {cell.guest: cell.difference for cell in compare(baseline.read(file), weak).cells}
    assert differences == dict.fromkeys(guests, Difference.LESS_PROTECTED) | {"fedora-44": Difference.VANISHED}
