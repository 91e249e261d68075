"""What was read out of a report, and what its text shows, for people and for programs."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any

from lab.base.files import bounded
from lab.repro.messages import ANY
from lab.repro.planning import named
from lab.repro.report import (
    BUBBLEWRAP,
    AuditLine,
    Command,
    Ended,
    Finding,
    Judged,
    Kernel,
    Mood,
    NamedTest,
    Place,
    Possible,
    Probed,
    Program,
    Quote,
    Remark,
    Report,
    Setting,
    Speaker,
    Statement,
    System,
    Words,
)
from lab.repro.variants import written

# Longest line that is shown of a report, and the most lines that are shown as not understood.
LONGEST = 160
MOST_UNREAD = 20
# Fields of an audit line that tell what happened, in this order.
AUDIT_FIELDS = (
    "apparmor", "avc", "operation", "class", "tclass", "info", "profile", "target", "comm", "name",
    "capability", "capname", "scontext", "permissive", "sig", "syscall",
)  # fmt: skip
OUTCOMES = {
    True: "the reporter says that it helps",
    False: "the reporter says that it does not help",
    None: "outcome not said",
}


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
                kind, words = in_words(statement)
                yield f"          {kind:<13} {bounded(words, LONGEST)}"
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


def in_words(statement: Statement) -> tuple[str, str]:
    """Return the kind of a statement, and what it says."""
    match statement:
        case System():
            notes = [
                "" if statement.version else "version not named",
                f"derives from {statement.like}" if statement.like else "",
                "told by its kernel: the report names no system" if statement.inferred else "",
                "in a container" if statement.place is Place.CONTAINER else "",
            ]
            return "system", "; ".join(filter(None, [named(statement), *notes]))
        case Kernel():
            return "kernel", statement.release
        case Program():
            return "program", f"{statement.name} {statement.version}"
        case Setting():
            place = " (in a container)" if statement.place is Place.CONTAINER else ""
            tried = f"; {OUTCOMES[statement.helped]}" if statement.mood is Mood.TRIED else ""
            return "setting", f"{written(statement)}{place}{tried}"
        case AuditLine(fields=fields):
            return "audit line", ", ".join(f"{key}={fields[key]}" for key in AUDIT_FIELDS if key in fields)
        case Words():
            is_named = statement.speaker is Speaker.OTHER and statement.program not in (None, ANY)
            error = f" [{statement.errno}]" if statement.errno else ""
            return "message", f"{statement.program if is_named else statement.speaker}: {statement.text}{error}"
        case Ended(status=status, signal=signal):
            return "exit status", f"{status} = 128 + {status - 128}, {signal}" if signal else str(status)
        case Command():
            return "command", statement.text
        case NamedTest(name=name, known=known):
            return "failing test", name if known else f"{name} (not in the lab's suite)"
        case Probed(host=None):
            return "lab probe", f"not used: {statement.damaged}"
        case Probed(host=host):
            probes = host.probes.by_name().items() if host else ()
            worked = ", ".join(name for name, probe in probes if probe.worked)
            failed = ", ".join(name for name, probe in probes if probe.failed)
            return "lab probe", f"worked: {worked or 'none'}; failed: {failed or 'none'}"
    raise TypeError(statement)


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
    if isinstance(statement, Probed):
        host = statement.host.model_dump(mode="json") if statement.host else None
        fields = {"host": host, "damaged": statement.damaged}
    else:
        fields = asdict(statement)
        del fields["quote"]
    return {"kind": in_words(statement)[0].replace(" ", "-"), **_quote(statement.quote), "says": fields}


def _judged(item: Finding | Possible | Remark) -> dict[str, Any]:
    fields = asdict(item) | {"quotes": [_quote(quote) for quote in item.quotes]}
    return {"cause": fields.pop("name"), **fields} if "name" in fields else fields


def _quote(quote: Quote) -> dict[str, Any]:
    return {"line": quote.number, "text": quote.text}
