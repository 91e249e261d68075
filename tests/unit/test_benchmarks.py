"""What the benchmarks remember. No guest is booted and nothing is measured."""

import argparse
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import history
from benchmarks.first_answer import find_answers
from benchmarks.history import Figure, Machine, Result
from lab.base.activity import Activity, Progress
from lab.base.paths import Paths
from lab.record import Foreseen, Prediction, Status
from lab.run.live import Lines
from tests.builders.cells import cell
from tests.builders.runs import PLAN

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
    values: dict[str, Any] = {"program": "steps", "setting": "debian-13", "machine": MACHINE}
    return Result(figures=list(figures), made=NOON + timedelta(hours=hours), **(values | more))


def fork(seconds: float) -> Figure:
    return Figure(name="fork", value=seconds, unit="s", times=20)


def stored(folder: Path, *results: Result) -> None:
    for number, made in enumerate(results):
        (folder / f"{made.program}-{number}.json").write_text(made.model_dump_json())


def test_a_result_is_compared_with_the_last_one_of_its_kind(tmp_path: Path) -> None:
    old, newer = result(fork(1.0), hours=-2), result(fork(2.0), hours=-1)
    others = [
        result(fork(3.0), hours=1),
        result(fork(4.0), setting="debian-12"),
        result(fork(5.0), program="steps-of-another"),
        result(fork(6.0), machine=MACHINE.model_copy(update={"processors": 4})),
        result(fork(7.0), machine=MACHINE.model_copy(update={"acceleration": "kvm"})),
    ]
    stored(tmp_path, old, newer, *others)
    (tmp_path / "steps-broken.json").write_text("{")
    assert history.last(tmp_path, result()) == newer
    assert history.last(tmp_path / "none", result()) is None
    # Another kernel or commit is the same kind of machine.
    changed = MACHINE.model_copy(update={"kernel": "6.1", "commit": "f" * 7})
    assert history.last(tmp_path, result(machine=changed)) == newer


def test_figures_are_compared_as_ratios_and_only_those_that_both_have() -> None:
    size, gone, new = (Figure(name=name, value=0.0, unit="MiB") for name in ("size", "gone", "new"))
    ratios = history.compare(result(fork(2.0), gone, size), result(fork(3.0), size, new))
    assert [(ratio.name, ratio.ratio) for ratio in ratios] == [("fork", 1.5), ("size", None)]


def test_a_result_is_kept_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "this_machine", lambda _paths: MACHINE)
    options = argparse.Namespace(history=tmp_path / "history", json=tmp_path / "found.json")
    printed = StringIO()

    def keep(seconds: float) -> Result:
        console = Console(file=printed, width=160)
        return history.keep(console, options, "steps", setting="debian-13", figures=[fork(seconds)])

    first = keep(2.0)
    assert "no earlier result" in printed.getvalue()
    second = keep(3.0)
    files = sorted(options.history.glob("*.json"))
    assert [Result.model_validate_json(file.read_text()) for file in files] == [first, second]
    assert Result.model_validate_json(options.json.read_text()) == second
    assert first.machine == MACHINE
    assert "1.50" in printed.getvalue()


def test_this_machine_can_be_described_without_libvirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CONNECT", "test:///does-not-exist")
    machine = history.this_machine(Paths(cache=tmp_path, state=tmp_path))
    assert (machine.libvirt, machine.acceleration) == ("not known", "not known")
    assert machine.processors >= 1


def test_the_first_answers_are_told_by_the_lines_of_a_real_run() -> None:
    printed: list[str] = []
    lines = Lines(lambda line: printed.append(f"[    1 s] {line}\n"), 2)
    lines.lane("debian-13", Progress("booting ~ slowly", Activity.START))
    before = len(printed)
    for _ in range(2):
        lines.prediction(PLAN[0], Prediction(says=Foreseen.BLOCKED, cause="userns-limit"))
    lines.cell(cell())
    lines.cell(cell())
    # The clock is read at the first prediction and at the first verdict, and not again.
    clock = iter([10.0, 20.0])
    answers = find_answers(printed, lambda: next(clock))
    assert answers == {"first prediction": 10.0, "first verdict": 20.0}
    assert find_answers(printed[:before], lambda: next(clock)) == {}


@pytest.mark.parametrize("status", [Status.ERROR, Status.NOT_RUN, Status.NOT_APPLICABLE])
def test_a_cell_that_was_not_decided_is_no_first_verdict(status: Status) -> None:
    printed: list[str] = []
    Lines(lambda line: printed.append(f"[    1 s] {line}\n"), 2).cell(
        cell(status=status, reason="disk is full")
    )
    assert " 1/2 " in printed[0]
    assert find_answers(printed, lambda: 1.0) == {}
