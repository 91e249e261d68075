"""The claims of bug reports and of documentation, judged from the record of a run. Nothing is run for that.

Each report is a module in here with a table of its claims.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.base import notices
from lab.base.errors import unknown_name
from lab.record import Status
from lab.verdict.claims import docs, issue_468
from lab.verdict.claims._base import BugReport, Claim, Sight
from lab.verdict.words import FinishedCell

__all__ = ["Answer", "Claim", "Judgement", "Seen", "Sight", "judge", "known", "reports", "shows", "title"]

# The reports whose claims are known, by their names on the command line.
REPORTS = {"docs": docs.REPORT, "issue-468": issue_468.REPORT}
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
    return list(REPORTS)


def known(report: str) -> dict[str, Claim]:
    """A report's claims by their names, in the order of its text. Raises UsageError for an unknown report."""
    return {claim.name: claim for claim in _report(report).claims}


def title(report: str) -> str:
    """The report's title. Raises UsageError for an unknown report."""
    return _report(report).title


def _report(name: str) -> BugReport:
    if name not in REPORTS:
        raise unknown_name("report", name, reports())
    return REPORTS[name]


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
    return notices.shown_or_why(lambda: claim.look(cell), lambda why: Sight(None, why))


def _did_not_run(cell: FinishedCell) -> Sight:
    return Sight(None, ": ".join(filter(None, [cell.result.status, cell.result.reason])))
