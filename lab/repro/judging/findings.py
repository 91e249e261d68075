"""The causes that a report shows: by the rules of the causes, and by hints in its text."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lab import causes
from lab.record import Confidence
from lab.repro.judging import hints
from lab.repro.judging._base import BUBBLEWRAP, Finding
from lab.repro.judging.as_evidence import evidence_of, programs
from lab.repro.report import AuditLine, Ended, Probed, Quote, Report, Setting, Statement, Words

# The statements that the evidence is made of.
EVIDENCE = (AuditLine, Ended, Probed, Setting, Words)


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
        telling = _telling(report, program, name)
        lines = [one for one in telling if isinstance(one, AuditLine)]
        by_probe = each.confidence is Confidence.PROVED and any(isinstance(one, Probed) for one in telling)
        # Lines of boxlite's thread and of `unshare` are logged where bubblewrap works, too.
        proved = by_probe or any(_is_denial(line) and line.fields.get("comm") == program for line in lines)
        named = not lines or any("comm" in line.fields for line in lines)
        unnamed = "" if named else "; the audit line, as it is quoted, names no program"
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


def _telling(report: Report, program: str, name: str) -> list[Statement]:
    """Return the statements by which a cause is found, each alone or together with nothing but messages."""
    cause = causes.known()[name]
    words = tuple(report.of(Words))
    by_words = cause.rule(evidence_of(words, program)) is not None

    def tells(statement: Statement) -> bool:
        if cause.rule(evidence_of([statement], program)) is not None:
            return True
        beside = () if by_words or isinstance(statement, Words) else words
        return bool(beside) and cause.rule(evidence_of([statement, *beside], program)) is not None

    return [each for each in report.statements if isinstance(each, EVIDENCE) and tells(each)]
