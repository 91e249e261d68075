"""How two builds differ, cell by cell, and boxes that work and are less protected than before."""

import dataclasses
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import UsageError
from lab.gate import baseline, results
from lab.gate.compare import Difference, compare_builds
from lab.gate.decision import Gate, decide_gate
from lab.gate.expectations import Expectations, ExpectedFailure
from lab.record import (
    BuildRecord,
    CellResult,
    Foreseen,
    KeptFrom,
    LaneRecord,
    Outcome,
    Prediction,
    ShardRecord,
    Status,
)
from lab.report.compare import kept, render_comparison
from tests.builders.cells import JAILED, box, changed, compared, done, side
from tests.builders.facts import facts

PASS, FAIL, XFAIL, XPASS = Status.PASS, Status.FAIL, Status.XFAIL, Status.XPASS
FLAKY, NOT_APPLICABLE, ERROR, NOT_RUN = Status.FLAKY, Status.NOT_APPLICABLE, Status.ERROR, Status.NOT_RUN
PASSES, FAILS = Outcome.PASS, Outcome.FAIL


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        (PASS, PASS, Difference.UNCHANGED),
        (PASS, FAIL, Difference.REGRESSED),
        (PASS, XFAIL, Difference.REGRESSED),
        (XPASS, FAIL, Difference.REGRESSED),
        (FLAKY, FAIL, Difference.REGRESSED),
        (PASS, FLAKY, Difference.NEWLY_FLAKY),
        (XFAIL, FLAKY, Difference.NEWLY_FLAKY),
        (FLAKY, FLAKY, Difference.UNCHANGED),
        (FLAKY, PASS, Difference.FIXED),
        (FLAKY, XFAIL, Difference.FIXED),
        (FAIL, PASS, Difference.FIXED),
        (XFAIL, PASS, Difference.FIXED),
        (XPASS, XFAIL, Difference.FIXED),
        (XFAIL, XPASS, Difference.UNEXPECTED_PASS),
        (FAIL, XPASS, Difference.UNEXPECTED_PASS),
        (PASS, XPASS, Difference.UNEXPECTED_PASS),
        (XPASS, XPASS, Difference.UNCHANGED),
        (FAIL, FAIL, Difference.UNCHANGED),
        (XFAIL, XFAIL, Difference.UNCHANGED),
        # The variant's expectation changed, what the cell does did not.
        (XFAIL, FAIL, Difference.UNCHANGED),
        (PASS, NOT_APPLICABLE, Difference.VANISHED),
        (XFAIL, NOT_APPLICABLE, Difference.VANISHED),
        (NOT_APPLICABLE, NOT_APPLICABLE, Difference.UNCHANGED),
        (NOT_APPLICABLE, PASS, Difference.NEW),
        (ERROR, PASS, Difference.NEW),
        (NOT_RUN, FAIL, Difference.NEW),
        (ERROR, NOT_APPLICABLE, Difference.UNCHANGED),
        (PASS, ERROR, Difference.COULD_NOT_RUN),
        (XFAIL, NOT_RUN, Difference.COULD_NOT_RUN),
        (ERROR, ERROR, Difference.COULD_NOT_RUN),
    ],
)
def test_two_statuses_say_how_a_cell_differs(old: Status, new: Status, difference: Difference) -> None:
    cell = compared(done(old), done(new))
    assert cell.difference is difference
    # No test changed where one side has none.
    assert not cell.tests or {old, new}.isdisjoint(results.WITHOUT_TESTS)


@pytest.mark.parametrize("says", Foreseen)
def test_a_prediction_is_never_taken_for_a_result(says: Foreseen) -> None:
    prediction = Prediction(says=says, cause="userns-limit" if says is Foreseen.BLOCKED else None)
    for old in (PASS, FAIL):
        cell = compared(done(old), done(NOT_RUN, prediction=prediction))
        assert cell.difference is Difference.COULD_NOT_RUN


@pytest.mark.parametrize("status", [FAIL, XFAIL])
def test_another_cause_is_told_even_if_the_same_tests_fail(status: Status) -> None:
    cell = compared(done(XFAIL, "userns-limit"), done(status, "userns-sysctl"))
    assert (cell.difference, cell.tests) == (Difference.CAUSE_CHANGED, [])
    assert (str(cell.old), str(cell.new)) == ("xfail userns-limit", f"{status} userns-sysctl")


