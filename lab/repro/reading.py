"""Reading a bug report: its text, in any of the forms in which it arrives, as statements.

Nothing of a report is executed or fetched. Its size is bounded, and each line is read in linear time. Messages,
systems and settings have modules of their own. The patterns of what is read here are in `reading.toml`.
"""

import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any

from lab.base.errors import UsageError
from lab.base.files import bounded
from lab.probes import report as probe_report
from lab.probes.report import QUOTE_MARKS, HostReport
from lab.repro import judging, messages, settings, source, systems
from lab.repro.lines import LONGEST, TABLE, Text, matches, quote
from lab.repro.report import (
    AuditLine,
    Boxlite,
    Command,
    Ended,
    Kernel,
    LogLine,
    Mood,
    NamedTest,
    Place,
    Probed,
    Program,
    Quote,
    Report,
    Setting,
    Statement,
    System,
)
from lab.repro.source import MOST_BYTES, Kind, Line, how_to_give, parse

__all__ = ["MOST_BYTES", "how_to_give", "read"]

# The most lines that are kept as not understood, the longest title in characters, and the most statements of
# one kind that a report is read for; a log may hold thousands.
MOST_UNREAD = 200
LONGEST_TITLE = 200
MOST = 200
# As many are looked at: most of a long log says the same.
MOST_READ = 1_000
NO_TITLE = re.compile(r'^[$#] |="[^"]*" \w+=|:$')
# A shell's exit status of a program that a signal ended.
BY_SIGNAL = 128
SIGNALS = {one.value: one.name for one in signal.Signals}
# At most so many lines are one wrapped line.
MOST_WRAPPED = 8
# Without these an audit line says too little to be one.
TELLING = ("operation", "avc", "syscall", "sig")
# Fields whose values hold spaces, which `ausearch -i` prints without quotes.
SPACED = ("info", "name", "comm", "exe", "proctitle", "denied", "requested", "flags")

PROGRAMS: dict[str, str] = TABLE["programs"]
COMMANDS, TESTS, UNREAD, AUDIT = (
    {name: re.compile(pattern) for name, pattern in TABLE[section].items()}
    for section in ("commands", "tests", "unread", "audit")
)


def read(data: bytes) -> Report:
    """Read a report. Raises UsageError for what is none."""
    origin = source.source(data)
    lines = parse(origin.text)
    # The output of the probe script is read exactly, and by nothing else. It may be cut off.
    output = list(lines[probe_report.find([line.raw for line in lines])])
    exact = {line.number for line in output}
    text = Text([line for line in lines if line.number not in exact])
    of_lines = (
        _audit_lines(text),
        _commands(text),
        systems.read(text),
        *(_facts(text, row) for row in FACTS),
        _named_tests(text),
        settings.read(text),
        messages.read(text, AUDIT["begins"]),
    )
    everything = [*_probed(output), *(statement for kind in of_lines for statement in islice(kind, MOST_READ))]
    everything.sort(key=lambda statement: statement.quote.number)
    named = merged(everything)
    statements = sorted(systems.completed(named), key=lambda statement: statement.quote.number)
    return Report(
        title=_title(text.lines),
        statements=tuple(statements),
        unread=_unread(text, everything),
        size=origin.size,
        cut=origin.cut,
        topics=_topics(text),
    )


def _title(lines: Iterable[Line]) -> str:
    """The first line in words; a heading only if it is a page's, not a form's or a section's."""
    texts = (
        line.text.strip()
        for line in lines
        if (line.kind is Kind.PROSE and not line.raw.startswith(">"))
        or (line.kind is Kind.HEADING and not line.raw.lstrip().startswith("##"))
    )
    return bounded(
        next((text for text in texts if " " in text and not NO_TITLE.search(text)), ""), LONGEST_TITLE
    )


def _unread(text: Text, everything: Iterable[Statement]) -> tuple[Quote, ...]:
    """The lines that look technical and that nothing understood, each text once."""
    read_lines = (range(statement.quote.number, statement.quote.last + 1) for statement in everything)
    understood = {number for numbers in read_lines for number in numbers}
    understood |= {text.lines[index].number for index in text.advice}
    left = {
        line.raw.strip(): quote(line)
        for line in reversed(text.lines)
        if line.number not in understood
        and (line.kind is Kind.CODE or UNREAD["technical"].search(line.text))
        and not UNREAD["traceback"].match(line.text)
    }
    return tuple(sorted(left.values(), key=lambda quote: quote.number)[:MOST_UNREAD])


def _topics(text: Text) -> dict[str, Quote]:
    """What the text is about beside its statements, each with the first line that says so."""
    patterns = {row["name"]: re.compile(row["pattern"], re.IGNORECASE) for row in judging.knowledge()["topic"]}
    topics: dict[str, Quote] = {}
    for line in text.lines:
        words = line.labelled
        for name, pattern in patterns.items():
            if name not in topics and pattern.search(words):
                topics[name] = quote(line)
    return topics


# -- facts that a line tells by itself


