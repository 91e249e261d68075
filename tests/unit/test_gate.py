"""The gate: its decision, its exit status, and what its commands print and refuse."""

import json
from pathlib import Path

import pytest

from lab.gate import baseline
from lab.record import Outcome, RunResult, Status
from tests.builders.cells import done, run_with, side, write
from tests.builders.processes import RunLab

BEFORE = run_with(
    done(Status.PASS, build="0.10.0"),
    done(Status.XFAIL, variant="max-userns-zero", build="0.10.0"),
    done(Status.PASS, guest="debian-12", build="0.10.0"),
)


pytestmark = pytest.mark.usefixtures("home")


def now(
    stock: Status = Status.PASS, blocked: Status = Status.XFAIL, older: Status = Status.PASS, cause: str = ""
) -> RunResult:
    return run_with(
        done(stock, reason="why it failed"),
        done(blocked, cause or None, variant="max-userns-zero"),
        done(older, guest="debian-12"),
    )


@pytest.mark.parametrize(
    ("new", "status", "verdict"),
    [
        (now(), 0, "gate passed: 3 cells compared, nothing is worse"),
        (now(stock=Status.FAIL), 1, "gate blocked: 1 regressed"),
        (now(cause="userns-sysctl"), 1, "gate blocked: 1 cause changed"),
        (now(stock=Status.FLAKY), 1, "gate blocked: 1 newly flaky"),
        (now(stock=Status.NOT_APPLICABLE), 1, "gate blocked: 1 vanished"),
        (now(blocked=Status.XPASS), 1, "gate blocked: 1 unexpected pass"),
        (now(older=Status.ERROR), 3, "gate incomplete: 1 cell could not be run; nothing else is worse"),
        (now(stock=Status.FAIL, older=Status.NOT_RUN), 1, "gate blocked: 1 regressed"),
    ],
)
def test_the_gate_says_its_verdict_first_and_ends_with_its_status(
    tmp_path: Path, run_lab: RunLab, new: RunResult, status: int, verdict: str
) -> None:
    old, candidate = write(BEFORE, tmp_path / "old"), write(new, tmp_path / "new")
    assert run_lab(status, "gate", candidate, "--against", old).splitlines()[0] == verdict


def test_a_cell_that_blocks_has_its_reason_evidence_and_commands(tmp_path: Path, run_lab: RunLab) -> None:
    old, candidate = write(BEFORE, tmp_path / "old"), write(now(stock=Status.FAIL), tmp_path / "new")
    assert (
        run_lab(0, "baseline", old, "-o", tmp_path / "b.toml")
        == f"{tmp_path}/b.toml: 3 cells of boxlite 0.10.0\n"
    )
    printed = run_lab(1, "gate", candidate, "--against", tmp_path / "b.toml")
    for lines in (
        f"old: boxlite 0.10.0 (baseline {tmp_path}/b.toml)",
        "regressed: debian-13 stock: pass -> fail userns-limit\n  why it failed\n",
        "  test: starts: pass -> fail\n",
        f"  evidence: {candidate}/cells/debian-13/stock/0.10.8\n",
        "  run it again: lab matrix -g debian-13 -v stock --build 0.10.8\n",
    ):
        assert lines in printed
    document = json.loads(run_lab(1, "gate", candidate, "--against", old, "--format", "json"))
    assert document["gate"] == "blocked"
    assert [(cell["guest"], cell["difference"]) for cell in document["blocking"]] == [
        ("debian-13", "regressed")
    ]
    page = run_lab(1, "gate", candidate, "--against", old, "--format", "markdown").splitlines()
    assert page[0] == "# gate blocked: 1 regressed"
    assert "| regressed | debian-13 | stock | pass | fail userns-limit |" in page
    assert "- run it again: `lab matrix -g debian-13 -v stock --build 0.10.8`" in page


def test_what_could_not_run_is_named_with_reason_and_command(tmp_path: Path, run_lab: RunLab) -> None:
    missing = [done(Status.ERROR, guest="debian-12", reason="no boot"), done(Status.PASS)]
    blocked = done(Status.NOT_RUN, variant="max-userns-zero", reason="interrupted")
    old, candidate = write(BEFORE, tmp_path / "old"), write(run_with(*missing, blocked), tmp_path / "new")
    assert (
        "could not run:\n"
        "  debian-12 (stock): no boot\n"
        "  debian-13 (max-userns-zero): interrupted\n"
        f"  run what is missing: lab matrix --resume {candidate}\n"
    ) in run_lab(3, "gate", candidate, "--against", old)
    # An old side without results is no green gate.
    empty = write(run_with(done(Status.NOT_RUN)), tmp_path / "empty")
    printed = run_lab(3, "gate", write(now(), tmp_path / "whole"), "--against", empty)
    assert "gate incomplete: no cell has a result on both sides" in printed


def test_a_run_of_another_plan_is_refused_or_named(tmp_path: Path, run_lab: RunLab) -> None:
    old = write(BEFORE, tmp_path / "old")
    other = write(run_with(done(Status.PASS, guest="debian-14")), tmp_path / "other")
    assert "have no cell in common" in run_lab(2, "gate", other, "--against", old)
    printed = run_lab(1, "gate", write(run_with(done(Status.PASS)), tmp_path / "part"), "--against", old)
    assert "gate blocked: 2 vanished" in printed
    assert "this run was not asked for 2 cells that the old side has" in printed
    assert "vanished: debian-12 stock: pass -> not asked" in printed


