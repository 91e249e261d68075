"""What the benchmarks remember, and what is simulated. No guest is booted and nothing is measured."""

import argparse
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import history, peers, simulated, with_tmt
from benchmarks.history import Figure, Machine, Result
from benchmarks.same_cells import SCRIPT, Bench, Measured
from benchmarks.simulated import Shape
from lab import catalog
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.record import LaneRecord, Outcome, RunResult, Status, TestResult
from tests.builders.cells import cell
from tests.builders.guests import base_image
from tests.builders.runs import host, run_of

KNOWN = catalog.load()
MACHINE = Machine(
    processor="AMD EPYC",
    processors=2,
    memory_gib=24,
    kernel="6.12",
    libvirt="11.3.0",
    qemu="10.0.13",
    acceleration="emulation",
    lab="0.1.0",
    commit="0d3652d",
)
NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def result(*figures: Figure, hours: int = 0, **more: Any) -> Result:
    values: dict[str, Any] = {"program": "forks", "setting": "debian-13", "machine": MACHINE}
    return Result(figures=list(figures), made=NOON + timedelta(hours=hours), **(values | more))


def fork(seconds: float) -> Figure:
    return Figure(name="fork", value=seconds, unit="s", times=20)


def stored(folder: Path, *results: Result) -> None:
    for number, each in enumerate(results):
        (folder / f"{each.program}-{number}.json").write_text(each.model_dump_json())


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=160)


def printed(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_result_is_compared_with_the_last_one_of_its_kind(tmp_path: Path) -> None:
    old, newer = result(fork(1.0), hours=-2), result(fork(2.0), hours=-1)
    others = [
        result(fork(3.0), hours=1),
        result(fork(4.0), setting="debian-12"),
        result(fork(5.0), program="forks-of-another"),
        result(fork(6.0), machine=MACHINE.model_copy(update={"processors": 4})),
        result(fork(7.0), machine=MACHINE.model_copy(update={"acceleration": "kvm"})),
    ]
    stored(tmp_path, old, newer, *others)
    (tmp_path / "forks-broken.json").write_text("{")
    assert history.last(tmp_path, result()) == newer
    assert history.last(tmp_path / "none", result()) is None


def test_another_kernel_or_commit_is_the_same_kind_of_machine(tmp_path: Path) -> None:
    before = result(hours=-1, machine=MACHINE.model_copy(update={"kernel": "6.1", "commit": "f" * 7}))
    stored(tmp_path, before)
    assert history.last(tmp_path, result()) == before


def test_figures_are_compared_as_ratios_and_only_those_that_both_have() -> None:
    before = result(
        fork(2.0), Figure(name="gone", value=1.0, unit="s"), Figure(name="size", value=0.0, unit="MiB")
    )
    now = result(fork(3.0), Figure(name="size", value=2.0, unit="MiB"), Figure(name="new", value=1.0, unit="s"))
    ratios = history.compare(before, now)
    assert [(each.name, each.ratio) for each in ratios] == [("fork", 1.5), ("size", None)]


def test_a_result_is_kept_and_shown(tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "this_machine", lambda _paths: MACHINE)
    options = argparse.Namespace(history=tmp_path / "history", json=tmp_path / "found.json")

    def keep(seconds: float) -> Result:
        return history.keep(console, options, "forks", setting="debian-13", figures=[fork(seconds)], note="<b>")

    first = keep(2.0)
    assert "no earlier result" in printed(console)
    second = keep(3.0)
    files = sorted(options.history.glob("*.json"))
    assert [Result.model_validate_json(file.read_text()) for file in files] == [first, second]
    assert Result.model_validate_json(options.json.read_text()) == second
    assert first.machine == MACHINE
    assert "1.50" in printed(console)


def test_this_machine_can_be_described_without_libvirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CONNECT", "test:///does-not-exist")
    found = history.this_machine(Paths(cache=tmp_path, state=tmp_path))
    assert (found.libvirt, found.acceleration) == ("not known", "not known")
    assert found.processors >= 1


def test_a_shape_gives_as_many_cells_each_once() -> None:
    plan = Shape.parse("3x60").plan()
    assert len({cell.folder for cell in plan}) == len(plan) == Shape(3, 60).cells == 180
    for text in ("3", "0x1", "3x-1", "axb"):
        with pytest.raises(argparse.ArgumentTypeError):
            Shape.parse(text)
    with pytest.raises(SystemExit, match="the catalog has"):
        Shape(1000, 1).plan()


def real_run(folder: Path) -> Path:
    """A run of two cells with evidence, whose record is not of the lab's current plan."""
    cells = []
    for variant, outcome, status in (
        ("stock", Outcome.PASS, Status.PASS),
        ("other", Outcome.FAIL, Status.FAIL),
    ):
        made = cell(variant=variant, status=status, tests=[TestResult(name="box_starts", outcome=outcome)])
        log = made.folder / "kernel.log"
        (folder / log).parent.mkdir(parents=True)
        (folder / log).write_text(variant)
        cells.append(made.model_copy(update={"evidence": [str(log)]}))
    lane = LaneRecord(guest="debian-13", image="1" * 64, fork="memory", seconds={"boot": 2.0})
    run_of(*cells, host=host(), lanes=[lane]).write(folder)
    return folder


def test_a_simulated_run_says_that_it_is_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(rootfs, "make", lambda folder: folder)
    originals = simulated.Originals.read(real_run(tmp_path / "real"))
    for name in ("first", "later"):
        simulated.make(originals, tmp_path / name, Shape(2, 13), 0.0, 2, later=name == "later")
    first, later = (RunResult.read(tmp_path / name) for name in ("first", "later"))
    assert first.run.command == "simulated cells, 2x13"
    assert [str(each.status) for each in first.cells] == ["pass", "fail"] * 13
    for each in first.cells:
        assert each.evidence == [f"{each.folder}/kernel.log"]
    assert (tmp_path / "first" / "run.log").is_file()
    changed = [n for n, each in enumerate(later.cells) if each.status is not first.cells[n].status]
    assert changed == [0, 12, 24]


def test_a_run_without_a_suite_can_be_no_original(tmp_path: Path) -> None:
    run_of(cell()).write(tmp_path)
    with pytest.raises(SystemExit, match="no suite ran"):
        simulated.Originals.read(tmp_path)


def test_the_peers_of_the_lab_get_a_plan_for_each_cell(tmp_path: Path) -> None:
    guest = KNOWN.guest("debian-13-cloud")
    bench = Bench(Paths(tmp_path, tmp_path), Path("/a/disk.qcow2"), guest, base_image(tmp_path), 5)
    with_tmt.write_plans(bench, tmp_path)
    plans = (tmp_path / "tree" / "cells.fmf").read_text()
    assert "image: file:///a/disk.qcow2\n" in plans
    assert plans.count("summary: ") == 5
    assert (tmp_path / "tree" / "cell.sh").read_text() == SCRIPT


def test_ways_are_compared_with_the_forked_lab_and_what_was_not_measured_is_named(console: Console) -> None:
    forked, tmt = Measured(100.0, 50.0, 900.0, [10.0, 30.0]), Measured(300.0, 200.0, 900.0)
    peers.show(console, {"tmt with testcloud": tmt, peers.FORKED: forked}, 2)
    said = printed(console)
    assert "tmt with testcloud / lab, forked: wall time 3.0, processor time 4.0" in said
    for peer in peers.LEFT_OUT:
        assert f"not measured: {peer}: " in said
