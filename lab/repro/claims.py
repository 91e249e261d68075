"""What a report claims, one line for each statement: held, did not hold, or not tested and why."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from lab.record import Needs, Outcome
from lab.repro.planning import Plan
from lab.repro.report import Ended, NamedTest, Report, Words
from lab.repro.variants import Check
from lab.repro.verdict import RAN, SHORTEST, Compared, Verdict, essence, shown, spaced
from lab.verdict import claims as known_reports
from lab.verdict.claims import Answer
from lab.verdict.words import FinishedCell

# A report whose text holds so many quotes of a known report's claims is that report.
RECOGNIZED = 3
# Most tests, and most exit statuses, that are listed.
MOST = 20


class Held(StrEnum):
    """What a run says about a claim."""

    HELD = "held"
    NOT_HELD = "did not hold"
    NOT_TESTED = "not tested"

    @classmethod
    def of(cls, answer: Answer) -> "Held":
        return {Answer.HOLDS: cls.HELD, Answer.DOES_NOT_HOLD: cls.NOT_HELD}.get(answer, cls.NOT_TESTED)


@dataclass(frozen=True)
class ClaimLine:
    """A claim, what the run says about it, and why. `files` of the run show it; `line` is the report's."""

    claim: str
    held: Held
    why: str
    files: tuple[str, ...] = ()
    line: int | None = None


def lines(plan: Plan, verdict: Verdict, cells: Sequence[FinishedCell]) -> list[ClaimLine]:
    """Return the claims of a report, each with what the cells of its run show."""
    known = recognize(plan.report)
    said = list(_of_known_report(plan, known, cells) if known else _of_text(plan, verdict))
    return [*said, *(_of_check(plan, check, cells) for check in plan.checks)]


def recognize(report: Report) -> str | None:
    """Return the name of the known report whose claims this report quotes; None if it is a new one."""
    quoted = [essence(each.quote.text) for each in report.statements]
    quoted += [essence(each.text) for each in report.unread]
    quoted = [each for each in quoted if len(each) >= SHORTEST]
    for name in known_reports.reports():
        claims = [spaced(claim.quote) for claim in known_reports.known(name).values()]
        found = [claim for claim in claims if any(each in claim or claim in each for each in quoted)]
        if len(found) >= RECOGNIZED:
            return name
    return None


def _of_known_report(plan: Plan, name: str, cells: Sequence[FinishedCell]) -> Iterator[ClaimLine]:
    guest = plan.guest.name if plan.guest else ""
    for claim in known_reports.known(name).values():
        judged = known_reports.judge(claim, guest, cells)
        telling = [each for each in judged.seen if known_reports.shows(each.sight) is judged.answer]
        why = "; ".join(dict.fromkeys(each.sight.what for each in telling)) or judged.reason
        if claim.measured and judged.answer is known_reports.Answer.NOT_JUDGED:
            why += f"; measured elsewhere: {claim.measured}"
        files = tuple(file for each in telling for file in each.files)
        yield ClaimLine(claim.quote, Held.of(judged.answer), why, files)


def _of_text(plan: Plan, verdict: Verdict) -> Iterator[ClaimLine]:
    """The words, audit lines, tests and exit statuses of a report as claims: that is what one sees."""
    compared: dict[int, list[Compared]] = {}
    for answered in verdict.answered:
        for each in answered.compared:
            compared.setdefault(id(each.statement), []).append(each)
    for same in compared.values():
        yield _of_words(same)
    for test in islice(plan.report.of(NamedTest), MOST):
        yield _of_test(test, verdict)
    for ended in islice(plan.report.of(Ended), MOST):
        said = f"exit status {ended.status}" + (f" ({ended.signal})" if ended.signal else "")
        yield ClaimLine(
            said,
            Held.NOT_TESTED,
            "the lab does not see how boxlite's own process ended",
            (),
            ended.quote.number,
        )


def _of_words(same: Sequence[Compared]) -> ClaimLine:
    first = same[0]
    proofs = [each.proof for each in same if each.proof]
    number = first.statement.quote.number
    what = "says" if isinstance(first.statement, Words) else "the kernel logs"
    if proofs:
        where = f"{proofs[0].file}, line {proofs[0].line}: {shown(proofs[0])}"
        return ClaimLine(f"{what}: {first.quote}", Held.HELD, where, (proofs[0].file,), number)
    untested = next((each.untested for each in same if each.untested), "")
    held = Held.NOT_TESTED if untested else Held.NOT_HELD
    return ClaimLine(f"{what}: {first.quote}", held, untested or "no line of the evidence says so", (), number)


def _of_test(test: NamedTest, verdict: Verdict) -> ClaimLine:
    said, number = f"{test.name} fails", test.quote.number
    if not test.known:
        return ClaimLine(said, Held.NOT_TESTED, "the lab's suite has no such test", (), number)
    ran = [cell for cell in verdict.cells if cell.result.status in RAN]
    outcomes = {
        cell.result.variant: found.outcome
        for cell in ran
        for found in cell.result.tests
        if found.name == test.name and found.outcome is not Outcome.NOT_RUN
    }
    if not outcomes:
        return ClaimLine(said, Held.NOT_TESTED, "it did not run", (), number)
    held = Held.HELD if all(outcome.is_failure for outcome in outcomes.values()) else Held.NOT_HELD
    why = ", ".join(f"{variant}: {outcome}" for variant, outcome in outcomes.items())
    return ClaimLine(said, held, why, (), number)


def _of_check(plan: Plan, check: Check, cells: Sequence[FinishedCell]) -> ClaimLine:
    """What a setting that the reporter tried does on the very cell."""
    helped, number = check.settings[0].helped, check.settings[0].quote.number
    verb = "helps" if len(check.settings) == 1 else "help"
    negated = "does not help" if len(check.settings) == 1 else "do not help"
    said = f"{check.said} {verb if helped else negated} against {check.question.cause or 'it'}"
    cell = next((each for each in cells if check.variant and each.result.variant == check.variant.name), None)
    if cell is None:
        return ClaimLine(said, Held.NOT_TESTED, check.why_not or "its cell was not run", (), number)
    if cell.result.status not in RAN:
        why = f"{cell.result.status}: {cell.result.reason}"
        return ClaimLine(said, Held.NOT_TESTED, why, (), number)
    needing = plan.build.suite.needing(Needs.SANDBOX) if plan.build else set()
    outcomes = {each.name: each.outcome for each in cell.result.tests if each.name in needing}
    failing = [name for name, outcome in outcomes.items() if outcome is not Outcome.PASS]
    on = f"on {check.question.variant.name}" if check.question.variant else ""
    if failing:
        why = f"with it {on}, {', '.join(failing)} fail all the same: {cell.result.reason}"
    else:
        why = f"with it {on}, every test that needs the sandbox passes"
    if helped is None:
        return ClaimLine(
            f"tried: {check.said}", Held.NOT_TESTED, f"the report does not say what it did; {why}", (), number
        )
    held = Held.HELD if helped is not bool(failing) else Held.NOT_HELD
    return ClaimLine(said, held, why, (), number)
