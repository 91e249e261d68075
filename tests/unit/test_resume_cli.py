"""`lab matrix --resume`: a run that was interrupted goes on as it was begun."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from lab import cli
from lab.record import RunResult
from lab.run import scheduler
from lab.run.journal import LOCK
from tests.builders.processes import TWO_CELLS, RunLab, interrupt_runs, rows_listed

pytestmark = pytest.mark.usefixtures("releases")


@pytest.fixture
def half_run(home: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run of two cells that was interrupted after the first."""
    with monkeypatch.context() as patched:
        interrupt_runs(patched)
        line = [*TWO_CELLS, "--build", "0.10.8", "--repeat", "3", "--rootfs", str(layout(home))]
        out = run_lab(cli.INTERRUPTED, *line).out
    [folder] = home.glob("state/runs/*")
    assert f"continue with: lab matrix --resume {folder}\n" in out
    return folder


def layout(folder: Path) -> Path:
    """As much of an OCI image layout as is looked at."""
    (folder / "layout" / "blobs").mkdir(parents=True)
    for name in ("oci-layout", "index.json"):
        (folder / "layout" / name).touch()
    return folder / "layout"


def test_the_list_of_a_resumed_run_is_what_is_left(half_run: Path, passing: list[str], run_lab: RunLab) -> None:
    before = {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()}
    printed = run_lab(0, "matrix", "--resume", str(half_run), "--list")
    [[guest, variant, _, again]] = rows_listed(printed)[1:]
    assert (guest, variant) == ("debian-13", "max-userns-zero")
    assert again == RunResult.read(half_run).cells[1].rerun
    assert (passing, {file: file.read_bytes() for file in before}) == ([], before)


@pytest.mark.parametrize("by", ["name", "folder"])
def test_a_resumed_run_runs_what_is_left(half_run: Path, passing: list[str], run_lab: RunLab, by: str) -> None:
    before = RunResult.read(half_run)
    which = half_run.name if by == "name" else str(half_run)
    free = ["--jobs", "3", "--memory", "4096", "--verbose"]
    # The cell that stands was no pass: it is not run again, and counts.
    printed = run_lab(1, "matrix", "--resume", which, *free)
    assert passing == ["debian-13/max-userns-zero/0.10.8"]
    assert f"2 cells, 1 of them kept from before, run {half_run}\n" in printed
    after = RunResult.read(half_run)
    assert after.cells[0] == before.cells[0]
    assert [cell.status for cell in after.cells] == ["xpass", "pass"]
    assert (after.run.options, after.run.command) == (before.run.options, before.run.command)
    assert after.run.options.repeat == 3
    assert (len(after.run.resumed), after.run.interrupted) == (1, False)
    log = (half_run / "run.log").read_text()
    assert log.index("stock 0.10.8: xpass") < log.index("max-userns-zero 0.10.8: pass")


@pytest.mark.parametrize(
    "option",
    [
        ["-g", "debian-13"],
        ["--set", "quick"],
        # What it is anyway is refused too: nobody has to know.
        ["--repeat", "3"],
        ["--shuffle"],
        ["--rootfs", "/layout"],
        ["-o", "/run"],
    ],
    ids=lambda option: str(option[0]),
)
def test_a_run_that_is_resumed_keeps_its_plan(
    half_run: Path, passing: list[str], run_lab: RunLab, option: Sequence[str]
) -> None:
    before = {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()}
    for line in (["--resume", half_run.name, *option], [*option, "--resume", half_run.name]):
        printed = run_lab(2, "matrix", *line)
        assert f"lab: {option[0]} cannot be changed for a run that is resumed\n  next: " in printed.err
        assert printed.out == ""
    assert passing == []
    assert {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    "link", ["run.log", "decided.jsonl", "cells/debian-13/max-userns-zero/0.10.8/remedies"]
)
def test_a_run_with_a_link_in_it_is_not_resumed(
    half_run: Path, passing: list[str], run_lab: RunLab, link: str, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir() if "cells" in link else target.write_text("mine")
    (half_run / link).parent.mkdir(parents=True, exist_ok=True)
    (half_run / link).unlink(missing_ok=True)
    (half_run / link).symlink_to(target)
    run_lab(2, "matrix", "--resume", half_run.name)
    assert passing == []
    assert not list(target.iterdir()) if target.is_dir() else target.read_text() == "mine"


def test_a_run_at_which_another_lab_is_at_work_is_left_alone(
    half_run: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def connection(_uri: str) -> Iterator[None]:
        yield

    monkeypatch.setattr(scheduler, "connection", connection)
    with FileLock(half_run / LOCK):
        before = {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()}
        printed = run_lab(2, "matrix", "--resume", str(half_run))
        assert {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()} == before
    assert "another lab is at work in it" in printed