@pytest.mark.parametrize(
    ("old", "new", "changed", "difference", "told"),
    [
        (XFAIL, FAIL, {"control": FAILS}, Difference.REGRESSED, ["control: pass -> fail"]),
        # The cause must fail it.
        (XFAIL, FAIL, {"isolates": PASSES}, Difference.UNEXPECTED_PASS, ["isolates: fail -> pass"]),
        (XFAIL, XFAIL, {"isolates": PASSES}, Difference.FIXED, ["isolates: fail -> pass"]),
        (FAIL, FAIL, {"isolates": PASSES}, Difference.FIXED, ["isolates: fail -> pass"]),
        # Counts would hide that one is fixed and another breaks.
        (
            *(FAIL, FAIL, {"isolates": PASSES, "control": FAILS}, Difference.REGRESSED),
            ["control: pass -> fail", "isolates: fail -> pass"],
        ),
        (PASS, PASS, {"isolates": None}, Difference.VANISHED, ["isolates: pass -> not in the suite"]),
        (FAIL, FAIL, {"isolates": None}, Difference.VANISHED, ["isolates: fail -> not in the suite"]),
        (FAIL, FAIL, {"isolates": Outcome.NOT_RUN}, Difference.VANISHED, ["isolates: fail -> not-run"]),
        (PASS, PASS, {"new": PASSES}, Difference.TESTS_CHANGED, ["new: not in the suite -> pass"]),
        (XFAIL, XFAIL, {"new": FAILS}, Difference.TESTS_CHANGED, ["new: not in the suite -> fail"]),
        (FAIL, FAIL, {"new": FAILS}, Difference.REGRESSED, ["new: not in the suite -> fail"]),
    ],
)
def test_tests_that_changed_are_named_and_say_how_a_cell_differs(
    old: Status, new: Status, changed: dict[str, Outcome | None], difference: Difference, told: list[str]
) -> None:
    cell = compared(done(old), done(new, tests=changed))
    assert (cell.difference, [str(test) for test in cell.tests]) == (difference, told)


def test_a_cell_of_the_old_side_alone_vanished_if_it_had_a_result_and_one_of_the_new_side_is_new() -> None:
    old = side(
        done(PASS), done(FAIL, variant="a"), done(NOT_APPLICABLE, variant="b"), done(NOT_RUN, variant="c")
    )
    comparison = compare_builds(old, side(done(PASS), done(FAIL, guest="debian-14")))
    assert [(cell.name, cell.difference) for cell in comparison.cells] == [
        ("debian-13 stock", Difference.UNCHANGED),
        ("debian-14 stock", Difference.NEW),
        ("debian-13 a", Difference.VANISHED),
        ("debian-13 b", Difference.UNCHANGED),
        ("debian-13 c", Difference.UNCHANGED),
    ]
    assert comparison.counts == "1 vanished, 1 new, 3 unchanged"


def test_a_cell_that_another_shard_has_did_not_vanish() -> None:
    plan = ["debian-13/stock/0.10.8", "debian-13/a/0.10.8"]
    part = side(done(PASS), shard=ShardRecord(number=1, count=2, plan=plan, sizes=[1, 1]))
    whole = side(done(PASS), done(PASS, variant="a"))
    for old, new in ((whole, part), (part, whole)):
        _, cell = compare_builds(old, new).cells
        assert cell.difference is Difference.COULD_NOT_RUN
        assert "merge the shards" in cell.reason


def lane(image: str, network: str) -> LaneRecord:
    return LaneRecord(guest="debian-13", image=image * 32, fork="memory", network=network, seconds={})


def test_a_changed_environment_is_told_with_the_command_that_runs_both_builds() -> None:
    before = side(done(PASS, build="0.10.0"), lanes=[lane("a1", "closed")])
    now = side(
        done(PASS, facts=facts(kernel="6.13.1", bubblewrap={"setuid": True}, selinux={"mode": "permissive"})),
        lanes=[lane("b2", "open")],
        definitions={"programs": "q" * 64, "variant other": "o" * 64},
    )
    comparison = compare_builds(before, now)
    [cell] = comparison.cells
    assert cell.difference is Difference.ENVIRONMENT_CHANGED
    changes = {change.what: (change.old, change.new) for change in cell.environment}
    assert changes.pop("image") == ("a1" * 6, "b2" * 6)
    assert changes.pop("programs") == ("p" * 12, "q" * 12)
    assert changes == {
        "kernel": ("6.12.118+deb13-cloud-amd64", "6.13.1"),
        "bubblewrap": ("0.12.0", "0.12.0 setuid"),
        "selinux": ("none", "permissive default 34"),
        "network": ("closed", "open"),
    }
    assert cell.both_builds == "lab matrix -g debian-13 -v stock --build 0.10.0 --build 0.10.8"
    assert comparison.both_builds == cell.both_builds
    # It hides no regression, and what was never read is not told.
    regressed = compared(done(PASS), done(FAIL, facts=facts(kernel="6.13.1")))
    assert regressed.difference is Difference.REGRESSED
    assert [change.what for change in regressed.environment] == ["kernel"]
    assert compared(done(PASS, facts=None), done(PASS)).environment == []