@dataclass(frozen=True)
class Fact:
    """A row of the table's facts, which explains its fields."""

    kind: str
    pattern: re.Pattern[str]
    not_before: re.Pattern[str] | None = None
    not_after: re.Pattern[str] | None = None
    after: re.Pattern[str] | None = None
    drop: re.Pattern[str] | None = None
    given: dict[str, str] = field(default_factory=dict)


def _fact(row: dict[str, Any]) -> Fact:
    patterns = {**TABLE, "PROGRAM": "|".join(PROGRAMS.values())}

    def pattern(written: str) -> re.Pattern[str]:
        return re.compile(re.sub(r"\{([A-Z_]+)\}", lambda name: str(patterns[name[1]]), written))

    compiled = {name: pattern(value) for name, value in row.items() if name not in ("kind", "given")}
    return Fact(**row | compiled)


FACTS = [_fact(row) for row in TABLE["fact"]]


def _facts(text: Text, row: Fact) -> Iterator[Statement]:
    """Yield what the lines tell by one row of the table."""
    before: Line | None = None
    for line in text.lines:
        words, asks, before = line.labelled, before, line
        if row.after is not None and (asks is None or not row.after.search(asks.raw)):
            continue
        for match in matches(row.pattern, words):
            if row.not_before and row.not_before.search(words[: match.start()]):
                continue
            if row.not_after and row.not_after.match(words[match.end() :]):
                continue
            says = row.given | {
                name: row.drop.sub("", value) if row.drop else value
                for name, value in match.groupdict().items()
            }
            if (statement := _statement(row.kind, quote(line), says)) is not None:
                yield statement


def _statement(kind: str, quote_: Quote, says: dict[str, str]) -> Statement | None:
    match kind:
        case "boxlite":
            return Boxlite(quote_, **says)
        case "kernel":
            return Kernel(quote_, **says)
        case "log":
            return LogLine(quote_, **says)
        case "program":
            names = (name for name, written in PROGRAMS.items() if re.fullmatch(written, says["name"], re.I))
            return Program(quote_, next(names), says["version"])
    if "status" in says:
        status = int(says["status"])
    else:
        status = BY_SIGNAL + (signal.Signals[says["signal"]] if "signal" in says else int(says["number"]))
    is_known = "status" in says or status - BY_SIGNAL in SIGNALS
    return Ended(quote_, status, SIGNALS.get(status - BY_SIGNAL)) if is_known and status < 256 else None


# -- the kernel's audit log


def _audit_lines(text: Text) -> Iterator[Statement]:
    index = 0
    while index < len(text.lines):
        line = text.lines[index]
        index += 1
        if not AUDIT["begins"].search(line.text):
            continue
        whole, last, written = line.text, line.number, [line.raw.strip()]
        for after in text.lines[index : index + MOST_WRAPPED]:
            if not _continues(whole, last, after):
                break
            whole, last, index = _joined(whole, after.text), after.number, index + 1
            written.append(after.raw.strip())
        values = _fields(whole.replace('\\"', '"'))
        if any(key in values for key in TELLING):
            yield AuditLine(Quote(line.number, bounded(" ".join(written), LONGEST), last), values)


def _continues(begun: str, last: int, line: Line) -> bool:
    if line.number != last + 1 or AUDIT["new_line"].match(line.text):
        return False
    if begun.replace('\\"', '"').count('"') % 2 == 1:
        return True
    # A line that begins as an audit line does is one of its own.
    return AUDIT["continues"].match(line.text) is not None and not AUDIT["begins"].match(line.text.strip())


def _joined(begun: str, rest: str) -> str:
    """Join what a terminal wrapped: within a word if the last word is no whole `key=value`."""
    word = begun.rsplit(None, 1)[-1] if begun.strip() else ""
    quotes = begun.replace('\\"', '"').count('"')
    whole = "=" in word or word.endswith(('"', "}", ":", "for")) or begun.endswith(" ")
    return f"{begun}{'' if quotes % 2 == 1 or not whole else ' '}{rest.strip()}"


def _fields(line: str) -> dict[str, str]:
    """Return the fields of a line. See `lab.causes.evidence`, which reads lines that nobody edited."""
    values: dict[str, str] = {}
    keys = list(AUDIT["key"].finditer(line))
    interpreted = '="' not in line
    at = 0
    for key, following in zip(keys, [*keys[1:], None], strict=False):
        if key.start() < at:
            continue  # Inside the quotes of the field before.
        rest = line[key.end() :]
        if rest.startswith('"'):
            value = rest[1:].partition('"')[0]
            at = key.end() + len(value) + 2
        elif interpreted and key[1] in SPACED:
            value = line[key.end() : following.start() if following else len(line)].strip()
        else:
            value = (rest.split(None, 1) or [""])[0].rstrip("`)\"',")
        values.setdefault(key[1], value)
    if denied := AUDIT["denied"].search(line):
        values["avc"] = denied[1].strip()
        # The record of the refused system call tells that the denial was enforced, even if it was cut off.
        if "permissive" not in values and values.get("success") == "no":
            values["permissive"] = "0"
    capability = values.get("capability", "")
    if number := TABLE["capabilities"].get(capability):
        values |= {"capability": number, "capname": capability}
    return values


