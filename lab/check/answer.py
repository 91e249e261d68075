"""The answer about a host, as data."""

from dataclasses import dataclass
from enum import StrEnum

from lab.check.published import Cell, Distribution
from lab.record import Finding
from lab.site.users.answer import Comparison


class Outcome(StrEnum):
    """What to expect of boxlite on a host. A host that was not tested is never called one that works."""

    WORKS = "expected to work"
    BLOCKED = "blocked"
    UNKNOWN = "not known"

    @property
    def exit_status(self) -> int:
        """The exit status of `lab check`."""
        return {Outcome.WORKS: 0, Outcome.BLOCKED: 1, Outcome.UNKNOWN: 3}[self]


@dataclass(frozen=True)
class Refused:
    """A probe that failed, or that could not be tried: what it tries, and the error."""

    probe: str
    tries: str
    error: str
    tried: bool


@dataclass(frozen=True)
class Advice:
    """A remedy. `verified_on`: the published cell on which all tests passed with it; None: there is none.

    `changed`: the lab's script is another one than the one that was tried. `commands` is what a user types.
    """

    name: str
    title: str
    does: str
    price: str
    commands: str
    verified_on: Cell | None = None
    changed: bool = False


@dataclass(frozen=True)
class Close:
    """A tested cell, and how the host compares with it."""

    cell: Cell
    comparison: Comparison


@dataclass(frozen=True)
class Answer:
    """What to expect of boxlite on a host, why, and what to do.

    `reasons` are sentences that lead to the outcome. `nearest` is the tested cell that is closest, and
    `same_system` says whether it is of the host's own release. `others` are cells that are as close and had
    another outcome. `related` are other releases or distributions with results, if the host's own has none.
    `otherwise` are remedies that change how boxlite or its tests are run.
    """

    system: str
    outcome: Outcome
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...]
    refused: tuple[Refused, ...]  # and what could not be tried
    advice: tuple[Advice, ...]
    otherwise: tuple[str, ...]
    same_system: bool
    nearest: Close | None
    others: tuple[Cell, ...]
    related: tuple[Distribution, ...]
    unreadable: tuple[str, ...]
    as_root: bool
