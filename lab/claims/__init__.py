"""The claims of bug reports and of documentation, judged from the record of a run. Nothing is run for that.

A report is a package in here, `issue_468`, and each of its statements a module of that: found, not listed. The
package's `TITLE` names the report in sentences.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType

from lab.base import guard
from lab.base.discovery import classes
from lab.base.errors import unknown_name
from lab.claims._base import Claim, Sight
from lab.record import Status
from lab.upstream.finished import FinishedCell

__all__ = ["Answer", "Claim", "Judgement", "Seen", "Sight", "judge", "known", "reports", "shows", "title"]

# Statuses of cells whose suite ran, with the same result each time.
RAN = (Status.PASS, Status.XPASS, Status.FAIL, Status.XFAIL)


class Answer(StrEnum):
    """What a run says about a claim on one guest."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Seen:
    """A cell that a claim concerns, and what the cell shows."""

    cell: FinishedCell
    sight: Sight

    @property
    def files(self) -> list[str]:
        """The files that show it, as paths in the run; files that were not gathered are left out."""
        return [self.cell.path(file) for file in self.sight.files if (self.cell.folder / file).is_file()]


@dataclass(frozen=True)
class Judgement:
    """The answer to a claim on one guest. `seen` are all cells that the claim concerns, with what each shows.

    `reason` says why the claim is not judged if the guest has no such cell.
    """

    guest: str
    answer: Answer
    seen: tuple[Seen, ...] = ()
    reason: str = ""


def reports() -> list[str]:
    """The names of the reports whose claims are known."""
    return sorted(info.name.replace("_", "-") for info in pkgutil.iter_modules(__path__) if info.ispkg)


def known(report: str) -> dict[str, Claim]:
    """A report's claims by their names, in the order of its text. Raises UsageError for an unknown report."""
    found = classes(_package(report), Claim)  # type: ignore[type-abstract]
    made = {name.replace("_", "-"): kind() for name, kind in found.items()}
    return dict(sorted(made.items(), key=lambda item: item[1].order))


def title(report: str) -> str:
    """The report's title. Raises UsageError for an unknown report."""
    return str(_package(report).TITLE)


def _package(report: str) -> ModuleType:
    if report not in reports():
        raise unknown_name("report", report, reports())
    return importlib.import_module(f"{__name__}.{report.replace('-', '_')}")


def judge(claim: Claim, guest: str, cells: Sequence[FinishedCell]) -> Judgement:
    """Judge a claim by the cells of a guest: it holds if a cell shows it and no cell shows the contrary."""
    seen = tuple(
        Seen(cell, _look(claim, cell) if cell.result.status in RAN else _did_not_run(cell))
        for cell in cells
        if cell.result.guest == guest and claim.concerns(cell.result)
    )
    shown = {shows(each.sight) for each in seen}
    answer = next((each for each in (Answer.DOES_NOT_HOLD, Answer.HOLDS) if each in shown), Answer.NOT_JUDGED)
    return Judgement(guest, answer, seen, "" if seen else claim.only)


def shows(sight: Sight) -> Answer:
    """The answer that one cell alone gives."""
    if sight.holds is None:
        return Answer.NOT_JUDGED
    return Answer.HOLDS if sight.holds else Answer.DOES_NOT_HOLD


def _look(claim: Claim, cell: FinishedCell) -> Sight:
    return guard.shown(lambda: claim.look(cell), lambda why: Sight(None, why))


def _did_not_run(cell: FinishedCell) -> Sight:
    return Sight(None, ": ".join(filter(None, [cell.result.status, cell.result.reason])))
