"""What was read out of a report, and what its text shows, for people and for programs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from lab.base.files import bounded
from lab.repro.messages import ANY
from lab.repro.report import (
    AuditLine,
    Boxlite,
    Command,
    Ended,
    Finding,
    Judged,
    Kernel,
    LogLine,
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
    yield from _statements(report.statements)
    if report.unread:
        yield "\nnot understood, and perhaps of interest"
        yield from map(_quoted, report.unread[:MOST_UNREAD])
        if len(report.unread) > MOST_UNREAD:
            yield f"        and {len(report.unread) - MOST_UNREAD} more lines: --json lists them"
    yield "\nwhat the text alone shows"
    if not judged.findings:
        yield "        no cause: several can be behind what is quoted above, or one that the lab does not know"
    for finding in judged.findings:
        program = "" if finding.program == "bwrap" else f" for {finding.program}"
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


def _statements(statements: Sequence[Statement]) -> Iterator[str]:
    if not statements:
        yield "        nothing"
    for quote, group in groupby(statements, key=lambda statement: statement.quote):
        yield _quoted(quote)
        of_line = list(group)
        steps = {statement.name for statement in of_line if isinstance(statement, Setting)}
        for statement in of_line:
            if isinstance(statement, Command) and statement.text in steps:
                continue  # It is shown as a step that was tried.
            kind, words = WORDS[type(statement)]
            yield f"          {kind:<13} {bounded(words(statement), LONGEST)}"


def _numbers(quotes: Iterable[Quote]) -> Iterator[str]:
    numbers = sorted({quote.number for quote in quotes})
    if numbers:
        yield f"          line{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _quoted(quote: Quote) -> str:
    return f"{quote.number:>6} | {bounded(quote.text, LONGEST)}"


# -- a statement in words


def _system(system: System) -> str:
    derivative = " or a derivative" if system.or_derivative and system.inferred else ""
    release = f", version {system.version}" if system.version and system.version not in system.name else ""
    parts = [
        f"{system.name}{derivative}{release}",
        "or a derivative of it" if system.or_derivative and not system.inferred else "",
        "" if system.version else "version not named",
        f"derives from {system.like}" if system.like else "",
        "told by its kernel: the report names no system" if system.inferred else "",
        "in a container" if system.place is Place.CONTAINER else "",
    ]
    return "; ".join(filter(None, parts))


def _setting(setting: Setting) -> str:
    value = "" if setting.value is None else f" = {setting.value}"
    place = " (in a container)" if setting.place is Place.CONTAINER else ""
    tried = f"; {OUTCOMES[setting.helped]}" if setting.mood is Mood.TRIED else ""
    return f"{setting.name}{value}{place}{tried}"


def _audit_line(line: AuditLine) -> str:
    return ", ".join(f"{key}={line.fields[key]}" for key in AUDIT_FIELDS if key in line.fields)


def _words(words: Words) -> str:
    is_named = words.speaker is Speaker.OTHER and words.program not in (None, ANY)
    error = f" [{words.errno}]" if words.errno else ""
    return f"{words.program if is_named else words.speaker}: {words.text}{error}"


def _ended(ended: Ended) -> str:
    return f"{ended.status} = 128 + {ended.status - 128}, {ended.signal}" if ended.signal else str(ended.status)


def _probed(probed: Probed) -> str:
    if probed.host is None:
        return f"not used: {probed.damaged}"
    probes = probed.host.probes.by_name().items()
    worked = ", ".join(name for name, probe in probes if probe.worked)
    failed = ", ".join(name for name, probe in probes if probe.failed)
    return f"worked: {worked or 'none'}; failed: {failed or 'none'}"


# The kind of a statement, and what it says, by its class; in the order of the model.
WORDS: dict[type[Statement], tuple[str, Callable[[Any], str]]] = {
    System: ("system", _system),
    Kernel: ("kernel", lambda kernel: kernel.release),
    Program: ("program", lambda program: f"{program.name} {program.version}"),
    Boxlite: ("boxlite", lambda boxlite: boxlite.version),
    Setting: ("setting", _setting),
    AuditLine: ("audit line", _audit_line),
    Words: ("message", _words),
    LogLine: ("log", lambda line: f"{line.level} {line.module}: {line.text}"),
    Ended: ("exit status", _ended),
    Command: ("command", lambda command: command.text),
    NamedTest: (
        "failing test",
        lambda test: test.name if test.known else f"{test.name} (not in the lab's suite)",
    ),
    Probed: ("lab probe", _probed),
}


# -- as a JSON document


def document(report: Report, judged: Judged) -> dict[str, Any]:
    """Return the same as a JSON document."""
    return {
        "title": report.title,
        "characters": report.size,
        "cut": report.cut,
        "statements": [_statement(statement) for statement in report.statements],
        "not_understood": [_quote(quote) for quote in report.unread],
        "findings": [_of_cause(finding) for finding in judged.findings],
        "possible": [_of_cause(candidate) for candidate in judged.possible],
        "remarks": [_with_quotes(remark) for remark in judged.remarks],
    }


def _statement(statement: Statement) -> dict[str, Any]:
    if isinstance(statement, Probed):
        host = statement.host.model_dump(mode="json") if statement.host else None
        fields = {"host": host, "damaged": statement.damaged}
    else:
        fields = asdict(statement)
        del fields["quote"]
    kind = WORDS[type(statement)][0].replace(" ", "-")
    return {"kind": kind, **_quote(statement.quote), "says": fields}


def _of_cause(cause: Finding | Possible) -> dict[str, Any]:
    fields = _with_quotes(cause)
    return {"cause": fields.pop("name"), **fields}


def _with_quotes(item: Finding | Possible | Remark) -> dict[str, Any]:
    return {**asdict(item), "quotes": [_quote(quote) for quote in item.quotes]}


def _quote(quote: Quote) -> dict[str, Any]:
    return {"line": quote.number, "text": quote.text}
