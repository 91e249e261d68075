import math
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, RenderableType

from lab import catalog, causes
from lab.builds.kinds.wheel import Wheel
from lab.plan import Cell, choose
from lab.record import (
    CellResult,
    Confidence,
    Expectation,
    Experiment,
    ExperimentStep,
    Finding,
    LaneRecord,
    NotTried,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RepeatResult,
    RunResult,
    Status,
    StepOutcome,
    TestResult,
)
from lab.report import live as progress
from lab.report import markdown, squares, terminal
from lab.report.live import Lines, LiveTable
from lab.report.runlog import RunLog
from lab.run.journal import RUN_LOG
from lab.run.observer import Silent
from tests.unit.examples import cell, facts, host, run_of

XFAIL = Expectation(status="xfail", cause="userns-limit")
# Text with which a guest could break out of its cell of the table.
HOSTILE = 'a\\|b | pass |\n| <b>pass</b> | "x" `y`'
# Terminal: clear the screen, set the title, green. rich: green, and an invalid tag.
STEERING = "\x1b[2J\x1b]0;title\x07\x1b[32m[bold green]pass[/] \x9b[/nothing]"
SAID = "[bold green]pass[/] [/nothing]"
FAULT = "the machine of debian-13 is gone\nits console ends:\n  | Reached target"
FLAKY: dict[str, Any] = {
    "status": Status.FLAKY,
    "reason": "all tests passed in 2 of 3 repeats",
    "repeats": [
        RepeatResult(status=Status.PASS),
        RepeatResult(status=Status.FAIL, failed=["jail_starts"]),
        RepeatResult(status=Status.PASS),
    ],
}


def console_on(out: StringIO, *, is_terminal: bool = False) -> Console:
    return Console(file=out, width=240, force_terminal=is_terminal, color_system=None)


def printed(run: RunResult, folder: Path = Path("a run"), width: int = 240) -> str:
    out = StringIO()
    console = Console(file=out, width=width, force_terminal=False, color_system=None)
    terminal.summary(console, run, folder)
    return out.getvalue()


def squares_of(line: str) -> list[str]:
    """Split a Markdown row into its squares at the bars that are not escaped."""
    parts, square = [], ""
    for token in re.findall(r"\\.|.", line):
        if token == "|":
            parts.append(square.strip())
            square = ""
        else:
            square += token
    return parts[1:]


def rows_of(text: str) -> list[list[str]]:
    return [squares_of(line) for line in text.splitlines() if line.startswith("|")]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"status": Status.PASS}, "pass"),
        ({"status": Status.FAIL, "cause": "unknown"}, "fail unknown"),
        ({"status": Status.XFAIL, "cause": "userns-limit"}, "xfail userns-limit"),
        ({"status": Status.XPASS, "reason": "passed, but"}, "xpass"),
        ({"status": Status.NOT_APPLICABLE, "reason": "no AppArmor"}, "n/a"),
        ({"status": Status.NOT_RUN, "reason": "interrupted"}, "not-run"),
        ({"status": Status.ERROR, "reason": "waited 180 s for SSH"}, "error"),
        (FLAKY, "flaky 2/3"),
        ({"status": Status.PASS, "retried": ["no SSH", "no disk"]}, "pass (try 3)"),
        ({"status": Status.XFAIL, "cause": "userns-limit", "retried": ["x"]}, "xfail userns-limit (try 2)"),
        (None, ""),
    ],
)
def test_a_square_says_the_status_and_the_cause(more: dict[str, Any] | None, expected: str) -> None:
    assert squares.square(cell(**more) if more else None) == expected


def test_pass_alone_is_green() -> None:
    assert [status for status, style in terminal.STYLES.items() if "green" in style] == [Status.PASS]
    assert set(terminal.STYLES) == set(Status)


@pytest.mark.parametrize("status", [Status.ERROR, Status.NOT_RUN])
def test_what_could_not_run_is_never_shown_as_a_pass(status: Status) -> None:
    run = run_of(cell(status=status, reason="the guest never opened SSH"))
    assert squares.counts(run) == f"1 {status}"
    assert "pass" not in printed(run)
    [_, _, row] = rows_of(markdown.render(run))
    assert row[2].startswith(str(status))


def test_counts_add_up_to_all_cells() -> None:
    run = run_of(*[cell(status=status) for status in (Status.ERROR, Status.PASS, Status.XFAIL, Status.PASS)])
    assert squares.counts(run) == "2 pass, 1 xfail, 1 error"


def test_the_kernel_is_what_the_guest_said_or_a_dash() -> None:
    assert squares.kernel([cell(), cell(facts=facts(kernel="6.12.118"))]) == "6.12.118"
    assert squares.kernel([cell()]) == "-"