def test_the_wheel_of_a_baseline_has_to_be_named_by_the_reader() -> None:
    wheel = "0.10.7@ab12cd34"
    old = side(
        *(done(PASS, variant=variant, build=wheel) for variant in ("a", "b")),
        builds=[BuildRecord(name=wheel, version="0.10.7", source="/home/x/boxlite.whl")],
    )
    kernel = facts(kernel="6.13.1")
    new = side(*(done(PASS, variant=variant, facts=kernel) for variant in ("a", "b")))
    assert "--build /home/x/boxlite.whl --build 0.10.8" in compare_builds(old, new).both_builds
    written = dataclasses.replace(old, argument=None)
    assert compare_builds(written, new).both_builds == (
        "lab matrix -g debian-13 -v a -v b --build WHEEL-OF-0.10.7@ab12cd34 --build 0.10.8"
    )


# -- boxes that work and are less protected than before


def boxed(status: Status = Status.PASS, guest: str = "debian-13", **other: Any) -> CellResult:
    """A cell whose test `starts` had a box that was confined like JAILED, but for `other`."""
    cell = done(status, guest=guest)
    tests = [
        test.model_copy(update={"protection": box(**other) if test.outcome is Outcome.PASS else None})
        for test in cell.tests
    ]
    return changed(cell, tests=tests)


def test_a_box_that_lost_protection_blocks_although_it_works() -> None:
    decision = decide_gate(side(boxed()), side(boxed(seccomp=["off"], mounts=["/ rw", "/usr rw"])))
    [cell] = decision.comparison.cells
    assert cell.difference is Difference.LESS_PROTECTED
    assert len(cell.protection) == 1
    assert (decision.gate, decision.exit_status) == (Gate.BLOCKED, 1)
    assert decision.blocking == [cell]


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
    assert decide_gate(before, side(boxed(Status.FAIL, **weak)), expected_failures).gate is Gate.BLOCKED
    assert decide_gate(before, side(boxed(Status.FAIL)), expected_failures).gate is Gate.PASSED


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
    baseline.write_baseline(old, file)
    assert [cell.protection for cell in baseline.read(file).cells.values()] == [
        cell.protection for cell in old.cells.values()
    ]
    weak = side(*(boxed(guest=guest, seccomp=["off"]) for guest in guests))
    differences = {cell.guest: cell.difference for cell in compare_builds(baseline.read(file), weak).cells}
    assert differences == dict.fromkeys(guests, Difference.LESS_PROTECTED) | {"fedora-44": Difference.VANISHED}


# -- baseline files

RESULTS = side(
    done(Status.PASS),
    done(Status.XFAIL, variant="a+b", facts=facts(bubblewrap=None)),
    done(Status.FAIL, "unknown", variant="c", tests={"control": Outcome.ERROR, "isolates": None}),
    done(Status.NOT_APPLICABLE, guest="ubuntu-24.04", reason="no wheel"),
    done(Status.FLAKY, guest="ubuntu-24.04", variant="a+b"),
    done(Status.ERROR, guest="ubuntu-24.04", variant="c", reason="did not boot on host.example at /srv/x"),
)


def test_a_baseline_reads_back_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "baseline.toml"
    baseline.write_baseline(RESULTS, file)
    again = baseline.read(file)
    assert (again.build, again.version, again.argument) == ("0.10.8", "0.10.8", "0.10.8")
    for identity, cell in RESULTS.cells.items():
        read = again.cells[identity]
        assert (read.status, read.cause, read.tests) == (cell.status, cell.cause, cell.tests)
        # A cell that was left out before anything was read is given what its guest is.
        assert not cell.environment or read.environment == cell.environment
    differences = {cell.difference for cell in compare_builds(again, RESULTS).cells}
    assert differences == {Difference.UNCHANGED, Difference.COULD_NOT_RUN}
    assert baseline.render(again) == file.read_text()


def test_a_baseline_does_not_depend_on_the_order_of_the_cells_or_on_when_they_ran() -> None:
    cells = [done(Status.PASS), done(Status.XFAIL, variant="a"), done(Status.PASS, guest="debian-12")]
    later = [changed(cell, seconds={"suite": 9.0}, lane="other") for cell in reversed(cells)]
    assert baseline.render(side(*cells)) == baseline.render(side(*later))


