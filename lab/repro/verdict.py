"""The verdict on a report: what its cells show of each question, and of all of them together.

A report's own words are compared to the letter with what a cell's evidence holds. Each thing that a report
claims is told one by one: it held, it did not hold, or it was not tested and why.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lab import causes
from lab.base.files import clean_text, cut_text
from lab.base.ordered import OrderedEnum
from lab.catalog.abilities import get_distribution
from lab.causes.evidence import AUDIT_FILE, KERNEL_FILE, find_matching_files, parse_audit, read_beginning
from lab.record import UNKNOWN, CellResult, Confidence, Needs, Outcome, RunResult
from lab.repro.planning import Check, Plan, Question
from lab.repro.report import (
    Assertion,
    AuditLine,
    Command,
    ErrorMessage,
    NamedTest,
    ProgramVersion,
    Speaker,
    Statement,
)
from lab.repro.subjects import START
from lab.verdict import observers
from lab.verdict.observers import NothingShown, Observation
from lab.verdict.words import FinishedCell

# The programs that boxlite starts to make its sandbox, and boxlite itself.
OWN = ("bwrap", "boxlite")
# Words this many lines below a command of the report are what that command printed.
NEAR = 3
NOT_PRINTED = "the command that printed it was not run; lab exec GUEST VARIANT -- COMMAND runs it"
# Most words and audit lines of a report that are looked for in one cell, and most tests that are claims.
MOST, MOST_TESTS = 30, 20
# The files of a cell that hold words of boxlite, bubblewrap and the kernel, the ones that say most first.
FILES = ("boxlite/*/logs/*", "suite/suite.log", "probes.json", KERNEL_FILE, AUDIT_FILE)
# A guest may have written anything: so many files are read, so many characters of each, and of each line; and
# so many are shown of a line.
MOST_FILES, LARGEST, LONGEST, SHOWN = 20, 1_000_000, 4000, 300
# A shorter text proves nothing: `Permission denied` stands in many messages.
SHORTEST = 20
# What a program, or the name of an exception, puts before its message.
SPEAKER = re.compile(r"(?:(?:bwrap|boxlite|Error|error|RuntimeError): |\w+\([\"'])*")
QUOTED_END = re.compile(r"[\"']\)*$")
# What says what was refused. The rest of an audit line tells one occurrence from another.
REFUSED = (
    *("apparmor", "operation", "class", "profile", "capability", "capname", "requested", "target", "info"),
    *("avc", "tclass"),
)


class Reproduction(OrderedEnum):
    """The verdict in one word, from the best to the worst."""

    REPRODUCED = "reproduced"
    OTHER_CAUSE = "reproduced with another cause"
    NOT_REPRODUCED = "not reproduced"
    NOT_TESTED = "not tested"
    NOT_RUN = "not run"

    @property
    def exit_status(self) -> int:
        """The exit status of `lab repro`."""
        return {Reproduction.REPRODUCED: 0, Reproduction.NOT_TESTED: 3, Reproduction.NOT_RUN: 3}.get(self, 1)


class ClaimOutcome(OrderedEnum):
    """What a run says about a claim. Of several cells the first of these counts."""

    HELD = "held"
    NOT_TESTED = "not tested"
    NOT_HELD = "did not hold"

    @classmethod
    def of(cls, holds: bool) -> "ClaimOutcome":
        return cls.HELD if holds else cls.NOT_HELD


@dataclass(frozen=True)
class Claim:
    """A statement of a report as a claim, what the run says about it, and why.

    If a line of the evidence says the same, `file` is its file in the run's folder, and `file_line` its number
    from 1.
    """

    statement: Statement
    text: str
    outcome: ClaimOutcome
    reason: str
    file: str | None = None
    file_line: int | None = None


@dataclass(frozen=True)
class AnsweredQuestion:
    """What a cell shows of one question; `claims` are the words of the report that were looked for in it.

    `cell` is None if none was run for it.
    """

    question: Question
    result: Reproduction
    reason: str
    cell: FinishedCell | None = None
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The verdict on a report: the worst of those on its questions, each with its evidence."""

    result: Reproduction
    reasons: tuple[str, ...]
    answered: tuple[AnsweredQuestion, ...] = ()
    claims: tuple[Claim, ...] = ()

    @property
    def cells(self) -> list[CellResult]:
        """The cells of its questions, each once."""
        cells = [answered.cell.result for answered in self.answered if answered.cell]
        return list({cell.folder: cell for cell in cells}.values())


