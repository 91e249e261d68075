"""The kinds of setting that variants are made of, each a module: what it sets, where, and how that shows.

Everything here is over definitions and facts; what is done in the guest is in `lab/guest/remote/knobs/`.
"""

import sys

from lab.base.discovery import classes
from lab.knobs._base import Conflict, Facts, Knob, Table, Who

__all__ = ["Conflict", "Facts", "Knob", "Table", "Who", "kinds"]


def kinds() -> dict[str, type[Knob]]:
    """Every kind of setting, by the name of its table in a variant's TOML."""
    return classes(sys.modules[__name__], Knob)  # type: ignore[type-abstract]
