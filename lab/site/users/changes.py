"""What changed since the site was published before."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.site.history import History, Seen
from lab.site.model import Site
from lab.site.page import Page
from lab.site.results import cell_page
from lab.site.users.answer import Kind


class Group(StrEnum):
    """The kinds of changes, in the order in which the page shows them."""

    CHANGED = "Another result"
    NEW = "New here"
    GONE = "No longer published"


@dataclass(frozen=True)
class Change:
    """A cell that the site shows with another result than before; None where it was not shown."""

    before: Seen | None
    now: Seen | None

    @property
    def group(self) -> Group:
        """Whether the cell is new, gone, or has another result."""
        if self.before is None:
            return Group.NEW
        return Group.GONE if self.now is None else Group.CHANGED

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
    found = find(site.history)
    values = {
        "address": lambda change: cell_page(change.cell.identity),
        "groups": {group: changes for group in Group if (changes := of_group(found, group))},
        "first": not site.history.before,
        "kind": _kind,
        "result": text,
        "summary": summary(found),
    }
    yield Page("changes.html", "What changed", "changes.html", values, nav="Changes")


def of_group(changes: Sequence[Change], group: Group) -> list[Change]:
    return [change for change in changes if change.group is group]


def summary(changes: Sequence[Change]) -> str:
    """Count the changes in a sentence without its end; empty if there are none."""
    counts = Counter(change.group for change in changes)
    words = {Group.CHANGED: "with another result", Group.NEW: "new", Group.GONE: "no longer published"}
    parts = [f"{counts[group]} {words[group]}" for group in Group if counts[group]]
    return f"Cells since this site was published before: {', '.join(parts)}" if parts else ""


def text(seen: Seen) -> str:
    """Return a result in a few words."""
    return f"{seen.status}: {seen.cause}" if seen.cause else str(seen.status)


def _result(seen: Seen | None) -> tuple[str, str | None] | None:
    return (seen.status, seen.cause) if seen else None


def _kind(seen: Seen | None) -> Kind:
    return Kind.of(seen.status if seen else None)


def _urgency(change: Change) -> int:
    order: Sequence[Kind] = (Kind.BLOCKED, Kind.TROUBLE, Kind.UNTESTED, Kind.WORKS)
    return order.index(_kind(change.now))
