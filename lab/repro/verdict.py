"""The verdict on a report: what its cells show of each question, and of all of them together."""

import errno
import os
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from lab import causes
from lab.base.files import bounded, plain
from lab.causes.evidence import AUDIT_FILE, KERNEL_FILE, matching, parse_audit
from lab.record import UNKNOWN, CellResult, Confidence, RunResult, Status
from lab.repro import guests
from lab.repro.planning import Plan
from lab.repro.questions import Question
from lab.repro.report import AuditLine, Command, NamedTest, Program, Report, Speaker, Words
from lab.verdict.words import FinishedCell

FAILED = (Status.FAIL, Status.XFAIL)
# The programs that boxlite starts to make its sandbox, and boxlite itself.
OWN = ("bwrap", "boxlite")
BUBBLEWRAP = "bubblewrap"
# Words this many lines below a command of the report are what that command printed.
NEAR = 3
NOT_PRINTED = "the command that printed it was not run; lab exec GUEST VARIANT -- COMMAND runs it"
# Most words and audit lines of a report that are looked for in one cell.
MOST = 30


# -- a report's own words and what a cell's evidence holds, compared to the letter

# The files of a cell that hold words of boxlite, bubblewrap and the kernel.
FILES = ("boxlite/*/logs/*", "suite/suite.log", "probes.json", KERNEL_FILE, AUDIT_FILE)
# As much is read of one file, in bytes, and as many files: a guest may have written anything.
LARGEST, MOST_FILES = 1_000_000, 20
# Longest line that is compared, in characters.
LONGEST = 4000
# A shorter text proves nothing: `Permission denied` stands in many messages.
SHORTEST = 20
# What a program puts before its message.
SPEAKER = re.compile(r"(?:bwrap|boxlite|Error|error|RuntimeError): ")
# What says what was refused. The rest of an audit line tells one occurrence from another.
REFUSED = (
    *("apparmor", "operation", "class", "profile", "capability", "capname", "requested", "target", "info"),
    *("avc", "tclass"),
)


@dataclass(frozen=True)
class Proof:
    """A line of a cell's evidence: the file in the run's folder, the line's number from 1, and its text."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class CellText:
    """The text of a cell's evidence, read once."""

    cell: FinishedCell

    @cached_property
    def lines(self) -> list[Proof]:
        """Every line of the files, the ones that say most first."""
        return list(self._read()) if self.cell.is_inside else []

    def find(self, statement: Words | AuditLine) -> Proof | None:
        """Return the first line that says what the report quotes; None if none does."""
        if isinstance(statement, AuditLine):
            logs = [self.cell.path(name) for name in (KERNEL_FILE, AUDIT_FILE)]
            lines = (each for each in self.lines if each.file in logs)
            return next((each for each in lines if _same_refusal(statement.fields, each.text)), None)
        wanted = essence(statement.text)
        if len(wanted) < SHORTEST:
            return None
        return next((each for each, text in self._spaced if wanted in text), None)

    @cached_property
    def _spaced(self) -> list[tuple[Proof, str]]:
        return [(each, spaced(each.text)) for each in self.lines]

    def _read(self) -> Iterator[Proof]:
        found = [file for pattern in FILES for file in matching(self.cell.folder, pattern)]
        for file in found[:MOST_FILES]:
            with file.open(errors="replace") as stream:
                text = stream.read(LARGEST)
            for number, line in enumerate(text.splitlines(), start=1):
                yield Proof(self.cell.path(str(file.relative_to(self.cell.folder))), number, line[:LONGEST])


def essence(text: str) -> str:
    """Return the part of a message that is the same everywhere.

    It is the first sentence, without the name of the program before it: what follows is a hint, which each
    distribution words in its own way.
    """
    said = spaced(text)
    while begins := SPEAKER.match(said):
        said = said[begins.end() :]
    first, dot, _ = said.partition(". ")
    return first if dot and len(first) >= SHORTEST else said.removesuffix(".")


def spaced(text: str) -> str:
    """Return text in one line with single spaces, without the backslashes that quoting puts before quotes."""
    return " ".join(plain(text).replace('\\"', '"').replace("\\n", " ").split())


