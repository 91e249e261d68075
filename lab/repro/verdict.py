"""The verdict on a report: what its cells show of each question, and of all of them together.

A report's own words are compared to the letter with what a cell's evidence holds. What a report claims besides
them is told one by one: it held, it did not hold, or it was not tested and why.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path

from lab import causes
from lab.base.files import bounded, plain
from lab.causes.evidence import AUDIT_FILE, KERNEL_FILE, matching, parse_audit
from lab.record import UNKNOWN, CellResult, Confidence, Needs, Outcome, RunResult, Status
from lab.repro import variants
from lab.repro.planning import Plan
from lab.repro.report import AuditLine, Command, NamedTest, Program, Speaker, Words
from lab.repro.variants import Check, Question
from lab.verdict.words import FinishedCell

FAILED = (Status.FAIL, Status.XFAIL)
# Statuses of cells whose suite ran to its end, with the same result each time.
RAN = (*FAILED, Status.PASS, Status.XPASS)
# The programs that boxlite starts to make its sandbox, and boxlite itself.
OWN = ("bwrap", "boxlite")
# Words this many lines below a command of the report are what that command printed.
NEAR = 3
NOT_PRINTED = "the command that printed it was not run; lab exec GUEST VARIANT -- COMMAND runs it"
# Most words and audit lines of a report that are looked for in one cell, and most tests that are claims.
MOST, MOST_TESTS = 30, 20
# The files of a cell that hold words of boxlite, bubblewrap and the kernel, the ones that say most first.
FILES = ("boxlite/*/logs/*", "suite/suite.log", "probes.json", KERNEL_FILE, AUDIT_FILE)
# A guest may have written anything: so many files are read, so many characters of each, and of each line.
MOST_FILES, LARGEST, LONGEST = 20, 1_000_000, 4000
# A shorter text proves nothing: `Permission denied` stands in many messages.
SHORTEST = 20
# What a program puts before its message.
SPEAKER = re.compile(r"(?:(?:bwrap|boxlite|Error|error|RuntimeError): )*")
# What says what was refused. The rest of an audit line tells one occurrence from another.
REFUSED = (
    *("apparmor", "operation", "class", "profile", "capability", "capname", "requested", "target", "info"),
    *("avc", "tclass"),
)


class Result(StrEnum):
    """The verdict in one word, from the best to the worst."""

    REPRODUCED = "reproduced"
    OTHER_CAUSE = "reproduced with another cause"
    NOT_REPRODUCED = "not reproduced"
    NOT_RUN = "not run"

    @property
    def exit_status(self) -> int:
        """The exit status of `lab repro`."""
        return {Result.REPRODUCED: 0, Result.NOT_RUN: 3}.get(self, 1)


@dataclass(frozen=True)
class Proof:
    """A line of a cell's evidence: the file in the run's folder, the line's number from 1, and its text."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Compared:
    """Words or an audit line of the report, and the line of the evidence that is the same; None: there is none.

    `untested` says why it was not looked for.
    """

    statement: Words | AuditLine
    proof: Proof | None
    untested: str = ""

    @property
    def quote(self) -> str:
        return self.statement.text if isinstance(self.statement, Words) else self.statement.quote.text


@dataclass(frozen=True)
class Answered:
    """What a cell shows of one question. `cell` is None if none was run for it."""

    question: Question
    result: Result
    why: str
    cell: FinishedCell | None = None
    compared: tuple[Compared, ...] = ()


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


@dataclass(frozen=True)
class Verdict:
    """The verdict on a report: the worst of those on its questions, each with its evidence."""

    result: Result
    why: tuple[str, ...]
    answered: tuple[Answered, ...] = ()
    claims: tuple[ClaimLine, ...] = ()

    @property
    def cells(self) -> list[FinishedCell]:
        """The cells of its questions, each once."""
        cells = [answered.cell for answered in self.answered if answered.cell]
        return list({cell.result.folder: cell for cell in cells}.values())


def of_plan(plan: Plan) -> Verdict:
    """Return the verdict on a report for which nothing is run."""
    return Verdict(Result.NOT_RUN, tuple(filter(None, [*plan.why_not, plan.hint])))


