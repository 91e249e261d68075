"""Comparing a report's own words with what a cell's evidence holds, to the letter."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from lab.base.files import bounded, plain
from lab.causes.evidence import AUDIT_FILE, KERNEL_FILE, matching, parse_audit
from lab.repro.report import AuditLine, Words
from lab.verdict.words import FinishedCell

# The files of a cell that hold words of boxlite, bubblewrap and the kernel.
FILES = ("boxlite/*/logs/*", "suite/suite.log", "probes.json", KERNEL_FILE, AUDIT_FILE)
# As much is read of one file, in bytes, and as many files: a guest may have written anything.
LARGEST, MOST = 1_000_000, 20
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
        for file in found[:MOST]:
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
