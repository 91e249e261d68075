"""What becomes of the results that hosts send: they arrive in pieces, and are taken in one by one."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.base.files import bounded, plain
from lab.fleet import archive
from lab.fleet.archive import DamagedResult
from lab.fleet.attempt import Attempt, Piece
from lab.fleet.merging import Merger
from lab.fleet.names import LaneNames
from lab.fleet.receiving import Receiver
from lab.fleet.spending import Reading, Spending
from lab.plan import Cell
from lab.run.labels import Labels

# What is kept of the words of a host's lab that failed, in characters.
LONGEST_WORDS = 1_000


@dataclass(frozen=True)
class End:
    """How an attempt ended on its host, as that says.

    `status` is the exit status of its lab, `words` are the last of its output; `refused` says why it did not
    run the part at all. `spent` is what the host measured since it joined.
    """

    size: int = 0
    digest: str = ""
    status: int | None = None
    words: str = ""
    refused: str = ""
    spent: Reading | None = None

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> "End":
        """What a host said, which may be anything."""
        digest, words, refused = (
            plain(text).strip() if isinstance(text := said.get(key), str) else ""
            for key in ("digest", "words", "refused")
        )
        size, status = (n if isinstance(n := said.get(key), int) else None for key in ("size", "status"))
        return cls(
            size or 0,
            digest,
            status,
            words[-LONGEST_WORDS:],
            bounded(refused, LONGEST_WORDS),
            Reading.read(said.get("spent")),
        )


@dataclass
class Intake:
    """Takes the results of one run's parts in."""

    merger: Merger
    receiver: Receiver
    spending: Spending = field(default_factory=Spending)
    _names: dict[str, LaneNames] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._labels = Labels(self.merger.journal.info.lanes)

    def names(self, attempt: Attempt) -> LaneNames:
        """The names of the lanes of an attempt."""
        return self._names.setdefault(attempt.token, LaneNames(attempt.host, self._labels))

    def undecided(self, piece: Piece) -> list[Cell]:
        """The cells of a part that nobody has decided, or on which trials are left for this run."""
        return [cell for cell in piece.cells if self.merger.is_open(cell)]

    def shown(self, piece: Piece) -> int:
        """Of how many cells of a part it is known what their suites showed."""
        return sum(map(self.merger.journal.is_decided, piece.cells))

    def take(self, attempt: Attempt, end: End) -> str:
        """Unpack a result and take it in. Return what is wrong with it; empty if nothing is.

        Raises OtherBuild, ResultsNotWritten, OSError.
        """
        self.spending.add(attempt.host, end.spent)
        try:
            file = self.receiver.whole(attempt.token, end.size, end.digest)
            if file is None:
                return ""
            with tempfile.TemporaryDirectory(dir=file.parent) as name:
                unpacked, cells = Path(name), attempt.piece.cells
                result = archive.unpack(file, unpacked, [cell.folder for cell in cells])
                names, faults = self.names(attempt), attempt.piece.faults
                self.merger.take(cells, result, unpacked, names, faults, attempt.shown)
            self.spending.add(attempt.host, end.spent, sum(each.lanes for each in result.run.processor_time))
            return ""
        except DamagedResult as error:
            return f"the result of {attempt.host} cannot be used: {error}"
        finally:
            self.receiver.forget(attempt.token)
