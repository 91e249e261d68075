"""The gate: its decision, its exit status, and what its commands print and refuse."""

import json
from pathlib import Path

import pytest

from lab.gate import baseline
from lab.record import Outcome, RunResult, Status
from tests.builders.cells import done, run_with, side, write
from tests.builders.processes import run_main

BEFORE = run_with(
    done(Status.PASS, build="0.10.0"),
    done(Status.XFAIL, variant="max-userns-zero", build="0.10.0"),
    done(Status.PASS, guest="debian-12", build="0.10.0"),
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    return tmp_path


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
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    new: RunResult,
    status: int,
    verdict: str,
) -> None:
    old, candidate = write(BEFORE, home / "old"), write(new, home / "new")
    assert run_main(monkeypatch, "gate", candidate, "--against", old) == status
    assert capsys.readouterr().out.splitlines()[0] == verdict


def test_a_cell_that_blocks_is_printed_with_its_reason_its_evidence_and_the_commands_to_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, candidate = write(BEFORE, home / "old"), write(now(stock=Status.FAIL), home / "new")
    assert run_main(monkeypatch, "baseline", old, "-o", home / "b.toml") == 0
    assert capsys.readouterr().out == f"{home}/b.toml: 3 cells of boxlite 0.10.0\n"
    assert run_main(monkeypatch, "gate", candidate, "--against", home / "b.toml") == 1
    said = capsys.readouterr().out
    assert f"old: boxlite 0.10.0 (baseline {home}/b.toml)" in said
    assert "regressed: debian-13 stock: pass -> fail userns-limit\n  why it failed\n" in said
    assert "  test: starts: pass -> fail\n" in said
    assert f"  evidence: {candidate}/cells/debian-13/stock/0.10.8\n" in said
    assert "  run it again: lab matrix -g debian-13 -v stock --build 0.10.8\n" in said