def judge_plan(plan: Plan) -> Verdict:
    """Return the verdict on a report for which nothing is run."""
    if plan.choice.is_untested:
        return Verdict(Reproduction.NOT_TESTED, plan.why_not)
    return Verdict(Reproduction.NOT_RUN, tuple(filter(None, [*plan.why_not, plan.hint])))


def judge_run(plan: Plan, run: RunResult, folder: Path) -> Verdict:
    """Return the verdict on a report whose cells are those of a run with its record in `folder`."""
    cells = {cell.variant: FinishedCell(cell, folder) for cell in run.cells}
    answered = tuple(_answer(plan, question, cells) for question in plan.questions)
    worst = max((answer.result for answer in answered), key=lambda result: result.rank)
    reasons = [answer.reason for answer in answered]
    if worst is Reproduction.NOT_RUN and plan.hint:
        reasons.append(plan.hint)
    said = [claim for answer in answered for claim in answer.claims]
    # Lines that no question is about decide about none, and are looked for in each cell.
    about_none = _quoted_words(plan, None)
    said += [claim for cell in _decisive(answered) for claim in _find_words(plan, about_none, cell)]
    words: dict[Statement, Claim] = {}
    for claim in said:
        other = words.get(claim.statement, claim)
        words[claim.statement] = min(other, claim, key=lambda claim: claim.outcome.rank)
    claims = [
        *words.values(),
        *(_of_test(test, answered) for test in islice(plan.report.of(NamedTest), MOST_TESTS)),
        *(_of_check(plan, check, cells) for check in plan.checks),
        *_of_one_failure(plan, answered),
        *(_of_assertion(plan, assertion, answered, cells) for assertion in plan.report.of(Assertion)),
    ]
    return Verdict(worst, tuple(dict.fromkeys(reasons)), answered, tuple(claims))


def _decisive(answered: Sequence[AnsweredQuestion]) -> list[FinishedCell]:
    """The cells of questions that failed or passed."""
    return [answer.cell for answer in answered if answer.cell and answer.cell.result.status.is_decisive]


def _answer(plan: Plan, question: Question, cells: Mapping[str, FinishedCell]) -> AnsweredQuestion:
    """What the cell of a question shows."""
    if question.variant is None:
        result = Reproduction.NOT_TESTED if plan.choice.is_untested else Reproduction.NOT_RUN
        return AnsweredQuestion(question, result, question.why_not)
    cell = cells[question.variant.name]
    ran = cell.result
    if not ran.status.is_decisive:
        return AnsweredQuestion(question, Reproduction.NOT_RUN, f"{ran.status}: {ran.reason}", cell)
    claims = tuple(_of_words(plan, question, cell))
    if ran.status.failed:
        result, reason = _judge(plan, question, ran, claims)
    else:
        result, reason = Reproduction.NOT_REPRODUCED, "every test passes"
    if result is Reproduction.NOT_REPRODUCED and question.cause is None and plan.choice.untested:
        reason = f"{plan.choice.reason}; {reason}"
        return AnsweredQuestion(question, Reproduction.NOT_TESTED, reason, cell, claims)
    if question.program not in ("", *OWN):
        reason += f"; it was met by {question.program} in the report, and by boxlite here"
    versions = (one.version for one in plan.report.of(ProgramVersion) if one.name == "bubblewrap")
    their_version = next(versions, None)
    our_version = ran.facts.bubblewrap.version if ran.facts and ran.facts.bubblewrap else None
    if result is Reproduction.NOT_REPRODUCED and their_version and our_version and their_version != our_version:
        reason += f"; bubblewrap is {their_version} in the report and {our_version} here, "
        reason += "and these releases word this failure differently"
    return AnsweredQuestion(question, result, reason, cell, claims)


