"""`lab matrix --shard`, `lab merge` and `lab matrix --resume`: a plan in parts, and a run that goes on."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from lab import cli
from lab.base.paths import PACKAGE
from lab.cli import options
from lab.record import RunResult, Status
from lab.record.folders import LOCK
from lab.run import scheduler
from tests.builders.processes import (
    TWO_CELLS,
    Printed,
    RunLab,
    decide_at_once,
    interrupt_runs,
    rows_listed,
)

pytestmark = pytest.mark.usefixtures("releases")


@pytest.mark.parametrize(
    ("shard", "reason"),
    [("1", "not of the form I/N"), ("9/9", "the plan has 2 cells, too few for so many shards")],
)
def test_a_shard_that_there_is_not_is_refused(
    home: Path, passing: list[str], run_lab: RunLab, shard: str, reason: str
) -> None:
    for more in ([], ["--list"]):
        printed = run_lab(2, *TWO_CELLS, "--build", "0.10.8", "--shard", shard, *more)
        assert f"--shard {shard}: {reason}" in printed.err
        assert printed.out == ""
    assert (passing, list(home.glob("state/runs/*"))) == ([], [])


def listed(printed: Printed) -> list[list[str]]:
    return [line.split()[:2] for line in printed.out.splitlines()[1:]]


def test_a_shard_s_list_is_what_the_shard_runs(home: Path, passing: list[str], run_lab: RunLab) -> None:
    line = [*TWO_CELLS, "--build", "0.10.7", "--build", "0.10.8", "--shard", "1/4"]
    assert listed(run_lab(0, *line, "--list")) == [["debian-13", "stock"]]
    run_lab(0, *line)
    assert passing == ["debian-13/stock/0.10.7"]


@pytest.fixture
def shards(home: Path, tmp_path: Path, passing: list[str], run_lab: RunLab) -> list[str]:
    """The folders of the two shards of a plan, both run."""
    folders = [str(tmp_path / f"shard-{number}") for number in (1, 2)]
    for number, folder in enumerate(folders, 1):
        line = [*TWO_CELLS, "--build", "0.10.8", "--shard", f"{number}/2", "-o", folder]
        run_lab(0, *line)
    return folders


def test_without_a_lost_shard_the_others_are_a_partial_run_that_is_resumed(
    shards: list[str], tmp_path: Path, passing: list[str], run_lab: RunLab
) -> None:
    merged = tmp_path / "home" / "state" / "runs" / "merged"
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "results.json").write_text('{"schema": 3')
    out = run_lab(3, "merge", "--partial", shards[1], str(damaged), "-o", str(merged))
    assert f"left out: {damaged / 'results.json'} is not a record that this lab can read: " in out
    assert "\nnot-run (shard 1/2 was lost): debian-13 (stock)\n" in out
    assert "\n1 pass, 1 not-run\n" in out
    assert (
        "\npartial, merged without 1 of its shards; 1 of 2 cells are missing; "
        f"continue with: lab matrix --resume {merged}\n"
    ) in out
    assert f"\nrun: {merged} (results.json, matrix.md)\n" in out
    assert "| debian-13 | - |" in (merged / "matrix.md").read_text()
    assert " partial " in run_lab(0, "runs")
    passing.clear()
    printed = run_lab(0, "matrix", "--resume", str(merged))
    assert passing == ["debian-13/stock/0.10.8"]
    assert "\n2 pass\n" in printed
    assert " complete " in run_lab(0, "runs")


def test_a_cell_that_failed_decides_the_status_beside_a_lost_shard(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_lab: RunLab
) -> None:
    decide_at_once(monkeypatch, lambda cell: cell.result(Status.FAIL))
    shard, merged = str(tmp_path / "shard"), str(tmp_path / "merged")
    run_lab(1, *TWO_CELLS, "--build", "0.10.8", "--shard", "2/2", "-o", shard)
    assert "\n1 fail, 1 not-run\n" in run_lab(1, "merge", "--partial", shard, "-o", merged)
    decide_at_once(monkeypatch, lambda cell: cell.result(Status.PASS))
    assert "\n1 pass, 1 fail\n" in run_lab(1, "matrix", "--resume", merged)
    # With nothing left to run it is as before.
    run_lab(1, "matrix", "--resume", merged)


def test_if_no_shard_can_be_read_nothing_is_merged(home: Path, tmp_path: Path, run_lab: RunLab) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty is not the folder of a run" in run_lab(2, "merge", "--partial", str(tmp_path / "empty"))
    assert not home.exists()


# What makes no run of other shards: `test_merge`.
def test_a_merged_run_replaces_no_other(shards: list[str], tmp_path: Path, run_lab: RunLab) -> None:
    before = sorted(tmp_path.rglob("*"))
    printed = run_lab(2, "merge", *shards, "-o", shards[0])
    assert f"-o {shards[0]}: there is a run in it already" in printed.err
    assert printed.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_the_line_for_slurm_runs_each_cell_once(home: Path, tmp_path: Path, run_lab: RunLab) -> None:
    page = (PACKAGE.parent / "docs" / "guides" / "in-ci.md").read_text()
    [line] = [line for line in page.splitlines() if line.startswith("sbatch ")]
    options = dict(word.removeprefix("--").partition("=")[::2] for word in shlex.split(line)[1:])
    first, last = map(int, options["array"].split("-"))
    assert first == 1
    program = tmp_path / ".venv" / "bin" / "lab"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    program.chmod(0o755)
    tasks = []
    for number in range(first, last + 1):
        environment = {"SLURM_ARRAY_TASK_ID": str(number), "PATH": "/usr/bin:/bin"}
        # As sbatch runs what --wrap gives it.
        printed = subprocess.check_output(["/bin/sh", "-c", options["wrap"]], env=environment, cwd=tmp_path)
        words = json.loads(printed)
        assert words[-2:] == ["-o", f"shard-{number}"]
        tasks += listed(run_lab(0, *words, "--list"))
    [set_name] = re.findall(r"--set (\S+)", options["wrap"])
    assert tasks == listed(run_lab(0, "matrix", "--set", set_name, "--list"))
    assert not home.exists()


def test_the_guide_counts_what_shards_boot(home: Path, run_lab: RunLab) -> None:
    page = " ".join((PACKAGE.parent / "docs" / "guides" / "in-ci.md").read_text().split())
    [counted] = re.findall(
        r"The set `ci` .* It has (\d+) guests in (\d+) variants, which are (\d+) cells\.", page
    )
    words = ["matrix", "--set", "ci", "--build", "0.10.8", "--list"]
    whole = listed(run_lab(0, *words))
    sizes = (len({guest for guest, _ in whole}), len({variant for _, variant in whole}), len(whole))
    assert sizes == tuple(map(int, counted))
    [said] = re.findall(
        r"shards 1/(\d+) to \1/\1 of the set boot (\d+) guest each, shards 1/(\d+) to \3/\3 boot (\d+)\.", page
    )
    for count, guests in (said[:2], said[2:]):
        for number in range(1, int(count) + 1):
            printed = run_lab(0, *words, "--shard", f"{number}/{count}")
            booted = list(dict.fromkeys(guest for guest, _ in listed(printed)))
            assert len(booted) == int(guests)
            assert f"guests: {guests} ({', '.join(booted)})\n" in printed.err


# -- a run that was interrupted goes on as it was begun


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
    [[guest, variant, _, again]] = rows_listed(printed.out)[1:]
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


# A variant of the lab, as it is and as somebody else would have it.
MAX_USERNS_ZERO = PACKAGE.parent / "cloud-init" / "variants" / "max-userns-zero.toml"
OTHER = 'title = "As installed"\n[sysctl]\n"kernel.yama.ptrace_scope" = 0\n'
OF_A_RUN = [
    ["matrix", "--resume", "RUN", "--list"],
    ["exec", "--run", "RUN", "debian-13/stock", "--", "true"],
    ["shell", "--run", "RUN", "debian-13/stock"],
]
of_a_run = pytest.mark.parametrize("words", OF_A_RUN, ids=lambda words: str(words[0]))


@of_a_run
@pytest.mark.parametrize("name", ["stock", "podman"])
def test_a_run_replaces_no_variant_of_the_lab(
    half_run: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch, words: list[str], name: str
) -> None:
    def starts_machines(*_: object) -> None:
        raise AssertionError("it is refused before")

    monkeypatch.setattr(options.Lab, "sweep", starts_machines)
    file = half_run / "variants" / f"{name}.toml"
    file.parent.mkdir()
    file.write_text(OTHER)
    printed = run_lab(2, *(half_run.name if word == "RUN" else word for word in words))
    assert f"lab: {file}: differs from the lab's own variant {name}: " in printed.err
    assert "sysctl" in printed.err.partition("\n")[0]
    assert "next: a run cannot replace a variant of the lab: delete that file to use" in printed.err


def test_the_variants_that_came_with_a_run_are_named(
    half_run: Path, passing: list[str], run_lab: RunLab
) -> None:
    (half_run / "variants").mkdir()
    shutil.copy(MAX_USERNS_ZERO, half_run / "variants")
    # The lab's own, unchanged, is the same variant.
    assert "came with" not in run_lab(0, "matrix", "--resume", half_run.name, "--list").err
    for name in ("report", "tried-1"):
        (half_run / "variants" / f"{name}.toml").write_text(OTHER)
    printed = run_lab(0, "matrix", "--resume", half_run.name, "--list")
    assert f"variants that came with the run, in {half_run / 'variants'}: report, tried-1\n" in printed.err
    run_lab(1, "matrix", "--resume", half_run.name)
    assert passing == ["debian-13/max-userns-zero/0.10.8"]


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


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["run.log", "cells/debian-13/max-userns-zero/pipe", "variants/report.toml"])
def test_a_run_with_a_pipe_in_it_is_not_resumed(
    half_run: Path, passing: list[str], run_lab: RunLab, name: str
) -> None:
    pipe = half_run / name
    pipe.parent.mkdir(parents=True, exist_ok=True)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    printed = run_lab(2, "matrix", "--resume", half_run.name)
    assert f"{pipe}: this is not a regular" in printed.err or f"{pipe} is a pipe or another" in printed.err
    assert passing == []


def test_a_run_of_another_lab_is_left(half_run: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connection(_uri: str) -> Iterator[None]:
        yield

    monkeypatch.setattr(scheduler, "hold_connection", connection)
    with FileLock(half_run / LOCK):
        before = {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()}
        printed = run_lab(2, "matrix", "--resume", str(half_run))
        assert {file: file.read_bytes() for file in half_run.rglob("*") if file.is_file()} == before
    assert "another lab is at work in it" in printed
