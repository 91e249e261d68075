"""The claims of bug reports and of documentation, judged from the record of a run. Nothing is run for that.

Each report is a module in here with a table of its claims.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.base import notices
from lab.base.errors import unknown_name
from lab.record import Status
from lab.verdict.claims import docs, issue_468
from lab.verdict.claims._base import Answer, BugReport, Claim, Sight, Where
from lab.verdict.words import FinishedCell

# The reports whose claims are known, by their names on the command line.
REPORTS = {"docs": docs.REPORT, "issue-468": issue_468.REPORT}
# Statuses of cells whose suite ran, with the same result each time.
RAN = (Status.PASS, Status.XPASS, Status.FAIL, Status.XFAIL)


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


def find(report: str) -> BugReport:
    """A report whose claims are known. Raises UsageError for an unknown report."""
    if report not in REPORTS:
        raise unknown_name("report", report, REPORTS)
    return REPORTS[report]


def known(report: str) -> dict[str, Claim]:
    """A report's claims by their names, in the order of its text. Raises UsageError for an unknown report."""
    return {claim.name: claim for claim in find(report).claims}


def judge(claim: Claim, guest: str, cells: Sequence[FinishedCell]) -> Judgement:
    """Judge a claim by the cells of a guest: it holds if a cell shows it and no cell shows the contrary."""

    def look(cell: FinishedCell) -> Sight:
        result = cell.result
        if result.status not in RAN:
            return Sight(None, ": ".join(filter(None, [result.status, result.reason])))
        return notices.shown_or_why(lambda: claim.look(cell), lambda why: Sight(None, why))

    seen = tuple(
        Seen(cell, look(cell))
        for cell in cells
        if cell.result.guest == guest and claim.where.concerns(cell.result)
    )
    answers = {each.sight.answer for each in seen}
    order = (Answer.DOES_NOT_HOLD, Answer.HOLDS)
    answer = next((answer for answer in order if answer in answers), Answer.NOT_JUDGED)
    return Judgement(guest, answer, seen, "" if seen else claim.where.only)
