"""Statements that say the same, made one: the first line that says it, and the most exact."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields

from lab.repro.report import AuditLine, Boxlite, Ended, Kernel, Probed, Statement, System

# The most statements of one kind that a report is read for; a log may hold thousands.
MOST = 200
# Fields of an audit line that differ each time the same is denied.
EACH_TIME = ("pid", "msg", "ino", "ppid", "ses", "auid", "type", "audit")


def merged(statements: Iterable[Statement]) -> tuple[Statement, ...]:
    """Return each statement once, in the order of the text; what another says more exactly is left out."""
    once: dict[object, Statement] = {}
    counts: Counter[type[Statement]] = Counter()
    for each in statements:
        key = _key(each)
        if key not in once and counts[type(each)] < MOST:
            once[key] = each
            counts[type(each)] += 1
    kept = list(once.values())
    return tuple(each for each in kept if not any(_says_more(other, each) for other in _exact(kept)))


def _key(statement: Statement) -> object:
    """Everything that a statement says, without the line."""
    if isinstance(statement, AuditLine):
        return frozenset((key, value) for key, value in statement.fields.items() if key not in EACH_TIME)
    if isinstance(statement, Probed):
        return Probed
    if isinstance(statement, System):
        return type(statement), statement.id, statement.version, statement.place
    return type(statement), *(
        getattr(statement, each.name) for each in fields(statement) if each.name != "quote"
    )


def _exact(statements: Iterable[Statement]) -> Iterator[Statement]:
    return (each for each in statements if isinstance(each, System | Kernel | Boxlite | Ended))


def _says_more(other: Statement, than: Statement) -> bool:
    """Whether a statement says all that another does, and more."""
    match other, than:
        case System(), System():
            same = (other.id, other.place) == (than.id, than.place)
            return same and than.version is None and other.version is not None
        case Kernel(), Kernel():
            return other.release != than.release and other.release.startswith(than.release)
        case Boxlite(), Boxlite():
            same = other.installed_by in (than.installed_by, None) or than.installed_by is None
            return (
                other != than
                and same
                and (
                    (
                        other.version == than.version
                        and than.installed_by is None
                        and other.installed_by is not None
                    )
                    or (
                        than.version is None
                        and other.installed_by == than.installed_by
                        and other.version is not None
                    )
                )
            )
    return False