def _judge(
    plan: Plan, question: Question, ran: CellResult, claims: Sequence[Claim]
) -> tuple[Reproduction, str]:
    """The verdict on a cell that failed, and why."""
    cause, first = question.cause, ran.cause or UNKNOWN
    sure = f" ({ran.verdict.confidence})" if ran.verdict.confidence else ""
    shows = f"the cause found is {first}{sure}"
    looked_for = [claim for claim in claims if claim.outcome is not ClaimOutcome.NOT_TESTED]
    has_same_words = any(claim.outcome is ClaimOutcome.HELD for claim in looked_for)
    if cause is None:
        tests = {test.name for test in plan.report.of(NamedTest) if test.known}
        if has_same_words:
            return Reproduction.REPRODUCED, f"the same words; {shows}"
        if looked_for:
            return Reproduction.NOT_REPRODUCED, f"it fails, but not with the report's words; {shows}"
        if tests and tests <= {test.name for test in ran.tests if test.outcome.is_failure}:
            reason = f"the report quotes no words, and the tests that it names fail; {shows}"
            return Reproduction.REPRODUCED, reason
        return _judge_subjects(plan, ran, shows)
    if cause not in ([finding.name for finding in ran.causes] or [first]):
        if has_same_words:
            return Reproduction.OTHER_CAUSE, f"the same words, but {shows}, and not {cause}"
        return Reproduction.NOT_REPRODUCED, f"it fails with other words, and {shows}, not {cause}"
    if has_same_words:
        return Reproduction.REPRODUCED, f"the same words, the same cause: {cause}{sure}"
    if looked_for:
        if error := _met_by_chance(cause, ran, looked_for):
            reason = f"the same cause, {cause}{sure}, and the same error, {error}, met by another program"
            return Reproduction.REPRODUCED, f"{reason} than the report's: which one meets it is chance"
        reason = f"the same cause, {first}{sure}, but with other words than the report's"
        return Reproduction.NOT_REPRODUCED, reason
    stated = plan.stated.knobs if plan.stated else {}
    if question.variant is None or question.variant.knobs != stated:
        # A guest that was made to have a cause has it: only the words could show that the report is about it.
        reason = "that cause was put on the guest, and no words of the report could be compared"
        return Reproduction.NOT_REPRODUCED, f"it fails for {cause}{sure}, but {reason}"
    if ran.verdict.confidence is not Confidence.PROVED:
        return Reproduction.NOT_REPRODUCED, f"the evidence does not prove the cause: {shows}"
    return Reproduction.REPRODUCED, f"the same cause by the settings that the report states: {cause}{sure}"


def _judge_subjects(plan: Plan, ran: CellResult, shows: str) -> tuple[Reproduction, str]:
    """The verdict on a cell that failed, where the report shows no cause and quotes no words.

    Much keeps a box from starting. What only some tests are about tells more.
    """
    tests = [test for test in ran.tests if test.subject in plan.report.subjects and test.subject != START]
    failed = [test.name for test in tests if test.outcome.is_failure]
    about = " or ".join(dict.fromkeys(test.subject for test in tests))
    if failed and ran.verdict.confidence is Confidence.PROVED:
        return Reproduction.REPRODUCED, f"tests about {about} fail: {', '.join(failed)}; {shows}"
    if tests and not failed:
        return Reproduction.NOT_REPRODUCED, f"no test about {about} fails; {shows}"
    return Reproduction.NOT_REPRODUCED, f"it fails, but the report quotes no words to compare; {shows}"


def _met_by_chance(cause: str, ran: CellResult, looked_for: Sequence[Claim]) -> str:
    """The report's error if the cell met it and chance decides which program meets the cause; empty if not."""
    if cause not in causes.list_causes() or not causes.list_causes()[cause].met_by_chance:
        return ""
    reason = next((finding.reason for finding in ran.causes if finding.name == cause), "")
    words = [claim.statement for claim in looked_for]
    errors = sorted({message.errno for message in words if isinstance(message, ErrorMessage) and message.errno})
    return next((name for name in errors if os.strerror(getattr(errno, name)) in reason), "")


# -- the claims of a report: its words and audit lines, the tests that fail, and what its reporter tried


def _quoted_words(plan: Plan, question: Question | None) -> list[AuditLine | ErrorMessage]:
    """The audit lines of a report, and the words of boxlite and bubblewrap that it quotes, about a question.

    Without a question, those that no question is about.
    """
    lines = {quote for one in plan.questions for quote in one.quotes if question in (None, one)}
    return [
        statement
        for statement in plan.report.statements
        if isinstance(statement, AuditLine)
        or (isinstance(statement, ErrorMessage) and statement.speaker in (Speaker.BOXLITE, Speaker.BUBBLEWRAP))
        if (statement.quote in lines) is (question is not None)
    ]