def of_run(plan: Plan, run: RunResult, folder: Path) -> Verdict:
    """Return the verdict on a report whose cells are those of a run with its record in `folder`."""
    cells = {cell.variant: FinishedCell(cell, folder) for cell in run.cells}
    answered = tuple(_answer(plan, question, cells) for question in plan.questions)
    worst = max((answer.result for answer in answered), key=list(Result).index)
    why = [answer.why for answer in answered]
    if worst is Result.NOT_RUN and plan.hint:
        why.append(plan.hint)
    verdict = Verdict(worst, tuple(dict.fromkeys(why)), answered)
    return replace(verdict, claims=tuple(_claims(plan, verdict, cells)))


def _answer(plan: Plan, question: Question, cells: Mapping[str, FinishedCell]) -> Answered:
    """What the cell of a question shows."""
    if question.variant is None:
        return Answered(question, Result.NOT_RUN, question.why_not)
    cell = cells[question.variant.name]
    ran = cell.result
    if ran.status not in RAN:
        return Answered(question, Result.NOT_RUN, f"{ran.status}: {ran.reason}", cell)
    compared = tuple(_compare(plan, question, cell))
    if ran.status not in FAILED:
        return Answered(question, Result.NOT_REPRODUCED, "every test passes", cell, compared)
    result, why = _judge(plan, question, ran, compared)
    if question.program not in ("", *OWN):
        why += f"; it was met by {question.program} in the report, and by boxlite here"
    theirs = next((one.version for one in plan.report.of(Program) if one.name == "bubblewrap"), None)
    here = ran.facts.bubblewrap.version if ran.facts and ran.facts.bubblewrap else None
    if result is Result.NOT_REPRODUCED and theirs and here and theirs != here:
        why += (
            f"; bubblewrap is {theirs} in the report and {here} here, and releases word one failure differently"
        )
    return Answered(question, result, why, cell, compared)


def _judge(plan: Plan, question: Question, ran: CellResult, compared: Sequence[Compared]) -> tuple[Result, str]:
    """The verdict on a cell that failed, and why."""
    cause, first = question.cause, ran.cause or UNKNOWN
    sure = f" ({ran.confidence})" if ran.confidence else ""
    shows = f"the cause found is {first}{sure}"
    looked_for = [pair for pair in compared if not pair.untested]
    has_same_words = any(pair.proof for pair in looked_for)
    if cause is None:
        tests = {test.name for test in plan.report.of(NamedTest) if test.known}
        if has_same_words:
            return Result.REPRODUCED, f"the same words; {shows}"
        if looked_for:
            return Result.NOT_REPRODUCED, f"it fails, but not with the report's words; {shows}"
        if tests and tests <= {test.name for test in ran.tests if test.outcome.is_failure}:
            return Result.REPRODUCED, f"the report quotes no words, and the tests that it names fail; {shows}"
        return Result.NOT_REPRODUCED, f"it fails, but the report quotes no words to compare; {shows}"
    if cause not in ([finding.name for finding in ran.causes] or [first]):
        if has_same_words:
            return Result.OTHER_CAUSE, f"the same words, but {shows}, and not {cause}"
        return Result.NOT_REPRODUCED, f"it fails with other words, and {shows}, not {cause}"
    if has_same_words:
        return Result.REPRODUCED, f"the same words, the same cause: {cause}{sure}"
    if looked_for:
        if error := _met_by_chance(cause, ran, looked_for):
            chance = "met by another program than the report's: which one meets it is chance"
            return Result.REPRODUCED, f"the same cause, {cause}{sure}, and the same error, {error}, {chance}"
        return Result.NOT_REPRODUCED, f"the same cause, {first}{sure}, but with other words than the report's"
    stated = plan.stated.knobs if plan.stated else {}
    if question.variant is None or question.variant.knobs != stated:
        # A guest that was made to have a cause has it: only the words could show that the report is about it.
        why = "that cause was put on the guest, and no words of the report could be compared"
        return Result.NOT_REPRODUCED, f"it fails for {cause}{sure}, but {why}"
    if ran.confidence is not Confidence.PROVED:
        return Result.NOT_REPRODUCED, f"the evidence does not prove the cause: {shows}"
    return Result.REPRODUCED, f"the same cause by the settings that the report states: {cause}{sure}"


def _met_by_chance(cause: str, ran: CellResult, looked_for: Sequence[Compared]) -> str:
    """The report's error if the cell met it and chance decides which program meets the cause; empty if not."""
    row = causes.known().get(cause)
    if row is None or not row.met_by_chance:
        return ""
    why = next((finding.why for finding in ran.causes if finding.name == cause), "")
    errors = {pair.statement.errno for pair in looked_for if isinstance(pair.statement, Words)} - {None}
    return next((name for name in sorted(filter(None, errors)) if os.strerror(getattr(errno, name)) in why), "")


