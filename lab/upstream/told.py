"""What boxlite told its user of why a box did not start, and whether that is so.

Since 0.10 whoever calls boxlite is told in a sentence that it failed. What it takes for the cause, and what it
advises, stands in its own log, `logs/boxlite.log.DATE` below its home.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import dropwhile, takewhile
from pathlib import Path

from lab import causes
from lab.base.files import plain
from lab.record import CellResult, Confidence, RemedyOutcome, RemedyResult, Status, TestResult
from lab.remedies import Remedy

# An entry of the log begins so; the lines that follow it are its own.
ENTRY = re.compile(r"^\S+Z +(?P<level>[A-Z]+) (?P<module>[\w:]+): (?P<text>.*)$")
# What boxlite logs of every box that fails: the words that its caller gets, and where its files are.
REPEATED = ("Task failed:", "Box failed.")
# boxlite 0.10.8's words where none of the settings that it looks at blocks it.
GIVES_UP = "Cause: Unknown restriction."
# A command it advises, on a line that is none of its comments; two spaces and # begin a remark.
ADVICE = re.compile(r"^(?! *#).*?\b(sudo .*?)(?:  #.*)?$", re.MULTILINE)

# What came of a remedy that was put in place and let the cell fail.
FAILED = (RemedyOutcome.DOES_NOT_HELP, RemedyOutcome.MAKES_WORSE)


@dataclass(frozen=True)
class Told:
    """boxlite's own words: `said` to whoever called it, and `logged` by its part `module` in the log `file`.

    Empty where there are none; `file`, relative to the cell's folder, where no log was gathered.
    """

    said: str = ""
    logged: str = ""
    module: str = ""
    file: str = ""

    @property
    def text(self) -> str:
        return f"{self.said}\n{self.logged}"

    @property
    def gives_up(self) -> bool:
        """Whether it says itself that it does not know why."""
        return GIVES_UP in self.text

    @property
    def blames(self) -> list[str]:
        """The causes that it names, by the lab's names for them."""
        known = causes.known().items()
        return [name for name, cause in known if any(words in self.text for words in cause.blamed_by)]

    @property
    def advises(self) -> list[str]:
        """The commands that it tells its user to type."""
        return list(dict.fromkeys(ADVICE.findall(self.text)))

    @property
    def essence(self) -> str:
        """What it takes for the cause; where it says nothing of one, the first of its words."""
        cause = next((line for line in self.text.splitlines() if line.startswith("Cause:")), "")
        return cause or self.said.partition("\n")[0]


def read(folder: Path, tests: Iterable[TestResult]) -> Told:
    """What boxlite told in a cell whose evidence is in `folder`: of the first test that failed.

    It says the same of each box that one cause blocks.
    """
    failed = (test for test in tests if test.outcome.is_failure)
    said = next((test.message for test in failed), "")
    logs = sorted((folder / "boxlite").glob("*/logs/boxlite.log*"))
    for log in logs:
        errors = _errors(log.read_text(errors="replace"))
        # All of one box, up to where it has failed: what it takes for the cause comes after what it ran into.
        of_first = list(takewhile(_is_own, dropwhile(lambda error: not _is_own(error), errors)))
        if of_first:
            logged = plain("\n".join(text for _, text in of_first))
            return Told(said, logged, of_first[-1][0], str(log.relative_to(folder)))
    return Told(said, file=str(logs[0].relative_to(folder)) if logs else "")


def _is_own(error: tuple[str, str]) -> bool:
    """Whether an error says something of its own, and is not what stands in the log of every box that fails."""
    return not error[1].startswith(REPEATED)


def _errors(log: str) -> Iterable[tuple[str, str]]:
    """The errors in a log of boxlite's, each as the part of it that logged it, and the text."""
    entries: list[tuple[str, str, list[str]]] = []
    for line in log.splitlines():
        if begun := ENTRY.match(line):
            entries.append((begun["level"], begun["module"], [begun["text"]]))
        elif entries:
            entries[-1][2].append(line)
    return [(module, "\n".join(lines).strip()) for level, module, lines in entries if level == "ERROR"]


class Judged(StrEnum):
    """How what boxlite told stands to the cause that the lab found."""

    RIGHT = "right"
    WRONG_KNOB = "wrong knob"
    NO_CURE = "advice does not cure"
    UNKNOWN = "unknown"
    NOTHING = "says nothing"


def judge(cell: CellResult, told: Told, known: Mapping[str, Remedy]) -> Judged | None:
    """Whether boxlite told the cause; None where nobody can say: no cause is proved, or no log was gathered.

    `known` are the remedies, by which its advice is known to have been tried on this cell.
    """
    if cell.status not in (Status.FAIL, Status.XFAIL) or cell.confidence is not Confidence.PROVED:
        return None
    found = {cell.cause, *(finding.name for finding in cell.causes)}
    if told.blames and found.isdisjoint(told.blames):
        return Judged.WRONG_KNOB
    if any(tried.result in FAILED for tried in tried_advice(cell, told, known)):
        return Judged.NO_CURE
    if told.blames:
        return Judged.RIGHT
    if told.gives_up:
        return Judged.UNKNOWN
    return Judged.NOTHING if told.file else None


def tried_advice(cell: CellResult, told: Told, known: Mapping[str, Remedy]) -> list[RemedyResult]:
    """What came of boxlite's advice on this cell, as far as a remedy that was tried alone does what it says."""
    advised = {name for name, remedy in known.items() for each in told.advises if remedy.is_advised_by(each)}
    return [tried for tried in cell.remedies if tried.name in advised]