# -- commands that the reporter ran, and tests that fail


def _commands(text: Text) -> Iterator[Statement]:
    goes_on = False
    for index, line in enumerate(text.lines):
        # A title is no command, nor is the rest of one.
        if not goes_on and index not in text.advice and line.kind is not Kind.HEADING:
            command = _command(line)
            if command and not COMMANDS["slash"].match(command):
                yield Command(quote(line), command)
        goes_on = line.text.rstrip().endswith("\\")


def _command(line: Line) -> str | None:
    words = line.text.strip()
    prompt = COMMANDS["prompt"].match(line.text)
    if prompt is None and line.kind is Kind.CODE:
        prompt = COMMANDS["quote_prompt"].match(line.text)
    if prompt:
        words = line.text[prompt.end() :].strip()
        if "#" not in prompt[0]:
            return words  # After # it may also be a comment.
    elif about := COMMANDS["about"].match(words):
        return about[1]
    return words if COMMANDS["program"].match(words) and not COMMANDS["sentence"].search(words) else None


def _named_tests(text: Text) -> Iterator[Statement]:
    tests: Sequence[str] = ()
    if any("jailer" in line.text or TESTS["failed"].search(line.text) for line in text.lines):
        # Most reports name no test, and the catalog takes long to import.
        from lab import catalog

        tests = tuple(catalog.load_suite("jailer").tests)
    for line in text.lines:
        if TESTS["passes"].search(line.text) and not TESTS["fails"].search(line.text):
            continue
        here = [name for name in tests if name in line.text]
        failed = [next(filter(None, match.groups())) for match in matches(TESTS["failed"], line.text)]
        others = [name for name in failed if not any(test in name for test in here)]
        for name in (*here, *others):
            yield NamedTest(quote(line), name, known=name in here)


# -- the output of the probe script


def _probed(lines: Sequence[Line]) -> list[Statement]:
    """Return what the lines of an output tell, and the facts of it that reports tell in words too."""
    if not lines:
        return []
    whole = quote(lines[0], lines[-1].number)
    try:
        host = probe_report.read("\n".join(line.raw for line in lines))
    except UsageError as error:
        return [Probed(whole, None, str(error.args[0]))]
    return [] if host is None else [Probed(whole, host), *_of_probe(host, lines)]


def _of_probe(host: HostReport, lines: Sequence[Line]) -> Iterator[Statement]:
    def at(name: str) -> Quote:
        begin = f"{name.lower()}: "
        told = (line for line in lines if line.raw.strip(QUOTE_MARKS).lower().startswith(begin))
        return quote(next(told, lines[0]))

    facts, place = host.facts, Place.CONTAINER if host.who.container else Place.HOST
    system = facts.os
    if system.id is not None:
        like = systems.family(system.id) or next(iter(host.id_like), system.id)
        name = system.pretty_name or system.id
        parent = None if like == system.id else like
        yield System(at("system"), system.id, system.version_id, name, place, parent)
    yield Kernel(at("kernel"), facts.kernel)
    versions = {"bubblewrap": facts.bubblewrap, "apparmor": facts.apparmor}
    for program, version in versions.items():
        if version is not None and version.version is not None:
            yield Program(at(program), program, version.version)
    for sysctl, value in facts.sysctls.items():
        if value is not None:
            yield Setting(at(sysctl), sysctl, value, Mood.HOLDS, place=place)


# -- statements that say the same

# Fields of an audit line that differ each time the same is denied.
EACH_TIME = ("pid", "msg", "ino", "ppid", "ses", "auid", "type", "audit")


def merged(statements: Iterable[Statement]) -> tuple[Statement, ...]:
    """Return each statement once, in the order of the text; what another says more exactly is left out."""
    once: dict[object, Statement] = {}
    counts: Counter[type[Statement]] = Counter()
    for statement in statements:
        key = _key(statement)
        if key not in once and counts[type(statement)] < MOST:
            once[key] = statement
            counts[type(statement)] += 1
    kept = list(once.values())
    exact = [statement for statement in kept if isinstance(statement, System | Kernel)]
    return tuple(statement for statement in kept if not any(_says_more(other, statement) for other in exact))


def _key(statement: Statement) -> object:
    """Everything that a statement says, without the line."""
    match statement:
        case AuditLine():
            return frozenset((key, value) for key, value in statement.fields.items() if key not in EACH_TIME)
        case Probed():
            return Probed
        case System():
            return System, statement.id, statement.version, statement.place
    names = (one.name for one in fields(statement) if one.name != "quote")
    return type(statement), *(getattr(statement, name) for name in names)


def _says_more(other: Statement, than: Statement) -> bool:
    """Whether a statement says all that another does, and more."""
    match other, than:
        case System(), System():
            same = (other.id, other.place) == (than.id, than.place)
            return same and than.version is None and other.version is not None
        case Kernel(), Kernel():
            return other.release != than.release and other.release.startswith(than.release)
    return False