# -- a report's own words and what a cell's evidence holds


def _compare(plan: Plan, question: Question, cell: FinishedCell) -> Iterator[Compared]:
    """Look in a cell's evidence for what the report quotes about a question.

    A line that another question is about is left to that one; a line that is about none is looked for in each.
    """
    report = plan.report
    of_others = {quote for other in plan.questions if other != question for quote in other.quotes}
    quoted = [
        statement
        for statement in report.statements
        if isinstance(statement, AuditLine)
        or (isinstance(statement, Words) and statement.speaker in (Speaker.BOXLITE, Speaker.BUBBLEWRAP))
    ]
    own = [statement for statement in quoted if statement.quote in question.quotes]
    of_none = [statement for statement in quoted if statement.quote not in of_others]
    commands = [command.quote.number for command in report.of(Command)]
    is_ubuntu = plan.guest is not None and variants.distribution(plan.guest) == "ubuntu"
    lines = list(_evidence(cell))
    logs = [cell.path(name) for name in (KERNEL_FILE, AUDIT_FILE)]
    for statement in (own or of_none)[:MOST]:
        if isinstance(statement, Words):
            text = essence(statement.text)
            same = (line for line in lines if len(text) >= SHORTEST and text in line.text)
            is_printed = any(0 < statement.quote.number - number <= NEAR for number in commands)
            untested = NOT_PRINTED if is_printed else ""
        else:
            # Whichever program met it, it is the same refusal.
            refusal = {key: statement.fields[key] for key in REFUSED if key in statement.fields}.items()
            same = (
                line
                for line in lines
                if line.file in logs and refusal and any(refusal <= f.items() for f in parse_audit(line.text))
            )
            is_of_ubuntu = statement.fields.get("apparmor") == "AUDIT" and not is_ubuntu
            untested = "only Ubuntu's kernel writes such a line" if is_of_ubuntu else ""
        proof = next(same, None)
        yield Compared(statement, proof, "" if proof else untested)


def _evidence(cell: FinishedCell) -> Iterator[Proof]:
    """Every line of a cell's files."""
    files = [file for pattern in FILES for file in matching(cell.folder, pattern)]
    for file in files[:MOST_FILES]:
        with file.open(errors="replace") as stream:
            text = stream.read(LARGEST)
        name = cell.path(str(file.relative_to(cell.folder)))
        for number, line in enumerate(text.splitlines(), start=1):
            yield Proof(name, number, spaced(line[:LONGEST]))


def essence(text: str) -> str:
    """Return the part of a message that is the same everywhere.

    It is the first sentence, without the name of the program before it: what follows is a hint, which each
    distribution words in its own way.
    """
    message = SPEAKER.sub("", spaced(text), count=1)
    first, dot, _ = message.partition(". ")
    return first if dot and len(first) >= SHORTEST else message.removesuffix(".")


def spaced(text: str) -> str:
    """Return text in one line with single spaces, without the backslashes that quoting puts before quotes."""
    return " ".join(plain(text).replace('\\"', '"').replace("\\n", " ").split())


def shown(proof: Proof) -> str:
    """Return a line of evidence for a table."""
    return bounded(proof.text, 300)


# -- what a report claims, one line for each statement


def _claims(plan: Plan, verdict: Verdict, cells: Mapping[str, FinishedCell]) -> Iterator[ClaimLine]:
    """The words, audit lines and failing tests of a report, and what its reporter tried."""
    compared: dict[int, list[Compared]] = {}
    for answered in verdict.answered:
        for one in answered.compared:
            compared.setdefault(id(one.statement), []).append(one)
    yield from map(_of_compared, compared.values())
    yield from (_of_test(test, verdict) for test in islice(plan.report.of(NamedTest), MOST_TESTS))
    yield from (_of_check(plan, check, cells) for check in plan.checks)


def _of_compared(same: Sequence[Compared]) -> ClaimLine:
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


def _of_check(plan: Plan, check: Check, cells: Mapping[str, FinishedCell]) -> ClaimLine:
    """What a setting that the reporter tried does on the very cell."""
    helped, line = check.settings[0].helped, check.settings[0].quote.number
    several = len(check.settings) > 1
    verb = ("help" if several else "helps") if helped else f"{'do' if several else 'does'} not help"
    claim = f"{check.said} {verb} against {check.question.cause or 'it'}"
    cell = cells.get(check.variant.name) if check.variant else None
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