def test_a_baseline_has_one_line_for_each_cell_and_guest_and_no_paths() -> None:
    text = baseline.render(RESULTS)
    lines = text.splitlines()
    assert 'stock = {status = "pass"}' in lines
    assert 'fail = ["isolates", "starts"], environment = {bubblewrap = "none"}}' in text
    assert 'absent = ["isolates"]' in text
    assert sum("kernel = " in line for line in lines) == 2
    assert "/" not in text.replace("n/a", "").replace(lines[0], "")
    assert "host.example" not in text


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    name = 'a"]\n[cells]\nx = 1 # \x1b[31m'
    results = side(done(Status.FAIL, tests={name: Outcome.FAIL}))
    baseline.write_baseline(results, tmp_path / "b.toml")
    again = baseline.read(tmp_path / "b.toml")
    assert again.cells["debian-13", "stock"].tests == results.cells["debian-13", "stock"].tests
    assert "\x1b" not in (tmp_path / "b.toml").read_text()


def broken(old: str, new: str) -> str:
    text = baseline.render(RESULTS)
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (broken('status = "pass"', 'status = "pass", x = 1'), "cells.debian-13.stock.x: unknown key"),
        (
            broken('fail = ["isolates"', 'fail = ["isolate"'),
            "b.toml: (whole file): cells.debian-13.a+b: expected names of the list tests, found isolate",
        ),
        (baseline.render(RESULTS)[:700], "b.toml: not valid TOML"),
        (
            baseline.render(RESULTS).rsplit("stock = ", 1)[0],
            "b.toml: (whole file): count says 6 cells, found 5: the file is not complete",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_file_key_and_expectation(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "b.toml").write_text(text)
    with pytest.raises(UsageError) as refused:
        baseline.read(tmp_path / "b.toml")
    assert message in str(refused.value)
    assert "next: write it again with: lab baseline" in str(refused.value)


def test_a_baseline_is_replaced_by_a_newer_one_and_no_other_file_is(tmp_path: Path) -> None:
    file, other = tmp_path / "b.toml", tmp_path / "pyproject.toml"
    baseline.write_baseline(RESULTS, file)
    baseline.write_baseline(side(done(Status.PASS)), file)
    assert tomllib.loads(file.read_text())["count"] == 1
    other.write_text("[project]\n")
    for target, why in (
        (other, "this file is not a baseline"),
        (tmp_path / "nowhere/b.toml", "cannot be written"),
    ):
        with pytest.raises(UsageError, match=why):
            baseline.write_baseline(RESULTS, target)
    assert other.read_text() == "[project]\n"


def test_a_gate_sees_a_kept_cell_as_what_it_is(tmp_path: Path) -> None:
    origin = KeptFrom(run="first", began=datetime(2026, 11, 20, tzinfo=UTC))
    kept_cell, own = done(PASS, kept=origin), done(PASS, variant="max-userns-zero")
    failed = done(FAIL, variant="max-userns-zero")
    # It counts like any other: it is neither new nor missing, and what fails beside it blocks.
    before = side(done(PASS), own)
    passed = decide_gate(before, side(kept_cell, own))
    assert (passed.gate, passed.comparison.counts, passed.comparison.compared) == (
        Gate.PASSED,
        "2 unchanged",
        2,
    )
    assert decide_gate(before, side(kept_cell, failed)).gate is Gate.BLOCKED
    assert decide_gate(side(failed), side(changed(failed, kept=origin))).gate is Gate.PASSED
    assert kept(passed.comparison) == ["run first of 2026-11-20: debian-13 (stock)"]
    page = render_comparison(passed.comparison, passed)
    assert "## Kept from an earlier run, compared like all others\n\n- run first of 2026-11-20: " in page
    # Compared with the run that ran it, or with one that kept it, too, it is one result.
    same = "run first of 2026-11-20: debian-13 (stock); both sides have this one result, which cannot differ"
    first = dataclasses.replace(before, source="run first")
    assert kept(compare_builds(first, side(kept_cell, own))) == [same]
    assert kept(compare_builds(side(kept_cell, own), side(kept_cell, own))) == [same]
    # A baseline holds what its cells did, whichever run ran them.
    baseline.write_baseline(side(kept_cell), tmp_path / "baseline.toml")
    assert decide_gate(baseline.read(tmp_path / "baseline.toml"), side(kept_cell)).gate is Gate.PASSED
