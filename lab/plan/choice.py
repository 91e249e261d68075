"""Which cells a command line asks for."""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.builds import Build
from lab.catalog import Catalog, Guest, Variant
from lab.plan.cell import Cell


@dataclass(frozen=True)
class Choice:
    """Which guests in which variants, by name, in the order in which they are shown."""

    guests: list[Guest]
    variants: list[Variant]

    def cells(self, builds: Sequence[Build]) -> list[Cell]:
        return [
            Cell(guest, variant, build)
            for guest in self.guests
            for variant in self.variants
            for build in builds
        ]


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
