"""What a report is about, in the words that say what tests are about, and which tests are about the same.

The words with their patterns are `lab/suites/subjects.toml`. Suites are read as data: their models take longer
to import than most reports to read.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.base.files import group_values
from lab.base.paths import PACKAGE
from lab.repro.report import (
    AuditLine,
    ErrorMessage,
    JudgedReport,
    NamedTest,
    Quote,
    Report,
    Statement,
)
from lab.repro.source import LETTER, ReportLine, quote_line

SUITES = PACKAGE / "suites"
TABLE: dict[str, dict[str, str]] = tomllib.loads((SUITES / "subjects.toml").read_text("utf-8"))
PATTERNS = {name: re.compile(row["pattern"], re.IGNORECASE) for name, row in TABLE.items()}
# What a report is about that quotes a failure and names nothing else.
START = "start"
REFUSALS = (AuditLine, ErrorMessage, NamedTest)
NOTHING_SAID = "the report does not say what fails in words that the lab knows"
# The suites that can be run against a wheel, the usual one first.
WHEEL_SUITES = ("jailer", "lifecycle", "volumes", "reboot")


def read_suite(name: str) -> dict[str, Any]:
    """Return the table of one of the lab's suites."""
    return tomllib.loads((SUITES / name / "suite.toml").read_text("utf-8"))


def _list_tested(suite: Mapping[str, Any]) -> set[str]:
    """What the tests of a suite are about."""
    return {suite["subject"], *suite.get("subjects", {}).values()}


def list_met_causes(names: Iterable[str]) -> dict[str, str]:
    """The causes that suites meet in a guest without any setting, each with its suite."""
    return {
        suite["expect"]["cause"]: name
        for name in names
        if (suite := read_suite(name)).get("expect", {}).get("cause")
    }


def find_subjects(
    title: ReportLine | None, lines: Sequence[ReportLine], statements: Sequence[Statement]
) -> Mapping[str, Quote]:
    """Return what a report is about, each with the line that says so.

    The title decides, with the messages that have one meaning. Then comes what a program says that was refused
    something, and what tests fail: a box does not start. Then comes what most lines are about, if it is more
    than one.
    """
    certain: dict[str, Quote] = {}
    for statement in statements:
        match statement:
            case ErrorMessage(quote=quote, subject=subject) if subject:
                certain.setdefault(subject, quote)
            case NamedTest(quote=quote, known=True):
                certain.setdefault(START, quote)  # What it names is a test of the usual suite.
    of_title = _subjects_of([title] if title else [])
    certain |= {name: quotes[0] for name, quotes in of_title.items() if name != START}
    quoted = [statement.quote for statement in statements if isinstance(statement, REFUSALS)]
    if certain or quoted:
        return certain or {START: quoted[0]}
    counted = of_title or {name: quotes for name, quotes in _subjects_of(lines).items() if len(quotes) > 1}
    candidates = {name: quotes for name, quotes in counted.items() if name != START} or counted
    most = max(map(len, candidates.values()), default=0)
    return {name: quotes[0] for name, quotes in candidates.items() if len(quotes) == most}


def _subjects_of(lines: Iterable[ReportLine]) -> dict[str, list[Quote]]:
    """The lines that are about each subject."""
    return group_values(
        (name, quote_line(line))
        for line in lines
        if LETTER.search(line.text)
        for name, pattern in PATTERNS.items()
        if pattern.search(line.text)
    )


@dataclass(frozen=True)
class SuiteChoice:
    """The suite whose tests are about most of what a report is about.

    `untested` is what none of its tests is about. If `is_untested`, the report is about nothing else, or does
    not say what it is about. `reason` says so, and `steps` say which suite it is if it is not the usual one,
    and which tests are about the rest.
    """

    name: str
    untested: tuple[str, ...]
    is_untested: bool
    reason: str
    steps: tuple[str, ...]


def choose_suite(report: Report, judged: JudgedReport, names: Sequence[str] = WHEEL_SUITES) -> SuiteChoice:
    """Choose among the suites that can be run: the one with most tests of it, or which is about nothing else.

    A cause that the text shows keeps boxes from starting, whatever else the report is about, unless it is the
    one that a suite meets: then that suite shows it.
    """
    of_suites = {name: read_suite(name) for name in names}
    shown = {finding.name for finding in judged.findings}
    meets = [name for cause, name in list_met_causes(names).items() if cause in shown]
    about = tuple(of_suites[name]["subject"] for name in meets[:1]) if shown else tuple(report.subjects)
    left_out = {name: [one for one in about if one not in _list_tested(of_suites[name])] for name in names}
    name = min(names, key=lambda one: (len(left_out[one]), of_suites[one]["subject"] not in about))
    untested = tuple(left_out[name])
    reason = f"no test is about {' or '.join(untested)}" if untested else ""
    tested = [one for one in about if one not in untested]
    steps = [f"suite: {name}, whose tests are about {' and '.join(tested)}"] if name != names[0] else []
    for other in sorted(file.parent.name for file in SUITES.glob("*/suite.toml")) if untested else ():
        suite = read_suite(other)
        if not _list_tested(suite).isdisjoint(untested):
            option = f"--build nextest:ARCHIVE,suite={other}" if "filter" in suite else f"--suite {other}"
            steps.append(f"tests of it: {suite['title']}: lab matrix {option}")
    if not report.subjects and not judged.findings and not judged.possible:
        return SuiteChoice(name, (), True, NOTHING_SAID, ())
    return SuiteChoice(name, untested, bool(untested) and len(untested) == len(about), reason, tuple(steps))
