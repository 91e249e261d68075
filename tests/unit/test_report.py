import re
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from lab import catalog
from lab.builds import Build
from lab.plan import choose
from lab.report import markdown, table, terminal
from lab.results import Cause, Expectation, LaneRecord, Outcome, RunResult, Status, TestResult
from tests.unit.examples import cell, run_of

XFAIL = Expectation(status="xfail", cause=Cause.USERNS_LIMIT)
# What a guest could say to break out of its square.
HOSTILE = 'a\\|b | pass |\n| <b>pass</b> | "x" `y`'


def printed(run: RunResult) -> str:
    console = Console(file=StringIO(), width=240)
    terminal.summary(console, run)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def squares_of(line: str) -> list[str]:
    """The squares of a row in Markdown: what stands between bars that no backslash escapes."""
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
        ({"status": Status.FAIL, "cause": Cause.UNKNOWN}, "fail unknown"),
        ({"status": Status.XFAIL, "cause": Cause.USERNS_LIMIT}, "xfail userns-limit"),
        ({"status": Status.XPASS, "reason": "passed, but"}, "xpass"),
        ({"status": Status.NOT_APPLICABLE, "reason": "no AppArmor"}, "n/a (no AppArmor)"),
        ({"status": Status.NOT_RUN, "reason": "interrupted"}, "not-run (interrupted)"),
        ({"status": Status.NOT_RUN}, "not-run"),
        ({"status": Status.ERROR, "reason": "waited 180 s for SSH"}, "error"),
    ],
)
def test_a_square_says_the_status_and_why(more: dict[str, Any], expected: str) -> None:
    assert table.square(cell(**more)) == expected


def test_pass_alone_is_green() -> None:
    assert [status for status, style in terminal.STYLES.items() if "green" in style] == [Status.PASS]
    assert set(terminal.STYLES) == set(Status)


@pytest.mark.parametrize("status", [Status.ERROR, Status.NOT_RUN])
def test_what_could_not_run_is_never_shown_as_a_pass(status: Status) -> None:
    run = run_of(cell(status=status, reason="the guest never opened SSH"))
    assert table.counts(run) == f"1 {status}"
    assert "pass" not in printed(run)
    [_, _, row] = rows_of(markdown.render(run))
    assert row[2].startswith(str(status))


def test_counts_add_up_to_all_cells() -> None:
    run = run_of(*[cell(status=status) for status in (Status.ERROR, Status.PASS, Status.XFAIL, Status.PASS)])
    assert table.counts(run) == "2 pass, 1 xfail, 1 error"


def test_the_kernel_is_what_the_guest_said_or_a_dash() -> None:
    assert table.kernel([cell(), cell(facts={"kernel": "6.12.118"})]) == "6.12.118"
    assert table.kernel([cell()]) == "-"


def test_the_table_has_a_row_for_each_guest_and_a_column_for_each_variant() -> None:
    run = run_of(
        cell("debian-12", "stock", facts={"kernel": "6.1.0-56-cloud-amd64"}),
        cell("debian-12", "max-userns-zero", status=Status.XFAIL, cause=Cause.USERNS_LIMIT, expected=XFAIL),
        cell("debian-13", "stock", status=Status.ERROR, reason="x"),
        cell("debian-13", "max-userns-zero", status=Status.NOT_RUN, reason="y"),
    )
    assert rows_of(markdown.render(run)) == [
        ["guest", "kernel", "stock", "max-userns-zero"],
        ["---"] * 4,
        ["debian-12", "6.1.0-56-cloud-amd64", "pass", "xfail userns-limit"],
        ["debian-13", "-", "error", "not-run (y)"],
    ]
    lines = [line.split() for line in printed(run).splitlines()]
    assert ["debian-12", "6.1", "pass", "xfail", "userns-limit"] in lines


