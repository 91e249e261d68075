"""Reading a bug report: its text, in any of the forms in which it arrives, as statements.

Nothing of a report is executed or fetched. Its size is bounded, and each rule reads a line in linear time.
"""

import re
from collections.abc import Iterable

from lab.base.files import bounded
from lab.repro.reading import forms, inferring, merging, probed, rules
from lab.repro.reading.forms import MOST_BYTES, how_to_give
from lab.repro.reading.rules import Found, Text, quote
from lab.repro.reading.structure import Kind, Line, parse
from lab.repro.report import Quote, Report

__all__ = ["MOST_BYTES", "how_to_give", "read"]

# The most lines that are kept as not understood, and the longest title, in characters.
MOST_UNREAD = 200
LONGEST_TITLE = 200
NO_TITLE = re.compile(r'^[$#] |="[^"]*" \w+=|:$')
# What an error of Python's shows beside the error.
TRACEBACK = re.compile(r'^\s*(?:Traceback \(most recent call last\):|File ".*", line \d+.*)$')
# What a line of prose holds that no rule understood and that may matter.
TECHNICAL = re.compile(
    r"\b(?:errors?|denied|permission|permitted|panic(?:ked)?|errno|killed|signal|unable|refused|seccomp|apparmor|"
    r"selinux|capabilit(?:y|ies)|cap_\w+|sysctl|kvm|landlock|cgroups?)\b|/(?:proc|sys|dev|etc)/|\w=\w",
    re.IGNORECASE,
)


def read(data: bytes) -> Report:
    """Read a report. Raises UsageError for what is none."""
    source = forms.source(data)
    lines = parse(source.text)
    output = probed.lines_of(lines)
    exact = {line.number for line in output}
    text = Text([line for line in lines if line.number not in exact])
    found = sorted(
        [*probed.read(output), *(each for rule in rules.known() for each in rule.read(text))],
        key=lambda each: each.statement.quote.number,
    )
    named = merging.merged(each.statement for each in found)
    statements = sorted([*named, *inferring.inferred(named)], key=lambda each: each.quote.number)
    return Report(
        title=_title(text.lines),
        statements=tuple(statements),
        unread=_unread(text, found),
        size=source.size,
        cut=source.cut,
    )


def _title(lines: Iterable[Line]) -> str:
    """The first line in words; a heading only if it is a page's, not a form's or a section's."""
    said = (
        line.text.strip()
        for line in lines
        if (line.kind is Kind.PROSE and not line.raw.startswith(">"))
        or (line.kind is Kind.HEADING and not line.raw.lstrip().startswith("##"))
    )
    return bounded(
        next((text for text in said if " " in text and not NO_TITLE.search(text)), ""), LONGEST_TITLE
    )


def _unread(text: Text, found: Iterable[Found]) -> tuple[Quote, ...]:
    """The lines that look technical and that no rule understood, each text once."""
    understood = {number for each in found for number in range(each.statement.quote.number, each.last + 1)}
    understood |= {text.lines[index].number for index in text.advice}
    left = {
        line.raw.strip(): quote(line)
        for line in reversed(text.lines)
        if line.number not in understood
        and (line.kind is Kind.CODE or TECHNICAL.search(line.text))
        and not TRACEBACK.match(line.text)
    }
    return tuple(sorted(left.values(), key=lambda each: each.number)[:MOST_UNREAD])
