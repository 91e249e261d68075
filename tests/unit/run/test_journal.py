import json
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from lab import catalog
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.builds.kinds.wheel import Wheel
from lab.machine.acceleration import Acceleration
from lab.plan import Cell, choose_cells
from lab.record import (
    CellResult,
    DecidedCell,
    LaneRecord,
    RunInfo,
    RunOptions,
    RunResult,
    Status,
    TestRate,
    run,
)
from lab.record.folders import choose_new_folder, lock_folder
from lab.run import journal, lanes
from lab.run.journal import Journal, ResultsNotWritten
from tests.builders.cells import changed
from tests.builders.runs import host

BUILDS = [Wheel("0.9.0", "0.9.0"), Wheel("0.10.8", "0.10.8")]
CELLS = choose_cells(catalog.load_catalog(), guests=["debian-13"], variants=["stock", "max-userns-zero"]).cells(
    BUILDS[1:]
)
STOCK, OTHER = CELLS
EMULATION = Acceleration(False, "no /dev/kvm")


def record(
    folder: Path, *, cells: Sequence[Cell] = CELLS, kept: Sequence[CellResult] = (), **options: Any
) -> Journal:
    info = RunInfo(
        id="run",
        started=datetime(2026, 11, 24, 16, 0, tzinfo=UTC),
        command="lab matrix",
        lab="0.1.0",
        options=RunOptions(**options),
        builds=[build.record() for build in BUILDS],
    )
    return Journal(
        folder, cells, info, {cell.folder: result for cell, result in zip(cells, kept, strict=False)}
    )


def told(run: RunResult) -> list[tuple[str, str]]:
    return [(cell.status, cell.reason) for cell in run.cells]


@pytest.mark.parametrize("size", [0, journal.SMALL_RECORD])
def test_an_unreadable_result_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(journal, "SMALL_RECORD", size)
    growing = record(tmp_path)
    growing.write()
    rate = TestRate(name="a", ran=1000, failed_in=[1] * 400_000, low=0.0, high=1.0)
    with pytest.raises(ValueError, match=r"expected at most \d+ values"):
        growing.decide(STOCK, changed(STOCK.result(Status.PASS), rates=[rate]))
    growing.decide(STOCK, STOCK.result(Status.ERROR, reason="its result is none"))
    assert [cell.status for cell in RunResult.read(tmp_path).cells] == ["error", "not-run"]


def test_a_result_says_where_its_evidence_is_and_how_to_run_it_again(tmp_path: Path) -> None:
    growing = record(tmp_path, repeat=3, remedies=True, experiments="unclear")
    for name in ("kernel.log", "repeat-2/kernel.log", "fault-1/console.log"):
        file = tmp_path / STOCK.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    decided = growing.decide(STOCK, STOCK.result(Status.PASS))
    base = "cells/debian-13/stock/0.10.8"
    assert decided.evidence == [
        f"{base}/fault-1/console.log",
        f"{base}/kernel.log",
        f"{base}/repeat-2/kernel.log",
    ]
    assert decided.rerun == "lab matrix -g debian-13 -v stock --build 0.10.8 --repeat 3"
    # A cell that never ran can be run all the same.
    first, second = RunResult.read(tmp_path).cells
    assert first == decided
    assert second.rerun == "lab matrix -g debian-13 -v max-userns-zero --build 0.10.8 --repeat 3"


@pytest.mark.parametrize(
    ("interrupted", "reason"), [(True, "interrupted"), (False, "not reached yet")], ids=["interrupted", "ended"]
)
def test_cells_are_on_disk_at_once_with_the_run_s_end(tmp_path: Path, interrupted: bool, reason: str) -> None:
    growing = record(tmp_path)
    growing.write()
    assert told(RunResult.read(tmp_path)) == [("not-run", "not reached yet")] * 2
    growing.decide(STOCK, STOCK.result(Status.PASS))
    assert told(RunResult.read(tmp_path)) == [("pass", ""), ("not-run", "not reached yet")]
    run = growing.finish(interrupted=interrupted)
    assert told(run) == [("pass", ""), ("not-run", reason)]
    assert run.run.interrupted is interrupted
    assert run.run.finished is not None
    assert RunResult.read(tmp_path) == run