def shown(proof: Proof) -> str:
    """Return a line of evidence for a table."""
    return bounded(spaced(proof.text), 300)


def _same_refusal(fields: dict[str, str], line: str) -> bool:
    """Whether a line of a log is of the same refusal, by whatever program it was met."""
    wanted = {key: fields[key] for key in REFUSED if key in fields}
    here = parse_audit(line)
    return bool(wanted) and any(all(each.get(k) == v for k, v in wanted.items()) for each in here)


# -- the verdict


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

    @property
    def proofs(self) -> list[Proof]:
        """The lines of the evidence that say what the report says."""
        return [each.proof for each in self.compared if each.proof]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a report: the worst of those on its questions, each with its evidence."""

    result: Result
    why: tuple[str, ...]
    answered: tuple[Answered, ...] = ()

    @property
    def cells(self) -> list[FinishedCell]:
        """The cells that failed or passed, each once."""
        return list({each.cell.result.folder: each.cell for each in self.answered if each.cell}.values())


def of_plan(plan: Plan) -> Verdict:
    """Return the verdict on a report for which nothing is run."""
    return Verdict(Result.NOT_RUN, tuple(filter(None, [*plan.why_not, plan.hint])))


def of_run(plan: Plan, run: RunResult, folder: Path) -> Verdict:
    """Return the verdict on a report whose cells are those of a run with its record in `folder`."""
    known = {cell.variant: FinishedCell(cell, folder) for cell in run.cells}
    answered = tuple(_answer(plan, each, known) for each in plan.questions)
    worst = max((each.result for each in answered), key=list(Result).index)
    why = [each.why for each in answered]
    if worst is Result.NOT_RUN and plan.hint:
        why.append(plan.hint)
    return Verdict(worst, tuple(dict.fromkeys(why)), answered)


def _answer(plan: Plan, question: Question, known: dict[str, FinishedCell]) -> Answered:
    if question.variant is None:
        return Answered(question, Result.NOT_RUN, question.why_not)
    cell = known[question.variant.name]
    ran = cell.result
    if ran.status not in (*FAILED, Status.PASS, Status.XPASS):
        return Answered(question, Result.NOT_RUN, f"{ran.status}: {ran.reason}", cell)
    compared = compare(plan, question, cell)
    if ran.status not in FAILED:
        return Answered(question, Result.NOT_REPRODUCED, "every test passes", cell, compared)
    stated = plan.stated.knobs if plan.stated else {}
    tests = {each.name for each in plan.report.of(NamedTest) if each.known}
    result, why = _judge(question, ran, compared, tests, is_stated=question.variant.knobs == stated)
    if question.program not in ("", *OWN):
        why += f"; it was met by {question.program} in the report, and by boxlite here"
    if result is Result.NOT_REPRODUCED:
        why += _other_bubblewrap(plan.report, ran)
    return Answered(question, result, why, cell, compared)


def _judge(
    question: Question, ran: CellResult, compared: Sequence[Compared], tests: Set[str], *, is_stated: bool
) -> tuple[Result, str]:
    """The verdict on a cell that failed, and why. `is_stated`: it has just the report's own settings.

    `tests` are those that fail for the reporter.
    """
    found = ran.cause or UNKNOWN
    shown = [each.name for each in ran.causes] or [found]
    sure = f" ({ran.confidence})" if ran.confidence else ""
    shows = f"the cause found is {found}{sure}"
    looked_for = [each for each in compared if not each.untested]
    same_words = any(each.proof for each in looked_for)
    if question.cause is None:
        return _judge_without_cause(ran, shows, tests, has_words=bool(looked_for), same_words=same_words)
    if question.cause not in shown:
        if same_words:
            return Result.OTHER_CAUSE, f"the same words, but {shows}, and not {question.cause}"
        return Result.NOT_REPRODUCED, f"it fails with other words, and {shows}, not {question.cause}"
    if looked_for and not same_words:
        if met := _met_by_chance(question.cause, ran, looked_for):
            return Result.REPRODUCED, f"the same cause, {question.cause}{sure}, {met}"
        return Result.NOT_REPRODUCED, f"the same cause, {found}{sure}, but with other words than the report's"
    if same_words:
        return Result.REPRODUCED, f"the same words, the same cause: {question.cause}{sure}"
    if not is_stated:
        # A guest that was made to have a cause has it: only the words could show that the report is about it.
        why = "that cause was put on the guest, and no words of the report could be compared"
        return Result.NOT_REPRODUCED, f"it fails for {question.cause}{sure}, but {why}"
    if ran.confidence is not Confidence.PROVED:
        return Result.NOT_REPRODUCED, f"the evidence does not prove the cause: {shows}"
    return Result.REPRODUCED, f"the same cause by the settings that the report states: {question.cause}{sure}"


def _met_by_chance(cause: str, ran: CellResult, looked_for: Sequence[Compared]) -> str:
    """What to say if chance decides which program meets a cause, and the error is the same; empty if not."""
    found = next((each.why for each in ran.causes if each.name == cause), "")
    errors = {each.statement.errno for each in looked_for if isinstance(each.statement, Words)} - {None}
    same = [name for name in sorted(filter(None, errors)) if os.strerror(getattr(errno, name)) in found]
    known = causes.known().get(cause)
    if not same or known is None or not known.met_by_chance:
        return ""
    return (
        f"and the same error, {same[0]}, met by another program than the report's: which one meets it is chance"
    )


def _judge_without_cause(
    ran: CellResult, shows: str, tests: Set[str], *, has_words: bool, same_words: bool
) -> tuple[Result, str]:
    """The verdict on a cell that failed, where the report's text shows no cause."""
    if same_words:
        return Result.REPRODUCED, f"the same words; {shows}"
    if has_words:
        return Result.NOT_REPRODUCED, f"it fails, but not with the report's words; {shows}"
    failed = {test.name for test in ran.tests if test.outcome.is_failure}
    if tests and tests <= failed:
        return Result.REPRODUCED, f"the report quotes no words, and the tests that it names fail; {shows}"
    return Result.NOT_REPRODUCED, f"it fails, but the report quotes no words to compare; {shows}"


