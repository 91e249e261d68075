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

    @cached_property
    def is_inside(self) -> bool:
        """Whether the cell's folder is in the run's, not behind a link: a record may name anything."""
        try:
            whole, folder = self.run.resolve(), self.folder.resolve()
            return folder == whole / self.result.folder and folder.is_relative_to(whole)
        except (OSError, ValueError):  # No path can hold such a name.
            return False

    @cached_property
    def evidence(self) -> Evidence:
        """What the rules of the causes read. Raises LabError if a file cannot be read."""
        return evidence.read(self.folder, self.result.tests) if self.is_inside else Evidence()

    @cached_property
    def words(self) -> Words:
        return words.read(self.folder, self.result.tests) if self.is_inside else Words()

    @cached_property
    def refusals(self) -> dict[str, list[str]]:
        """What the kernel refused, by file. Raises LabError if a file cannot be read."""
        return evidence.refusals(self.folder) if self.is_inside else {}

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
