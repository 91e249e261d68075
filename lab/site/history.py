"""`history.json`: what the cells did in each published run, so that the next `lab publish` shows what changed.

The file also marks a folder as a site of the lab's, and names what the lab put there.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from lab.base.errors import UsageError
from lab.record import CellResult, Entry, Status
from lab.site.results import Identity, Published, Source

HISTORY_FILE: Final = "history.json"
FORMAT: Final = "boxlite-lab site"
# A run of 400 cells is about 40 KB.
MOST_RUNS: Final = 100


class Seen(Entry):
    """What a cell did in a run."""

    guest: str
    variant: str
    build: str
    status: Status
    cause: str | None = None
    run: str = Field(description="The run's id.")

    @property
    def identity(self) -> Identity:
        return self.guest, self.variant, self.build


class SeenRun(Entry):
    """A run that was published."""

    id: str
    started: datetime
    builds: dict[str, str] = Field(description="The version of each build, by its name.")
    cells: list[Seen]


class History(Entry):
    """The content of `history.json`."""

    model_config = ConfigDict(extra="forbid", validate_by_alias=True, validate_by_name=True)

    format: Literal["boxlite-lab site"] = FORMAT
    version: Literal[1] = Field(default=1, alias="schema")
    entries: list[str] = Field(
        default_factory=list, description="The files and folders at the top of the site that the lab made."
    )
    runs: list[SeenRun] = Field(default_factory=list, description="The published runs, the newest first.")
    shown: list[Seen] = Field(default_factory=list, description="The results that the site shows.")
    before: list[Seen] = Field(
        default_factory=list, description="The results that it showed before, where they were others."
    )

    def published(self, sources: Iterable[Source], cells: Mapping[Identity, Published]) -> "History":
        """Return the history with these runs, and with these cells as what the site shows."""
        known = {run.id: run for run in self.runs} | {source.id: _run(source) for source in sources}
        runs = sorted(known.values(), key=lambda run: run.started, reverse=True)[:MOST_RUNS]
        shown = [_seen(each.cell, each.source.id) for each in cells.values()]
        same = outcomes(shown) == outcomes(self.shown)
        return History(runs=runs, shown=shown, before=self.before if same else self.shown)


def read(folder: Path) -> History:
    """Read the history in a site's folder; an empty one if the folder has none. Raises UsageError."""
    path = folder / HISTORY_FILE
    try:
        return History.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return History()
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}", hint="publish into another folder"
        ) from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        key = ".".join(map(str, first["loc"])) or "the whole file"
        raise UsageError(
            f"{path}: {key}: {first['msg']}; expected the history that `lab publish` writes",
            hint="restore the file, or publish into another folder; nothing was changed",
        ) from error


def outcomes(cells: Iterable[Seen]) -> dict[Identity, tuple[Status, str | None]]:
    """Return status and cause of each cell by its identity."""
    return {seen.identity: (seen.status, seen.cause) for seen in cells}


def _run(source: Source) -> SeenRun:
    info = source.run.run
    cells = sorted((_seen(cell, source.id) for cell in source.run.cells), key=lambda seen: seen.identity)
    builds = {build.name: build.version for build in info.builds}
    return SeenRun(id=info.id, started=info.started, builds=builds, cells=cells)


def _seen(cell: CellResult, run: str) -> Seen:
    return Seen(
        guest=cell.guest, variant=cell.variant, build=cell.build, status=cell.status, cause=cell.cause, run=run
    )