def test_what_a_resumed_run_keeps_stays_as_it_was(tmp_path: Path) -> None:
    old = changed(STOCK.result(Status.FAIL, reason="from before"), evidence=["of/then"])
    growing = record(tmp_path, kept=[old])
    assert growing.passing(BUILDS[1]) == []
    growing.decide(OTHER, OTHER.result(Status.PASS))
    assert RunResult.read(tmp_path).cells[0] == old
    assert [cell.variant for cell in growing.passing(BUILDS[1])] == ["max-userns-zero"]
    assert growing.passing(BUILDS[0]) == []
    growing.decide(OTHER, OTHER.result(Status.FAIL))
    assert growing.passing(BUILDS[1]) == []


def test_unwritten_results_leave_the_last_ones_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = record(tmp_path)
    growing.decide(STOCK, STOCK.result(Status.PASS))

    def full(_path: Path, _text: str) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "write_atomically", full)
    with pytest.raises(ResultsNotWritten) as caught:
        growing.decide(OTHER, OTHER.result(Status.PASS))
    assert f"the results cannot be written into {tmp_path}: No space left on device; " in str(caught.value)
    assert f"lab matrix --resume {tmp_path} runs the others" in (caught.value.hint or "")
    assert told(RunResult.read(tmp_path)) == [("pass", ""), ("not-run", "not reached yet")]


def lane(label: str = "debian-13", **more: Any) -> LaneRecord:
    guest = label.partition(" ")[0]
    return LaneRecord(guest=guest, image="1" * 64, fork="memory", seconds={"boot": 2.0}, label=label, **more)


def test_a_host_is_described_with_what_it_runs_guests_with() -> None:
    libvirt: Any = SimpleNamespace(
        getLibVersion=lambda: 11_003_000, getVersion=lambda: 10_000_002, getURI=lambda: "qemu:///session"
    )
    described = lanes.describe_host(libvirt, EMULATION)
    assert (described.libvirt, described.qemu, described.connect) == ("11.3.0", "10.0.2", "qemu:///session")
    assert (described.acceleration, described.acceleration_reason) == ("emulation", "no /dev/kvm")


def test_a_run_names_the_host_that_it_began_on_and_its_lanes_name_their_own(tmp_path: Path) -> None:
    growing = record(tmp_path)
    first, second = host(), host(kernel="6.18", acceleration="KVM")
    assert growing.info.hosts() == []
    assert [growing.begin_on(ran_on, "x86_64") for ran_on in (first, second)] == [True, False]
    # What it says of emulation is said of each architecture.
    assert growing.begin_on(second, "aarch64")
    assert growing.info.hosts() == [first]
    growing.add_lane(lane("debian-14"))
    # A lane that says nothing ran on the host of its run.
    assert growing.info.hosts("debian-14", "debian-14") == [first]
    for label, ran_on in (("debian-13", first), ("debian-13 #2", second), ("debian-12", second)):
        growing.add_lane(lane(label, host=ran_on))
    growing.write()
    info = RunResult.read(tmp_path).run
    assert info.host == first
    assert info.hosts() == [first, second]
    assert info.hosts("debian-12") == [second]
    assert info.hosts("debian-13") == info.hosts("debian-13", "unknown") == [first, second]
    assert info.hosts("debian-13", "debian-13 #2") == [second]


def test_a_folder_is_free_again_whatever_ended_the_run(tmp_path: Path) -> None:
    half, whole = tmp_path / ".results.json.abc123", tmp_path / "results.json"
    for file in (half, whole):
        file.write_text("{")
    for _ in range(2):
        with pytest.raises(RuntimeError), lock_folder(tmp_path):
            # What a lab left half-written goes when the next one is at work.
            assert not half.exists()
            with pytest.raises(UsageError, match="another lab is at work in it"), lock_folder(tmp_path):
                pass
            raise RuntimeError("a bug")
    assert list(tmp_path.iterdir()) == [whole]


def test_each_run_has_a_folder_of_its_own(paths: Paths, tmp_path: Path) -> None:
    folders = set()
    for _ in range(3):  # In the same second.
        folder = choose_new_folder(paths.runs, None)
        folder.mkdir(parents=True)
        folders.add(folder)
    assert len(folders) == 3
    assert {folder.parent for folder in folders} == {paths.runs}
    assert choose_new_folder(paths.runs, tmp_path) == tmp_path
    (tmp_path / "results.json").write_text(json.dumps({}))
    with pytest.raises(UsageError, match=f"-o {tmp_path}: there is a run in it already"):
        choose_new_folder(paths.runs, tmp_path)


def many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """The journal of a run whose record is not small."""
    monkeypatch.setattr(journal, "SMALL_RECORD", 1)
    growing = record(folder)
    growing.write()
    return growing