def test_the_table_has_a_row_for_each_guest_and_a_column_for_each_variant() -> None:
    run = run_of(
        cell("debian-12", "stock", facts=facts(kernel="6.1.0-56-cloud-amd64")),
        cell("debian-12", "max-userns-zero", status=Status.XFAIL, cause="userns-limit", expected=XFAIL),
        cell("debian-13", "stock", status=Status.ERROR, reason="x"),
        cell("debian-13", "max-userns-zero", status=Status.NOT_RUN, reason="y"),
    )
    assert rows_of(markdown.render(run)) == [
        ["guest", "kernel", "stock", "max-userns-zero"],
        ["---"] * 4,
        ["debian-12", "6.1.0-56-cloud-amd64", "pass", "xfail userns-limit"],
        ["debian-13", "-", "error", "not-run"],
    ]
    lines = [line.split() for line in printed(run).splitlines()]
    assert ["debian-12", "6.1", "pass", "xfail", "userns-limit"] in lines


def test_builds_stand_side_by_side_and_a_single_one_is_not_told() -> None:
    run = run_of(
        cell(build="0.10.7", status=Status.FAIL, cause="unknown"),
        cell(build="0.10.8"),
        cell(variant="max-userns-zero", build="0.10.7"),
    )
    assert squares.columns_of(run) == {
        ("stock", "0.10.7"): "stock 0.10.7",
        ("stock", "0.10.8"): "stock 0.10.8",
        ("max-userns-zero", "0.10.7"): "max-userns-zero 0.10.7",
    }
    assert rows_of(markdown.render(run))[::2] == [
        ["guest", "kernel", "stock 0.10.7", "stock 0.10.8", "max-userns-zero 0.10.7"],
        ["debian-13", "-", "fail unknown", "pass", "pass"],
    ]
    lines = [re.split(r"  +", line.strip()) for line in printed(run).splitlines()]
    assert ["guest", "kernel", "stock 0.10.7", "stock 0.10.8", "max-userns-zero 0.10.7"] in lines
    assert ["debian-13", "-", "fail unknown", "pass", "pass"] in lines
    assert list(squares.columns_of(run_of(cell(), cell(variant="max-userns-zero"))).values()) == [
        "stock",
        "max-userns-zero",
    ]


def test_a_square_that_a_shard_does_not_have_is_empty_and_moves_no_other() -> None:
    run = run_of(
        cell("debian-12", "max-userns-zero", status=Status.ERROR),
        cell("debian-13", "stock"),
        cell("debian-13", "max-userns-zero", status=Status.FAIL),
        cell("debian-13-backports", "stock"),
    )
    assert [[each and str(each.status) for each in row] for row in squares.rows(run).values()] == [
        ["error", None],
        ["fail", "pass"],
        [None, "pass"],
    ]
    assert rows_of(markdown.render(run))[2:] == [
        ["debian-12", "-", "error", ""],
        ["debian-13", "-", "fail", "pass"],
        ["debian-13-backports", "-", "", "pass"],
    ]
    lines = printed(run).splitlines()
    [header] = [line for line in lines if line.startswith("guest")]
    [last] = [line for line in lines if line.startswith("debian-13-backports ") and "pass" in line]
    assert last.index("pass") == header.index("stock")
    assert squares.counts(run) == "2 pass, 1 fail, 1 error"


def test_a_cell_that_was_tried_again_says_why_wherever_it_is_shown() -> None:
    run = run_of(cell(retried=[FAULT, "no SSH"]), cell("debian-12"))
    text = printed(run)
    name = "debian-13 stock 0.10.8"
    assert f"{name}: try 1: fault of the lab: {FAULT}\n" in text
    assert f"{name}: try 2: fault of the lab: no SSH\n" in text
    assert "debian-12 stock 0.10.8" not in text
    page = markdown.render(run)
    assert "## pass (try 3): debian-13 stock\n" in page
    assert f"\n- try 1: fault of the lab: {' '.join(FAULT.split()).replace('|', chr(92) + '|')}\n" in page
    assert "\n- try 2: fault of the lab: no SSH\n" in page
    assert page.count("\n## ") == 2  # this section and the environment


TRIED = [
    RemedyResult(name="preflight", result=RemedyOutcome.AVOIDS, reason="skipped: a | b", price="Nothing."),
    RemedyResult(
        name="install-bubblewrap",
        result=RemedyOutcome.CANNOT,
        reason="no source of packages",
        price="None.",
        scripts={"install-bubblewrap": "0" * 64},
    ),
    RemedyResult(
        name="clone-on+limit-raise",
        result=RemedyOutcome.VERIFIED,
        price="Every program may.",
        scripts={"clone-on": "1" * 64, "limit-raise": "2" * 64},
        defects=["its undo does not put back what was: bwrap_user"],
        evidence=["cells/a/remedies/x/boxlite/box-1/logs/boxlite.log", "cells/a/remedies/x/clone-on.sh"],
    ),
]
BLOCKED: dict[str, Any] = {
    "status": Status.XFAIL,
    "expected": XFAIL,
    "cause": "userns-limit",
    "reason": "the limit is 0",
    "remedies": TRIED,
    "evidence": ["cells/a/kernel.log", *TRIED[2].evidence],
}


