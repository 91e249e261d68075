"""Baseline files."""

import tomllib
from pathlib import Path

import pytest

from lab.base.errors import UsageError
from lab.gate import baseline
from lab.gate.compare import Difference, compare
from lab.record import Outcome, Status
from tests.builders.cells import done, side
from tests.builders.facts import facts

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
    baseline.write(RESULTS, file)
    again = baseline.read(file)
    assert (again.build, again.version, again.argument) == ("0.10.8", "0.10.8", "0.10.8")
    for identity, cell in RESULTS.cells.items():
        read = again.cells[identity]
        assert (read.status, read.cause, read.tests) == (cell.status, cell.cause, cell.tests)
        # A cell that was left out before anything was read is given what its guest is.
        assert not cell.environment or read.environment == cell.environment
    differences = {cell.difference for cell in compare(again, RESULTS).cells}
    assert differences == {Difference.UNCHANGED, Difference.COULD_NOT_RUN}
    assert baseline.render(again) == file.read_text()


def test_a_baseline_does_not_depend_on_the_order_of_the_cells_or_on_when_they_ran() -> None:
    cells = [done(Status.PASS), done(Status.XFAIL, variant="a"), done(Status.PASS, guest="debian-12")]
    later = [cell.model_copy(update={"seconds": {"suite": 9.0}, "lane": "other"}) for cell in reversed(cells)]
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
    baseline.write(results, tmp_path / "b.toml")
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
        (broken("schema = 1", "schema = 2"), "b.toml: schema: Input should be 1, found 2"),
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
    baseline.write(RESULTS, file)
    baseline.write(side(done(Status.PASS)), file)
    assert tomllib.loads(file.read_text())["count"] == 1
    other.write_text("[project]\n")
    for target, why in (
        (other, "this file is no baseline"),
        (tmp_path / "nowhere/b.toml", "cannot be written"),
    ):
        with pytest.raises(UsageError, match=why):
            baseline.write(RESULTS, target)
    assert other.read_text() == "[project]\n"
