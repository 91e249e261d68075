"""A disk of the host that is full: it is said where, with what is free and needed, and no result is lost."""

import errno
import os
import re
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lab.base import files
from lab.base.activity import Progress
from lab.base.files import DiskFull, make_folder
from lab.merge import merge_shards
from lab.record import Fault, RunResult, Status
from lab.record.folders import RUN_LOG
from lab.report import terminal
from lab.report.site import publish
from lab.run import scheduler
from lab.run.journal import Journal
from lab.run.live import open_log
from lab.run.observer import Observer
from lab.trials.fork import Tries
from tests.builders.cells import cell
from tests.builders.lanes import Bench
from tests.builders.output import run_folder
from tests.builders.processes import TWO_CELLS, RunLab
from tests.builders.runs import runs_of_shards
from tests.conftest import Mount

pytestmark = pytest.mark.usefixtures("home")
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def small(tmp_path: Path, mount: Mount) -> Path:
    return mount(tmp_path / "small", "size=1m")


def fill(folder: Path) -> None:
    with pytest.raises(OSError, match="No space left"), (folder / "full").open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)


def run_that(ends: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the first cell of a run pass and then do what `ends` does with the run; the command line."""

    class Ends(scheduler.Scheduler):
        def run(self) -> RunResult:
            run = self.planned
            make_folder(run.folder)
            journal = Journal(run.folder, run.cells, run.info, run.earlier_results)
            self.observer.cell(journal.decide(run.cells[0], run.cells[0].result(Status.PASS)))
            ended: RunResult = ends(run.folder, journal, run.cells[1])
            return ended

    monkeypatch.setattr(scheduler, "Scheduler", Ends)
    monkeypatch.setattr("lab.builds.kinds.wheel.Wheel.check", lambda *_: None)
    return [*TWO_CELLS, "--build", "0.10.8"]


def statuses(folder: Path) -> list[Status]:
    return [cell.status for cell in RunResult.read(folder).cells]


def test_a_full_folder_keeps_its_results(small: Path, monkeypatch: pytest.MonkeyPatch, run_lab: RunLab) -> None:
    folder = small / "run"

    def ends(folder: Path, journal: Journal, cell: Any) -> None:
        fill(folder)
        journal.decide(cell, cell.result(Status.PASS))

    printed = run_lab(3, *run_that(ends, monkeypatch), "-o", folder).err
    assert f"written into {folder}: No space left on device; 0 MiB are free in {folder}; a run needs" in printed
    assert f"lab matrix --resume {folder} runs the others" in printed
    assert "Traceback" not in printed
    assert statuses(folder) == ["pass", "not-run"]


def test_an_unwritten_table_is_shown(small: Path, monkeypatch: pytest.MonkeyPatch, run_lab: RunLab) -> None:
    tables: list[RunResult] = []
    monkeypatch.setattr(terminal, "print_summary", lambda _console, run, _folder: tables.append(run))

    def ends(folder: Path, journal: Journal, cell: Any) -> RunResult:
        journal.decide(cell, cell.result(Status.PASS))
        run = journal.finish(interrupted=False)
        fill(folder)
        return run

    folder = small / "run"
    printed = run_lab(3, *run_that(ends, monkeypatch), "-o", folder).err
    assert "Traceback" not in printed
    assert f"No space left on device: {folder}/matrix.md: 0 MiB are free" in printed
    assert [cell.status for run in tables for cell in run.cells] == ["pass", "pass"]


def test_a_full_disk_that_names_no_file_is_told_with_what_is_free_in_each_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_lab: RunLab
) -> None:
    def ends(*_: object) -> NoReturn:
        raise NO_SPACE

    printed = run_lab(3, *run_that(ends, monkeypatch)).err
    assert "Traceback" not in printed
    assert "No space left on device: " in printed
    assert f"MiB are free in {tmp_path}" in printed
    assert "next: free some disk space" in printed


def test_a_bug_ends_with_4_and_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_lab: RunLab
) -> None:
    def ends(*_: object) -> NoReturn:
        raise ZeroDivisionError("of the lab's own \x1b[31m\n::error::forged")

    folder = tmp_path / "run"
    printed = run_lab(4, *run_that(ends, monkeypatch), "-o", folder).err
    assert "Traceback (most recent call last)" in printed
    assert "ZeroDivisionError: of the lab's own" in printed
    assert printed.rstrip().endswith("next: report it with the text above")
    assert "\x1b" not in printed
    assert "\n::error" not in printed
    assert statuses(folder) == ["pass", "not-run"]


def shards_with_much_evidence(tmp_path: Path) -> list[Path]:
    """The folders of two shards, of which the second has more evidence than fits on the small disk."""
    shards = runs_of_shards(tmp_path)
    for number, (folder, shard) in enumerate(shards):
        [name] = shard.cells[0].evidence
        (folder / name).write_bytes(b"x" * (2_000_000 * number + 1))
    return [folder for folder, _ in shards]


@pytest.mark.parametrize("exists", [False, True])
def test_a_merged_run_that_does_not_fit_leaves_nothing(
    small: Path, tmp_path: Path, run_lab: RunLab, exists: bool
) -> None:
    folder = small / "whole"
    if exists:
        folder.mkdir()
        (folder / "mine").write_text("mine")
    printed = run_lab(3, "merge", *shards_with_much_evidence(tmp_path), "-o", folder).err
    assert f"lab: No space left on device: {folder}/cells/" in printed
    assert re.search(r": \d+ MiB are free in .*; a run needs 2 MiB.*\n  next: free some disk space", printed)
    assert sorted(small.rglob("*")) == ([folder, folder / "mine"] if exists else [])


def test_a_merge_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    shards = runs_of_shards(tmp_path)
    monkeypatch.setattr(RunResult, "write", ends)
    with pytest.raises(KeyboardInterrupt):
        merge_shards(shards, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NO_SPACE, "No space left on device; 0 MiB are free in SMALL\n  next: free some disk space"),
        (OSError("an error without a number"), "an error without a number\n  next: free some disk space"),
        (OSError(errno.EROFS, "Read-only file system", "a.html"), "Read-only file system: a.html\n  next: "),
    ],
    ids=["full", "no number", "read-only"],
)
def test_a_site_that_cannot_be_written_says_why(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_lab: RunLab, error: OSError, words: str
) -> None:
    folder = run_folder(tmp_path, cell())
    fill(small)

    def ends(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(publish, "PARTS", [ends])
    printed = run_lab(3, "publish", folder, "-o", small / "site").err
    expected = f"lab: the site cannot be written to {small / 'site'}: {words.replace('SMALL', str(small))}"
    assert expected in printed
    assert "None" not in printed


def test_a_log_that_cannot_be_written_ends_with_one_note_and_the_run_goes_on(small: Path) -> None:
    heard: list[str] = []

    class View(Observer):
        def note(self, text: str) -> None:
            heard.append(text)

    with open_log(small, View()) as log:
        log.lane("debian-13", Progress("booting"))
        fill(small)
        # One page of the log is there already.
        for step in range(3):
            log.lane("debian-13", Progress(f"step {step}: {'x' * 8000}"))
    assert heard == [f"{small / RUN_LOG} ends here: No space left on device; 0 MiB are free in {small}"]
    assert "debian-13: booting\n" in (small / RUN_LOG).read_text()


def test_evidence_of_an_attempt_that_does_not_fit_is_told_with_its_folder(bench: Bench, tmp_path: Path) -> None:
    class Attempt:
        fault: Fault | None = None

        def run(self) -> NoReturn:
            raise NO_SPACE

    tries: Tries[Any] = Tries(bench.service(stores=False), 0, Status.NOT_APPLICABLE, Status.ERROR)
    folder = tmp_path / "remedies" / "jailer-off"
    tried = tries.run(lambda _folder: Attempt(), folder, is_surprising=lambda *_: False)
    assert tried.outcome is Status.ERROR
    assert tried.reason.startswith(f"No space left on device: {folder}: ")
    assert f"MiB are free in {tmp_path}" in tried.reason


@pytest.mark.parametrize(("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_used_up_quota_is_a_full_disk(tmp_path: Path, number: int, full: bool) -> None:
    with (
        pytest.raises(DiskFull if full else OSError) as raised,
        files.explain_full_disk(tmp_path, "a run needs 2 MiB"),
    ):
        raise OSError(number, os.strerror(number))
    assert isinstance(raised.value, DiskFull) is full
    if full:
        assert str(raised.value).startswith(f"{os.strerror(number)}: {tmp_path}: ")


def test_the_error_s_own_file_is_named_though_it_does_not_exist(tmp_path: Path) -> None:
    file = tmp_path / "no" / "such" / "file"
    message = f"{file}: [0-9]+ MiB are free in {tmp_path}; x"
    with pytest.raises(DiskFull, match=message), files.explain_full_disk(Path(), "x"):
        raise OSError(errno.ENOSPC, "No space left on device", str(file))