def test_what_cures_a_cell_is_told_first_with_the_command_for_it() -> None:
    run = run_of(cell(**BLOCKED), cell("debian-12"))
    command = "lab remedies show clone-on --script and lab remedies show limit-raise --script"
    assert (
        "debian-13 stock 0.10.8: xfail userns-limit\n"
        "  the limit is 0\n"
        "  clone-on+limit-raise: verified\n"
        "    price: Every program may.\n"
        f"    {command}\n"
        "    a defect of clone-on+limit-raise: its undo does not put back what was: bwrap_user\n"
        "  preflight: avoids it: skipped: a | b\n"
        "    price: Nothing.\n"
        "    lab remedies show preflight\n"
        "  install-bubblewrap: cannot be tried here: no source of packages\n"
        "  evidence: a run/cells/debian-13/stock/0.10.8\n"
    ) in printed(run)
    shown, folded = markdown.render(run).split("<details>")
    assert (
        f"- cured by `clone-on+limit-raise` (verified): `{command}`; price: Every program may.\n"
        "    - a defect of the remedy: its undo does not put back what was: bwrap_user\n"
    ) in shown
    assert (
        "- remedy `preflight`: avoids it: skipped: a \\| b; `lab remedies show preflight`; price: Nothing.\n"
        "- remedy `install-bubblewrap`: cannot be tried here: no source of packages\n"
    ) in folded
    assert "[stock](cells/debian-13/stock/0.10.8)\n" in shown
    # The table itself stays the same.
    assert squares.square(run.cells[0]) == "xfail userns-limit"


def step(outcome: StepOutcome, *changes: str) -> ExperimentStep:
    return ExperimentStep(changes=list(changes), outcome=outcome)


PASSES, FAILS = StepOutcome.PASSES, StepOutcome.FAILS
ONE, OTHER = "without sysctl a=0", "without sysctl b=0"
NOT_TRIED = [NotTried(change="with as-root", reason="something else let it pass before")]
EXPERIMENTS = [
    (
        Status.XFAIL,
        Experiment(
            tests=["box", "namespace"],
            steps=[step(FAILS), step(FAILS, ONE), step(FAILS, OTHER), step(PASSES, ONE, OTHER)],
            turning=[[ONE, OTHER]],
            not_tried=NOT_TRIED,
            evidence=["cells/a/experiment/01/suite.log", "cells/a/experiment/02/suite.log"],
        ),
        f"what failed passes {ONE} and {OTHER}; tried alone: 2; not tried: 1; judged by box, namespace",
    ),
    (
        Status.FAIL,
        Experiment(
            tests=["box"],
            steps=[step(FAILS), step(FAILS, ONE), step(FAILS, OTHER), step(FAILS, ONE, OTHER)],
            stopped="the budget of 4 forks is used up",
        ),
        "nothing that was tried lets it pass; the budget of 4 forks is used up; tried alone: 2; judged by box",
    ),
    (
        Status.PASS,
        Experiment(
            tests=["namespace"],
            steps=[
                step(PASSES),
                step(FAILS, "with a"),
                step(FAILS, "with b"),
                step(PASSES, "with c"),
                step(StepOutcome.CANNOT, "with d"),
                step(StepOutcome.ERROR, "with e"),
            ],
            turning=[["with a"], ["with b"]],
            not_tried=NOT_TRIED,
        ),
        "it fails with a, with b; tried alone: 3; not tried: 2; faults of the lab: 1; judged by namespace",
    ),
    (
        Status.PASS,
        Experiment(tests=["namespace"], steps=[step(PASSES), step(PASSES, "with c")]),
        "nothing that was tried breaks it; tried alone: 1; judged by namespace",
    ),
    (
        Status.FAIL,
        Experiment(
            tests=["box"],
            steps=[
                step(FAILS),
                step(StepOutcome.ERROR, ONE),
                step(StepOutcome.ERROR, OTHER),
                step(PASSES, ONE, OTHER),
            ],
            turning=[[ONE, OTHER]],
        ),
        f"what failed passes {ONE} and {OTHER}; faults of the lab: 2; judged by box",
    ),
    (
        Status.FAIL,
        Experiment(tests=["box"], steps=[step(PASSES)], stopped="the cell did otherwise: passes"),
        "no change was tried; the cell did otherwise: passes; judged by box",
    ),
]


@pytest.mark.parametrize(("status", "made", "line"), EXPERIMENTS)
def test_what_an_experiment_found_is_said_in_a_line(status: Status, made: Experiment, line: str) -> None:
    run = run_of(cell(status=status, experiment=made, evidence=["cells/a/kernel.log", *made.evidence]))
    head = f"debian-13 stock 0.10.8: {status}\n"
    assert head in printed(run)
    assert f"  by experiment: {line}\n" in printed(run)
    page = markdown.render(run)
    assert f"## {status}: debian-13 stock\n" in page
    assert f"- by experiment: {line}\n" in page
    assert "[stock](cells/debian-13/stock/0.10.8)\n" in page


def test_a_cell_on_which_nothing_was_tried_says_nothing_of_remedies() -> None:
    run = run_of(cell(**{**BLOCKED, "remedies": [], "evidence": []}))
    for text in (printed(run), markdown.render(run)):
        assert "remed" not in text
        assert "by experiment" not in text


