"""Distributions: guests of one system and release together, by their facts or else by their names."""

from dataclasses import dataclass
from functools import cached_property

from lab.probes import Facts
from lab.record import CellResult
from lab.site.model import Site
from lab.site.page import slug


@dataclass(frozen=True)
class Distribution:
    """One release of a distribution, with all guests that have it; the plainest guest comes first."""

    name: str
    title: str
    guests: tuple[str, ...]

    @property
    def page(self) -> str:
        return f"hosts/{slug(self.name)}.html"

    @property
    def badge(self) -> str:
        return f"badges/{slug(self.name)}.json"

    @cached_property
    def words(self) -> tuple[str, str]:
        """The system and its release as a name writes them: debian and 13."""
        system, _, release = self.name.partition("-")
        return system, release


def group(site: Site) -> list[Distribution]:
    """Return all distributions with results or in the catalog, sorted by name and release."""
    guests: dict[str, list[str]] = {}
    for guest in [*site.guests, *(name for name in site.catalog.guests if name not in site.guests)]:
        guests.setdefault(_name(guest, facts_of(site, guest)), []).append(guest)
    made = [_distribution(site, name, theirs) for name, theirs in guests.items()]
    return sorted(made, key=lambda each: _natural(each.name))


def facts_of(site: Site, guest: str) -> Facts | None:
    """Return the facts of a guest in its plainest cell that has any; None if none of its cells was ever up."""
    cells = sorted((each.cell for each in site.of_guest(guest)), key=_plainness)
    return next((cell.facts for cell in cells if cell.facts), None)


def _distribution(site: Site, name: str, guests: list[str]) -> Distribution:
    ordered = sorted(guests, key=lambda guest: (guest != name, guest not in site.guests, len(guest), guest))
    defined = site.catalog.guests.get(ordered[0])
    facts = facts_of(site, ordered[0])
    title = defined.title if defined else facts and facts.os.pretty_name
    return Distribution(name, title or name, tuple(ordered))


def _name(guest: str, facts: Facts | None) -> str:
    """Return ID and VERSION_ID of the guest's system, or else the first two words of the guest's name.

    Debian testing and unstable have no VERSION_ID, and the same os-release; their guests' names differ.
    """
    if facts and facts.os.id and facts.os.version_id:
        return f"{facts.os.id}-{facts.os.version_id}"
    return "-".join(guest.split("-")[:2])


def _plainness(cell: CellResult) -> tuple[bool, str]:
    return cell.variant != "stock", cell.variant


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sort numbers in a name by value, before words: debian-9, debian-12, debian-sid."""
    return [_natural_word(word) for word in name.replace(".", "-").split("-")]


def _natural_word(word: str) -> tuple[bool, int, str]:
    number = word.isdecimal() and len(word) < 10
    return not number, int(word) if number else 0, word
