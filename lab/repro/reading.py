"""Reading a bug report: its text, in any of the forms in which it arrives, as statements.

Nothing of a report is executed or fetched. Its size is bounded, and each line is read in linear time. Messages,
systems and settings have modules of their own. The patterns of what is read here are in `reading.toml`.
"""

import re
import signal
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

from lab.base.architecture import ARCHITECTURES
from lab.base.errors import UsageError
from lab.base.files import cut_text
from lab.repro import assertions, instead, judging, messages, settings, source, subjects, systems
from lab.repro.report import (
    ArchitectureStatement,
    AuditLine,
    Command,
    KernelStatement,
    Mood,
    NamedTest,
    Place,
    ProbeOutput,
    ProgramEnd,
    ProgramVersion,
    Quote,
    Report,
    Setting,
    Statement,
    System,
)
from lab.repro.source import LONGEST, TABLE, LineKind, ReportLine, ReportText, find_matches, quote_line

if TYPE_CHECKING:
    from lab.probes.report import HostReport

# The most lines that are kept as not understood, the longest title in characters, and the most statements of
# one kind that a report is read for; a log may hold thousands. As many as `MOST_READ` are looked at: most of a
# long log says the same.
MOST_UNREAD = 200
LONGEST_TITLE = 200
MOST, MOST_READ = 200, 1_000
# A shell's exit status of a program that a signal ended.
BY_SIGNAL = 128
SIGNALS = {one.value: one.name for one in signal.Signals}
# The tests of the lab's own suite.
SUITE = tuple(subjects.read_suite(subjects.WHEEL_SUITES[0])["tests"])
# At most so many lines are one wrapped line of the audit log.
MOST_WRAPPED = 8

PROGRAMS: dict[str, str] = TABLE["programs"]
COMMANDS, TESTS, KINDS, AUDIT = (
    {name: re.compile(pattern) for name, pattern in TABLE[section].items()}
    for section in ("commands", "tests", "kinds", "audit")
)


def read_report(data: bytes) -> Report:
    """Read a report. Raises UsageError for what is none."""
    original = source.read_lines(data)
    text, everything = _probed(original)
    readers: list[Iterator[Statement]] = [
        _audit_lines(text),
        _commands(text),
        systems.read_systems(text),
        *(_facts(text, row) for row in FACTS),
        _named_tests(text),
        settings.read_settings(text),
        messages.read_messages(text, AUDIT["begins"]),
        assertions.read_assertions(text),
    ]
    for statements in readers:
        everything += islice(statements, MOST_READ)
    everything.sort(key=lambda statement: statement.quote.number)
    merged = systems.complete_statements(text, _merged(everything))
    # A heading is a title only if it is a page's, not a form's or a section's.
    titles = (
        line
        for line in text.lines
        if (line.kind is LineKind.PROSE and not line.raw.startswith(">"))
        or (line.kind is LineKind.HEADING and not line.raw.lstrip().startswith("##"))
    )
    title = next(
        (one for one in titles if " " in one.text.strip() and not KINDS["no_title"].search(one.text)), None
    )
    understood = {text.lines[index].number for index in text.advice}
    for statement in everything:
        understood |= {*range(statement.quote.number, statement.quote.last + 1)}
    # Lines that look technical and that nothing understood, each text once.
    unread: dict[str, Quote] = {}
    for line in text.lines:
        is_new = line.number not in understood and not KINDS["nothing_new"].match(line.text)
        if is_new and (line.kind is LineKind.CODE or KINDS["technical"].search(line.text)):
            unread.setdefault(line.raw.strip(), quote_line(line))
    report = Report(
        title=cut_text(title.text.strip() if title else "", LONGEST_TITLE),
        statements=tuple(sorted(merged, key=lambda statement: statement.quote.number)),
        unread=tuple(unread.values())[:MOST_UNREAD],
        size=text.size,
        cut=text.cut,
        topics=_find_topics(text),
        subjects=subjects.find_subjects(title, text.lines, merged),
    )
    return judging.select_host(report)


def _find_topics(text: ReportText) -> dict[str, Quote]:
    """What a report is about beside its statements, each with the first line that says so."""
    words = "\n".join(line.labelled for line in text.lines)
    ends = list(accumulate(len(line.labelled) + 1 for line in text.lines))
    topics = {}
    for row in [*judging.TABLE["topic"], *instead.ROWS]:
        pattern = row.get("pattern", "(?!)")
        if match := re.search(pattern, words, re.IGNORECASE | re.MULTILINE):
            topics[row["name"]] = quote_line(text.lines[bisect(ends, match.end() - 1)])
    return topics