TWO = run_with(done(Status.PASS, build="0.10.0"), done(Status.FAIL, build="0.10.8"))
THREE = run_with(*(done(Status.PASS, build=build) for build in ("0.10.0", "0.10.7", "0.10.8")))


def test_two_builds_of_one_run_are_compared_in_their_order(tmp_path: Path, run_lab: RunLab) -> None:
    run = write(TWO, tmp_path / "two")
    printed = run_lab(0, "compare", run)
    assert "new: boxlite 0.10.8 (run 20261124-160000)\nold: boxlite 0.10.0" in printed
    assert "1 regressed" in printed
    assert json.loads(run_lab(0, "compare", run, "--format", "json"))["cells"][0]["difference"] == "regressed"
    page = run_lab(0, "compare", run, "--format", "markdown")
    assert page.startswith("# boxlite 0.10.8 compared with 0.10.0\n")
    assert "1 fixed" in run_lab(0, "compare", run, "--new-build", "0.10.0")
    run_lab(1, "gate", run, "--against-build", "0.10.0")
    run_lab(0, "gate", run, "--against-build", "0.10.8", "--build", "0.10.0")
    assert "old: boxlite 0.10.0" in run_lab(1, "gate", run, "--against-build", "previous")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "three"], "several builds: 0.10.0, 0.10.7, 0.10.8\n  next: choose one with --old-build"),
        (["compare", "three", "--old-build", "0.10.0"], "next: choose one with --new-build BUILD"),
        (["compare", "one"], "tested one build, 0.10.8: there is no other to compare it with"),
        (["compare", "three", "--old-build", "0.9", "--new-build", "0.10.8"], "no build of run"),
        (["compare", "three", "--old-build", "0.10.8", "--new-build", "0.10.8"], "both name 0.10.8"),
        (["compare", "b.toml"], "b.toml is a baseline of one build"),
        (["compare", "b.toml", "one", "--old-build", "0.9"], "--old-build 0.9: b.toml is a baseline of 0.10.8"),
        (["compare", "nowhere.toml", "one"], "nowhere.toml: no such file"),
        (["gate", "three", "--against", "one"], "next: choose one with --build BUILD"),
        (["gate", "one", "--against", "yesterday"], "no run 'yesterday'"),
        (["gate", "one"], "--against FILE-or-RUN, or --against-build BUILD"),
        (["gate", "one", "--against", "b.toml", "--against-build", "0.10.0"], "compares with one thing"),
        (["gate", "one", "--against-build", "previous"], "there is no other to compare it with"),
        (["gate", "one", "--against", "three/results.json"], "next: choose one with lab baseline RUN -o FILE"),
        (["gate", "one", "--against", "cut.toml"], "cut.toml: not valid TOML"),
        (["gate", "empty", "--against", "one"], "cells: the run has none, expected at least one"),
        (["baseline", "three", "-o", "new.toml"], "next: choose one with --build BUILD"),
        (["baseline", "one", "-o", "one/results.json"], "this file is no baseline"),
    ],
)
def test_what_cannot_be_compared_is_said(
    tmp_path: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(THREE, Path("three"))
    write(now(), Path("one"))
    write(run_with(), Path("empty"))
    baseline.write(side(done(Status.PASS)), Path("b.toml"))
    Path("cut.toml").write_text(Path("b.toml").read_text()[:-3])
    assert message in run_lab(2, *words)
    assert not Path("new.toml").exists()


def test_hostile_text_controls_neither_terminal_nor_markdown(tmp_path: Path, run_lab: RunLab) -> None:
    name = "stock\ngate passed: everything is fine"
    cells = [
        done(Status.FAIL, variant="max-userns-zero", reason="<b>x</b> \x1b[31m`y`\n# z"),
        *(done(Status.PASS), done(Status.PASS, guest="debian-12")),
        done(Status.FAIL, variant=name, tests={name: Outcome.FAIL}),
    ]
    before = run_with(*BEFORE.cells, done(Status.PASS, variant=name, build="0.10.0"))
    old, candidate = write(before, tmp_path / "old"), write(run_with(*cells), tmp_path / "new")
    document = json.loads((candidate / "results.json").read_text())
    document["cells"][0]["tests"].append({"name": "t\x1b[2J|<i>", "outcome": "fail"})
    document["cells"][0]["cause"] = "\x1b]0;x\x07bad"
    (candidate / "results.json").write_text(json.dumps(document))
    for kind in ("table", "markdown"):
        printed = run_lab(1, "gate", candidate, "--against", old, "--format", kind)
        assert "\x1b" not in printed
        assert kind == "table" or not ("<b>" in printed or "<i>" in printed)
        # No name makes a line of its own.
        assert not [line for line in printed.splitlines() if line.startswith("gate passed")]


def test_a_cell_of_which_many_tests_changed_names_the_first_of_them(tmp_path: Path, run_lab: RunLab) -> None:
    many = {f"test-{number}": Outcome.FAIL for number in range(100)}
    old = write(run_with(done(Status.PASS, tests=dict.fromkeys(many, Outcome.PASS))), tmp_path / "old")
    new = write(run_with(done(Status.FAIL, tests=many)), tmp_path / "new")
    printed = run_lab(1, "gate", new, "--against", old)
    assert printed.count("  test: ") == 20
    assert "  tests: 82 more changed\n" in printed
