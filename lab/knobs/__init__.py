"""The kinds of setting that variants consist of, one module each: what a kind sets, and how a guest shows it.

The modules only read definitions and facts. The programs that change a guest are in `lab/guest/remote/knobs/`.
"""

import sys

from lab.base.discovery import classes
from lab.knobs._base import Conflict, Knob, Table

__all__ = ["Conflict", "Knob", "Table", "kinds"]


def kinds() -> dict[str, type[Knob]]:
    """Every kind of setting, by the name of its table in a variant's TOML."""
    return classes(sys.modules[__name__], Knob)  # type: ignore[type-abstract]
