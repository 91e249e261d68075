"""What a report is about, in the words that say what tests are about, and which tests are about the same.

The words with their patterns are `lab/suites/subjects.toml`. Suites are read as data: their models take longer
to import than most reports to read.
"""

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lab.base.paths import PACKAGE
from lab.repro.report import (
    AuditLine,
    ErrorMessage,
    JudgedReport,
    NamedTest,
    Quote,
    Report,
    Speaker,
    Statement,
)
from lab.repro.source import LETTER, ReportLine, quote_line

SUITES = PACKAGE / "suites"
TABLE: dict[str, dict[str, str]] = tomllib.loads((SUITES / "subjects.toml").read_text("utf-8"))
PATTERNS = {name: re.compile(row["pattern"], re.IGNORECASE) for name, row in TABLE.items()}
# What a report is about that quotes a failure and names nothing else.
START = "start"
# The suite of wheels, which a report is run with unless its user names another build.
USUAL_SUITE = "jailer"


def read_suite(name: str) -> dict[str, Any]:
    """Return the table of one of the lab's suites."""
    return tomllib.loads((SUITES / name / "suite.toml").read_text("utf-8"))


def _list_tested(suite: Mapping[str, Any]) -> set[str]:
    """What the tests of a suite are about."""
    return {suite["subject"], *suite.get("subjects", {}).values()}


def find_subjects(
    title: ReportLine | None, lines: Sequence[ReportLine], statements: Sequence[Statement]
) -> Mapping[str, Quote]:
    """Return what a report is about, each with the line that says so.

    The title decides, with the messages that have one meaning. Then come the words of boxlite, bubblewrap and
    the kernel: a box does not start. Then comes what most lines are about, if it is more than one.
    """
    named = {
        statement.subject: statement.quote
        for statement in statements
        if isinstance(statement, ErrorMessage) and statement.subject
    }
    of_title = _subjects_of([title] if title else [])
    named |= {name: quotes[0] for name, quotes in of_title.items() if name != START}
    quoted = [statement.quote for statement in statements if _is_of_start(statement)]
    if named or quoted:
        return named or {START: quoted[0]}
    counted = of_title or {name: quotes for name, quotes in _subjects_of(lines).items() if len(quotes) > 1}
    others = {name: quotes for name, quotes in counted.items() if name != START} or counted
    most = max(map(len, others.values()), default=0)
    return {name: quotes[0] for name, quotes in others.items() if len(quotes) == most}


def _subjects_of(lines: Iterable[ReportLine]) -> dict[str, list[Quote]]:
    """The lines that are about each subject."""
    found: dict[str, list[Quote]] = {}
    for line in lines:
        for name, pattern in PATTERNS.items() if LETTER.search(line.text) else ():
            if pattern.search(line.text):
                found.setdefault(name, []).append(quote_line(line))
    return found


def _is_of_start(statement: Statement) -> bool:
    match statement:
        case ErrorMessage(speaker=speaker):
            return speaker in (Speaker.BOXLITE, Speaker.BUBBLEWRAP)
        case NamedTest(known=known):
            return known
    return isinstance(statement, AuditLine)


def list_untested(
    report: Report, judged: JudgedReport, tested: Collection[str] | None = None
) -> tuple[str, ...]:
    """Return what a report is about and no test is; `tested` is what those of the suite that is run are about.

    A cause that the text shows keeps boxes from starting, whatever else the report is about.
    """
    if judged.findings:
        return ()
    if tested is None:
        tested = _list_tested(read_suite(USUAL_SUITE))
    return tuple(subject for subject in report.subjects if subject not in tested)


def explain_untested(untested: Sequence[str]) -> Iterator[str]:
    """Yield that no test is about these subjects, and which tests are, with the command that runs them."""
    if untested:
        yield f"no test is about {' or '.join(untested)}"
    for name in sorted(file.parent.name for file in SUITES.glob("*/suite.toml")) if untested else ():
        suite = read_suite(name)
        if not _list_tested(suite).isdisjoint(untested):
            option = f"--build nextest:ARCHIVE,suite={name}" if "filter" in suite else f"--suite {name}"
            yield f"tests of it: {suite['title']}: lab matrix {option}"
