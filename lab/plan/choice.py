"""Choosing guests and variants by name."""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.builds import Build
from lab.catalog import Catalog, Guest, Variant
from lab.plan.cell import Cell


@dataclass(frozen=True)
class Choice:
    """The guests and variants that were chosen, in the order in which reports show them."""

    guests: list[Guest]
    variants: list[Variant]

    def cells(self, builds: Sequence[Build]) -> list[Cell]:
        """Return a cell for each guest in each variant with each build."""
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
    """Look up guests and variants by name.

    A set lists guests and variants; `guests` and `variants` override its lists. Without a set, the lists are
    all guests and all variants of the catalog. Raises UsageError for a name that is not in the catalog.
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