def test_a_flaky_cell_says_how_often_it_passed() -> None:
    run = run_of(cell(**FLAKY))
    assert "debian-13 stock 0.10.8: flaky 2/3\n  all tests passed in 2 of 3 repeats\n" in printed(run)
    assert "## flaky 2/3: debian-13 stock\n\nall tests passed in 2 of 3 repeats\n" in markdown.render(run)
    assert run.exit_status() == 1


def test_what_a_guest_says_stays_inside_its_square() -> None:
    run = run_of(cell(status=Status.NOT_APPLICABLE, reason=HOSTILE, facts=facts(kernel=HOSTILE)))
    text = markdown.render(run)
    assert [len(row) for row in rows_of(text)] == [3, 3, 3]
    assert "<b>" not in text
    assert rows_of(text)[2][2] == "n/a"
    [why] = [line for line in text.splitlines() if line.startswith("- n/a (a")]
    assert why.endswith("): debian-13")


def test_what_a_guest_says_stays_inside_its_paragraph() -> None:
    test = TestResult(name="jail_starts", outcome=Outcome.FAIL, message="first\n# second <b>")
    run = run_of(cell(status=Status.FAIL, cause="unknown", reason="one\n# two <b>", tests=[test]))
    text = markdown.render(run)
    assert "\none # two &lt;b>\n" in text
    assert "- `jail_starts`: fail: first # second &lt;b>\n" in text


def test_a_page_says_why_and_how_to_run_each_cell_again() -> None:
    run = run_of(
        cell(
            status=Status.ERROR,
            reason="the machine of debian-13 is gone",
            rerun="lab matrix -g debian-13 -v stock --build 0.10.8",
            evidence=["cells/debian-13/stock/0.10.8/console.log"],
        ),
        lanes=[LaneRecord(guest="debian-13", image="1" * 64, fork="disk", note="no memory", seconds={})],
    )
    text = markdown.render(run)
    assert "## error: debian-13 stock\n\nthe machine of debian-13 is gone\n" in text
    assert "```sh\nlab matrix -g debian-13 -v stock --build 0.10.8\n```\n" in text
    assert "- seen on debian-13 (kernel -): [stock](cells/debian-13/stock/0.10.8)\n" in text
    assert f"image sha256 {'1' * 64}, cells by disk; no memory" in text


def test_a_page_explains_every_cause_that_it_knows() -> None:
    found = [
        Finding(name="userns-limit", confidence=Confidence.PROVED, why="it is 0"),
        Finding(name="<gone>", confidence=Confidence.LIKELY, why="of another release"),
    ]
    page = markdown.render(run_of(cell(status=Status.FAIL, cause="userns-limit", reason="x", causes=found)))
    assert f"- `userns-limit`, proved: {causes.known()['userns-limit'].explanation}" in page
    assert "- `<gone>`, likely: \n" in page


def test_the_summary_says_why_and_how_to_run_each_unexpected_cell_again() -> None:
    run = run_of(
        cell(
            "debian-12",
            status=Status.FAIL,
            cause="unknown",
            reason="[red] is no markup",
            rerun="lab 1",
            confidence=Confidence.LIKELY,
        ),
        cell("debian-13", status=Status.ERROR, reason="no disk", rerun="lab 2"),
        cell("fedora-44", status=Status.XFAIL, cause="userns-limit", reason="as told", rerun="lab 3"),
    )
    text = printed(run)
    assert (
        "debian-12 stock 0.10.8: fail unknown\n  [red] is no markup (likely)\n  run it again: lab 1\n" in text
    )
    assert "debian-13 stock 0.10.8: error\n  no disk\n  run it again: lab 2\n" in text
    assert "lab 3" not in text
    assert "1 fail, 1 xfail, 1 error" in text


def test_a_failing_cell_says_which_tests_failed_with_what_words_and_where_the_evidence_is() -> None:
    tests = [
        TestResult(name="jail_starts", outcome=Outcome.FAIL, message=f"no\nsandbox {'x' * 400}"),
        TestResult(name="jail_ends", outcome=Outcome.SKIP),
        TestResult(name="box_starts", outcome=Outcome.PASS),
    ]
    text = printed(
        run_of(
            cell(
                status=Status.FAIL, cause="unknown", reason="x", rerun="lab 1", tests=tests, evidence=["a.log"]
            )
        )
    )
    assert (
        f"  jail_starts: fail: no sandbox {'x' * 289}... (111 more characters)\n"
        "  jail_ends: skip\n"
        "  run it again: lab 1\n"
        "  a shell in it: lab shell --run 'a run' debian-13/stock/0.10.8\n"
        "  evidence: a run/cells/debian-13/stock/0.10.8\n"
    ) in text
    assert "box_starts" not in text


def test_why_cells_were_left_out_is_said_once_for_each_reason() -> None:
    no_apparmor = {"status": Status.NOT_APPLICABLE, "reason": "no AppArmor"}
    run = run_of(
        cell("debian-12", "stock"),
        cell("debian-12", "apparmor-off", **no_apparmor),
        cell("debian-12", "bwrap-allow-list", **no_apparmor),
        cell("debian-13", "apparmor-off", **no_apparmor),
        cell("fedora-44", "stock", status=Status.NOT_RUN, reason="no image"),
        cell("fedora-44", "apparmor-off", status=Status.NOT_RUN, rerun="lab 1"),
    )
    lines = [
        "n/a (no AppArmor): debian-12 (apparmor-off, bwrap-allow-list), debian-13",
        "not-run (no image): fedora-44 (stock)",
        "not-run: fedora-44 (apparmor-off)",
    ]
    assert squares.left_out(run) == lines
    assert "\n{}\n{}\n{}\n\n".format(*lines) in printed(run)
    assert "".join(f"- {line}\n" for line in lines) in markdown.render(run)
    assert "lab 1" not in printed(run)
    assert "## " not in markdown.render(run).split("## Environment")[0]


