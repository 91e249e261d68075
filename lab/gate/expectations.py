"""Expectations: known failures that a gate lets pass, each with bug, owner and expiry. A TOML file in git."""

import datetime
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, Final

import tomlkit
from packaging.version import InvalidVersion, Version
from pydantic import Field, field_validator

from lab import causes
from lab.base.errors import UsageError
from lab.catalog import toml
from lab.gate.results import BuildResults, CellSummary, Identity
from lab.record import UNKNOWN, Status

# What a person must replace: `lab expect` cannot know it.
FILL_IN: Final = "FILL IN: "


class Draft(toml.Definition):
    """One `[[expect]]`, in which a person may still have to fill in values."""

    guest: str = Field(min_length=1, description="The guest's name; `*` and `?` stand for any characters.")
    variant: str = Field(min_length=1, description="The variant's name, likewise.")
    cause: str
    tests: list[str] | None = Field(default=None, description="No other test may fail. None: any may.")
    bug: str = Field(description="A link.")
    reason: str = Field(min_length=1, description="Why the failure is accepted for now.")
    owner: str = Field(min_length=1, description="Who is responsible for ending the failure.")
    until: str = Field(description="The last day, or the first version of boxlite, without this failure.")

    @field_validator("cause")
    @classmethod
    def _is_known(cls, cause: str) -> str:
        if cause not in (*causes.list_causes(), UNKNOWN):
            raise ValueError(f"expected a cause of `lab list causes`, or {UNKNOWN}; found {cause!r}")
        return cause

    @field_validator("bug")
    @classmethod
    def _is_link(cls, bug: str) -> str:
        if not bug.startswith(("https://", "http://", FILL_IN)):
            raise ValueError(f"expected a link that begins with https://, found {bug!r}")
        return bug

    @field_validator("until")
    @classmethod
    def _is_date_or_version(cls, until: str) -> str:
        if not until.startswith(FILL_IN) and _date(until) is None and _version(until) is None:
            example = 'a date such as 2027-01-31, or a version of boxlite such as "0.11.0"'
            raise ValueError(f"expected {example}; found {until!r}")
        return until

    def matches(self, guest: str, variant: str) -> bool:
        return fnmatchcase(guest, self.guest) and fnmatchcase(variant, self.variant)

    def covers(self, cell: CellSummary) -> bool:
        """Whether the cell failed in the way that is expected. A cell that could not run is never covered."""
        return (
            self.matches(cell.guest, cell.variant)
            and cell.status.failed
            and cell.cause == self.cause
            and (self.tests is None or set(cell.failed) <= set(self.tests))
        )

    def expiry(self, version: str, today: datetime.date) -> str:
        """Say since when the expectation has expired for this version of boxlite; empty if it has not."""
        last, fixed, built = _date(self.until), _version(self.until), _version(version)
        if last is not None:
            return f"expired on {last}" if today > last else ""
        if fixed is not None and built is not None and built >= fixed:
            return f"expired with boxlite {fixed}; this is {built}"
        return ""


class ExpectedFailure(Draft):
    """One `[[expect]]` of a file that a gate takes: everything is filled in."""

    @field_validator("bug", "reason", "owner", "until", mode="before")
    @classmethod
    def _is_filled_in(cls, value: object) -> object:
        if isinstance(value, str) and value.startswith(FILL_IN):
            raise ValueError(f"expected a value of yours, found {value!r}")
        return value


class _File[D: Draft](toml.Definition):
    expect: dict[str, D] = Field(default_factory=dict)


@dataclass(frozen=True)
class Expectations:
    """The expectations of a file, by the words that name each of them to a reader."""

    file: Path
    expect: Mapping[str, ExpectedFailure]


def read_expectations(file: Path) -> Expectations:
    """Read a file for a gate. Raises UsageError with every wrong key: what was expected and what was found."""
    return Expectations(file, toml.validate_table(file, _table(file), _File[ExpectedFailure]).expect)


def judge_failures(
    expectations: Expectations, results: BuildResults, today: datetime.date
) -> tuple[dict[Identity, ExpectedFailure], list[str]]:
    """Return the expectation that covers each known failure, and what is wrong with expectations."""
    covered: dict[Identity, ExpectedFailure] = {}
    problems: list[str] = []
    for name, expected in expectations.expect.items():
        matched = [cell for cell in results.cells.values() if expected.matches(*cell.identity)]
        covered |= {cell.identity: expected for cell in matched if expected.covers(cell)}
        faults = [expected.expiry(results.version, today)]
        # If it matches no cell of this run, another shard of the plan may have such a cell.
        if matched or not any(expected.matches(*identity) for identity in results.elsewhere):
            faults.append(_fault(expected, matched))
        problems += [f"{expectations.file}: expect.{name}: {fault}" for fault in faults if fault]
    return covered, problems


def find_stale_entries(
    expectations: Expectations, sides: Sequence[BuildResults], today: datetime.date
) -> list[str]:
    """Say of each entry that has expired or does not hold in these results that it does not, and why.

    Of two results of the same cell the later one counts. Without results only dates are looked at.
    """
    if not sides:
        entries = expectations.expect.items()
        expired = [(name, entry.expiry("", today)) for name, entry in entries]
        return [f"{expectations.file}: expect.{name}: {fault}" for name, fault in expired if fault]
    cells: dict[Identity, CellSummary] = {}
    for side in sides:
        cells |= side.cells
    elsewhere = frozenset().union(*(side.elsewhere for side in sides)) - cells.keys()
    return judge_failures(expectations, replace(sides[-1], cells=cells, elsewhere=elsewhere), today)[1]


