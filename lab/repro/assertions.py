"""What a report asserts of hosts, of boxlite or of a cure: lines to statements that a cell can show.

The patterns are rows of `assertions.toml`; the commands that a remedy is advised by stand with the remedy.
"""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any

from lab.base.paths import PACKAGE
from lab.repro import settings
from lab.repro.report import Assertion, Mood
from lab.repro.source import ReportText, find_matches, load_table, quote_line

TABLE = load_table(__file__)
ROWS: list[dict[str, Any]] = TABLE["assertion"]
SAYS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in TABLE["says"].items()}
PATTERNS = [re.compile(row["pattern"]) for row in ROWS]
# Most lines of a list above an item.
MOST_ABOVE = 20


def read_assertions(text: ReportText) -> Iterator[Assertion]:
    """Yield what the lines of a report assert."""
    for index, line in enumerate(text.lines):
        for row, pattern in zip(ROWS, PATTERNS, strict=True):
            for match in find_matches(pattern, line.text):
                if row.get("proposed", False) and not _is_proposed(text, index, match.start(), match.end()):
                    continue
                arguments = row.get("given", {}) | match.groupdict()
                words, variant = row["text"].format(**arguments), row.get("variant", "")
                yield Assertion(quote_line(line), words, row["observer"], arguments, variant)
        if SAYS["command"].search(line.text) and (advised := list(_advised_remedies(text, index))):
            words = f"it is cured by {' or '.join(advised)}"
            yield Assertion(quote_line(line), words, "cured", {"remedies": advised})


@cache
def read_remedies(word: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the remedies whose tables hold a word, as data, the one that gives up least first.

    Their models take longer to import than most reports to read.
    """
    files = {file.stem: file.read_text("utf-8") for file in (PACKAGE / "remedies").glob("*.toml")}
    remedies = [(name, tomllib.loads(text)) for name, text in files.items() if word in text]
    return sorted(remedies, key=lambda remedy: (remedy[1]["loss"], remedy[0]))


def _advised_remedies(text: ReportText, index: int) -> Iterator[str]:
    """Yield the names of the remedies that do what a command does which a line proposes."""
    words = text.lines[index].text
    for name, remedy in read_remedies("advised"):
        starts = [(words.find(phrase), phrase) for phrase in remedy.get("advised", ()) if phrase in words]
        if any(_is_proposed(text, index, start, start + len(phrase)) for start, phrase in starts):
            yield name


def _is_proposed(text: ReportText, index: int, start: int, end: int) -> bool:
    """Whether a line proposes what stands at these columns, and nobody says that it was in vain."""
    introduction = f"{text.lines[index].section}\n{_list_title(text, index)}\n{text.lead(index, start)}"
    if not SAYS["proposal"].search(f"{introduction} {text.lines[index].text}"):
        return False
    mood, helped = settings.judge_outcome(text, index, start, end, changes=True)
    return helped is not False and mood is not Mood.AVOIDED


def _list_title(text: ReportText, index: int) -> str:
    """The line above the list that a line is in; empty if it is in none."""

    def is_item(other: int) -> bool:
        return SAYS["item"].match(text.lines[text.blocks[text.lines[other].block].start].raw) is not None

    above = range(index - 1, max(-1, index - MOST_ABOVE), -1)
    return next((text.lines[other].text for other in above if not is_item(other)), "") if is_item(index) else ""
