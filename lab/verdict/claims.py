"""What a claim of a bug report is, which cells can show one, and what these say about it.

Nothing is run for that: the record of a run and the evidence beside it are read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from lab.base import notices
from lab.causes.evidence import KERNEL_FILE, PROBES_FILE
from lab.probes import Facts
from lab.record import UNKNOWN, CellResult, Confidence, Outcome, RemedyOutcome, Status
from lab.verdict.words import FinishedCell

# Statuses of cells whose suite ran, with the same result each time.
RAN = (Status.PASS, Status.XPASS, Status.FAIL, Status.XFAIL)


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


@dataclass(frozen=True)
class Sight:
    """Whether a claim holds by what one cell shows, None if the cell does not show it; `what` says why.

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
    shows that `where` names and whose suite ran; it raises NotShown.
    """

    quote: str
    check: str
    where: Where
    look: Look


@dataclass(frozen=True)
class BugReport:
    """A bug report, or a documentation that is read like one; its claims by name, in the order of its text."""

    title: str
    claims: Mapping[str, Claim]


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


def judge(claim: Claim, guest: str, cells: Sequence[FinishedCell]) -> Judgement:
    """Judge a claim by the cells of a guest: it holds if a cell shows it and no cell shows the contrary."""

    def look(cell: FinishedCell) -> Sight:
        try:
            if cell.result.status not in RAN:
                raise NotShown(": ".join(filter(None, [cell.result.status, cell.result.reason])))
            return claim.look(cell)
        except NotShown as why:
            return Sight(None, str(why), why.files)

    seen = tuple(
        Seen(cell, notices.shown_or_why(partial(look, cell), lambda why: Sight(None, why)))
        for cell in cells
        if cell.result.guest == guest and claim.where.concerns(cell.result)
    )
    answers = {one.sight.answer for one in seen}
    order = (Answer.DOES_NOT_HOLD, Answer.HOLDS)
    answer = next((answer for answer in order if answer in answers), Answer.NOT_JUDGED)
    return Judgement(guest, answer, seen, "" if seen else claim.where.only)


def where_blocked(*causes: str, only: str) -> Where:
    """Cells that one of these causes blocked: the cause that is proved, otherwise the expected one."""

    def concerns(cell: CellResult) -> bool:
        proved = cell.cause not in (None, UNKNOWN) and cell.confidence is Confidence.PROVED
        return (cell.cause if proved else cell.expected.cause) in causes

    return Where(only, concerns)


def with_variant(*variants: str, only: str) -> Where:
    return Where(only, lambda cell: cell.variant in variants)


def on_ubuntu(*versions: str, only: str, variant: str = "stock") -> Where:
    return Where(only, lambda cell: cell.variant == variant and is_ubuntu(cell, *versions))


def is_ubuntu(cell: CellResult, *versions: str) -> bool:
    """Whether a guest is Ubuntu of one of these releases: by its facts, or by its name if it was not asked."""
    if cell.facts is None:
        return cell.guest in [f"ubuntu-{version}" for version in versions]
    return cell.facts.os.id == "ubuntu" and cell.facts.os.version_id in versions


# -- what several claims look at

# Where a suite under pytest leaves its results.
JUNIT = "suite/junit.xml"


def passed(cell: FinishedCell) -> bool:
    return cell.result.status in (Status.PASS, Status.XPASS)


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


def says(*messages: str, otherwise: str = "") -> Look:
    """Whether boxlite says one of these, to its caller or in its log.

    `otherwise`: how the line begins that it says if it does not say so. Without that, its log must be there.
    """

    def look(cell: FinishedCell) -> Sight:
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

    return look


def suite_passes(cell: FinishedCell) -> Sight:
    if passed(cell):
        return Sight(True, "every test passes", (JUNIT,))
    why = f"for the cause {cell.result.cause}: {cell.result.reason}"
    return Sight(False, f"fail: {', '.join(failed(cell))}; {why}", (JUNIT, PROBES_FILE))


def tried(*names: str, wanted: RemedyOutcome = RemedyOutcome.VERIFIED) -> Look:
    """The results of remedies, each tried alone: the claim holds if one of them has the wanted result."""

    def look(cell: FinishedCell) -> Sight:
        results = [result for result in cell.result.remedies if result.name in names]
        if not results:
            raise NotShown("no such remedy was tried in this run")
        good = [result for result in results if result.result is wanted]
        telling = good or results
        what = "; ".join(": ".join(filter(None, [one.name, one.result, one.reason])) for one in telling)
        folder = f"{cell.result.folder}/"
        evidence = [file.removeprefix(folder) for result in telling for file in result.evidence]
        files = tuple(file for file in evidence if file.endswith(("/suite.log", ".sh")))
        if not good and all(result.result.says_nothing for result in results):
            raise NotShown(what, files)
        return Sight(bool(good), what, files)

    return look