def test_a_large_record_is_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = many(tmp_path, monkeypatch)
    growing.deployed(BUILDS[1], {"boxlite.whl": "2" * 64})
    growing.decide(STOCK, STOCK.result(Status.PASS))
    whole = (tmp_path / "results.json").read_bytes()
    growing.add_lane(lane())
    growing.decide(OTHER, OTHER.result(Status.FAIL, reason="so it is"))
    growing.decide(OTHER, OTHER.result(Status.PASS))
    assert (tmp_path / "results.json").read_bytes() == whole
    assert RunResult.read(tmp_path) == growing.result()
    assert told(growing.result()) == [("pass", ""), ("pass", "")]
    info = RunResult.read(tmp_path).run
    assert [build.files for build in info.builds] == [{}, {"boxlite.whl": "2" * 64}]
    assert info.lanes == [lane()]
    run = growing.finish(interrupted=False)
    assert (tmp_path / "results.json").read_bytes() != whole
    assert RunResult.read(tmp_path) == run
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_what_a_run_writes_grows_as_its_cells_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SMALL_RECORD", 1)
    stock = catalog.load_catalog().variant("stock")
    variants = [stock.model_copy(update={"name": f"v{number}"}) for number in range(64)]
    cells = [replace(STOCK, variant=variant) for variant in variants]
    growing = record(tmp_path, cells=cells)
    growing.write()
    wholes = []
    for cell in cells:
        before = (tmp_path / "results.json").stat().st_ino
        growing.decide(cell, cell.result(Status.PASS, reason="x" * 5000))
        if (tmp_path / "results.json").stat().st_ino != before:
            wholes.append((tmp_path / "results.json").stat().st_size)
    # Each is at least twice the one before, so all of them together are at most twice the last one.
    assert sum(wholes) <= 2 * wholes[-1]
    assert RunResult.read(tmp_path) == growing.result()


def test_a_killed_write_keeps_earlier_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = many(tmp_path, monkeypatch)
    growing.decide(STOCK, STOCK.result(Status.PASS))
    added = tmp_path / "decided.jsonl"
    before = added.read_bytes()
    growing.decide(OTHER, OTHER.result(Status.FAIL))
    whole = added.read_bytes()
    for end in range(len(before), len(whole)):
        added.write_bytes(whole[:end])
        assert [cell.status for cell in RunResult.read(tmp_path).cells] == ["pass", "not-run"]
    for end in range(len(before)):
        added.write_bytes(whole[:end])
        assert [cell.status for cell in RunResult.read(tmp_path).cells] == ["not-run", "not-run"]


def test_additions_to_an_older_record_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = many(tmp_path, monkeypatch)
    growing.decide(STOCK, STOCK.result(Status.FAIL))
    old = (tmp_path / "decided.jsonl").read_bytes()
    growing.decide(STOCK, STOCK.result(Status.PASS))
    growing.finish(interrupted=False)
    # As after a kill between the new record and the removal of the file.
    (tmp_path / "decided.jsonl").write_bytes(old)
    assert RunResult.read(tmp_path).cells[0].status is Status.PASS


ELSEWHERE = changed(OTHER.result(Status.PASS), guest="x")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("garbage", "Invalid JSON: expected value"),
        ('{"cell": {"guest": 1}}', "cell.guest: Input should be a valid string"),
        (DecidedCell(cell=ELSEWHERE, lanes=[], steps=[]).model_dump_json(), "the run has no cells/x/"),
    ],
)
def test_a_damaged_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, error: str
) -> None:
    many(tmp_path, monkeypatch).decide(STOCK, STOCK.result(Status.PASS))
    with (tmp_path / "decided.jsonl").open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(UsageError, match=f"{tmp_path}/decided.jsonl is not a record.*{error}"):
        RunResult.read(tmp_path)


def test_after_a_failed_line_all_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = many(tmp_path, monkeypatch)
    growing.decide(STOCK, STOCK.result(Status.PASS))

    def half(stream: int) -> NoReturn:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full, pytest.raises(ResultsNotWritten, match="No space left on device"):
        full.setattr(os, "fsync", half)
        growing.decide(OTHER, OTHER.result(Status.FAIL))
    assert RunResult.read(tmp_path).cells[0].status is Status.PASS
    growing.decide(OTHER, OTHER.result(Status.PASS))
    whole = RunResult(**json.loads((tmp_path / "results.json").read_text()))
    assert [cell.status for cell in whole.cells] == ["pass", "pass"]
    assert RunResult.read(tmp_path) == growing.result()