def test_a_run_says_where_it_is_and_how_to_go_on_with_it(tmp_path: Path) -> None:
    ended = {"finished": datetime.now(UTC)}
    missing = [cell(), cell("debian-12", status=Status.NOT_RUN), cell("debian-14", status=Status.ERROR)]
    (tmp_path / "run.log").touch()
    (tmp_path / "matrix.md").touch()
    resume = f"lab matrix --resume {tmp_path}"
    ways: list[tuple[dict[str, Any], str]] = [
        (ended, f"2 of 3 cells are missing; continue with: {resume}"),
        ({}, f"not finished; 2 of 3 cells are missing; continue with: {resume}"),
        ({**ended, "interrupted": True}, f"interrupted; 2 of 3 cells are missing; continue with: {resume}"),
        (
            {**ended, "merged": [run_of(cell()).run]},
            "2 of 3 cells are missing: resume the runs that were merged, then merge again",
        ),
    ]
    for more, line in ways:
        run = run_of(*missing, **more)
        text = printed(run, tmp_path)
        assert text.endswith(f"1 pass, 1 error, 1 not-run\nrun: {tmp_path} (matrix.md, run.log)\n{line}\n")
        head = markdown.render(run, tmp_path).split("| guest")[0]
        assert line in head.replace("\\", "")
    tried = cell(status=Status.XFAIL, unfinished=True)
    assert f"more to try on 1 of 1 cells; continue with: {resume}\n" in printed(
        run_of(tried, **ended), tmp_path
    )
    assert "missing" not in printed(run_of(cell(), **ended), tmp_path)
    assert "missing" not in markdown.render(run_of(cell(), **ended), tmp_path)


# A guest's name takes 19 columns, a square 22, with two spaces between them.
@pytest.mark.parametrize(("width", "columns"), [(60, 1), (80, 2), (120, 4), (240, 8)])
def test_a_table_that_is_too_wide_is_many_and_breaks_no_word(width: int, columns: int) -> None:
    known = catalog.load()
    cause = "a-cause-of-22-letters-"
    run = run_of(
        *[
            cell(guest, variant, status=Status.XFAIL, cause=cause)
            for guest in ("debian-12", "debian-13-backports")
            for variant in known.variants
        ]
    )
    lines = [line.rstrip() for line in printed(run, width=width).splitlines()]
    tables = lines[: lines.index(squares.counts(run))]
    assert all(len(line) <= width for line in tables)
    words = [word for line in tables for word in line.split()]
    assert [word for word in words if word in known.variants] == list(known.variants)
    assert words.count("xfail") == words.count(cause) == len(run.cells)
    heads = words.count("guest")
    assert words.count("debian-12") == words.count("debian-13-backports") == heads
    # One column may be too wide to stand beside as many others as the rest do.
    assert heads <= math.ceil(len(known.variants) / columns) + 1


# -- text from guests


def told(text: str) -> CellResult:
    """A cell with a guest's text in every field, as a running lab passes it on: not read from a record."""
    return cell(status=Status.NOT_APPLICABLE).model_copy(
        update={
            "reason": text,
            "facts": facts(kernel=text),
            "retried": [text],
            "tests": [TestResult(name="jail_starts", outcome=Outcome.FAIL, message=text)],
        }
    )


@pytest.mark.parametrize("status", [Status.NOT_APPLICABLE, Status.ERROR])
def test_a_guest_cannot_steer_the_terminal(status: Status) -> None:
    text = printed(run_of(told(STEERING).model_copy(update={"status": status})))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert SAID in text


def test_a_kernel_s_name_is_no_markup() -> None:
    assert "[bold]6.12" in printed(run_of(cell(facts=facts(kernel="[bold]6.12.48"))))


@pytest.mark.parametrize("verbose", [False, True])
def test_a_guest_cannot_steer_the_terminal_while_the_run_goes(verbose: bool) -> None:
    out = StringIO()
    console = console_on(out, is_terminal=True)
    with progress.view(console, cells_to_run(), [], quiet=False, verbose=verbose) as view:
        view.lane("debian-13", STEERING)
        view.note(STEERING)
        view.cell(told(STEERING))
    # The only escape sequences left are those with which rich moves the cursor.
    text = re.sub(r"\x1b\[(?:\?25[hl]|\d?A|2K)|[\r\n]", "", out.getvalue())
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text)
    assert text.count(SAID) >= (3 if verbose else 2)


def test_a_guest_cannot_add_a_line_to_the_progress() -> None:
    out = StringIO()
    view = Lines(console_on(out), 2, 0)
    view.cell(told("x\n[    1 s] 2/2 debian-12 stock 0.10.8: pass"))
    assert len(out.getvalue().splitlines()) == 1