def _fault(expected: Draft, matched: Sequence[CellSummary]) -> str:
    """Say why an expectation does not describe what its cells did; empty if it does, or if none of them ran."""
    if not matched:
        return "matches no cell of this run: remove it"
    if passed := [cell for cell in matched if cell.status.passed]:
        names = ", ".join(f"{cell.guest} {cell.variant}" for cell in passed)
        return f"{names} {'passes' if len(passed) == 1 else 'pass'}: remove it, or match fewer cells"
    ran = [cell for cell in matched if not cell.status.could_not_run]
    if not ran or any(expected.covers(cell) for cell in ran):
        return ""
    failures = []
    for cell in ran:
        name = f"{cell.guest} {cell.variant}"
        if not cell.status.failed:
            failures.append(f"{name} is {cell.status}")
        elif cell.cause != expected.cause:
            failures.append(f"{name} fails for {cell.cause}")
        else:
            more = sorted(set(cell.failed) - set(expected.tests or ()))
            failures.append(f"{name}: {', '.join(more)} failed too")
    return f"covers no failure: {'; '.join(failures)}"


def _table(file: Path) -> dict[str, Any]:
    """Read the file's table, with a name for each expectation that a reader can find it by."""
    table = toml.read_versioned(file, "expectations")
    entries = table.get("expect", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{file}: expect: expected tables that begin with [[expect]], found {entries!r}")
    expectations = {}
    for number, entry in enumerate(entries, 1):
        # TOML's own dates become text. A date with a time stays what it is, and is refused.
        values = {
            key: value.isoformat() if type(value) is datetime.date else value for key, value in entry.items()
        }
        expectations[f"{number} ({entry.get('guest')} {entry.get('variant')})"] = values
    return table | {"expect": expectations}


def _date(text: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(text) if text.count("-") == 2 else None
    except ValueError:
        return None


def _version(text: str) -> Version | None:
    # 2026-13-45 is a date that there is none of; as a version it would be 2026.post13.
    try:
        return Version(text) if text.count("-") < 2 else None
    except InvalidVersion:
        return None


HEAD: Final = """\
# Failures of boxlite that are known and accepted for now; `lab gate --expect` reads them.
# An entry fails the gate once it has expired, matches nothing, or its cells pass.
schema = 1
"""
# The beginning of an entry, with the comments right above it.
ENTRY: Final = re.compile(
    r"^(?:#.*\n)*(?P<table>[ \t]*\[\[[ \t]*expect[ \t]*\]\][ \t]*(?:#.*)?\r?)$", re.MULTILINE
)
FILL: Final = {
    "bug": "the link to the bug",
    "reason": "why this failure is accepted for now",
    "owner": "who is responsible for ending it",
    "until": "the last day (2027-01-31) or the version of boxlite that is fixed (0.11.0)",
}


@dataclass(frozen=True)
class RewrittenFile:
    """A file's old and new text, how many entries changed, and at which others a person has to look."""

    old: str
    new: str
    added: int
    removed: int
    look_at: Sequence[str]

    def diff(self, name: str) -> str:
        old, new = (text.splitlines(keepends=True) for text in (self.old, self.new))
        return "".join(difflib.unified_diff(old, new, f"a/{name}", f"b/{name}"))


def rewrite_expectations(file: Path, cells: Sequence[CellSummary]) -> RewrittenFile:
    """Make a file of expectations fit what cells did.

    Failed cells that no entry covers get one each. An entry whose cells all ran and show no such failure is
    removed with the comment right above it. Where it is not clear, a person has to look.

    Raises UsageError if the file has anything else than `[[expect]]` tables.
    """
    old = toml.read_toml_text(file) if file.exists() else ""
    drafts = toml.validate_table(file, _table(file), _File[Draft]).expect if file.exists() else {}
    # A comment at the top belongs to the file.
    starts = [entry.start() or entry.start("table") for entry in ENTRY.finditer(old)]
    bounds = [*starts, len(old)]
    if len(starts) != len(drafts):
        raise UsageError(f"{file}: expected every entry as a table that begins with a line [[expect]]")
    text = old[: bounds[0]] if old else HEAD
    removed = 0
    look_at: list[str] = []
    for (name, draft), (start, end) in zip(drafts.items(), pairwise(bounds), strict=True):
        matched = [cell for cell in cells if draft.matches(*cell.identity)]
        unclear = [cell for cell in matched if cell.status.could_not_run or cell.status is Status.FLAKY]
        if matched and not unclear and not any(map(draft.covers, matched)):
            removed += 1
            lines = old[start:end].splitlines(keepends=True)
            # Comments between an entry and the next one belong to neither.
            below = takewhile(lambda line: line.startswith("#") or not line.strip(), reversed(lines))
            text += "".join([*below][::-1]).lstrip("\n")
            continue
        text += old[start:end]
        if fault := _fault(draft, matched):
            look_at.append(f"expect.{name}: {fault}")
    new = [
        _entry(cell)
        for cell in cells
        if cell.status is Status.FAIL and not any(draft.covers(cell) for draft in drafts.values())
    ]
    for entry in new:
        text = f"{text.rstrip()}\n\n{entry}" if text.strip() else entry
    return RewrittenFile(old, text.rstrip("\n") + "\n", len(new), removed, look_at)


def _entry(cell: CellSummary) -> str:
    """Return an entry for one cell. A cause identifies a failure; an unknown one needs the tests for that."""
    cause = cell.cause or UNKNOWN
    table = tomlkit.table()
    table.update({"guest": cell.guest, "variant": cell.variant, "cause": cause})
    if cause == UNKNOWN:
        table["tests"] = sorted(cell.failed)
    table.update({key: f"{FILL_IN}{text}" for key, text in FILL.items()})
    comment = f"# {cell.reason}\n" if cell.reason else ""
    return f"{comment}[[expect]]\n{tomlkit.dumps(table)}"
