"""Rewrites a file of expectations from runs: comments and all entries that still hold stay as they are."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import tomlkit

from lab.base.errors import UsageError
from lab.gate import expectations
from lab.gate.expectations import FILL_IN, PASSED, Draft
from lab.gate.results import CellSummary
from lab.record import UNKNOWN, Status

HEAD: Final = """\
# Failures of boxlite that are known and accepted for now; `lab gate --expect` reads them.
# An entry fails the gate once it has expired, matches nothing, or its cells pass.
"""
ENTRY: Final = re.compile(r"\s*\[\[\s*expect\s*\]\]\s*(#.*)?")
FLAG: Final = "# lab expect: "
FILL: Final = {
    "bug": "the link to the bug",
    "reason": "why this failure is accepted for now",
    "owner": "who sees to it that it ends",
    "until": "the last day (2027-01-31) or the version of boxlite that is fixed (0.11.0)",
}


@dataclass(frozen=True)
class Rewritten:
    """A file's text before and after, and what was done to it."""

    before: str
    after: str
    added: int
    removed: int
    flagged: int

    def diff(self, name: str) -> str:
        """Return the change as a unified diff; empty if there is none."""
        old, new = (text.splitlines(keepends=True) for text in (self.before, self.after))
        return "".join(difflib.unified_diff(old, new, f"a/{name}", f"b/{name}"))


def rewrite(file: Path, cells: Sequence[CellSummary]) -> Rewritten:
    """Make a file of expectations fit what cells did.

    Failed cells that no entry covers get one each. An entry whose cells all ran and show no such failure is
    removed; where it is not clear, a comment above it says what a person should look at.

    Raises UsageError if the file has anything else than `[[expect]]` tables.
    """
    drafts = expectations.read_drafts(file) if file.exists() else []
    before = file.read_text() if file.exists() else ""
    head, blocks = _split(before)
    if len(blocks) != len(drafts):
        raise UsageError(f"{file}: expected every entry as a table that begins with a line [[expect]]")
    kept, removed, flagged = [], 0, 0
    for draft, block in zip(drafts, blocks, strict=True):
        text = "".join(line for line in block if not line.startswith(FLAG))
        stale, flag = _look_at(draft, [cell for cell in cells if draft.matches(*cell.identity)])
        removed += stale
        flagged += bool(flag)
        if stale:
            kept.append(_comments_below(block))
        else:
            kept.append(f"{FLAG}{flag}\n{text}" if flag else text)
    new = [
        _entry(cell)
        for cell in cells
        if cell.status is Status.FAIL and not any(draft.covers(cell) for draft in drafts)
    ]
    after = _join([head if before else HEAD, *kept], new)
    return Rewritten(before, after, len(new), removed, flagged)


def _look_at(draft: Draft, matched: Sequence[CellSummary]) -> tuple[bool, str]:
    """Return whether an entry is to be removed, or else what a person should look at."""
    covered = [cell for cell in matched if draft.covers(cell)]
    passed = [cell for cell in matched if cell.status in PASSED]
    unclear = [cell for cell in matched if cell.status.could_not_run or cell.status is Status.FLAKY]
    if not matched:
        return False, "these runs have no cell that it matches"
    if covered:
        return (
            False,
            f"no failure any more, so match fewer cells: {expectations.names(passed)}" if passed else "",
        )
    if unclear:
        return False, f"cannot be judged: {expectations.names(unclear)}"
    return True, ""


def _split(text: str) -> tuple[str, list[list[str]]]:
    """Split a file into what is above the first entry, and its entries with the comments right above each."""
    lines = text.splitlines(keepends=True)
    starts = []
    for number, line in enumerate(lines):
        if ENTRY.fullmatch(line.rstrip("\r\n")):
            start = number
            while start > 0 and lines[start - 1].startswith("#"):
                start -= 1
            starts.append(start or _after_top_comment(lines, number))
    bounds = [*starts, len(lines)]
    return "".join(lines[: bounds[0]]), [lines[start:end] for start, end in pairwise(bounds)]


def _after_top_comment(lines: Sequence[str], number: int) -> int:
    """Return where an entry begins that is right below the comment at the top: that one belongs to the file."""
    while number > 0 and lines[number - 1].startswith(FLAG):
        number -= 1
    return number


def _comments_below(block: Sequence[str]) -> str:
    """Return the comments between an entry and the next one, which do not belong to either."""
    end = len(block)
    while end > 0 and (block[end - 1].startswith("#") or not block[end - 1].strip()):
        end -= 1
    return "".join(block[end:]).lstrip("\n")


def _join(kept: Iterable[str], new: Iterable[str]) -> str:
    """Join the parts of a file; new entries have a line before them."""
    text = "".join(kept)
    for entry in new:
        text = f"{text.rstrip()}\n\n{entry}" if text.strip() else entry
    return text.rstrip("\n") + "\n"


def _entry(cell: CellSummary) -> str:
    """Return an entry for one cell. A cause identifies a failure; an unknown one needs the tests for that."""
    table = tomlkit.table()
    table.update({"guest": cell.guest, "variant": cell.variant, "cause": cell.cause or UNKNOWN})
    if (cell.cause or UNKNOWN) == UNKNOWN:
        table["tests"] = sorted(cell.failed)
    table.update({key: f"{FILL_IN}{what}" for key, what in FILL.items()})
    comment = f"# {cell.reason}\n" if cell.reason else ""
    return f"{comment}[[expect]]\n{tomlkit.dumps(table)}"