def test_the_decision_as_json_and_as_markdown(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, candidate = write(BEFORE, home / "old"), write(now(stock=Status.FAIL), home / "new")
    assert run_main(monkeypatch, "gate", candidate, "--against", old, "--format", "json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["gate"] == "blocked"
    assert [(cell["guest"], cell["difference"]) for cell in said["blocking"]] == [("debian-13", "regressed")]
    assert run_main(monkeypatch, "gate", candidate, "--against", old, "--format", "markdown") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# gate blocked: 1 regressed"
    assert "| regressed | debian-13 | stock | pass | fail userns-limit |" in lines
    assert "- run it again: `lab matrix -g debian-13 -v stock --build 0.10.8`" in lines


def test_what_could_not_run_is_named_with_the_reason_and_the_command_that_runs_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = [done(Status.ERROR, guest="debian-12", reason="no boot"), done(Status.PASS)]
    blocked = done(Status.NOT_RUN, variant="max-userns-zero", reason="interrupted")
    old, candidate = write(BEFORE, home / "old"), write(run_with(*missing, blocked), home / "new")
    assert run_main(monkeypatch, "gate", candidate, "--against", old) == 3
    assert (
        "could not run:\n"
        "  debian-12 (stock): no boot\n"
        "  debian-13 (max-userns-zero): interrupted\n"
        f"  run what is missing: lab matrix --resume {candidate}\n"
    ) in capsys.readouterr().out


def test_an_old_side_without_results_is_not_a_green_gate(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write(run_with(done(Status.NOT_RUN)), home / "old")
    assert run_main(monkeypatch, "gate", write(now(), home / "new"), "--against", old) == 3
    assert "gate incomplete: no cell has a result on both sides" in capsys.readouterr().out


def test_a_run_of_another_plan_is_refused_or_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write(BEFORE, home / "old")
    other = write(run_with(done(Status.PASS, guest="debian-14")), home / "other")
    assert run_main(monkeypatch, "gate", other, "--against", old) == 2
    assert "have no cell in common" in capsys.readouterr().err
    part = write(run_with(done(Status.PASS)), home / "part")
    assert run_main(monkeypatch, "gate", part, "--against", old) == 1
    said = capsys.readouterr().out
    assert "gate blocked: 2 vanished" in said
    assert "the run was not asked for any cell of guest debian-12, variant max-userns-zero: is the old" in said
    assert "vanished: debian-12 stock: pass -> not asked" in said


TWO = run_with(done(Status.PASS, build="0.10.0"), done(Status.FAIL, build="0.10.8"))
THREE = run_with(*(done(Status.PASS, build=build) for build in ("0.10.0", "0.10.7", "0.10.8")))


def test_two_builds_of_one_run_are_compared_in_the_order_of_the_command_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write(TWO, home / "two")
    assert run_main(monkeypatch, "compare", run) == 0
    said = capsys.readouterr().out
    assert "new: boxlite 0.10.8 (run 20261124-160000)\nold: boxlite 0.10.0" in said
    assert "1 regressed" in said
    assert run_main(monkeypatch, "compare", run, "--new-build", "0.10.0") == 0
    assert "1 fixed" in capsys.readouterr().out
    assert run_main(monkeypatch, "gate", run, "--against-build", "0.10.0") == 1
    assert run_main(monkeypatch, "gate", run, "--against-build", "0.10.8", "--build", "0.10.0") == 0
    capsys.readouterr()
    assert run_main(monkeypatch, "gate", run, "--against-build", "previous") == 1
    assert "old: boxlite 0.10.0" in capsys.readouterr().out


def test_a_comparison_has_the_format_that_was_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write(TWO, home / "two")
    assert run_main(monkeypatch, "compare", run, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["cells"][0]["difference"] == "regressed"
    assert run_main(monkeypatch, "compare", run, "--format", "markdown") == 0
    assert capsys.readouterr().out.startswith("# boxlite 0.10.8 compared with 0.10.0\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["compare", "three"],
            "tested several builds: 0.10.0, 0.10.7, 0.10.8\n  next: choose one with --old-bu",
        ),
        (["compare", "three", "--old-build", "0.10.0"], "next: choose one with --new-build BUILD"),
        (["compare", "one"], "tested one build, 0.10.8: there is no other to compare it with"),
        (["compare", "one", "three"], "tested several builds"),
        (["compare", "three", "--old-build", "0.9", "--new-build", "0.10.8"], "no build of run"),
        (["compare", "three", "--old-build", "0.10.8", "--new-build", "0.10.8"], "both name 0.10.8"),
        (["compare", "b.toml"], "b.toml is a baseline of one build"),
        (["compare", "b.toml", "one", "--old-build", "0.9"], "--old-build 0.9: b.toml is a baseline of 0.10.8"),
        (["compare", "nowhere.toml", "one"], "nowhere.toml: no such file"),
        (["gate", "three", "--against", "one"], "next: choose one with --build BUILD"),
        (["gate", "one", "--against", "yesterday"], "no run 'yesterday'"),
        (["gate", "one"], "--against FILE-or-RUN, or --against-build BUILD"),
        (["gate", "one", "--against", "b.toml", "--against-build", "0.10.0"], "compares with one thing"),
        (["gate", "one", "--against-build", "0.10.0"], "there is no other to compare it with"),
        (["gate", "one", "--against-build", "previous"], "there is no other to compare it with"),
        (
            ["gate", "one", "--against", "three/results.json"],
            "0.10.0, 0.10.7, 0.10.8\n  next: choose one with lab baseline RUN -o FILE --build BUILD",
        ),
        (["gate", "one", "--against", "cut.toml"], "cut.toml: not valid TOML"),
        (["gate", "empty", "--against", "one"], "cells: the run has none, expected at least one"),
        (["baseline", "three", "-o", "new.toml"], "next: choose one with --build BUILD"),
        (["baseline", "one", "-o", "one/results.json"], "this file is no baseline"),
    ],
)
def test_what_cannot_be_compared_is_said(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(home)
    write(THREE, Path("three"))
    write(now(), Path("one"))
    write(run_with(), Path("empty"))
    baseline.write(side(done(Status.PASS)), Path("b.toml"))
    Path("cut.toml").write_text(Path("b.toml").read_text()[:-3])
    assert run_main(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err
    assert not Path("new.toml").exists()


def test_hostile_text_of_a_record_controls_neither_terminal_nor_markdown(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = run_with(done(Status.FAIL, variant="max-userns-zero", reason="<b>x</b> \x1b[31m`y`\n# z"))
    new = new.model_copy(
        update={"cells": [*new.cells, done(Status.PASS), done(Status.PASS, guest="debian-12")]}
    )
    old, candidate = write(BEFORE, home / "old"), write(new, home / "new")
    document = json.loads((candidate / "results.json").read_text())
    document["cells"][0]["tests"].append({"name": "t\x1b[2J|<i>", "outcome": "fail"})
    document["cells"][0]["cause"] = "\x1b]0;x\x07bad"
    (candidate / "results.json").write_text(json.dumps(document))
    for kind in ("table", "markdown"):
        assert run_main(monkeypatch, "gate", candidate, "--against", old, "--format", kind) == 1
        said = capsys.readouterr().out
        assert "\x1b" not in said
        if kind == "markdown":
            assert "<b>" not in said
            assert "<i>" not in said


def test_no_name_in_a_record_makes_a_line_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "stock\ngate passed: everything is fine"
    old = write(run_with(done(Status.PASS, variant=name, build="0.10.0")), home / "old")
    new = write(run_with(done(Status.FAIL, variant=name, tests={name: Outcome.FAIL})), home / "new")
    assert run_main(monkeypatch, "gate", new, "--against", old) == 1
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("gate passed")]


def test_a_cell_of_which_many_tests_changed_names_the_first_of_them(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    many = {f"test-{number}": Outcome.FAIL for number in range(100)}
    old = write(run_with(done(Status.PASS, tests=dict.fromkeys(many, Outcome.PASS))), home / "old")
    new = write(run_with(done(Status.FAIL, tests=many)), home / "new")
    assert run_main(monkeypatch, "gate", new, "--against", old) == 1
    said = capsys.readouterr().out
    assert said.count("  test: ") == 20
    assert "  tests: 82 more changed\n" in said
