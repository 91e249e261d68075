"""The kinds of fact that a report tells, one rule in each module."""

import sys

from lab.base.paths import classes
from lab.repro.reading.rules._base import Found, Rule, Text, quote

__all__ = ["Found", "Rule", "Text", "known", "quote"]


def known() -> list[Rule]:
    """Return all rules."""
    return [kind() for kind in classes(sys.modules[__name__], Rule).values()]  # type: ignore[type-abstract]