def _merged(statements: Iterable[Statement]) -> list[Statement]:
    """Return each statement once, in the order of the text; what another says more exactly is left out."""
    counts: Counter[type[Statement]] = Counter()
    unique: list[Statement] = []
    for statement in dict.fromkeys(statements):
        counts[type(statement)] += 1
        if counts[type(statement)] <= MOST:
            unique.append(statement)
    with_version = {
        (one.id, one.place) for one in unique if isinstance(one, System) and one.version is not None
    }
    releases = [one.release for one in unique if isinstance(one, KernelStatement)]

    def is_said_better(statement: Statement) -> bool:
        match statement:
            case System(id=name, version=None, place=place):
                return (name, place) in with_version
            case KernelStatement(release=release):
                return any(other != release and other.startswith(release) for other in releases)
        return False

    return [statement for statement in unique if not is_said_better(statement)]


# -- facts that a line tells by itself


def _compiled(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table of facts with its patterns compiled; the table explains its fields."""
    names = {**TABLE, "PROGRAM": "|".join(PROGRAMS.values())}

    def pattern(written: str) -> re.Pattern[str]:
        return re.compile(re.sub(r"\{([A-Z_]+)\}", lambda name: str(names[name[1]]), written))

    return {name: value if name in ("kind", "given") else pattern(value) for name, value in row.items()}


FACTS = [_compiled(row) for row in TABLE["fact"]]
NEVER = re.compile("(?!)")


def _facts(text: ReportText, row: dict[str, Any]) -> Iterator[Statement]:
    """Yield what the lines tell by one row of the table."""
    not_before, not_after = row.get("not_before", NEVER), row.get("not_after", NEVER)
    earlier: ReportLine | None = None
    for line in text.lines:
        words, question, earlier = line.labelled, earlier, line
        if "after" in row and (question is None or not row["after"].search(question.raw)):
            continue
        for match in find_matches(row["pattern"], words):
            if not_before.search(words[: match.start()]) or not_after.match(words[match.end() :]):
                continue
            if statement := _fact(row["kind"], quote_line(line), row.get("given", {}) | match.groupdict()):
                yield statement


def _fact(kind: str, quote_: Quote, groups: dict[str, str]) -> Statement | None:
    if kind == "kernel":
        return KernelStatement(quote_, KINDS["of_platform"].sub("", groups["release"]))
    if kind == "architecture":
        by_name = {name: row.name for row in ARCHITECTURES.values() for name in (row.name, row.debian)}
        return ArchitectureStatement(quote_, by_name[groups["arch"]])
    if kind == "program":
        written = groups["name"]
        names = (name for name, pattern in PROGRAMS.items() if re.fullmatch(pattern, written, re.IGNORECASE))
        return ProgramVersion(quote_, next(names, written), groups["version"])
    if "status" in groups:
        status = int(groups["status"])
        return ProgramEnd(quote_, status, SIGNALS.get(status - BY_SIGNAL)) if status < 256 else None
    number = signal.Signals[groups["signal"]] if "signal" in groups else int(groups["number"])
    return ProgramEnd(quote_, BY_SIGNAL + number, SIGNALS[number]) if number in SIGNALS else None


# -- the kernel's audit log


def _audit_lines(text: ReportText) -> Iterator[Statement]:
    last = -1
    for index, line in enumerate(text.lines):
        if index <= last or not AUDIT["begins"].search(line.text):
            continue
        joined, last = line.text, index
        for below in text.lines[index + 1 : index + 1 + MOST_WRAPPED]:
            is_next = below.number == text.lines[last].number + 1 and not AUDIT["new_line"].match(below.text)
            is_inside_quotes = joined.replace('\\"', '"').count('"') % 2 == 1
            goes_on = AUDIT["continues"].match(below.text) and not AUDIT["begins"].match(below.text.strip())
            if not is_next or not (is_inside_quotes or goes_on):
                break
            # A terminal wraps within a word, too: then the last word is no whole `key=value`.
            word = joined.rsplit(None, 1)[-1]
            is_whole = joined[-1].isspace() or "=" in word or word.endswith(('"', "}", ":", "for"))
            joined += ("" if is_inside_quotes or not is_whole else " ") + below.text.strip()
            last += 1
        fields = _audit_fields(joined.replace('\\"', '"'))
        if any(key in fields for key in TABLE["telling"]):
            written = " ".join(one.raw.strip() for one in text.lines[index : last + 1])
            yield AuditLine(Quote(line.number, cut_text(written, LONGEST), text.lines[last].number), fields)


def _audit_fields(line: str) -> dict[str, str]:
    """Return the fields of a line. See `lab.causes.evidence`, which reads lines that nobody edited."""
    fields: dict[str, str] = {}
    is_interpreted = '="' not in line
    for pair in AUDIT["pair"].finditer(line):
        key, value = pair["key"], pair["quoted"]
        if is_interpreted and key in TABLE["spaced"]:
            following = AUDIT["pair"].search(line, pair.end())
            value = line[pair.end() : following.start() if following else len(line)].strip()
        elif value is None:
            value = pair["word"].rstrip("`)\"',")
        if key not in TABLE["each_time"]:
            fields.setdefault(key, value)
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


def _commands(text: ReportText) -> Iterator[Statement]:
    earlier = ""
    for index, line in enumerate(text.lines):
        # A title is no command, nor is the rest of one, nor what somebody advises.
        is_none = earlier.endswith("\\") or index in text.advice or line.kind is LineKind.HEADING
        earlier = line.text.rstrip()
        if is_none:
            continue
        words, is_command = line.text.strip(), False
        prompt = COMMANDS["prompt"].match(line.text)
        if prompt is None and line.kind is LineKind.CODE:
            prompt = COMMANDS["quote_prompt"].match(line.text)
        if prompt:
            words = line.text[prompt.end() :].strip()
            is_command = "#" not in prompt[0]  # After # it may also be a comment.
        elif about := COMMANDS["about"].match(words):
            words, is_command = about[1], True
        if not is_command:
            is_command = bool(COMMANDS["program"].match(words) and not COMMANDS["sentence"].search(words))
        if is_command and words and not COMMANDS["slash"].match(words):
            yield Command(quote_line(line), words)


def _named_tests(text: ReportText) -> Iterator[Statement]:
    for line in text.lines:
        if TESTS["passes"].search(line.text) and not TESTS["fails"].search(line.text):
            continue
        suite = [name for name in SUITE if name in line.text]
        failed = [next(filter(None, match.groups())) for match in find_matches(TESTS["failed"], line.text)]
        foreign = [name for name in failed if not any(test in name for test in suite)]
        yield from (NamedTest(quote_line(line), name, known=name in suite) for name in (*suite, *foreign))


# -- the output of the probe script


def _probed(text: ReportText) -> tuple[ReportText, list[Statement]]:
    """Read the output of the probe script exactly; it may be cut off. Returns the rest of the text, too."""
    if not any("probe" in "".join(line.raw.split()) for line in text.lines):
        return text, []
    # Its models take longer to import than most reports to read, and few have one.
    from lab.probes import report

    output = report.find_probe_lines([line.raw for line in text.lines])
    remaining = replace(text, lines=[*text.lines[: output.start], *text.lines[output.stop :]])
    lines = text.lines[output]
    if not lines:
        return text, []
    quotation = quote_line(lines[0], lines[-1].number)
    try:
        host = report.read_host_report("\n".join(line.raw for line in lines))
    except UsageError as error:
        return remaining, [ProbeOutput(quotation, None, str(error.args[0]))]
    return remaining, [ProbeOutput(quotation, host), *_facts_of(host, lines)] if host else []


def _facts_of(host: "HostReport", lines: Sequence[ReportLine]) -> Iterator[Statement]:
    """Yield the facts of an output that reports tell in words, too, each with its line."""
    from lab.probes.report import QUOTE_MARKS  # Not for each report: see `_probed`.

    def at(name: str) -> Quote:
        begin = f"{name.lower()}: "
        matching = (line for line in lines if line.raw.strip(QUOTE_MARKS).lower().startswith(begin))
        return quote_line(next(matching, lines[0]))

    facts, place = host.facts, Place.CONTAINER if host.who.container else Place.HOST
    system = facts.os
    if system.id is not None:
        like = systems.find_family(system.id) or next(iter(host.id_like), system.id)
        name = system.pretty_name or system.id
        parent = None if like == system.id else like
        yield System(at("system"), system.id, system.version_id, name, place, parent)
    yield KernelStatement(at("kernel"), facts.kernel)
    yield ArchitectureStatement(at("architecture"), facts.arch)
    for program, version in {"bubblewrap": facts.bubblewrap, "apparmor": facts.apparmor}.items():
        if version is not None and version.version is not None:
            yield ProgramVersion(at(program), program, version.version)
    for sysctl, value in facts.sysctls.items():
        if value is not None:
            yield Setting(at(sysctl), sysctl, value, Mood.HOLDS, place=place)
