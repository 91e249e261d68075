"""What was read out of a report, and what its text shows, for people and for programs."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any

from lab.base.files import bounded
from lab.repro.report import (
    BUBBLEWRAP,
    Command,
    Finding,
    Judged,
    Possible,
    Probed,
    Quote,
    Remark,
    Report,
    Setting,
    Statement,
)

# Longest line that is shown of a report, and the most lines that are shown as not understood.
LONGEST = 160
MOST_UNREAD = 20


def lines(report: Report, judged: Judged) -> Iterator[str]:
    """Yield the lines that show a report and what its text shows."""
    yield f"report: {report.title or '(no title)'}"
    yield f"        {report.size:,} characters{'; only the beginning was read' if report.cut else ''}"
    yield "\nunderstood"
    if not report.statements:
        yield "        nothing"
    for quote, group in groupby(report.statements, key=lambda statement: statement.quote):
        yield _quoted(quote)
        of_line = list(group)
        steps = {statement.name for statement in of_line if isinstance(statement, Setting)}
        for statement in of_line:
            # A step that was tried is shown as that, and not as a command, too.
            if not (isinstance(statement, Command) and statement.text in steps):
                yield f"          {statement.kind:<13} {bounded(str(statement), LONGEST)}"
    if report.unread:
        yield "\nnot understood, and perhaps of interest"
        yield from map(_quoted, report.unread[:MOST_UNREAD])
        if len(report.unread) > MOST_UNREAD:
            yield f"        and {len(report.unread) - MOST_UNREAD} more lines: --json lists them"
    yield "\nwhat the text alone shows"
    if not judged.findings:
        yield "        no cause: several can be behind what is quoted above, or one that the lab does not know"
    for finding in judged.findings:
        program = "" if finding.program == BUBBLEWRAP else f" for {finding.program}"
        yield f"        {finding.name} ({finding.confidence}){program}"
        yield f"          {finding.why}"
        yield from _numbers(finding.quotes)
    for number, candidate in enumerate(judged.possible, start=1):
        yield f"        {candidate.name} (possible, number {number} of {len(judged.possible)})"
        yield from (f"          for: {why}" for why in candidate.speaks_for)
        yield from (f"          against: {why}" for why in candidate.speaks_against)
        yield f"          to tell: {candidate.command}"
        yield f"            shows {candidate.shows}, if it is this cause"
        yield from _numbers(candidate.quotes)
    if judged.remarks:
        yield "\nremarks"
    for remark in judged.remarks:
        yield f"        {remark.text}"
        yield from _numbers(remark.quotes)


def _numbers(quotes: Iterable[Quote]) -> Iterator[str]:
    numbers = sorted({quote.number for quote in quotes})
    if numbers:
        yield f"          line{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _quoted(quote: Quote) -> str:
    return f"{quote.number:>6} | {bounded(quote.text, LONGEST)}"


def document(report: Report, judged: Judged) -> dict[str, Any]:
    """Return the same as a JSON document."""
    return {
        "title": report.title,
        "characters": report.size,
        "cut": report.cut,
        "statements": [_statement(statement) for statement in report.statements],
        "not_understood": [_quote(quote) for quote in report.unread],
        "findings": [_judged(finding) for finding in judged.findings],
        "possible": [_judged(candidate) for candidate in judged.possible],
        "remarks": [_judged(remark) for remark in judged.remarks],
    }


def _statement(statement: Statement) -> dict[str, Any]:
    says = asdict(statement)
    del says["quote"]
    if isinstance(statement, Probed) and statement.host:
        says["host"] = statement.host.model_dump(mode="json")
    return {"kind": statement.kind.replace(" ", "-"), **_quote(statement.quote), "says": says}


def _judged(item: Finding | Possible | Remark) -> dict[str, Any]:
    fields = asdict(item) | {"quotes": [_quote(quote) for quote in item.quotes]}
    return {"cause": fields.pop("name"), **fields} if "name" in fields else fields


def _quote(quote: Quote) -> dict[str, Any]:
    return {"line": quote.number, "text": quote.text}
