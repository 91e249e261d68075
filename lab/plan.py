"""The plan: which cells to run."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.builds import Build
from lab.catalog import Catalog, Guest, Variant
from lab.results import CellResult, Status


@dataclass(frozen=True)
class Cell:
    """One square of the matrix, not run yet."""

    guest: Guest
    variant: Variant
    build: Build

    @property
    def folder(self) -> Path:
        """Where its evidence goes, relative to the run's folder."""
        return Path("cells", self.guest.name, self.variant.name, self.build.name)

    def rerun(self, *, cold: bool, rootfs: Path | None) -> str:
        """One command line that runs exactly this cell again."""
        build = str(self.build.wheel or self.build.version)
        words = ["lab", "matrix", "-g", self.guest.name, "-v", self.variant.name, "--build", build]
        words += ["--cold"] if cold else []
        words += ["--rootfs", str(rootfs)] if rootfs else []
        return shlex.join(words)

    def result(self, status: Status, *, reason: str = "") -> CellResult:
        """A result for this cell, with nothing in it but its status and why."""
        return CellResult(
            guest=self.guest.name,
            variant=self.variant.name,
            build=self.build.name,
            status=status,
            expected=self.variant.expect,
            reason=reason,
        )


@dataclass(frozen=True)
class Choice:
    """Which guests in which variants, by name, in the order in which they are shown."""

    guests: list[Guest]
    variants: list[Variant]

    def cells(self, build: Build) -> list[Cell]:
        return [Cell(guest, variant, build) for guest in self.guests for variant in self.variants]


def choose(
    catalog: Catalog,
    *,
    set_name: str | None = None,
    guests: Sequence[str] = (),
    variants: Sequence[str] = (),
) -> Choice:
    """The cells that a command line asks for.

    A set names guests and variants; `guests` and `variants` replace its own choice. Without any of them:
    every guest in every variant. Raises UsageError for a name that the catalog does not have.
    """
    chosen = catalog.set(set_name) if set_name is not None else None
    guest_names = guests or (chosen.guests if chosen else catalog.guests)
    variant_names = variants or (chosen.variants if chosen else _stock_first(catalog))
    return Choice(
        [catalog.guest(name) for name in dict.fromkeys(guest_names)],
        [catalog.variant(name) for name in dict.fromkeys(variant_names)],
    )


def _stock_first(catalog: Catalog) -> list[str]:
    return sorted(catalog.variants, key=lambda name: (name != "stock", name))
