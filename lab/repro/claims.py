"""What a report claims, one line for each statement: held, did not hold, or not tested and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from lab.record import Needs, Outcome
from lab.repro.planning import Plan
from lab.repro.report import NamedTest, Words
from lab.repro.variants import Check
from lab.repro.verdict import RAN, Compared, Verdict, shown
from lab.verdict.words import FinishedCell

# Most tests that are listed.
MOST = 20


class Held(StrEnum):
    """What a run says about a claim."""

    HELD = "held"
    NOT_HELD = "did not hold"
    NOT_TESTED = "not tested"


@dataclass(frozen=True)
class ClaimLine:
    """A claim, what the run says about it, and why. `files` of the run show it; `line` is the report's."""

    claim: str
    held: Held
    why: str
    files: tuple[str, ...] = ()
    line: int | None = None


def lines(plan: Plan, verdict: Verdict, cells: Sequence[FinishedCell]) -> list[ClaimLine]:
    """Return the claims of a report, each with what the cells of its run show.

    They are its words, audit lines and failing tests, and what its reporter tried.
    """
    compared: dict[int, list[Compared]] = {}
    for answered in verdict.answered:
        for one in answered.compared:
            compared.setdefault(id(one.statement), []).append(one)
    return [
        *map(_of_words, compared.values()),
        *(_of_test(test, verdict) for test in islice(plan.report.of(NamedTest), MOST)),
        *(_of_check(plan, check, cells) for check in plan.checks),
    ]


def _of_words(same: Sequence[Compared]) -> ClaimLine:
    statement = same[0].statement
    claim = f"{'says' if isinstance(statement, Words) else 'the kernel logs'}: {same[0].quote}"
    if proof := next((one.proof for one in same if one.proof), None):
        why = f"{proof.file}, line {proof.line}: {shown(proof)}"
        return ClaimLine(claim, Held.HELD, why, (proof.file,), statement.quote.number)
    untested = next((one.untested for one in same if one.untested), "")
    held = Held.NOT_TESTED if untested else Held.NOT_HELD
    return ClaimLine(claim, held, untested or "no line of the evidence says so", line=statement.quote.number)


def _of_test(test: NamedTest, verdict: Verdict) -> ClaimLine:
    outcomes = {
        cell.result.variant: result.outcome
        for cell in verdict.cells
        if cell.result.status in RAN
        for result in cell.result.tests
        if result.name == test.name and result.outcome is not Outcome.NOT_RUN
    }
    held, why = Held.NOT_TESTED, "it did not run" if test.known else "the lab's suite has no such test"
    if test.known and outcomes:
        failed = all(outcome.is_failure for outcome in outcomes.values())
        held = Held.HELD if failed else Held.NOT_HELD
        why = ", ".join(f"{variant}: {outcome}" for variant, outcome in outcomes.items())
    return ClaimLine(f"{test.name} fails", held, why, line=test.quote.number)


def _of_check(plan: Plan, check: Check, cells: Sequence[FinishedCell]) -> ClaimLine:
    """What a setting that the reporter tried does on the very cell."""
    helped, line = check.settings[0].helped, check.settings[0].quote.number
    several = len(check.settings) > 1
    verb = ("help" if several else "helps") if helped else f"{'do' if several else 'does'} not help"
    claim = f"{check.said} {verb} against {check.question.cause or 'it'}"
    cell = next((cell for cell in cells if check.variant and cell.result.variant == check.variant.name), None)
    if cell is None:
        return ClaimLine(claim, Held.NOT_TESTED, check.why_not or "its cell was not run", line=line)
    if cell.result.status not in RAN:
        return ClaimLine(claim, Held.NOT_TESTED, f"{cell.result.status}: {cell.result.reason}", line=line)
    needing = plan.build.suite.needing(Needs.SANDBOX) if plan.build else set()
    tests = (test for test in cell.result.tests if test.name in needing)
    failing = [test.name for test in tests if test.outcome is not Outcome.PASS]
    why = f"with it{f' on {check.question.variant.name}' if check.question.variant else ''}, "
    if failing:
        why += f"{', '.join(failing)} fail all the same: {cell.result.reason}"
    else:
        why += "every test that needs the sandbox passes"
    held = Held.HELD if helped is not bool(failing) else Held.NOT_HELD
    if helped is None:
        claim, held = f"tried: {check.said}", Held.NOT_TESTED
        why = f"the report does not say what it did; {why}"
    return ClaimLine(claim, held, why, line=line)
