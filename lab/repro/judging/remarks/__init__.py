"""Contradictions in a report, and warnings against wrong conclusions: one kind in each module."""

import sys
from collections.abc import Sequence

from lab.base.discovery import classes
from lab.repro.judging._base import Finding, Remark, Remarks
from lab.repro.report import Report

__all__ = ["made"]


def made(report: Report, findings: Sequence[Finding]) -> tuple[Remark, ...]:
    """Return the remarks on a report, in the order of their first lines."""
    kinds = classes(sys.modules[__name__], Remarks)  # type: ignore[type-abstract]
    found = [remark for kind in kinds.values() for remark in kind().of(report, findings)]
    return tuple(sorted(found, key=lambda each: each.quotes[0].number if each.quotes else 0))