def _of_words(plan: Plan, question: Question, cell: FinishedCell) -> Iterator[Claim]:
    """Look in a cell's evidence for what the report quotes about a question.

    A line that another question is about is left to that one; a line that is about none is looked for if no
    line is about this one.
    """
    return _find_words(plan, _quoted_words(plan, question) or _quoted_words(plan, None), cell)


def _find_words(plan: Plan, quoted: Sequence[AuditLine | ErrorMessage], cell: FinishedCell) -> Iterator[Claim]:
    """Look in a cell's evidence for quoted lines."""
    commands = [command.quote.number for command in plan.report.of(Command)]
    is_ubuntu = plan.guest is not None and get_distribution(plan.guest) == "ubuntu"
    lines = list(_evidence(cell))
    logs = [cell.path(name) for name in (KERNEL_FILE, AUDIT_FILE)]
    for statement in quoted[:MOST]:
        if isinstance(statement, ErrorMessage):
            text, words = f"says: {statement.text}", essence(statement.text)
            same = (line for line in lines if len(words) >= SHORTEST and words in line[2])
            is_printed = any(0 < statement.quote.number - number <= NEAR for number in commands)
            untested = NOT_PRINTED if is_printed else ""
        else:
            text = f"the kernel logs: {statement.quote.text}"
            # Whichever program met it, it is the same refusal.
            refusal = {key: statement.fields[key] for key in REFUSED if key in statement.fields}.items()
            same = (
                line
                for line in lines
                if line[0] in logs and refusal and any(refusal <= f.items() for f in parse_audit(line[2]))
            )
            is_of_ubuntu = statement.fields.get("apparmor") == "AUDIT" and not is_ubuntu
            untested = "only Ubuntu's kernel writes such a line" if is_of_ubuntu else ""
        if proof := next(same, None):
            file, number, line = proof
            reason = f"{file}, line {number}: {cut_text(line, SHOWN)}"
            yield Claim(statement, text, ClaimOutcome.HELD, reason, file, number)
        else:
            outcome = ClaimOutcome.NOT_TESTED if untested else ClaimOutcome.NOT_HELD
            yield Claim(statement, text, outcome, untested or "no line of the evidence says so")


def _evidence(cell: FinishedCell) -> Iterator[tuple[str, int, str]]:
    """Every line of a cell's files: the file in the run's folder, the line's number, and its text."""
    files = [file for pattern in FILES for file in find_matching_files(cell.folder, pattern)]
    for file in files[:MOST_FILES]:
        text = read_beginning(file, LARGEST)
        name = cell.path(str(file.relative_to(cell.folder)))
        for number, line in enumerate(text.splitlines(), start=1):
            yield name, number, spaced(line[:LONGEST])


def essence(text: str) -> str:
    """Return the part of a message that is the same everywhere.

    It is the first sentence, without the name of the program or of the exception before it: what follows is a
    hint, which each distribution words in its own way.
    """
    message = SPEAKER.sub("", spaced(text), count=1)
    first, dot, _ = message.partition(". ")
    return first if dot and len(first) >= SHORTEST else QUOTED_END.sub("", message).removesuffix(".")


def spaced(text: str) -> str:
    """Return text in one line with single spaces, without the backslashes that quoting puts before quotes."""
    return " ".join(clean_text(text).replace('\\"', '"').replace("\\n", " ").split())


def _of_one_failure(plan: Plan, answered: Sequence[AnsweredQuestion]) -> Iterator[Claim]:
    """Whether the words that a report quotes of several causes come from one failure."""
    lines = [
        (question, statements[0])
        for question in plan.questions
        if (statements := _quoted_words(plan, question))
    ]
    if len(lines) < 2:
        return
    lines_of_cells = {
        cell.result.variant: [
            statement.quote.number
            for question, statement in lines
            if any(claim.outcome is ClaimOutcome.HELD for claim in _of_words(plan, question, cell))
        ]
        for cell in _decisive(answered)
    }
    numbers = [statement.quote.number for _, statement in lines]
    reason = "; ".join(f"{variant} shows {_written(lines_of_cells[variant])}" for variant in lines_of_cells)
    outcome = ClaimOutcome.NOT_TESTED
    if any(len(of_cell) == len(numbers) for of_cell in lines_of_cells.values()):
        outcome = ClaimOutcome.HELD
    elif set(numbers) <= {number for of_cell in lines_of_cells.values() for number in of_cell}:
        outcome = ClaimOutcome.NOT_HELD
    text = f"one failure shows {_written(numbers)}"
    yield Claim(lines[0][1], text, outcome, reason or "its cells did not run")


