"""A plan in three shards, of which one is lost: merged and resumed, it is the run of one host."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.builds import SuiteOptions, rootfs
from lab.builds.kinds.wheel import Wheel
from lab.lane.cell import CellRunner
from lab.plan import Cell
from lab.record import CellResult, Outcome, RunResult, Status, TestResult
from tests.builders.facts import facts
from tests.builders.lab import GUESTS, URI, VARIANTS, Lab
from tests.builders.processes import run_main

PLAN = [word for name in GUESTS for word in ("-g", name)] + [word for name in VARIANTS for word in ("-v", name)]
# What tells cells of two runs apart that did the same.
OF_A_RUN = {"lane"}

Command = Callable[..., int]


@pytest.fixture
def served(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that were run, each of which leaves evidence and a result of its own."""
    ran: list[str] = []

    def run(_runner: CellRunner, cell: Cell, folder: Path, _options: SuiteOptions) -> CellResult:
        ran.append(cell.name)
        folder.mkdir(parents=True)
        (folder / "kernel.log").write_text(cell.name)
        blocked = cell.variant.name != "stock"
        tests = [TestResult(name="box_starts", outcome=Outcome.FAIL if blocked else Outcome.PASS)]
        more = {"tests": tests, "cause": "userns-limit" if blocked else None, "facts": facts()}
        return cell.result(Status.XFAIL if blocked else Status.PASS).model_copy(update=more)

    monkeypatch.setattr(CellRunner, "run", run)
    lab.deploy = lambda _running, _build: {"boxlite.whl": "1" * 64}
    return ran


@pytest.fixture
def command(tmp_path: Path, served: list[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command line of the lab on a host of this name, and returns its exit status."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setattr(Wheel, "check", lambda _build, _paths: None)
    monkeypatch.setattr(rootfs, "make", lambda folder: folder)
    monkeypatch.chdir(tmp_path)

    def run(host: str, *arguments: str) -> int:
        monkeypatch.setenv("LAB_HOST_NAME", host)
        status = run_main(monkeypatch, "--connect", URI, *arguments)
        assert isinstance(status, int)
        return status

    return run


def test_a_lost_shard_is_made_good_and_every_cell_is_what_one_host_would_have_made(
    tmp_path: Path, command: Command, served: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = ["matrix", "--quiet", "--no-remedies", "--no-experiment", "--build", "0.10.8", *PLAN]
    assert command("alone", *matrix, "-o", "whole") == 0
    whole = RunResult.read(tmp_path / "whole")
    planned = list(served)
    for number in (1, 2, 3):
        assert command(f"runner-{number}", *matrix, "--shard", f"{number}/3", "-o", f"shard-{number}") == 0
    lost = {c.name for c in RunResult.read(tmp_path / "shard-2").cells}
    shutil.rmtree(tmp_path / "shard-2")

    assert command("alone", "merge", "shard-1", "shard-3", "-o", "merged") == 2
    assert "shard 2/3 is missing" in capsys.readouterr().err
    assert command("alone", "merge", "--partial", "shard-1", "shard-3", "-o", "merged") == 3
    partial = RunResult.read(tmp_path / "merged")
    reasons = {c.name: c.reason for c in partial.cells}
    assert reasons == {name: "shard 2/3 was lost" if name in lost else "" for name in reasons}

    served.clear()
    assert command("runner-4", "matrix", "--quiet", "--resume", "merged") == 0
    assert set(served) == lost
    merged = RunResult.read(tmp_path / "merged")
    assert sorted(planned) == sorted(c.name for c in merged.cells)
    assert [c.model_dump(exclude=OF_A_RUN) for c in merged.cells] == [
        c.model_dump(exclude=OF_A_RUN) for c in whole.cells
    ]
    for cell in merged.cells:
        for name in cell.evidence:
            assert (tmp_path / "merged" / name).read_text() == (tmp_path / "whole" / name).read_text()

    labels = [lane.label for lane in merged.run.lanes]
    assert len(labels) == len(set(labels))
    ran_on = {c.folder: [host.name for host in merged.run.hosts(c.guest, c.lane)] for c in merged.cells}
    assert {name for [name] in ran_on.values()} == {"runner-1", "runner-3", "runner-4"}
    of_lost = [ran_on[c.folder] for c in merged.cells if c.name in lost]
    assert of_lost == [["runner-4"]] * len(lost)
    page = (tmp_path / "merged" / "matrix.md").read_text()
    assert f"- runner-4 ran {len(lost)} cell" in page
    assert not merged.run.is_partial
