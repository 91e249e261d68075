"""How a field of a request says which option of a command it is, and what the help says of it."""

from dataclasses import field
from enum import StrEnum
from typing import Any


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