def _written(numbers: Sequence[int]) -> str:
    lines = " and ".join(map(str, numbers))
    return f"line{'s' if len(numbers) > 1 else ''} {lines}" if numbers else "none of these lines"


def _of_assertion(
    plan: Plan, assertion: Assertion, answered: Sequence[AnsweredQuestion], cells: Mapping[str, FinishedCell]
) -> Claim:
    """What cells show of an assertion: it held if one of them shows it."""
    observed: list[tuple[FinishedCell, Observation]] = []
    silent: list[str] = []
    if assertion.is_of_host and not plan.is_host:
        return Claim(assertion, assertion.text, ClaimOutcome.NOT_TESTED, "only the report's own host shows it")
    arguments = assertion.arguments
    if assertion.observer == "fails":
        arguments = {"names": [test.name for test in plan.report.of(NamedTest) if test.known]}
    of_questions = [answer.cell for answer in answered if answer.cell]
    of_variant = [cells[assertion.variant]] if assertion.variant in cells else []
    for cell in of_variant if assertion.variant else of_questions:
        observation = observers.observe_cell(assertion.observer, cell, arguments)
        if isinstance(observation, NothingShown):
            silent.append(f"{cell.result.variant}: {observation}")
        else:
            observed.append((cell, observation))
    if not observed:
        reason = "; ".join(silent) or f"no cell of {assertion.variant or 'its questions'} was run"
        return Claim(assertion, assertion.text, ClaimOutcome.NOT_TESTED, reason)
    # As with words: each cell of a question may be what the report's host is.
    observed.sort(key=lambda each: not each[1].holds)
    reason = "; ".join(f"{cell.result.variant}: {observation.reason}" for cell, observation in observed)
    outcome = ClaimOutcome.of(observed[0][1].holds)
    files = (cell.path(shown.file) for cell, shown in observed if (cell.folder / shown.file).is_file())
    return Claim(assertion, assertion.text, outcome, reason, next(files, None))


def _of_test(test: NamedTest, answered: Sequence[AnsweredQuestion]) -> Claim:
    outcomes = {
        cell.result.variant: result.outcome
        for cell in _decisive(answered)
        for result in cell.result.tests
        if result.name == test.name and result.outcome is not Outcome.NOT_RUN
    }
    if not test.known or not outcomes:
        reason = "it did not run" if test.known else "the lab's suite has no such test"
        return Claim(test, f"{test.name} fails", ClaimOutcome.NOT_TESTED, reason)
    reason = ", ".join(f"{variant}: {outcome}" for variant, outcome in outcomes.items())
    holds = all(outcome.is_failure for outcome in outcomes.values())
    return Claim(test, f"{test.name} fails", ClaimOutcome.of(holds), reason)


def _of_check(plan: Plan, check: Check, cells: Mapping[str, FinishedCell]) -> Claim:
    """What a setting that the reporter tried does on the very cell."""
    setting, helped = check.settings[0], check.settings[0].helped
    several = len(check.settings) > 1
    verb = ("help" if several else "helps") if helped else f"{'do' if several else 'does'} not help"
    text = f"{check.written} {verb} against {check.question.cause or 'it'}"
    cell = cells.get(check.variant.name) if check.variant else None
    if cell is None:
        return Claim(setting, text, ClaimOutcome.NOT_TESTED, check.why_not or "its cell was not run")
    if not cell.result.status.is_decisive:
        return Claim(setting, text, ClaimOutcome.NOT_TESTED, f"{cell.result.status}: {cell.result.reason}")
    needing = plan.build.suite.needing(Needs.SANDBOX) if plan.build else set()
    tests = (test for test in cell.result.tests if test.name in needing)
    failing = [test.name for test in tests if test.outcome is not Outcome.PASS]
    passes = "every test that needs the sandbox passes"
    fails = f"{', '.join(failing)} fail all the same: {cell.result.reason}"
    on_variant = f" on {check.question.variant.name}" if check.question.variant else ""
    reason = f"with it{on_variant}, {fails if failing else passes}"
    if helped is None:
        reason = f"the report does not say what it did; {reason}"
        return Claim(setting, f"tried: {check.written}", ClaimOutcome.NOT_TESTED, reason)
    return Claim(setting, text, ClaimOutcome.of(helped is not bool(failing)), reason)
