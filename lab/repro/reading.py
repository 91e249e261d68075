"""Reading a bug report: its text, in any of the forms in which it arrives, as statements.

Nothing of a report is executed or fetched. Its size is bounded, and each line is read in linear time. Messages,
systems and settings have modules of their own. The patterns of what is read here are in `reading.toml`.
"""

import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from lab.base.errors import UsageError
from lab.base.files import bounded
from lab.probes import report as probe_report
from lab.probes.report import QUOTE_MARKS, HostReport
from lab.repro import judging, messages, settings, source, systems
from lab.repro.report import (
    AuditLine,
    Command,
    Ended,
    Kernel,
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
from lab.repro.source import LONGEST, MOST_BYTES, TABLE, Kind, Line, Text, how_to_give, matches, quote

__all__ = ["MOST_BYTES", "how_to_give", "read"]

# The most lines that are kept as not understood, the longest title in characters, and the most statements of
# one kind that a report is read for; a log may hold thousands. As many as `MOST_READ` are looked at: most of a
# long log says the same.
MOST_UNREAD = 200
LONGEST_TITLE = 200
MOST, MOST_READ = 200, 1_000
# A shell's exit status of a program that a signal ended.
BY_SIGNAL = 128
SIGNALS = {one.value: one.name for one in signal.Signals}
# At most so many lines are one wrapped line of the audit log.
MOST_WRAPPED = 8

PROGRAMS: dict[str, str] = TABLE["programs"]
COMMANDS, TESTS, KINDS, AUDIT = (
    {name: re.compile(pattern) for name, pattern in TABLE[section].items()}
    for section in ("commands", "tests", "kinds", "audit")
)


def read(data: bytes) -> Report:
    """Read a report. Raises UsageError for what is none."""
    whole = source.read(data)
    # The output of the probe script is read exactly, and by nothing else. It may be cut off.
    output = probe_report.find([line.raw for line in whole.lines])
    text = replace(whole, lines=[*whole.lines[: output.start], *whole.lines[output.stop :]])
    of_lines = (
        _probed(whole.lines[output]),
        _audit_lines(text),
        _commands(text),
        systems.read(text),
        *(_facts(text, row) for row in FACTS),
        _named_tests(text),
        settings.read(text),
        messages.read(text, AUDIT["begins"]),
    )
    everything = [
        *_probed(whole.lines[output]),
        *(statement for kind in of_lines for statement in islice(kind, MOST_READ)),
    ]
    everything.sort(key=lambda statement: statement.quote.number)
    statements = sorted(systems.completed(_merged(everything)), key=lambda statement: statement.quote.number)
    # A heading is a title only if it is a page's, not a form's or a section's.
    titles = (
        line.text.strip()
        for line in text.lines
        if (line.kind is Kind.PROSE and not line.raw.startswith(">"))
        or (line.kind is Kind.HEADING and not line.raw.lstrip().startswith("##"))
    )
    title = next((words for words in titles if " " in words and not KINDS["no_title"].search(words)), "")
    return Report(
        title=bounded(title, LONGEST_TITLE),
        statements=tuple(statements),
        unread=_unread(text, everything),
        size=text.size,
        cut=text.cut,
        topics=_topics(text),
    )


def _unread(text: Text, everything: Iterable[Statement]) -> tuple[Quote, ...]:
    """The lines that look technical and that nothing understood, each text once."""
    read_lines = (range(statement.quote.number, statement.quote.last + 1) for statement in everything)
    understood = {number for numbers in read_lines for number in numbers}
    understood |= {text.lines[index].number for index in text.advice}
    left: dict[str, Quote] = {}
    for line in text.lines:
        if line.number in understood or KINDS["nothing_new"].match(line.text):
            continue
        if line.kind is Kind.CODE or KINDS["technical"].search(line.text):
            left.setdefault(line.raw.strip(), quote(line))
    return tuple(left.values())[:MOST_UNREAD]


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


def _merged(statements: Iterable[Statement]) -> list[Statement]:
    """Return each statement once, in the order of the text; what another says more exactly is left out."""
    counts: Counter[type[Statement]] = Counter()
    kept: list[Statement] = []
    for statement in dict.fromkeys(statements):
        counts[type(statement)] += 1
        if counts[type(statement)] <= MOST:
            kept.append(statement)
    exact = [statement for statement in kept if isinstance(statement, System | Kernel)]
    return [statement for statement in kept if not any(_says_more(other, statement) for other in exact)]


def _says_more(other: Statement, than: Statement) -> bool:
    """Whether a statement says all that another does, and more."""
    match other, than:
        case System(), System():
            same = (other.id, other.place) == (than.id, than.place)
            return same and than.version is None and other.version is not None
        case Kernel(), Kernel():
            return other.release != than.release and other.release.startswith(than.release)
    return False


# -- facts that a line tells by itself


NEVER = re.compile("(?!)")


@dataclass(frozen=True)
class Fact:
    """A row of the table's facts, which explains its fields."""

    kind: str
    pattern: re.Pattern[str]
    not_before: re.Pattern[str] = NEVER
    not_after: re.Pattern[str] = NEVER
    after: re.Pattern[str] | None = None
    given: dict[str, str] = field(default_factory=dict)


def _fact(row: dict[str, Any]) -> Fact:
    names = {**TABLE, "PROGRAM": "|".join(PROGRAMS.values())}
    patterns = {
        name: re.compile(re.sub(r"\{([A-Z_]+)\}", lambda of: str(names[of[1]]), value))
        for name, value in row.items()
        if name not in ("kind", "given")
    }
    return Fact(**row | patterns)


FACTS = [_fact(row) for row in TABLE["fact"]]


def _facts(text: Text, row: Fact) -> Iterator[Statement]:
    """Yield what the lines tell by one row of the table."""
    before: Line | None = None
    for line in text.lines:
        words, question, before = line.labelled, before, line
        if row.after is not None and (question is None or not row.after.search(question.raw)):
            continue
        for match in matches(row.pattern, words):
            if row.not_before.search(words[: match.start()]) or row.not_after.match(words[match.end() :]):
                continue
            statement = _statement(row.kind, quote(line), row.given | match.groupdict())
            if statement is not None:
                yield statement


def _statement(kind: str, quote_: Quote, told: dict[str, str]) -> Statement | None:
    if kind == "kernel":
        return Kernel(quote_, KINDS["of_platform"].sub("", told["release"]))
    if kind == "program":
        written = told["name"]
        names = (name for name, pattern in PROGRAMS.items() if re.fullmatch(pattern, written, re.IGNORECASE))
        return Program(quote_, next(names, written), told["version"])
    if "status" in told:
        status = int(told["status"])
        return Ended(quote_, status, SIGNALS.get(status - BY_SIGNAL)) if status < 256 else None
    number = signal.Signals[told["signal"]] if "signal" in told else int(told["number"])
    return Ended(quote_, BY_SIGNAL + number, SIGNALS[number]) if number in SIGNALS else None


# -- the kernel's audit log


def _audit_lines(text: Text) -> Iterator[Statement]:
    last = -1
    for index, line in enumerate(text.lines):
        if index <= last or not AUDIT["begins"].search(line.text):
            continue
        whole, last = line.text, index
        for after in text.lines[index + 1 : index + 1 + MOST_WRAPPED]:
            is_next = after.number == text.lines[last].number + 1 and not AUDIT["new_line"].match(after.text)
            is_inside_quotes = whole.replace('\\"', '"').count('"') % 2 == 1
            goes_on = AUDIT["continues"].match(after.text) and not AUDIT["begins"].match(after.text.strip())
            if not is_next or not (is_inside_quotes or goes_on):
                break
            # A terminal wraps within a word, too: then the last word is no whole `key=value`.
            word = whole.rsplit(None, 1)[-1]
            is_whole = whole[-1].isspace() or "=" in word or word.endswith(('"', "}", ":", "for"))
            whole += ("" if is_inside_quotes or not is_whole else " ") + after.text.strip()
            last += 1
        fields = _fields(whole.replace('\\"', '"'))
        if any(key in fields for key in TABLE["telling"]):
            written = " ".join(one.raw.strip() for one in text.lines[index : last + 1])
            yield AuditLine(Quote(line.number, bounded(written, LONGEST), text.lines[last].number), fields)


def _fields(line: str) -> dict[str, str]:
    """Return the fields of a line. See `lab.causes.evidence`, which reads lines that nobody edited."""
    fields: dict[str, str] = {}
    keys = list(AUDIT["key"].finditer(line))
    is_interpreted = '="' not in line
    at = 0
    for key, following in zip(keys, [*keys[1:], None], strict=False):
        if key.start() < at:
            continue  # Inside the quotes of the field before.
        rest = line[key.end() :]
        if rest.startswith('"'):
            value = rest[1:].partition('"')[0]
            at = key.end() + len(value) + 2
        elif is_interpreted and key[1] in TABLE["spaced"]:
            value = line[key.end() : following.start() if following else len(line)].strip()
        else:
            value = (rest.split(None, 1) or [""])[0].rstrip("`)\"',")
        if key[1] not in TABLE["each_time"]:
            fields.setdefault(key[1], value)
    if denied := AUDIT["denied"].search(line):
        fields["avc"] = denied[1].strip()
        # The record of the refused system call tells that the denial was enforced, even if it was cut off.
        if "permissive" not in fields and fields.get("success") == "no":
            fields["permissive"] = "0"
    capability = fields.get("capability", "")
    if number := TABLE["capabilities"].get(capability):
        fields |= {"capability": number, "capname": capability}
    return fields


# -- commands that the reporter ran, and tests that fail


def _commands(text: Text) -> Iterator[Statement]:
    before = ""
    for index, line in enumerate(text.lines):
        # A title is no command, nor is the rest of one, nor what somebody advises.
        is_none = before.endswith("\\") or index in text.advice or line.kind is Kind.HEADING
        before = line.text.rstrip()
        command = None if is_none else _command(line)
        if command and not COMMANDS["slash"].match(command):
            yield Command(quote(line), command)


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


def _probed(lines: Sequence[Line]) -> Iterator[Statement]:
    """Yield what the lines of an output tell, and the facts of it that reports tell in words too."""
    if not lines:
        return
    whole = quote(lines[0], lines[-1].number)
    try:
        host = probe_report.read("\n".join(line.raw for line in lines))
    except UsageError as error:
        yield Probed(whole, None, str(error.args[0]))
        return
    if host is not None:
        yield Probed(whole, host)
        yield from _of_probe(host, lines)


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
    for program, version in {"bubblewrap": facts.bubblewrap, "apparmor": facts.apparmor}.items():
        if version is not None and version.version is not None:
            yield Program(at(program), program, version.version)
    for sysctl, value in facts.sysctls.items():
        if value is not None:
            yield Setting(at(sysctl), sysctl, value, Mood.HOLDS, place=place)
