"""A finished cell: its recorded result and the files in its folder."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lab import evidence
from lab.evidence import Evidence
from lab.record import CellResult, Finding
from lab.upstream import words
from lab.upstream.words import Words


@dataclass(frozen=True)
class FinishedCell:
    """One cell of a run whose record is in the folder `run`. Its files are read on first use."""

    result: CellResult
    run: Path

    @property
    def folder(self) -> Path:
        return self.run / self.result.folder

    @property
    def is_inside(self) -> bool:
        """Whether the cell's folder is inside the run's: the names in a record may be anything."""
        try:
            return self.folder.resolve().is_relative_to(self.run.resolve())
        except ValueError:  # No path can hold such a name.
            return False

    @cached_property
    def evidence(self) -> Evidence:
        return evidence.read(self.folder, self.result.tests)

    @cached_property
    def words(self) -> Words:
        return words.read(self.folder, self.result.tests) if self.is_inside else Words()

    @property
    def findings(self) -> list[Finding]:
        """The cell's causes. Old records have no list of causes; then this is the one cause that they name."""
        cell = self.result
        if cell.causes or cell.cause is None or cell.confidence is None:
            return cell.causes
        return [Finding(name=cell.cause, confidence=cell.confidence, why=cell.reason)]

    def path(self, file: str) -> str:
        """Return the path of a file in the cell's folder, relative to the run's folder."""
        return str(self.result.folder / file)
