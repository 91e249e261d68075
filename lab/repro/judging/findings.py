"""The causes that a report shows: by the rules of the causes, and by hints in its text."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lab import causes
from lab.record import Confidence
from lab.repro.judging import hints
from lab.repro.judging._base import BUBBLEWRAP, Finding
from lab.repro.judging.as_evidence import evidence_of, programs
from lab.repro.report import AuditLine, Quote, Report, Statement, Words


def found(report: Report) -> tuple[Finding, ...]:
    """Return the causes that a report shows, in the order in which they block; bubblewrap's first."""
    order = list(causes.known())
    by_rules = [each for program in programs(report) for each in _by_rules(report, program)]
    hinted = {name: shown for name, hint in hints.known().items() if (shown := hint.shown(report)) is not None}
    told = {each.name for each in by_rules if each.program == BUBBLEWRAP}
    by_hints = [
        Finding(name, Confidence.LIKELY, why, quotes)
        for name, (why, quotes) in hinted.items()
        if name not in told
    ]
    with_hints = [
        replace(each, quotes=_together(each.quotes, hinted[each.name][1]))
        if each.name in hinted and each.program == BUBBLEWRAP
        else each
        for each in by_rules
    ]
    return tuple(
        sorted([*with_hints, *by_hints], key=lambda each: (each.program != BUBBLEWRAP, order.index(each.name)))
    )


def _together(one: Sequence[Quote], other: Sequence[Quote]) -> tuple[Quote, ...]:
    return tuple(sorted({*one, *other}, key=lambda each: each.number))


def _by_rules(report: Report, program: str) -> Iterator[Finding]:
    """Yield what the rules of the causes find for one program that is blocked."""
    whole = evidence_of(report.statements, program)
    # Nobody said whether a box starts without the jailer, which the rules ask.
    shown = {
        each.name: each
        for control_failed in (False, True)
        for each in causes.diagnose(replace(whole, control_failed=control_failed))
    }
    for name, each in shown.items():
        telling = [one for one in report.statements if _tells(report, one, program, name)]
        lines = [one for one in telling if isinstance(one, AuditLine)]
        proved = any(_is_denial(line) and "comm" in line.fields for line in lines)
        unnamed = "" if proved or not lines else "; the audit line, as it is quoted, names no program"
        yield Finding(
            name,
            Confidence.PROVED if proved else Confidence.LIKELY,
            f"{each.why}{unnamed}",
            tuple(dict.fromkeys(one.quote for one in telling)),
            program,
        )


def _is_denial(line: AuditLine) -> bool:
    """Whether the kernel refused something with this line, rather than only told of it."""
    fields = line.fields
    return fields.get("apparmor") == "DENIED" or ("avc" in fields and fields.get("permissive") != "1")


def _tells(report: Report, statement: Statement, program: str, cause: str) -> bool:
    """Whether a cause is found by this statement, together with nothing but error messages."""
    beside: Sequence[Statement] = () if isinstance(statement, Words) else tuple(report.of(Words))
    rule = causes.known()[cause]
    return (
        rule.shown(evidence_of([statement, *beside], program)) is not None
        and rule.shown(evidence_of(beside, program)) is None
    )
