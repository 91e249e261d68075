"""Runs as they are printed, and text with which a guest could change what is printed."""

import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console

from lab.record import (
    CellResult,
    Expectation,
    Outcome,
    RepeatResult,
    RunResult,
    Status,
    TestResult,
)
from lab.report import terminal
from tests.unit.examples import cell, facts

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


def skeleton(text: str) -> list[tuple[str, str, str]]:
    """The structure of a rendered Markdown page, without the words."""

    def walk(tokens: list[Token]) -> Iterator[tuple[str, str, str]]:
        for token in tokens:
            if token.type not in ("text", "softbreak"):
                code = token.content if token.type == "code_inline" else ""
                yield token.type, token.tag, code
            yield from walk(token.children or [])

    return list(walk(MarkdownIt("commonmark").enable("table").parse(text)))
