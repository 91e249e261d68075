"""How fields of a request are given on the command line; `lab.cli.options` makes click's options of them."""

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Option:
    """One option. The field that it annotates says its type and its default.

    `flags` are as click has them: "--cold", or "--remedies/--no-remedies". `metavar` stands for the value in
    the help, and decides what shell completion offers. `limits` are the smallest and the largest value of a
    number. `parse` reads a text, and raises ValueError with what is wrong with it. `bare` is what the option
    means if it is given without a value; if `bare` is None, it needs a value.
    """

    group: Group
    flags: str
    help: str
    metavar: str | None = None
    limits: tuple[int, int | None] | None = None
    parse: Callable[[str], Any] | None = None
    bare: str | None = None