def test_what_a_guest_says_stays_inside_its_square() -> None:
    run = run_of(cell(status=Status.NOT_APPLICABLE, reason=HOSTILE, facts={"kernel": HOSTILE}))
    text = markdown.render(run)
    assert [len(row) for row in rows_of(text)] == [3, 3, 3]
    assert "<b>" not in text
    assert rows_of(text)[2][2].startswith("n/a (a")


def test_what_a_guest_says_stays_inside_its_paragraph() -> None:
    test = TestResult(name="jail_starts", outcome=Outcome.FAIL, message="first\n# second <b>")
    run = run_of(cell(status=Status.FAIL, cause=Cause.UNKNOWN, reason="one\n# two <b>", tests=[test]))
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
        lanes=[LaneRecord(guest="debian-13", image="1" * 64, way="disk", note="no memory", seconds={})],
    )
    text = markdown.render(run)
    assert "## debian-13, stock: error\n\nthe machine of debian-13 is gone\n" in text
    assert "Again: `lab matrix -g debian-13 -v stock --build 0.10.8`" in text
    assert "[console.log](cells/debian-13/stock/0.10.8/console.log)" in text
    assert f"image sha256 {'1' * 64}, cells by disk; no memory" in text


def test_the_summary_says_why_and_how_to_run_each_unexpected_cell_again() -> None:
    run = run_of(
        cell("debian-12", status=Status.FAIL, cause=Cause.UNKNOWN, reason="[red] is no markup", rerun="lab 1"),
        cell("debian-13", status=Status.ERROR, reason="no disk", rerun="lab 2"),
        cell("fedora-44", status=Status.XFAIL, cause=Cause.USERNS_LIMIT, reason="as told", rerun="lab 3"),
    )
    text = printed(run)
    assert "debian-12 stock: fail unknown\n  [red] is no markup\n  again: lab 1\n" in text
    assert "debian-13 stock: error\n  no disk\n  again: lab 2\n" in text
    assert "lab 3" not in text
    assert "1 fail, 1 xfail, 1 error" in text


def test_a_guest_cannot_steer_the_terminal() -> None:
    console = "[\x1b[0;32m  OK  \x1b[0m] Reached target\x1b[2J"
    assert "\x1b" not in printed(run_of(cell(status=Status.ERROR, reason=console)))


def cells_to_run() -> Any:
    choice = choose(catalog.load(), guests=["debian-13"], variants=["stock", "max-userns-zero"])
    return choice.cells(Build("0.10.8", "0.10.8"))


def live(*, is_terminal: bool) -> tuple[StringIO, terminal.LiveTable]:
    out = StringIO()
    console = Console(file=out, width=240, force_terminal=is_terminal, color_system=None)
    return out, terminal.LiveTable(console, cells_to_run())


def test_without_a_terminal_each_decided_cell_is_a_line() -> None:
    out, view = live(is_terminal=False)
    with view:
        view.cell(cell())
        view.cell(cell(variant="max-userns-zero", status=Status.ERROR))
        view.note("guests run under software emulation")
    lines = [re.sub(r"^\[.*?\] ", "", line) for line in out.getvalue().splitlines()]
    assert lines == [
        "debian-13 stock: pass",
        "debian-13 max-userns-zero: error",
        "note: guests run under software emulation",
    ]


def test_without_a_terminal_the_pieces_of_an_upload_are_one_line() -> None:
    out, view = live(is_terminal=False)
    with view:
        for text in ("booting", "deploying: 1 of 38 MiB", "deploying: 2 of 38 MiB", ""):
            view.lane("debian-13", text)
    assert [line.split("] ")[1] for line in out.getvalue().splitlines()] == [
        "debian-13: booting",
        "debian-13: deploying",
    ]


def test_on_a_terminal_the_table_fills_in_and_an_undecided_cell_is_a_dot() -> None:
    out, view = live(is_terminal=True)
    with view:
        view.cell(cell())
        view.lane("debian-13", "running the suite")
    last = out.getvalue()
    assert re.search(r"debian-13 +pass +·", last)
    assert "debian-13: running the suite" in last
    assert "1 of 2 cells" in last
