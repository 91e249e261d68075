"""A cell as its run recorded it: its result, and what the files of its folder tell."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lab import evidence
from lab.evidence import Evidence
from lab.record import CellResult, Finding
from lab.upstream import told
from lab.upstream.told import Told


@dataclass(frozen=True)
class Recorded:
    """One cell of a run whose record is in the folder `run`. Files are read when they are asked for."""

    result: CellResult
    run: Path

    @property
    def folder(self) -> Path:
        return self.run / self.result.folder

    @cached_property
    def evidence(self) -> Evidence:
        return evidence.read(self.folder, self.result.tests)

    @cached_property
    def told(self) -> Told:
        return told.read(self.folder, self.result.tests)

    @property
    def findings(self) -> list[Finding]:
        """Its causes; of a record of before there was a list of them, the one that it names."""
        cell = self.result
        if cell.causes or cell.cause is None or cell.confidence is None:
            return cell.causes
        return [Finding(name=cell.cause, confidence=cell.confidence, why=cell.reason)]

    def path(self, file: str) -> str:
        """A file of the cell's folder as the run names it."""
        return str(self.result.folder / file)
