"""What a claim is, and what the claims of several reports share: which cells show one, and how cells failed."""

from collections.abc import Callable
from dataclasses import dataclass

from lab.record import UNKNOWN, CellResult, Confidence, Outcome, RemedyOutcome, Status
from lab.verdict.words import FinishedCell

# The cause that stands for Ubuntu 24.04's policy, on any guest; and all causes that block user namespaces.
POLICY = "apparmor-userns-nocaps"
BLOCKING = ("userns-sysctl", "userns-limit", "apparmor-userns-deny", POLICY)
# The reason for a guest without a cell under the policy.
ONLY_UNDER_POLICY = "only a cell under Ubuntu 24.04's policy shows it (variant apparmor-userns-nocaps)"
# The remedies that give bubblewrap a profile: each is a set-up script, `lab remedies show NAME --script`.
PROFILE_REMEDIES = ("bwrap-userns-restrict", "bwrap-profile")


@dataclass(frozen=True)
class Sight:
    """Whether a claim holds by what one cell shows; None if the cell does not show it. `what` says why.

    `files` are those of the cell's folder that show it; with none of them it is the record alone.
    """

    holds: bool | None
    what: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """One statement of a report.

    `quote` has the report's own words, `check` says in a sentence what is checked. `only` says which cells can
    show it: the reason given for a guest without such a cell. `concerns` returns whether a cell can show
    whether the claim holds, whatever the cell's status; `look` returns what such a cell shows if its suite
    ran. `measured` says what was measured outside the lab, with its source; it is shown where a run does not
    judge the claim.
    """

    name: str
    quote: str
    check: str
    only: str
    concerns: Callable[[CellResult], bool]
    look: Callable[[FinishedCell], Sight]
    measured: str = ""


@dataclass(frozen=True)
class BugReport:
    """A bug report, or a documentation that is read like one, with its claims in the order of its text."""

    title: str
    claims: tuple[Claim, ...]


def where_blocked(*causes: str) -> Callable[[CellResult], bool]:
    """Cells that one of these causes blocked: the cause that is proved, otherwise the expected one."""

    def concerns(cell: CellResult) -> bool:
        if cell.cause in (None, UNKNOWN) or cell.confidence is not Confidence.PROVED:
            return cell.expected.cause in causes
        return cell.cause in causes

    return concerns


def with_variant(*variants: str) -> Callable[[CellResult], bool]:
    return lambda cell: cell.variant in variants


def on_ubuntu(*versions: str, variant: str = "stock") -> Callable[[CellResult], bool]:
    return lambda cell: cell.variant == variant and is_ubuntu(cell, *versions)


def nowhere(_: CellResult) -> bool:
    """No cell: nothing that a run records can show the claim."""
    return False


def unseen(_: FinishedCell) -> Sight:
    """What the cells of `nowhere` show."""
    return Sight(None, "no cell shows it")


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


def tried(*names: str, wanted: RemedyOutcome = RemedyOutcome.VERIFIED) -> Callable[[FinishedCell], Sight]:
    """The results of remedies, each tried alone: the claim holds if one of them has the wanted result."""

    def look(cell: FinishedCell) -> Sight:
        results = [result for result in cell.result.remedies if result.name in names]
        if not results:
            return Sight(None, "no such remedy was tried in this run")
        good = [result for result in results if result.result is wanted]
        undecided = [result for result in results if result.result.says_nothing]
        words = [
            ": ".join(filter(None, [result.name, result.result, result.reason])) for result in good or results
        ]
        folder = f"{cell.result.folder}/"
        files = [file.removeprefix(folder) for result in good or results for file in result.evidence]
        return Sight(
            True if good else None if len(undecided) == len(results) else False,
            "; ".join(words),
            tuple(file for file in files if file.endswith(("/suite.log", ".sh"))),
        )

    return look
