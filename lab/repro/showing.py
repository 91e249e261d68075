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


def lines(report: Report, judged: Judged) -> Iterator[str]:
    """Yield the lines that show a report and what its text shows."""
    yield f"report: {report.title or '(no title)'}"
    yield f"        {report.size:,} characters{'; only the beginning was read' if report.cut else ''}"
    yield ""
    yield "understood"
    yield from _statements(report.statements)
    if report.unread:
        yield ""
        yield "not understood, and perhaps of interest"
        yield from (_quoted(each) for each in report.unread[:MOST_UNREAD])
        if len(report.unread) > MOST_UNREAD:
            yield f"        and {len(report.unread) - MOST_UNREAD} more lines: --json lists them"
    yield ""
    yield "what the text alone shows"
    yield from _findings(judged)
    if judged.remarks:
        yield ""
        yield "remarks"
        yield from (line for each in judged.remarks for line in _remark(each))


def document(report: Report, judged: Judged) -> dict[str, Any]:
    """Return the same as a JSON document."""
    return {
        "title": report.title,
        "characters": report.size,
        "cut": report.cut,
        "statements": [_as_json(each) for each in report.statements],
        "not_understood": [_quote(each) for each in report.unread],
        "findings": [_of_cause(finding) for finding in judged.findings],
        "possible": [_of_cause(candidate) for candidate in judged.possible],
        "remarks": [_with_quotes(remark) for remark in judged.remarks],
    }


def _statements(statements: Sequence[Statement]) -> Iterator[str]:
    if not statements:
        yield "        nothing"
    for quote, of_line in groupby(statements, key=lambda each: each.quote):
        yield _quoted(quote)
        said = list(of_line)
        steps = {each.name for each in said if isinstance(each, Setting)}
        for each in said:
            if isinstance(each, Command) and each.text in steps:
                continue  # It is shown as a step that was tried.
            kind, what = words(each)
            yield f"          {kind:<13} {bounded(what, LONGEST)}"


def _findings(judged: Judged) -> Iterator[str]:
    if not judged.findings:
        yield "        no cause: several can be behind what is quoted above, or one that the lab does not know"
    for each in judged.findings:
        yield f"        {each.name} ({each.confidence}) {_for(each)}".rstrip()
        yield f"          {each.why}"
        yield from _lines_of(each.quotes)
    for number, candidate in enumerate(judged.possible, start=1):
        yield f"        {candidate.name} (possible, number {number} of {len(judged.possible)})"
        yield from (f"          for: {why}" for why in candidate.speaks_for)
        yield from (f"          against: {why}" for why in candidate.speaks_against)
        yield f"          to tell: {candidate.command}"
        yield f"            shows {candidate.shows}, if it is this cause"
        yield from _lines_of(candidate.quotes)


def _for(finding: Finding) -> str:
    return "" if finding.program == "bwrap" else f"for {finding.program}"


def _remark(remark: Remark) -> Iterator[str]:
    yield f"        {remark.text}"
    yield from _lines_of(remark.quotes)


def _lines_of(quotes: Iterable[Quote]) -> Iterator[str]:
    numbers = sorted({each.number for each in quotes})
    if numbers:
        yield f"          line{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _quoted(quote: Quote) -> str:
    return f"{quote.number:>6} | {bounded(quote.text, LONGEST)}"


# -- a statement in words


def words(statement: Statement) -> tuple[str, str]:
    """Return the kind of a statement and what it says."""
    kind, say = WORDS[type(statement)]
    return kind, say(statement)


def _system(each: System) -> str:
    release = f", version {each.version}" if each.version and each.version not in each.name else ""
    derivative = " or a derivative" if each.or_derivative and each.inferred else ""
    parts = [
        f"{each.name}{derivative}{release}",
        "or a derivative of it" if each.or_derivative and not each.inferred else "",
        "" if each.version else "version not named",
        f"derives from {each.like}" if each.like else "",
        "told by its kernel: the report names no system" if each.inferred else "",
        "in a container" if each.place is Place.CONTAINER else "",
    ]
    return "; ".join(filter(None, parts))


def _boxlite(each: Boxlite) -> str:
    version = each.version or "version not named"
    return f"{version}, installed by {each.installed_by}" if each.installed_by else version


def _setting(each: Setting) -> str:
    what = each.name if each.value is None else f"{each.name} = {each.value}"
    said = {True: "the reporter says that it helps", False: "the reporter says that it does not help"}
    outcome = (
        said.get(each.helped, "not said whether it helps") if each.helped is not None else "outcome not said"
    )
    tried = f"; {outcome}" if each.mood is Mood.TRIED else ""
    return f"{what}{' (in a container)' if each.place is Place.CONTAINER else ''}{tried}"


def _audit_line(each: AuditLine) -> str:
    return ", ".join(f"{key}={each.fields[key]}" for key in AUDIT_FIELDS if key in each.fields)


def _words(each: Words) -> str:
    named = each.speaker is Speaker.OTHER and each.program not in (None, ANY)
    return f"{each.program if named else each.speaker}: {each.text}{f' [{each.errno}]' if each.errno else ''}"


def _ended(each: Ended) -> str:
    return f"{each.status} = 128 + {each.status - 128}, {each.signal}" if each.signal else str(each.status)


def _probed(each: Probed) -> str:
    if each.host is None:
        return f"not used: {each.damaged}"
    worked = [name for name, probe in each.host.probes.by_name().items() if probe.worked]
    failed = [name for name, probe in each.host.probes.by_name().items() if probe.failed]
    return f"worked: {', '.join(worked) or 'none'}; failed: {', '.join(failed) or 'none'}"


def _named_test(each: NamedTest) -> str:
    return each.name if each.known else f"{each.name} (not in the lab's suite)"


# By class, in the order of the model.
WORDS: dict[type[Statement], tuple[str, Callable[[Any], str]]] = {
    System: ("system", _system),
    Kernel: ("kernel", lambda each: each.release),
    Program: ("program", lambda each: f"{each.name} {each.version}"),
    Boxlite: ("boxlite", _boxlite),
    Setting: ("setting", _setting),
    AuditLine: ("audit line", _audit_line),
    Words: ("message", _words),
    LogLine: ("log", lambda each: f"{each.level} {each.module}: {each.text}"),
    Ended: ("exit status", _ended),
    Command: ("command", lambda each: each.text),
    NamedTest: ("failing test", _named_test),
    Probed: ("lab probe", _probed),
}


# -- a statement as JSON


def _as_json(statement: Statement) -> dict[str, Any]:
    if isinstance(statement, Probed):
        host = statement.host.model_dump(mode="json") if statement.host else None
        said = {"host": host, "damaged": statement.damaged}
    else:
        said = asdict(statement)
        del said["quote"]
    return {"kind": WORDS[type(statement)][0].replace(" ", "-"), **_quote(statement.quote), "says": said}


def _of_cause(cause: Finding | Possible) -> dict[str, Any]:
    said = _with_quotes(cause)
    return {"cause": said.pop("name"), **said}


def _with_quotes(shown: Finding | Possible | Remark) -> dict[str, Any]:
    """All that something says, with its lines as other lines are written."""
    return {**asdict(shown), "quotes": [_quote(quote) for quote in shown.quotes]}


def _quote(quote: Quote) -> dict[str, Any]:
    return {"line": quote.number, "text": quote.text}
