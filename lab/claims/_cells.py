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
# The switch of Ubuntu's restriction of user namespaces, which only Ubuntu's kernels have.
RESTRICTION = "kernel.apparmor_restrict_unprivileged_userns"
# The profile that exempts bubblewrap from it, on Ubuntu 25.04 and newer.
EXEMPTING = "bwrap"
# Where it was measured what the restriction does.
SOURCE = "docs/ubuntu-policy.md, 28 November 2026"
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


class UnderUbuntusPolicy(UnderPolicy):
    """A claim about the policy itself: Ubuntu's kernel alone shows it, no variant that imitates the policy."""

    only = "only a cell that Ubuntu's own policy blocks shows it (guest ubuntu-24.04, variant stock)"

    def look(self, cell: FinishedCell) -> Sight:
        reason = _without_policy(cell.result)
        return Sight(None, reason) if reason else self.look_there(cell)

    @abstractmethod
    def look_there(self, cell: FinishedCell) -> Sight:
        """What a cell on a kernel with the restriction shows."""


def _without_policy(cell: CellResult) -> str:
    """Why a cell shows nothing of Ubuntu's own policy, in words; empty if it does."""
    if cell.facts is None:
        return "its facts were not read"
    restricted = sysctl_in_effect(cell.facts, RESTRICTION, "1")
    if isinstance(restricted, str):
        return restricted
    return "its variant imitates the policy, and differs from it" if cell.differs else ""


class SettingInVain(UnderUbuntusPolicy):
    """Settings that, according to the report, do not unblock the preflight. `variants` change nothing else."""

    variants: ClassVar[tuple[str, ...]]
    # What is in effect, in a few words.
    setting: ClassVar[str]

    def concerns(self, cell: CellResult) -> bool:
        return cell.variant in self.variants

    @abstractmethod
    def in_effect(self, facts: Facts) -> bool:
        """Whether the settings are in effect."""

    def look_there(self, cell: FinishedCell) -> Sight:
        facts = cell.result.facts
        if facts is None or not self.in_effect(facts):
            return Sight(None, f"{self.setting}: that is not in effect here")
        if passed(cell.result) and facts.apparmor and EXEMPTING in facts.apparmor.profiles:
            return Sight(None, f"nothing blocks it: bubblewrap has its profile {EXEMPTING} here")
        return in_vain(cell, self.setting)


def in_vain(cell: FinishedCell, setting: str) -> Sight:
    """Whether the preflight fails although a setting is in effect."""
    if passed(cell.result):
        return Sight(False, f"every test passes; {setting}", ("suite/junit.xml",))
    if PREFLIGHT in cell.words.text:
        what = f"{setting}, and the preflight fails all the same: {cell.result.reason}"
        return Sight(True, what, (cell.words.file,))
    return Sight(None, f"what fails is not the preflight: {cell.result.reason}", ("suite/junit.xml",))


def restriction_is(facts: Facts, value: str) -> bool:
    return facts.sysctls.root.get(RESTRICTION) == value


def profile_is_loaded(facts: Facts) -> bool:
    return facts.apparmor is not None and PROFILE in facts.apparmor.profiles


def sysctl_in_effect(facts: Facts, name: str, value: str) -> bool | str:
    """Whether a sysctl has this value; if the guest's kernel has no such sysctl, so in words."""
    if name not in facts.sysctls.root:
        return f"it was not asked for {name}"
    found = facts.sysctls.root[name]
    return f"its kernel has no {name}: only Ubuntu's kernel tells" if found is None else found == value
