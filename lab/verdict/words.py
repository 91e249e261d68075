"""A finished cell with its files: what boxlite says about why a box did not start, and whether that is right.

Since 0.10 boxlite returns only one sentence to its caller. The supposed cause and the advice are in its log,
`logs/boxlite.log.DATE` below its home.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import groupby
from pathlib import Path

from lab import causes
from lab.base.files import clean_text
from lab.catalog.remedies import Remedy
from lab.causes import evidence
from lab.causes.evidence import Evidence
from lab.record import CellResult, Confidence, RemedyOutcome, TestResult

# The first line of a log entry; the lines up to the next match belong to it.
ENTRY = re.compile(r"^\S+Z +(?P<level>[A-Z]+) (?P<module>[\w:]+): (?P<text>.*)$")
# boxlite logs this for every failed box: the message to its caller, and where its files are.
REPEATED = ("Task failed:", "Box failed.")
# What boxlite 0.10.8 says if none of the settings that it checks blocks it, and what it says of a box that is
# not ready in time: that likely cause is a part of the box, and nothing of the host that anybody can change.
LIKELY_CAUSE = "likely_cause"
GIVES_UP = ("Cause: Unknown restriction.", LIKELY_CAUSE)
# An advised command. Lines that begin with # are comments; two spaces and # begin a remark.
ADVICE = re.compile(r"^(?! *#).*?\b(sudo .*?)(?:  #.*)?$", re.MULTILINE)

# The outcomes of a remedy that was in place while the cell still failed.
FAILED = (RemedyOutcome.DOES_NOT_HELP, RemedyOutcome.MAKES_WORSE)


@dataclass(frozen=True)
class BoxliteMessage:
    """boxlite's own words: `message` to its caller, and `logged` by its module `module` in the log `file`.

    `file` is relative to the cell's folder, and empty if no log was collected. The others are empty if boxlite
    said nothing.
    """

    message: str = ""
    logged: str = ""
    module: str = ""
    file: str = ""

    @property
    def text(self) -> str:
        return f"{self.message}\n{self.logged}"

    @property
    def blames(self) -> list[str]:
        """The causes that boxlite blames, by the lab's names for them."""
        rows = causes.list_causes().items()
        return [name for name, cause in rows if any(phrase in self.text for phrase in cause.blamed_by)]

    @property
    def advises(self) -> list[str]:
        """The commands that boxlite advises its user to run."""
        return list(dict.fromkeys(ADVICE.findall(self.text)))

    @property
    def essence(self) -> str:
        """The line that names the supposed cause, or else the first line of the message to the caller."""
        lines = self.text.splitlines()
        cause = next((line for line in lines if line.startswith("Cause:") or LIKELY_CAUSE in line), "")
        return cause or self.message.partition("\n")[0]


def read(folder: Path, tests: Iterable[TestResult]) -> BoxliteMessage:
    """Read boxlite's words about the first failed test of a cell whose evidence is in `folder`.

    The first is enough: boxlite says the same about every box that the same cause blocks.
    """
    failed = (test for test in tests if test.outcome.is_failure)
    message = next((test.message for test in failed), "")
    logs = evidence.find_matching_files(folder, "boxlite/*/logs/boxlite.log*")
    for log in logs:
        boxes = groupby(_errors(evidence.read_beginning(log)), lambda error: error[1].startswith(REPEATED))
        # All errors of one box up to its failure: the supposed cause comes after the errors themselves.
        if errors := next((list(errors) for is_repeated, errors in boxes if not is_repeated), None):
            logged = clean_text("\n".join(text for _, text in errors))
            return BoxliteMessage(message, logged, errors[-1][0], str(log.relative_to(folder)))
    return BoxliteMessage(message, file=str(logs[0].relative_to(folder)) if logs else "")


def _errors(log: str) -> Iterable[tuple[str, str]]:
    """Return the errors in boxlite's log, each as the module that logged it and the text."""
    entries: list[tuple[str, str, list[str]]] = []
    for line in log.splitlines():
        if entry := ENTRY.match(line):
            entries.append((entry["level"], entry["module"], [entry["text"]]))
        elif entries:
            entries[-1][2].append(line)
    return [(module, "\n".join(lines).strip()) for level, module, lines in entries if level == "ERROR"]


class WordsVerdict(StrEnum):
    """How boxlite's diagnosis compares with the cause that the lab found."""

    RIGHT = "right"
    WRONG_KNOB = "wrong knob"
    NO_CURE = "advice does not cure"
    UNKNOWN = "unknown"
    NOTHING = "says nothing"


def judge_words(cell: CellResult, words: BoxliteMessage, remedies: Mapping[str, Remedy]) -> WordsVerdict | None:
    """Judge boxlite's diagnosis of a failed cell; None if no cause is proved or no log was collected.

    `remedies` tell whether boxlite's advice was tried on this cell.
    """
    if not cell.status.failed or cell.verdict.confidence is not Confidence.PROVED:
        return None
    if not cell.causes:  # A record from elsewhere may say that a cause is proved, and list none.
        return None
    proved = {cell.cause, *(finding.name for finding in cell.causes)}
    # The remedies that do what boxlite advises, each tried alone.
    advised = {name for name, remedy in remedies.items() if any(map(remedy.is_advised_by, words.advises))}
    results = [trial.result for trial in cell.remedies if trial.name in advised]
    # What cures is no wrong knob: a setting that boxlite blames may be behind the cause found.
    if words.blames and proved.isdisjoint(words.blames) and RemedyOutcome.VERIFIED not in results:
        return WordsVerdict.WRONG_KNOB
    if any(result in FAILED for result in results):
        return WordsVerdict.NO_CURE
    if words.blames:
        return WordsVerdict.RIGHT
    if any(phrase in words.text for phrase in GIVES_UP):
        return WordsVerdict.UNKNOWN
    return WordsVerdict.NOTHING if words.file else None


@dataclass(frozen=True)
class FinishedCell:
    """One cell of a run whose record is in the folder `run`. Its files are read on first use.

    `RunResult.read` refuses a record whose cells lead out of that folder.
    """

    result: CellResult
    run: Path

    @property
    def folder(self) -> Path:
        return self.run / self.result.folder

    @cached_property
    def evidence(self) -> Evidence:
        """What the rules of the causes read. Raises LabError if a file cannot be read."""
        return evidence.read_evidence(self.folder, self.result.tests)

    @cached_property
    def words(self) -> BoxliteMessage:
        return read(self.folder, self.result.tests)

    @cached_property
    def refusals(self) -> dict[str, list[str]]:
        """What the kernel refused, by file. Raises LabError if a file cannot be read."""
        return evidence.find_refusals(self.folder)

    def path(self, file: str) -> str:
        """Return the path of a file in the cell's folder, relative to the run's folder."""
        return str(self.result.folder / file)
