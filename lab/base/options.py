"""How a field of a request says which option of a command it is, and what the help says of it."""

import re
from dataclasses import field
from enum import StrEnum
from typing import Any

from lab.base.errors import UsageError

# What a duration ends with, and how many seconds that is.
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DURATION = re.compile(r"(\d{1,6})([smhd])", re.ASCII)


class Group(StrEnum):
    """The headings under which a command's help shows its options, in this order."""

    WHAT = "What to run"
    HOW = "How"
    HOSTS = "Several hosts"
    GATE = "Gate"
    OUTPUT = "Output"
    OTHER = "Options"


def make_option(
    text: str,
    metavar: str | None = None,
    *,
    flags: str = "",
    group: Group | None = None,
    default: Any = None,
    **settings: Any,
) -> Any:
    """A field of a request that is an option of its command; `text` is its help.

    The field says the name, the type and the default. A bool that is not False by default has two flags:
    `--NAME` and `--no-NAME`. `flags` is another name for the command line. `metavar` stands for the value in
    the help, and decides what shell completion offers. Without a `group`, that of the field before holds.
    `settings` are others of click's.
    """
    about = {"help": text, "metavar": metavar, "flags": flags, "group": group, **settings}
    return field(default=default, metadata=about)


def make_flag(text: str, **more: Any) -> Any:
    """An option without a value, which is False by default."""
    return make_option(text, default=False, **more)


def parse_duration(text: str) -> float:
    """Read a duration such as 90s, 10m, 2h or 7d, in seconds. Raises UsageError, also for no time at all."""
    match = DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise UsageError(
            f"{text!r} is no duration: expected a number above 0 and one of {', '.join(UNITS)}",
            hint="for example 90s, 10m, 2h or 7d",
        )
    return float(int(match[1]) * UNITS[match[2]])
