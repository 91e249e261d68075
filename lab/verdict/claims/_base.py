"""What a claim is, and what the claims of several reports share: which cells show one, and how cells failed."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from lab.probes import Facts
from lab.record import UNKNOWN, CellResult, Confidence, Outcome, RemedyOutcome, Status
from lab.verdict.words import FinishedCell

# The cause that stands for Ubuntu 24.04's policy, on any guest; and all causes that block user namespaces.
POLICY = "apparmor-userns-nocaps"
BLOCKING = ("userns-sysctl", "userns-limit", "apparmor-userns-deny", POLICY)
# The remedies that give bubblewrap a profile: each is a set-up script, `lab remedies show NAME --script`.
PROFILE_REMEDIES = ("bwrap-userns-restrict", "bwrap-profile")
JUNIT = "suite/junit.xml"


class Answer(StrEnum):
    """What a run, or one cell of it, says about a claim."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Sight:
    """Whether a claim holds by what one cell shows; None if the cell does not show it. `what` says why.

    `files` are those of the cell's folder that show it; with none of them it is the record alone.
    """

    holds: bool | None
    what: str
    files: tuple[str, ...] = ()

    @property
    def answer(self) -> Answer:
        """The answer that this cell alone gives."""
        return {True: Answer.HOLDS, False: Answer.DOES_NOT_HOLD, None: Answer.NOT_JUDGED}[self.holds]


Look = Callable[[FinishedCell], Sight]


@dataclass(frozen=True)
class Where:
    """Which cells can show a claim, whatever their status.

    `only` says so in a sentence: it is the reason given for a guest without such a cell.
    """

    only: str
    concerns: Callable[[CellResult], bool]


@dataclass(frozen=True)
class Claim:
    """One statement of a report.

    `quote` has the report's own words, `check` says in a sentence what is checked. `look` returns what a cell
    shows that `where` names and whose suite ran. `measured` says what was measured outside the lab, with its
    source; it is shown where a run does not judge the claim.
    """

    name: str
    quote: str
    check: str
    where: Where
    look: Look
    measured: str = ""


@dataclass(frozen=True)
class BugReport:
    """A bug report, or a documentation that is read like one, with its claims in the order of its text."""

    title: str
    claims: tuple[Claim, ...]


def where_blocked(*causes: str, only: str) -> Where:
    """Cells that one of these causes blocked: the cause that is proved, otherwise the expected one."""

    def concerns(cell: CellResult) -> bool:
        if cell.cause in (None, UNKNOWN) or cell.confidence is not Confidence.PROVED:
            return cell.expected.cause in causes
        return cell.cause in causes

    return Where(only, concerns)


def with_variant(*variants: str, only: str) -> Where:
    return Where(only, lambda cell: cell.variant in variants)


def on_ubuntu(*versions: str, only: str, variant: str = "stock") -> Where:
    return Where(only, lambda cell: cell.variant == variant and is_ubuntu(cell, *versions))


def nowhere(only: str) -> Where:
    """No cell: nothing that a run records can show the claim."""
    return Where(only, lambda _cell: False)


def unseen(_: FinishedCell) -> Sight:
    """What the cells of `nowhere` show."""
    return Sight(None, "no cell shows it")


# The places that several claims have.
UNDER_POLICY = where_blocked(
    POLICY, only="only a cell under Ubuntu 24.04's policy shows it (variant apparmor-userns-nocaps)"
)
AS_INSTALLED = with_variant("stock", only="only a cell as installed shows it (variant stock)")
ON_NOBLE = on_ubuntu("24.04", only="could only be judged on Ubuntu 24.04 as installed")


def with_facts(look: Callable[[FinishedCell, Facts], Sight]) -> Look:
    """Make a look of one that reads the facts of the cell's guest."""

    def checked(cell: FinishedCell) -> Sight:
        facts = cell.result.facts
        return Sight(None, "its facts were not read") if facts is None else look(cell, facts)

    return checked


def is_ubuntu(cell: CellResult, *versions: str) -> bool:
    """Whether a guest is Ubuntu of one of these releases: by its facts, or by its name if it was not asked."""
    if cell.facts is None:
        return cell.guest in [f"ubuntu-{version}" for version in versions]
    return cell.facts.os.id == "ubuntu" and cell.facts.os.version_id in versions


def failed(cell: CellResult) -> list[str]:
    """The tests that failed. A test that did not run shows nothing."""
    return [test.name for test in cell.tests if test.outcome.is_failure]


def untold(cell: CellResult, *names: str) -> str:
    """Which of these tests neither failed nor passed, in words; empty if all did."""
    told = [*failed(cell), *(test.name for test in cell.tests if test.outcome is Outcome.PASS)]
    missing = [name for name in names if name not in told]
    return f"did not run, or were skipped: {', '.join(missing)}" if missing else ""


def passed(cell: CellResult) -> bool:
    return cell.status in (Status.PASS, Status.XPASS)


def tried(*names: str, wanted: RemedyOutcome = RemedyOutcome.VERIFIED) -> Look:
    """The results of remedies, each tried alone: the claim holds if one of them has the wanted result."""

    def look(cell: FinishedCell) -> Sight:
        results = [result for result in cell.result.remedies if result.name in names]
        if not results:
            return Sight(None, "no such remedy was tried in this run")
        good = [result for result in results if result.result is wanted]
        undecided = all(result.result.says_nothing for result in results)
        telling = good or results
        words = [": ".join(filter(None, [result.name, result.result, result.reason])) for result in telling]
        folder = f"{cell.result.folder}/"
        files = [file.removeprefix(folder) for result in telling for file in result.evidence]
        return Sight(
            True if good else None if undecided else False,
            "; ".join(words),
            tuple(file for file in files if file.endswith(("/suite.log", ".sh"))),
        )

    return look
