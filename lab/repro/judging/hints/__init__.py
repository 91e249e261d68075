"""What tells a cause in the text of a report, beside the rules of the causes: one hint in each module."""

import sys

from lab.base.paths import classes
from lab.repro.judging._base import Hint

__all__ = ["known"]


def known() -> dict[str, Hint]:
    """Return all hints by the names of their causes."""
    found = classes(sys.modules[__name__], Hint)  # type: ignore[type-abstract]
    return {name.replace("_", "-"): kind() for name, kind in found.items()}
