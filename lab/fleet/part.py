"""A part of a run: cells of one machine, as a coordinator sends them to a host. It is JSON and nothing else."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from lab import __version__, builds
from lab.base.errors import LabError, UsageError, one_line
from lab.base.files import bounded, plain
from lab.catalog import Catalog
from lab.fleet.trials import Known
from lab.images.content import Content
from lab.machine.budget import Memory
from lab.plan import Cell
from lab.record import RunOptions
from lab.run import definitions, start


class Refused(UsageError):
    """A host cannot run a part as the coordinator would: it has another lab or other definitions."""


class PartCell(BaseModel):
    """One cell. `argument` is what --build takes, `build` the name that it must turn out to have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    guest: str
    variant: str
    argument: str
    build: str

    @classmethod
    def of(cls, cell: Cell) -> "PartCell":
        """The cell as it is sent."""
        return cls(
            guest=cell.guest.name,
            variant=cell.variant.name,
            argument=cell.build.argument or cell.build.version,
            build=cell.build.name,
        )


class Part(BaseModel):
    """Cells of one machine, with all that a host must have in common with the coordinator to run them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    lab: str = Field(default=__version__, description="The version of the lab.")
    run: str
    number: int
    cells: list[PartCell]
    options: RunOptions
    definitions: dict[str, str]
    offline: bool = False
    image: Content | None = Field(default=None, description="What its machine has to run from; None: anything.")
    known: Known = Field(default_factory=Known, description="What is known of cells before they are run.")

    @classmethod
    def of(
        cls,
        run: str,
        number: int,
        cells: Sequence[Cell],
        options: RunOptions,
        image: Content | None = None,
        known: Known | None = None,
        *,
        offline: bool = False,
    ) -> "Part":
        """The part of a run that has these cells. `image` is the one that their guest has in this run."""
        return cls(
            run=run,
            number=number,
            cells=[PartCell.of(cell) for cell in cells],
            options=options,
            definitions=definitions.digests(cells, options),
            offline=offline,
            image=image,
            known=known or Known(),
        )

    @classmethod
    def read(cls, text: str | bytes) -> "Part":
        """Parse a part. Raises Refused if another lab sent it, or if it is no part."""
        try:
            raw = from_json(text)
            found = raw.get("lab") if isinstance(raw, dict) else None
            if isinstance(found, str) and found != __version__:
                raise Refused(
                    f"the coordinator is lab {bounded(plain(found), 40)}, and this host has lab {__version__}",
                    hint="install the same version on both",
                )
            return cls.model_validate(raw)
        except ValidationError as error:
            raise Refused(f"this is no part of a run: {one_line(error)}") from error
        except ValueError as error:
            raise Refused(f"this is no part of a run: {error}") from error

    def plan(self, folder: Path, known: Catalog) -> start.PlannedRun:
        """The part as a run of this host, in a new folder, which needs the evidence that is known.

        Raises Refused if this host does not have what the coordinator has.
        """
        found = {each.argument: each.build for each in self.cells}
        try:
            made = {argument: builds.resolve(argument) for argument in found}
            cells = [
                Cell(known.guest(each.guest), known.variant(each.variant), made[each.argument])
                for each in self.cells
            ]
        except LabError as error:
            raise Refused(f"this host lacks what the part needs: {error.args[0]}") from error
        for argument, build in made.items():
            if build.name != found[argument]:
                raise Refused(f"the build {argument} is {build.name} here, and {found[argument]} in the run")
        planned = start.begin(
            folder, cells, command=f"part {self.number} of run {self.run}", options=self.options, shard=None
        )
        if changed := definitions.changes(self.definitions, planned.info.definitions, "not as in the run"):
            raise Refused(
                f"this host has other definitions than the coordinator, {changed}",
                hint="check out the same version of the lab on both",
            )
        if self.known.results.keys() - {cell.folder for cell in cells}:
            raise Refused("this is no part of a run: it has the result of a cell that is not one of its own")
        planned = replace(planned, kept=self.known.kept)
        if self.image is None:
            return planned
        digest = self.image.digest
        return replace(
            planned, cells=[replace(cell, guest=cell.guest.from_image(digest)) for cell in planned.cells]
        )


def typical_seconds(cell: Cell, options: RunOptions, *, suite_ran: bool) -> float:
    """How long a cell of a part takes, or its trials alone if its suite ran before; the same on every host."""
    if suite_ran:
        return cell.typical_trials_seconds(options)
    return cell.typical_seconds(options) * options.repeat


def cut(
    cells: Iterable[Cell],
    options: RunOptions,
    most_seconds: float,
    suite_ran: Callable[[Cell], bool] = lambda cell: False,
) -> list[list[Cell]]:
    """Cut a plan into the cells of parts: those of one machine, which take at most about this long.

    The seconds are typical ones, which do not depend on the host. A cell that takes longer is a part by itself.
    The longest part comes first, so that none is left over at the end. `suite_ran` says on which cells only
    trials are left.
    """

    def seconds_of(cell: Cell) -> float:
        return typical_seconds(cell, options, suite_ran=suite_ran(cell))

    parts: dict[str, list[list[Cell]]] = {}
    spent: dict[str, float] = {}
    for cell in cells:
        seconds = seconds_of(cell)
        name = cell.machine.name
        own = parts.setdefault(name, [[]])
        if own[-1] and spent[name] + seconds > most_seconds:
            own.append([])
        spent[name] = seconds + (spent.get(name, 0.0) if own[-1] else 0.0)
        own[-1].append(cell)
    cut = [part for own in parts.values() for part in own]
    return sorted(cut, key=lambda part: -sum(map(seconds_of, part)))


def memory_mib(cells: Sequence[Cell]) -> int:
    """The memory that a lane for these cells of one machine needs."""
    return Memory.need_mib(cells[0].guest.memory_mib)
