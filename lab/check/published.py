"""Published results: those of runs, or those of a site that `lab publish` made. Both hold the same data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lab.base.errors import UsageError, one_line
from lab.run import journal, past
from lab.site import model
from lab.site.model import History
from lab.site.users import host_data, hosts
from lab.site.users.answer import Kind, Value

# Bytes of a site's data that are read. A site of 1000 cells has about 2 MiB.
LARGEST = 64 << 20
AGAIN = "publish the site again with this lab"


class _Data(BaseModel):
    """Part of what a site says about hosts. A newer lab may say more."""

    model_config = ConfigDict(frozen=True)


class System(_Data):
    """How a system names itself in /etc/os-release."""

    id: str | None
    version: str | None
    codename: str | None


class Distribution(_Data):
    """A release of a distribution, as the site shows it."""

    name: str
    title: str
    kind: Kind
    headline: str
    reason: str
    systems: tuple[System, ...]


class Remedy(_Data):
    """A remedy that was verified on a cell, or several together; the digests are those of what was tried."""

    name: str
    title: str
    price: str
    digests: dict[str, str]


class Cell(_Data):
    """A tested cell: its settings, and the answer for a user."""

    distribution: int
    guest: str
    system: str
    variant: str
    title: str
    build: str
    kind: Kind
    headline: str
    causes: tuple[str, ...]
    why: tuple[str, ...]
    remedy: Remedy | None
    settings: dict[str, Value]
    changed: int


class Published(_Data):
    """All that is published. A cell's `distribution` is its place in `distributions`."""

    distributions: tuple[Distribution, ...]
    cells: tuple[Cell, ...]

    @model_validator(mode="after")
    def _has_the_distributions(self) -> "Published":
        for cell in self.cells:
            if not 0 <= cell.distribution < len(self.distributions):
                raise ValueError(
                    f"a cell of {cell.guest} is of distribution {cell.distribution}, which is not there"
                )
        return self

    def of(self, distributions: Iterable[Distribution]) -> list[Cell]:
        """Return the cells of some distributions that have settings to compare with."""
        wanted = set(distributions)
        return [
            cell for cell in self.cells if cell.settings and self.distributions[cell.distribution] in wanted
        ]


@dataclass(frozen=True)
class Loaded:
    """Published results, where they come from, and why others of the lab's own were left out."""

    published: Published
    sources: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def load(results: Sequence[str], runs: Path) -> Loaded:
    """Read the named runs and sites; without a name, all of the lab's own runs, which are in the folder `runs`.

    Raises UsageError for a name that is neither, and for a run or site that cannot be read.
    """
    if not results:
        return _own(runs)
    sites = [Path(name) for name in results if (Path(name) / host_data.DATA_FILE).is_file()]
    folders = [journal.find_folder(runs, name) for name in results if Path(name) not in sites]
    parts = [_of_site(site) for site in sites]
    if folders:
        parts.append(_of_runs(folders))
    return Loaded(_joined(parts), tuple(results))


def _own(runs: Path) -> Loaded:
    known = [past.read(folder) for folder in past.folders(runs)]
    whole = [run for run in known if run.record and run.record.cells]
    left_out = [f"{run.name}: {run.fault or 'it has no cells yet'}" for run in known if run not in whole]
    parts = [_of_runs([run.folder for run in whole])] if whole else []
    return Loaded(_joined(parts), tuple(run.name for run in whole), tuple(left_out))


def _of_runs(folders: Sequence[Path]) -> Published:
    site = model.load(folders, History())
    return Published.model_validate(host_data.data(site, hosts.load(site)))


def _of_site(folder: Path) -> Published:
    path = folder / host_data.DATA_FILE
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"--results {folder}: {path.name}: {error.strerror}", hint=AGAIN) from error
    if len(text) > LARGEST or not text.startswith(host_data.BEFORE):
        raise UsageError(f"--results {folder}: {path.name} is not what `lab publish` writes", hint=AGAIN)
    try:
        return Published.model_validate_json(text.removeprefix(host_data.BEFORE).removesuffix(host_data.AFTER))
    except ValidationError as error:
        raise UsageError(
            f"--results {folder}: {path.name}: {one_line(error)}",
            hint=AGAIN,
        ) from error


def _joined(parts: Sequence[Published]) -> Published:
    distributions: list[Distribution] = []
    cells: list[Cell] = []
    for part in parts:
        first = len(distributions)
        cells += [each.model_copy(update={"distribution": first + each.distribution}) for each in part.cells]
        distributions += part.distributions
    return Published(distributions=tuple(distributions), cells=tuple(cells))
