"""Contradictions in a report, and warnings against wrong conclusions: one kind in each module."""

import sys
from collections.abc import Sequence

from lab.base.paths import classes
from lab.repro.judging._base import Finding, Remark, Remarks
from lab.repro.report import Quote, Report

__all__ = ["made"]

# More than any report deserves.
MOST = 20


def made(report: Report, findings: Sequence[Finding]) -> tuple[Remark, ...]:
    """Return the remarks on a report, in the order of their first lines."""
    kinds = classes(sys.modules[__name__], Remarks)  # type: ignore[type-abstract]
    quotes: dict[str, tuple[Quote, ...]] = {}
    for kind in kinds.values():
        for remark in kind().of(report, findings):
            # The same remark on several lines is one.
            quotes[remark.text] = tuple(dict.fromkeys([*quotes.get(remark.text, ()), *remark.quotes]))
    found = [Remark(text, lines) for text, lines in quotes.items()]
    return tuple(sorted(found, key=lambda each: each.quotes[0].number if each.quotes else 0)[:MOST])
