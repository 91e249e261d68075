"""What changed since the site was published before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.site.answer import Kind
from lab.site.history import History, Seen
from lab.site.model import Site
from lab.site.page import Page
from lab.site.results import cell_page


@dataclass(frozen=True)
class Change:
    """A cell that the site shows with another result than before; None where it was not shown."""

    before: Seen | None
    now: Seen | None

    @property
    def cell(self) -> Seen:
        """The cell, whichever of both names it."""
        cell = self.now or self.before
        assert cell is not None
        return cell


def find(history: History) -> list[Change]:
    """Return the cells whose status or cause differs from what the site showed before, worst news first."""
    if not history.before:
        return []
    before = {seen.identity: seen for seen in history.before}
    now = {seen.identity: seen for seen in history.shown}
    pairs = [Change(before.get(key), now.get(key)) for key in sorted(before.keys() | now.keys())]
    return sorted((pair for pair in pairs if _result(pair.before) != _result(pair.now)), key=_urgency)


def outputs(site: Site) -> Iterator[Page]:
    """Yield the page with all changes."""
    values = {
        "address": lambda change: cell_page(change.cell.identity),
        "changed": find(site.history),
        "first": not site.history.before,
        "kind": _kind,
        "result": text,
    }
    yield Page("changes.html", "What changed", "changes.html", values, nav="Changes")


def text(seen: Seen | None) -> str:
    """Return a result in a few words."""
    if seen is None:
        return "not published"
    return f"{seen.status}: {seen.cause}" if seen.cause else str(seen.status)


def _result(seen: Seen | None) -> tuple[str, str | None] | None:
    return (seen.status, seen.cause) if seen else None


def _kind(seen: Seen | None) -> Kind:
    return Kind.of(seen.status if seen else None)


def _urgency(change: Change) -> int:
    order: Sequence[Kind] = (Kind.BLOCKED, Kind.TROUBLE, Kind.UNTESTED, Kind.WORKS)
    return order.index(_kind(change.now))
