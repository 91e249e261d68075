"""What bug reports claim, which cells can show a claim, and what such a cell says about it.

A report is a TOML file in `bug_reports/`, its claims in the order of its text. Nothing is run to judge one: the
record of a run and the evidence beside it are read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from lab.base import notices
from lab.catalog.toml import Definition, load_file
from lab.causes.evidence import KERNEL_FILE, PROBES_FILE
from lab.causes.sandbox import BWRAP_NOT_RUN, RESTRICTED, RESTRICTION
from lab.probes import Facts
from lab.probes.facts import numbers
from lab.record import UNKNOWN, CellResult, Confidence, Outcome, RemedyOutcome
from lab.verdict.protection import JAILER
from lab.verdict.words import FinishedCell

FOLDER = Path(__file__).with_name("bug_reports")


class Answer(StrEnum):
    """What a run, or one cell of it, says about a claim."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    NOT_JUDGED = "not judged"


class NotShown(Exception):
    """A cell shows nothing of a claim. The text says why; `files` are those of the cell that show that."""

    def __init__(self, why: str, files: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.files = files


class Sight(NamedTuple):
    """Whether a claim holds by what one cell shows; `what` says why. `files` of the cell's folder show it.

    Without files it is the record alone that shows it.
    """

    holds: bool
    what: str
    files: tuple[str, ...] = ()


class Place(Definition):
    """Which cells can show a claim, whatever their status: those that meet every condition that is given."""

    only: str = Field(description="Says so in a sentence: the reason for a guest that has no such cell.")
    blocked_by: list[str] = Field(
        [], description="Causes that block the cell: the one that is proved, otherwise the expected one."
    )
    variants: list[str] = Field([], description="Variants, one of which the cell has.")
    ubuntu: list[str] = Field([], description="Releases of Ubuntu.")
    passed: str = Field("", description="A test that passed.")
    loaded: str = Field("", description="A profile of AppArmor that is loaded.")
    ubuntus_kernel: bool = Field(
        False, description="Whether only Ubuntu's kernel shows it, and no variant that imitates its policy."
    )

    def concerns(self, cell: CellResult) -> bool:
        proved = cell.cause not in (None, UNKNOWN) and cell.confidence is Confidence.PROVED
        passed = [test.name for test in cell.tests if test.outcome is Outcome.PASS]
        return all(
            (
                not self.blocked_by or (cell.cause if proved else cell.expected.cause) in self.blocked_by,
                not self.variants or cell.variant in self.variants,
                not self.ubuntu or is_ubuntu(cell, *self.ubuntu),
                not self.passed or self.passed in passed,
                not self.loaded or self.loaded in loaded_profiles(cell),
            )
        )


class Claim(Definition):
    """One statement of a report."""

    quote: str = Field(description="The report's own words.")
    check: str = Field(description="What is checked, in a sentence.")
    place: str = Field(description="The name of the place whose cells can show it.")
    look: str = Field(description="The name of the function that says what such a cell shows.")
    arguments: dict[str, Any] = Field({}, description="What that function gets besides the cell.")


class BugReport(Definition):
    """A bug report, or a documentation that is read like one."""

    name: str
    title: str
    places: dict[str, Place]
    claims: dict[str, Claim]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, claim in self.claims.items():
            if claim.place not in self.places or claim.look not in LOOKS:
                raise ValueError(f"claims.{name}: there is no place {claim.place!r} or no look {claim.look!r}")
        return self


def names() -> list[str]:
    """The names of the reports whose claims are known."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


@cache
def load(name: str) -> BugReport:
    """The report with this name. Raises UsageError."""
    return load_file(FOLDER / f"{name}.toml", BugReport, name=name)


@dataclass(frozen=True)
class Seen:
    """A cell that a claim concerns, what the cell says of the claim, and why."""

    cell: FinishedCell
    answer: Answer
    what: str
    shown_by: tuple[str, ...] = ()

    @property
    def files(self) -> list[str]:
        """The files that show it, as paths in the run; files that were not gathered are left out."""
        return [self.cell.path(file) for file in self.shown_by if (self.cell.folder / file).is_file()]


@dataclass(frozen=True)
class Judgement:
    """The answer to a claim on one guest. `seen` are all cells that the claim concerns, with what each shows.

    `reason` says why the claim is not judged if the guest has no such cell.
    """

    guest: str
    answer: Answer
    seen: tuple[Seen, ...] = ()
    reason: str = ""


def judge(report: BugReport, name: str, guest: str, cells: Sequence[FinishedCell]) -> Judgement:
    """Judge a claim by the cells of a guest: it holds if a cell shows it and no cell shows the contrary."""
    claim = report.claims[name]
    place = report.places[claim.place]

    def look(cell: FinishedCell) -> Seen:
        try:
            if not cell.result.status.is_decisive:
                raise NotShown(": ".join(filter(None, [cell.result.status, cell.result.reason])))
            if place.ubuntus_kernel:
                sysctl_of(cell, RESTRICTION)
                if cell.result.differs:
                    raise NotShown("its variant imitates the policy, and differs from it")
            sight = LOOKS[claim.look](cell, **claim.arguments)
        except NotShown as why:
            return Seen(cell, Answer.NOT_JUDGED, str(why), why.files)
        return Seen(cell, Answer.HOLDS if sight.holds else Answer.DOES_NOT_HOLD, sight.what, sight.files)

    seen = tuple(
        notices.shown_or_why(partial(look, cell), partial(Seen, cell, Answer.NOT_JUDGED))
        for cell in cells
        if cell.result.guest == guest and place.concerns(cell.result)
    )
    answers = {one.answer for one in seen}
    order = (Answer.DOES_NOT_HOLD, Answer.HOLDS)
    answer = next((answer for answer in order if answer in answers), Answer.NOT_JUDGED)
    return Judgement(guest, answer, seen, "" if seen else place.only)


# -- what cells show of several claims

# Where a suite under pytest leaves its results.
JUNIT = "suite/junit.xml"


def is_ubuntu(cell: CellResult, *versions: str) -> bool:
    """Whether a guest is Ubuntu of one of these releases: by its facts, or by its name if it was not asked."""
    if cell.facts is None:
        return cell.guest in [f"ubuntu-{version}" for version in versions]
    return cell.facts.os.id == "ubuntu" and cell.facts.os.version_id in versions


def failed(cell: FinishedCell) -> list[str]:
    """The tests that failed. A test that did not run shows nothing."""
    return [test.name for test in cell.result.tests if test.outcome.is_failure]


def failed_of(cell: FinishedCell, *names: str) -> list[str]:
    """Which of these tests failed. Raises NotShown if one neither failed nor passed."""
    told = [*failed(cell), *(test.name for test in cell.result.tests if test.outcome is Outcome.PASS)]
    if missing := [name for name in names if name not in told]:
        raise NotShown(f"did not run, or were skipped: {', '.join(missing)}")
    return [name for name in names if name in failed(cell)]


def facts_of(cell: FinishedCell) -> Facts:
    """The facts of a cell's guest. Raises NotShown."""
    if cell.result.facts is None:
        raise NotShown("its facts were not read")
    return cell.result.facts


def loaded_profiles(cell: CellResult) -> Mapping[str, str]:
    """The profiles of AppArmor that are loaded, with their modes; none if nobody looked."""
    return cell.facts.apparmor.profiles if cell.facts and cell.facts.apparmor else {}


def sysctl_of(cell: FinishedCell, name: str) -> str:
    """The value of a sysctl on a cell's guest. Raises NotShown if it was not asked for, or there is none."""
    sysctls = facts_of(cell).sysctls
    if name not in sysctls:
        raise NotShown(f"it was not asked for {name}")
    value = sysctls[name]
    if value is None:
        raise NotShown(f"its kernel has no {name}: only Ubuntu's kernel tells")
    return value


def denied_capabilities(cell: FinishedCell, **fields: str) -> list[dict[str, str]]:
    """The audit lines of capabilities that AppArmor denied while the suite ran. Raises NotShown."""
    if not cell.evidence.probes.ran:
        raise NotShown("its evidence was not gathered")
    # The lab's own probe runs after the suite.
    denied = cell.evidence.denied(operation="capable", **fields)
    lines = [line for line in denied if line.get("comm") != "unshare"]
    if not lines and not (cell.folder / KERNEL_FILE).exists():
        raise NotShown("the kernel's log was full before the suite ended")
    return lines


def says(cell: FinishedCell, messages: Sequence[str], *, otherwise: str = "") -> Sight:
    """Whether boxlite says one of these, to its caller or in its log.

    `otherwise`: how the line begins that it says if it does not say so. Without that, its log must be there.
    """
    words = cell.words
    for text, where, file in (
        (words.said, "to its caller", JUNIT),
        (f"{words.module}: {words.logged}", f"in its log; its caller gets: {words.said}", words.file),
    ):
        if message := next((message for message in messages if message in text), None):
            return Sight(True, f"it says {message!r} {where}", (file,))
    others = [line for line in words.text.splitlines() if line and line.startswith(otherwise)]
    if not others or not (otherwise or words.file):
        raise NotShown("what boxlite says of that was not gathered")
    return Sight(False, f"it says: {others[0]}", (words.file or JUNIT,))


def suite_passes(cell: FinishedCell) -> Sight:
    if cell.result.status.passed:
        return Sight(True, "every test passes", (JUNIT,))
    why = f"for the cause {cell.result.cause}: {cell.result.reason}"
    return Sight(False, f"fail: {', '.join(failed(cell))}; {why}", (JUNIT, PROBES_FILE))


def tried(cell: FinishedCell, remedies: Sequence[str], *, result: str = RemedyOutcome.VERIFIED) -> Sight:
    """Whether one of these remedies, each tried alone, had this result."""
    trials = [trial for trial in cell.result.remedies if trial.name in remedies]
    if not trials:
        raise NotShown("no such remedy was tried in this run")
    good = [trial for trial in trials if trial.result == result]
    telling = good or trials
    what = "; ".join(": ".join(filter(None, [trial.name, trial.result, trial.reason])) for trial in telling)
    evidence = [file.removeprefix(f"{cell.result.folder}/") for trial in telling for file in trial.evidence]
    files = tuple(file for file in evidence if file.endswith(("/suite.log", ".sh")))
    if not good and all(trial.result.says_nothing for trial in trials):
        raise NotShown(what, files)
    return Sight(bool(good), what, files)


def ships(cell: FinishedCell, profile: str, *, since: int = 0, missing: bool = False) -> Sight:
    """Whether a profile's file is installed, or `missing`; on an AppArmor of the release `since` or newer."""
    apparmor = facts_of(cell).apparmor
    if apparmor is None:
        raise NotShown("it has no AppArmor")
    release, version = numbers(apparmor.version), f"AppArmor {apparmor.version or 'of an unknown version'}"
    if since and (release is None or release.major < since):
        raise NotShown(f"its {version} may be older than {since}")
    if f"/etc/apparmor.d/{profile}" not in apparmor.profile_files:
        return Sight(missing, f"its {version} has no profile {profile}")
    mode = apparmor.profiles.get(profile)
    state = f"loaded in {mode} mode" if mode else "not loaded"
    return Sight(not missing, f"its {version} has the profile {profile}, {state}")


# -- the documentation


def kvm_mode(cell: FinishedCell) -> Sight:
    kvm = facts_of(cell).kvm
    if kvm is None:
        raise NotShown("it has no /dev/kvm")
    what = f"mode {kvm.mode}, owner {kvm.owner or kvm.uid}, group {kvm.group or kvm.gid}"
    return Sight((kvm.mode, kvm.owner, kvm.group) == ("0o660", "root", "kvm"), what)


def capability_8(cell: FinishedCell) -> Sight:
    lines = denied_capabilities(cell)
    denied = {(line.get("capability", "?"), line.get("comm", "?")) for line in lines}
    names = ", ".join(f"capability {number} to {program}" for number, program in sorted(denied))
    files = tuple(cell.refusals) or (KERNEL_FILE,)
    what = f"it denied {names or 'no capability'}"
    is_denied = ("8", "bwrap") in denied
    # Which capability is asked for first depends on when the profile begins to confine bubblewrap.
    if not is_denied and not is_ubuntu(cell.result, "24.04"):
        later = "Ubuntu's kernel confines bubblewrap once it has made its namespace, and may deny another one"
        raise NotShown(f"{what}; {later}", files)
    return Sight(is_denied, what, files)


def aa_status(cell: FinishedCell) -> Sight:
    """Look for the profile of the documentation among the names that `grep bwrap` finds."""
    names = sorted(name for name in loaded_profiles(cell.result) if "bwrap" in name)
    return Sight(any("bwrap-userns-restrict" in name for name in names), f"loaded: {', '.join(names)}")


def isolated(cell: FinishedCell, kinds: Sequence[str]) -> Sight:
    """Whether each box that was given the jailer has namespaces of these kinds for itself."""
    protections = [test.protection for test in cell.result.tests if test.protection]
    boxes = [protection for protection in protections if protection.asked.get(JAILER) is True]
    if not boxes:
        raise NotShown("what confines its boxes was not read")
    shared = [kind for kind in kinds if any(kind not in box.namespaces for box in boxes)]
    own = {kind for box in boxes for kind in box.namespaces}
    what = f"{len(boxes)} boxes have namespaces of their own: {', '.join(sorted(own)) or 'none'}"
    return Sight(not shared, f"{what}; shared with the test: {', '.join(shared)}" if shared else what, (JUNIT,))


# -- issue 468

# Upstream's names, and the suite's.
JAILED = "jailer_enabled_box_starts_and_executes"
TESTS = ("jailer_creates_isolated_mount_namespace", JAILED)
# What boxlite says if its preflight fails, and if the bubblewrap that the preflight runs fails. For one that
# could not be started it has the report's words: see `can_create_user_namespace` in its jailer/bwrap.rs.
PREFLIGHT = "Sandbox preflight failed: bwrap cannot create user namespaces."
BWRAP_FAILED = "bwrap --unshare-user failed"
# The report's command.
COMMAND = ("bwrap", "--unshare-user", "--bind", "/", "/", "true")
# The profile that exempts bubblewrap from Ubuntu's policy, on Ubuntu 25.04 and newer.
EXEMPTING = "bwrap"


def error_text(cell: FinishedCell) -> Sight:
    return says(cell, [BWRAP_NOT_RUN], otherwise=BWRAP_FAILED)


def in_vain(cell: FinishedCell, setting: str, sysctl: str, value: str, *, without: str = "") -> Sight:
    """Whether the preflight fails although a sysctl has this value and, if named, a profile is not loaded.

    `setting` says so in a few words.
    """
    loaded, passed = loaded_profiles(cell.result), cell.result.status.passed
    if sysctl_of(cell, sysctl) != value or without in loaded:
        raise NotShown(f"{setting}: that is not in effect here")
    if passed and EXEMPTING in loaded:
        raise NotShown(f"nothing blocks it: bubblewrap has its profile {EXEMPTING} here")
    if passed:
        return Sight(False, f"every test passes; {setting}", (JUNIT,))
    if PREFLIGHT not in cell.words.text:
        raise NotShown(f"what fails is not the preflight: {cell.result.reason}", (JUNIT,))
    what = f"{setting}, and the preflight fails all the same: {cell.result.reason}"
    return Sight(True, what, (cell.words.file,))


def blocked_tests(cell: FinishedCell) -> Sight:
    blocked = failed_of(cell, *TESTS)
    if passing := [test for test in TESTS if test not in blocked]:
        return Sight(False, f"passed: {', '.join(passing)}", (JUNIT,))
    others = [test for test in failed(cell) if test not in TESTS]
    more = f", and so do: {', '.join(others)}" if others else ", and no other"
    return Sight(True, f"both fail{more}", (JUNIT,))


def fresh_ubuntu(cell: FinishedCell) -> Sight:
    fails = bool(failed_of(cell, JAILED))
    kernel = cell.result.facts.kernel if cell.result.facts else "that was not read"
    return Sight(fails, f"it {'fails' if fails else 'passes'} with kernel {kernel}", (JUNIT,))


def audit_line(cell: FinishedCell) -> Sight:
    lines = denied_capabilities(cell, profile=RESTRICTED, capability="21", capname="sys_admin")
    if not lines:
        return Sight(False, "it did not", (KERNEL_FILE,))
    programs = sorted({line.get("comm", "?") for line in lines})
    nothing = "" if "bwrap" in programs else ", which says nothing about bubblewrap"
    return Sight(True, f"it did, for {', '.join(programs)}{nothing}", tuple(cell.refusals))


def one_cause(cell: FinishedCell) -> Sight:
    """Look whether the report's error text and its audit line tell of one failure."""
    told, audited = error_text(cell), audit_line(cell)
    files = (*told.files, *audited.files)
    if told.holds and audited.holds:
        return Sight(True, "boxlite says the one, and the kernel logs the other", files)
    if told.holds:
        return Sight(False, "boxlite says so without the audit line: bubblewrap did not even start", files)
    return Sight(False, f"bubblewrap does start, and boxlite says other words: {told.what}", files)


def bwrap_alone(cell: FinishedCell) -> Sight:
    probe = cell.evidence.probes.bwrap_user
    if probe.status is None or probe.command != COMMAND:
        raise NotShown("that command was not tried")
    return Sight(probe.worked, "it works" if probe.worked else f"it fails: {probe.stderr}", (PROBES_FILE,))


def capability_denied(cell: FinishedCell) -> Sight:
    result, probes = cell.result, cell.evidence.probes
    if result.status.passed:
        return Sight(False, "every test passes all the same", (JUNIT,))
    stripped = probes.unshare_user.worked and probes.unshare_user_root.failed
    is_proved = result.cause == "apparmor-userns-nocaps" and result.confidence is Confidence.PROVED
    if not stripped or not is_proved:
        raise NotShown("the evidence does not prove it")
    what = f"`unshare -U` works and `unshare -Ur` does not; {result.reason}"
    if probes.bwrap_user.failed_with("setting up uid map: Permission denied"):
        what += "; it is the profile's missing attach_disconnected that stops bubblewrap first"
    return Sight(True, what, (PROBES_FILE, *cell.refusals))


def ubuntu_default(cell: FinishedCell) -> Sight:
    switch = facts_of(cell).sysctls[RESTRICTION]
    mode = loaded_profiles(cell.result).get(RESTRICTED, "not loaded")
    what = f"the profile: {mode}; {RESTRICTION}: {switch or 'not there'}"
    return Sight(mode == "enforce" and switch == "1", what)


# What a claim can have looked at, by name. Each gets a cell whose suite ran with the same result each time, and
# the claim's arguments; it raises NotShown if the cell does not tell.
LOOKS: dict[str, Callable[..., Sight]] = {
    look.__name__: look
    for look in (
        *(says, suite_passes, tried, ships, kvm_mode, isolated, capability_8, aa_status, error_text, in_vain),
        *(blocked_tests, fresh_ubuntu, audit_line, one_cause, bwrap_alone, capability_denied, ubuntu_default),
    )
}
