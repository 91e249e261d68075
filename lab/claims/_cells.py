"""What claims share: which cells are like the host that a report is about, and how they failed."""

from abc import abstractmethod
from typing import ClassVar

from lab.claims._base import Claim, Sight
from lab.probes import Facts
from lab.record import UNKNOWN, CellResult, Confidence, Outcome, RemedyOutcome, Status
from lab.upstream.finished import FinishedCell

# The cause that stands for Ubuntu 24.04's policy, on any guest; and all causes that block user namespaces.
POLICY = "apparmor-userns-nocaps"
BLOCKING = ("userns-sysctl", "userns-limit", "apparmor-userns-deny", POLICY)
# The cause of the report's error text.
NOT_EXECUTED = "bwrap-exec-denied"
# The profile through which the policy denies capabilities.
PROFILE = "unprivileged_userns"
# The report's words, which are boxlite's for a bubblewrap that cannot be started.
ERROR_TEXT = "failed to run bwrap: Permission denied (os error 13)"
# What boxlite says if its preflight fails, and if the bubblewrap that the preflight runs fails.
PREFLIGHT = "Sandbox preflight failed: bwrap cannot create user namespaces."
BWRAP_FAILED = "bwrap --unshare-user failed"


class WhereBlocked(Claim):
    """A claim about hosts on which the kernel or AppArmor blocks user namespaces."""

    only = "only a cell whose user namespaces are blocked shows it"

    def concerns(self, cell: CellResult) -> bool:
        return blocked_by(cell, *BLOCKING)


class UnderPolicy(Claim):
    """A claim about hosts with Ubuntu 24.04's policy."""

    only = "only a cell under Ubuntu 24.04's policy shows it (variant apparmor-userns-nocaps)"

    def concerns(self, cell: CellResult) -> bool:
        return blocked_by(cell, POLICY)


def blocked_by(cell: CellResult, *causes: str) -> bool:
    """Whether one of these causes blocked a cell: the cause that is proved, otherwise the expected one."""
    if cell.cause in (None, UNKNOWN) or cell.confidence is not Confidence.PROVED:
        return cell.expected.cause in causes
    return cell.cause in causes


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


def line(text: str, begins: str) -> str:
    """The first line that begins with `begins`; empty if there is none."""
    return next((each for each in text.splitlines() if each.startswith(begins)), "")


def tried(cell: FinishedCell, *names: str, wanted: RemedyOutcome) -> Sight:
    """The results of remedies, each tried alone: the claim holds if one of them has the wanted result."""
    results = [each for each in cell.result.remedies if each.name in names]
    if not results:
        return Sight(None, "no such remedy was tried in this run")
    good = [each for each in results if each.result is wanted]
    undecided = [each for each in results if each.result.says_nothing]
    words = [": ".join(filter(None, [each.name, each.result, each.reason])) for each in good or results]
    folder = f"{cell.result.folder}/"
    files = [file.removeprefix(folder) for each in good or results for file in each.evidence]
    return Sight(
        True if good else None if len(undecided) == len(results) else False,
        "; ".join(words),
        tuple(file for file in files if file.endswith(("/suite.log", ".sh"))),
    )


class SettingInVain(UnderPolicy):
    """One of the settings that, according to the report, do not unblock the preflight, taken by itself.

    A cell that the policy blocks shows it if the setting is in effect there.
    """

    # What is in effect, in a few words.
    setting: ClassVar[str]

    @abstractmethod
    def in_effect(self, facts: Facts) -> bool | str:
        """Whether the setting is in effect; if this guest cannot have it, why."""

    def look(self, cell: FinishedCell) -> Sight:
        facts = cell.result.facts
        if facts is None:
            return Sight(None, "its facts were not read")
        found = self.in_effect(facts)
        if isinstance(found, str):
            return Sight(None, found)
        if not found:
            return Sight(None, f"{self.setting} is not in effect here")
        if passed(cell.result):
            return Sight(False, f"every test passes; {self.setting}", ("suite/junit.xml",))
        if PREFLIGHT in cell.words.text:
            return Sight(True, f"{self.setting}, and the preflight fails all the same", (cell.words.file,))
        return Sight(None, f"what fails is not the preflight: {cell.result.reason}", ("suite/junit.xml",))


def sysctl_in_effect(facts: Facts, name: str, value: str) -> bool | str:
    """Whether a sysctl has this value; if the guest's kernel has no such sysctl, so in words."""
    if name not in facts.sysctls.root:
        return f"it was not asked for {name}"
    found = facts.sysctls.root[name]
    return f"its kernel has no {name}: only Ubuntu's kernel tells" if found is None else found == value