def skeleton(text: str) -> list[tuple[str, str, str]]:
    """The structure of a rendered Markdown page, without the words."""

    def walk(tokens: list[Token]) -> Iterator[tuple[str, str, str]]:
        for token in tokens:
            if token.type not in ("text", "softbreak"):
                code = token.content if token.type == "code_inline" else ""
                yield token.type, token.tag, code
            yield from walk(token.children or [])

    return list(walk(MarkdownIt("commonmark").enable("table").parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        STEERING,
        "# all passed",
        "- a list",
        "1. a list",
        "> a quotation",
        "```",
        "---",
        "<!-- the rest",
        "![pass](https://example.org/x.png) <https://example.org>",
        "[name]: https://example.org",
        "*pass* __pass__",
        # Cut inside an escape.
        "x" * 295 + "|" * 20,
    ],
)
def test_what_a_guest_says_is_no_markup_of_the_page(text: str) -> None:
    def page(said: str) -> str:
        note = LaneRecord(guest="debian-13", image="1" * 64, fork="memory", note=said, seconds={})
        more = {"status": Status.FAIL, "cause": "unknown", "confidence": Confidence.LIKELY}
        return markdown.render(run_of(told(said), told(said).model_copy(update=more), lanes=[note]))

    assert skeleton(page(text)) == skeleton(page("words"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", page(text))


@pytest.mark.parametrize("name", ["x) <img src=y> ## pass", "x\n\n## debian-13, stock: pass\n", "[x](y) |*z*"])
def test_the_name_of_a_file_that_a_guest_made_up_is_no_markup_of_the_page(name: str) -> None:
    def page(name: str) -> str:
        evidence = [f"cells/debian-13/stock/0.10.8/boxlite/{name}/boxlite.log"]
        tried = RemedyResult(name="a", result=RemedyOutcome.AVOIDS, price="", evidence=evidence)
        made = Experiment(tests=["t"], steps=[], evidence=evidence)
        more: dict[str, Any] = {
            "status": Status.FAIL,
            "cause": "unknown",
            "reason": "x",
            "remedies": [tried],
            "experiment": made,
        }
        return markdown.render(run_of(cell(**more, evidence=[*evidence, f"cells/{name}"])))

    assert skeleton(page(name)) == skeleton(page("words"))


def test_the_name_of_a_test_that_a_guest_made_up_is_no_markup_of_the_page() -> None:
    def page(name: str) -> str:
        test = TestResult(name=name, outcome=Outcome.ERROR, message="ran, but suite.toml does not name it")
        return markdown.render(run_of(cell(status=Status.FAIL, cause="unknown", reason="x", tests=[test])))

    hostile, tame = skeleton(page("a` <b> ![x](y) `b")), skeleton(page("words"))
    assert [kind for kind, _, _ in hostile] == [kind for kind, _, _ in tame]


# -- a run in progress


def cells_to_run(*builds: str) -> list[Cell]:
    choice = choose(catalog.load(), guests=["debian-13"], variants=["stock", "max-userns-zero"])
    return choice.cells([Wheel(name, name) for name in builds or ("0.10.8",)])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the progress display; it stands still until a test moves it."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.mark.parametrize(
    ("is_terminal", "quiet", "verbose", "kind"),
    [
        (True, False, False, LiveTable),
        (True, False, True, Lines),
        (False, False, False, Lines),
        (False, False, True, Lines),
        (True, True, False, Silent),
        (False, True, False, Silent),
    ],
)
def test_a_table_is_for_a_terminal_lines_are_for_the_rest_and_quiet_is_quiet(
    is_terminal: bool, quiet: bool, verbose: bool, kind: type[Silent]
) -> None:
    out = StringIO()
    console = console_on(out, is_terminal=is_terminal)
    with progress.view(console, cells_to_run(), [], quiet=quiet, verbose=verbose) as view:
        assert type(view) is kind
        view.lane("debian-13", "booting")
        view.note("a note")
        view.cell(cell())
        view.time_left(60)
    assert bool(out.getvalue()) is not quiet


def test_each_step_of_a_lane_and_each_decided_cell_is_a_line(clock: SimpleNamespace) -> None:
    out = StringIO()
    view = Lines(console_on(out), total=4, done=2)
    view.lane("debian-13", "booting")
    view.lane("debian-13 #2", "booting")
    clock.seconds += 7
    view.lane("debian-13", "booting")
    view.cell(cell())
    view.note("guests run under software emulation")
    view.lane("debian-13", "")
    view.lane("debian-13", "booting")
    view.cell(cell(variant="max-userns-zero", build="0.10.7", status=Status.ERROR, retried=["no SSH"]))
    assert out.getvalue().splitlines() == [
        "[    0 s] debian-13: booting",
        "[    0 s] debian-13 #2: booting",
        "[    7 s] 3/4 debian-13 stock 0.10.8: pass",
        "[    7 s] note: guests run under software emulation",
        "[    7 s] debian-13: booting",
        "[    7 s] 4/4 debian-13 max-userns-zero 0.10.7: error (try 2)",
    ]


def test_the_pieces_of_a_download_are_one_line() -> None:
    out = StringIO()
    view = Lines(console_on(out), 1, 0)
    for text in ("fetching checksums", "downloading: 1 of 600 MiB", "downloading: 2 of 600 MiB"):
        view.lane("ubuntu-24.04", f"image: {text}")
    assert [line.split("] ")[1] for line in out.getvalue().splitlines()] == [
        "ubuntu-24.04: image: fetching checksums",
        "ubuntu-24.04: image: downloading",
    ]


def test_the_pieces_of_an_upload_are_one_line_and_each_in_the_table() -> None:
    out = StringIO()
    lines, live = Lines(console_on(out), 1, 0), LiveTable(console_on(StringIO()), cells_to_run(), [])
    for text in ("booting", "deploying: 1 of 38 MiB", "deploying: 2 of 38 MiB"):
        lines.lane("debian-13", text)
        live.lane("debian-13", text)
    assert [line.split("] ")[1] for line in out.getvalue().splitlines()] == [
        "debian-13: booting",
        "debian-13: deploying",
    ]
    assert "debian-13: deploying: 2 of 38 MiB" in shown(live.live.get_renderable())


def shown(renderable: RenderableType) -> str:
    out = StringIO()
    console_on(out).print(renderable)
    return out.getvalue()


def test_the_table_fills_in_and_an_undecided_cell_is_a_dot(clock: SimpleNamespace) -> None:
    cells = cells_to_run("0.10.7", "0.10.8")
    live = LiveTable(console_on(StringIO()), cells, [cell(build="0.10.7", status=Status.XPASS)])
    before = shown(live.live.get_renderable())
    assert re.search(
        r"guest +stock 0.10.7 +stock 0.10.8 +max-userns-zero 0.10.7 +max-userns-zero 0.10.8", before
    )
    assert re.search(r"debian-13 +xpass +· +· +·\s", before)
    assert "1 of 4 cells, 0:00:00\n" in before
    live.lane("debian-13", "running the suite")
    live.lane("debian-13 #2", "restoring its boot")
    live.cell(cell(retried=["no SSH"], lane="debian-13"))
    live.time_left(100)
    clock.seconds += 40
    after = shown(live.live.get_renderable())
    assert re.search(r"debian-13 +xpass +pass \(try 2\) +· +·\s", after)
    assert "debian-13: running the suite (1 done)\ndebian-13 #2: restoring its boot (0 done)\n" in after
    assert "2 of 4 cells, 0:00:40, about 0:01:00 left\n" in after
    clock.seconds += 100
    assert "0:02:20, time left unknown\n" in shown(live.live.get_renderable())


def test_a_first_time_user_reads_that_the_time_left_is_unknown_until_it_is_known(
    clock: SimpleNamespace,
) -> None:
    live = LiveTable(console_on(StringIO()), cells_to_run(), [])
    live.lane("debian-13", "image: installing the guest's packages")
    assert "0:00:00, time left unknown\n" in shown(live.live.get_renderable())
    live.time_left(None)
    assert "time left unknown" in shown(live.live.get_renderable())
    live.time_left(100)
    assert "about 0:01:40 left" in shown(live.live.get_renderable())
    live.time_left(None)
    assert "time left unknown" in shown(live.live.get_renderable())


def test_where_the_squares_do_not_fit_the_screen_they_are_counted() -> None:
    choice = choose(catalog.load(), guests=["debian-12", "debian-13"], variants=list(catalog.load().variants))
    cells = choice.cells([Wheel("0.10.8", "0.10.8")])
    console = Console(file=StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    done = [cell(), cell(variant="podman", status=Status.FAIL), cell(variant="as-root")]
    live = LiveTable(console, cells, done)
    live.lane("debian-13", "booting")
    count = len(cells) // 2
    assert [line.split() for line in shown(live.live.get_renderable()).splitlines()[:4]] == [
        ["guest", "left", "pass", "fail"],
        ["debian-12", str(count)],
        ["debian-13", str(count - 3), "2", "1"],
        [],
    ]
    assert "debian-13: booting (0 done)\n3 of" in shown(live.live.get_renderable())


def test_a_lane_that_ended_is_not_shown_and_without_lanes_no_time_is_left(clock: SimpleNamespace) -> None:
    live = LiveTable(console_on(StringIO()), cells_to_run(), [])
    live.lane("debian-13", "booting")
    live.lane("debian-13 #2", "booting")
    live.time_left(100)
    live.lane("debian-13 #2", "")
    assert "debian-13: booting" in shown(live.live.get_renderable())
    assert "#2" not in shown(live.live.get_renderable())
    live.lane("debian-13", "")
    assert "left" not in shown(live.live.get_renderable())


def test_a_square_that_a_shard_does_not_have_is_no_undecided_cell() -> None:
    live = LiveTable(console_on(StringIO()), cells_to_run("0.10.7", "0.10.8")[:3], [])
    assert re.search(r"debian-13 +· +· +·\s", shown(live.live.get_renderable()))
    first, second = choose(catalog.load(), guests=["debian-12", "debian-13"], variants=["stock"]).cells(
        [Wheel("0.10.7", "0.10.7"), Wheel("0.10.8", "0.10.8")]
    )[1:3]
    live = LiveTable(console_on(StringIO()), [first, second], [])
    lines = shown(live.live.get_renderable()).splitlines()
    assert [line.count("·") for line in lines if line.startswith("debian")] == [1, 1]


# -- the log of a run


class Heard(Silent):
    """A view that remembers."""

    def __init__(self) -> None:
        self.all: list[object] = []

    def lane(self, lane: str, text: str) -> None:
        self.all.append((lane, text))

    def cell(self, result: CellResult) -> None:
        self.all.append(result)

    def note(self, text: str) -> None:
        self.all.append(text)

    def time_left(self, seconds: float | None) -> None:
        self.all.append(seconds)


STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (.*)")


def entries(folder: Path) -> list[tuple[datetime, str]]:
    """Return the log's lines; check that each has a time."""
    found = []
    for line in (folder / RUN_LOG).read_text().splitlines():
        match = STAMP.fullmatch(line)
        assert match, line
        found.append((datetime.fromisoformat(match[1]), match[2]))
    return found


def test_the_log_has_all_that_a_run_tells_and_tells_it_on(tmp_path: Path) -> None:
    heard = Heard()
    result = cell(seconds={"fork": 0.52, "suite": 21.0})
    with RunLog(tmp_path / "run", heard) as log:
        log.lane("debian-13", "booting")
        log.lane("debian-13", "deploying: 1 of 38 MiB")
        log.lane("debian-13", "deploying: 2 of 38 MiB")
        log.note("guests run under software emulation")
        log.cell(result)
        log.time_left(12.0)
        log.lane("debian-13", "")
    assert [text for _, text in entries(tmp_path / "run")] == [
        "debian-13: booting",
        "debian-13: deploying",
        "note: guests run under software emulation",
        "debian-13 stock 0.10.8: pass (fork 0.5 s, suite 21.0 s)",
        "debian-13: done",
    ]
    assert heard.all == [
        ("debian-13", "booting"),
        ("debian-13", "deploying: 1 of 38 MiB"),
        ("debian-13", "deploying: 2 of 38 MiB"),
        "guests run under software emulation",
        result,
        12.0,
        ("debian-13", ""),
    ]


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host in a time zone 14 hours ahead of UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "FAR-14")
        time.tzset()
        yield
    time.tzset()


def test_the_log_s_times_are_in_utc(tmp_path: Path, far_east: None) -> None:
    before = datetime.now(UTC)
    with RunLog(tmp_path, Silent()) as log:
        log.note("now")
    [(stamp, _)] = entries(tmp_path)
    # Milliseconds are truncated.
    assert before - timedelta(milliseconds=1) <= stamp <= datetime.now(UTC)


def test_the_log_of_a_run_that_is_resumed_is_written_on(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with RunLog(tmp_path, Silent()) as log:
            log.note(text)
    assert [text for _, text in entries(tmp_path)] == ["note: first", "note: second"]


def test_the_log_says_what_ended_the_run(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no room"), RunLog(tmp_path, Silent()) as log:
        log.note("first")
        raise OSError("no room")
    assert entries(tmp_path)[-1][1] == "ended by OSError: no room"


def test_a_fault_of_many_lines_leaves_each_line_of_the_log_its_time(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"), RunLog(tmp_path, Silent()) as log:
        log.cell(cell(retried=[FAULT]))
        log.note(FAULT)
        raise OSError(FAULT)
    text = " ".join(text for _, text in entries(tmp_path))
    assert "debian-13 stock 0.10.8: pass (try 2)" in text
    assert "tried again after: the machine of debian-13 is gone" in text
    assert text.count("Reached target") == 3


def test_a_guest_cannot_write_the_log(tmp_path: Path) -> None:
    forged = "debian-12 stock 0.10.8: pass"
    said = f"{STEERING}\n2026-11-24T16:00:00.000Z {forged}"
    with pytest.raises(OSError, match="title"), RunLog(tmp_path, Silent()) as log:
        log.lane("debian-13", said)
        log.note(said)
        log.cell(told(said))
        raise OSError(said)
    text = (tmp_path / RUN_LOG).read_text()
    assert SAID in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert forged not in [line.partition("Z ")[2] for line in text.splitlines()]


def test_the_page_of_a_run_on_several_hosts_names_each_and_says_where_each_lane_ran() -> None:
    hosts = [host(), host(kernel="6.18", qemu="11.0.0", acceleration="KVM")]
    lanes = [
        LaneRecord(guest="debian-13", image="1" * 64, fork="memory", seconds={}, host=each) for each in hosts
    ]
    text = markdown.render(run_of(cell(), lanes=lanes, host=hosts[0]))
    assert "- host: Debian, kernel 6.12, 2 CPUs" in text
    assert "- host: Debian, kernel 6.18, 2 CPUs" in text
    assert "cells by memory; ran on kernel 6.18, QEMU 11.0.0, KVM\n" in text
    assert "ran on" not in markdown.render(run_of(cell(), lanes=lanes[:1], host=hosts[0]))