def _other_bubblewrap(report: Report, ran: CellResult) -> str:
    """What to know of the words where the report's bubblewrap is another release than the guest's."""
    theirs = next((each.version for each in report.of(Program) if each.name == BUBBLEWRAP), None)
    here = ran.facts.bubblewrap.version if ran.facts and ran.facts.bubblewrap else None
    if not theirs or not here or theirs == here:
        return ""
    return f"; bubblewrap is {theirs} in the report and {here} here, and releases word one failure differently"


def compare(plan: Plan, question: Question, cell: FinishedCell) -> tuple[Compared, ...]:
    """Look in a cell's evidence for what the report quotes about a question.

    A line that another question is about is left to that one; a line that is about none is looked for in each.
    """
    theirs = {quote for each in plan.questions if each != question for quote in each.quotes}
    said: list[Words | AuditLine] = [
        each
        for each in plan.report.statements
        if isinstance(each, AuditLine)
        or (isinstance(each, Words) and each.speaker in (Speaker.BOXLITE, Speaker.BUBBLEWRAP))
    ]
    concerned = [each for each in said if each.quote in question.quotes or each.quote not in theirs]
    own = [each for each in concerned if each.quote in question.quotes]
    text = CellText(cell)
    return tuple(_compared(plan, each, text) for each in (own or concerned)[:MOST])


def _compared(plan: Plan, statement: Words | AuditLine, text: CellText) -> Compared:
    proof = text.find(statement)
    return Compared(statement, proof, "" if proof else _why_absent(plan, statement))


def _why_absent(plan: Plan, statement: Words | AuditLine) -> str:
    """Why it says nothing that the evidence lacks this; empty if it says something."""
    if isinstance(statement, Words):
        return NOT_PRINTED if _was_printed(plan.report, statement) else ""
    moves = statement.fields.get("apparmor") == "AUDIT"
    is_ubuntu = plan.guest is not None and guests.distribution(plan.guest) == "ubuntu"
    return "only Ubuntu's kernel writes such a line" if moves and not is_ubuntu else ""


def _was_printed(report: Report, words: Words) -> bool:
    """Whether the report shows a command right above these words."""
    return any(0 < words.quote.number - each.quote.number <= NEAR for each in report.of(Command))
