"""The lines of a report in their context: the sentence around a word, and the system that it is about."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from lab.base.files import bounded
from lab.repro.report import Place, Quote
from lab.repro.source import Kind, Line

TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("reading.toml").read_text())
# Longest quote, longest single fact, and most of a sentence before or after a fact, in characters.
LONGEST = 1_000
MOST_ON_A_LINE = 20
# Most lines of output between a command and the sentence that says what came of it.
MOST_OUTPUT = 200
# Longest heading that says which system the lines below it are from.
LONGEST_SECTION = 30
SAYS = {name: re.compile(pattern) for name, pattern in TABLE["lines"].items()}
END_OF_SENTENCE = re.compile(r"[.!?](?=\s|$)")


@dataclass(frozen=True)
class Text:
    """The lines of a report, and how they belong together."""

    lines: Sequence[Line]

    @cached_property
    def blocks(self) -> dict[int, range]:
        """The indexes of each block's lines."""
        blocks: dict[int, range] = {}
        for index, line in enumerate(self.lines):
            first = blocks[line.block].start if line.block in blocks else index
            blocks[line.block] = range(first, index + 1)
        return blocks

    @cached_property
    def advice(self) -> frozenset[int]:
        """The indexes of lines in which boxlite, or another program, advises what nobody need have done."""
        advice = set[int]()
        for index, line in enumerate(self.lines):
            goes_on = line.raw[:1].isspace() or line.text.startswith("#")
            if SAYS["advice"].match(line.text) or (index - 1 in advice and goes_on):
                advice.add(index)
        return frozenset(advice)

    def lead(self, index: int, start: int) -> str:
        """The words before column `start` of a line: its sentence so far, or what introduces its block."""
        line, block = self.lines[index], self.blocks[self.lines[index].block]
        here = "" if line.kind is Kind.CODE else self._joined(range(block.start, index))
        words = f"{here} {line.text[:start]}"[-LONGEST:]
        ends = [end.end() for end in END_OF_SENTENCE.finditer(words)]
        words = words[ends[-1] if ends else 0 :]
        return words if words.strip(" -*:$#") else f"{self._introduction(block.start)} {words}"

    def tail(self, index: int, end: int) -> str:
        """The words after column `end` of a line: the rest of its sentence."""
        line, block = self.lines[index], self.blocks[self.lines[index].block]
        after = "" if line.kind is Kind.CODE else self._joined(self._going_on(index + 1, block.stop))
        words = f"{line.text[end:]} {after}"[:LONGEST]
        stop = END_OF_SENTENCE.search(words)
        return words[: stop.start()] if stop else words

    def next_sentence(self, index: int) -> str:
        """The first sentence after the block of a line, if it is prose."""
        stop = self.blocks[self.lines[index].block].stop
        after = range(stop, min(stop + MOST_OUTPUT, len(self.lines)))
        following = next((number for number in after if self.lines[number].kind is not Kind.CODE), None)
        if following is None or self.lines[following].kind is not Kind.PROSE:
            return ""
        return self.tail(following, 0)

    def introduction(self, index: int) -> str:
        """The line that introduces the block of a line, mostly with a colon. Empty if there is none."""
        return self._introduction(self.blocks[self.lines[index].block].start)

    def _introduction(self, index: int) -> str:
        for before in reversed(self.lines[max(0, index - 8) : index]):
            if SAYS["introduces"].search(before.text):
                return before.text
            if before.kind is not self.lines[index].kind:
                break
        return ""

    def _going_on(self, start: int, stop: int) -> range:
        """The lines up to the next one that is about something else."""
        stop = min(stop, start + 8)
        ends = (index for index in range(start, stop) if SAYS["else"].match(self.lines[index].text))
        return range(start, next(ends, stop))

    def _joined(self, indexes: range) -> str:
        # A paragraph may be as long as the report.
        return " ".join(self.lines[index].text for index in indexes[-8:] if indexes) if indexes else ""


def matches(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The first matches on a line; no line that a person wrote holds more."""
    return islice(pattern.finditer(text), MOST_ON_A_LINE)


def quote(line: Line, last: int = 0) -> Quote:
    """Quote a line. `last`: the number of the last line that was read with it."""
    return Quote(line.number, bounded(line.raw.strip(), LONGEST), last or line.number)


def place(line: Line, start: int = 0) -> Place:
    """Which system the words at column `start` of a line are about."""
    text = line.labelled
    start += len(text) - len(line.text)
    begins = [0, *(end.end() for end in SAYS["clause"].finditer(text) if end.end() <= start)][-1]
    ends = next((end.start() for end in SAYS["clause"].finditer(text) if end.start() > start), len(text))
    label = SAYS["label"].match(text)
    # A title says what a report is about, and not where each of its lines is from.
    section = line.section if len(line.section) <= LONGEST_SECTION else ""
    if SAYS["host"].search(text[begins:ends]):
        return Place.HOST
    if SAYS["container"].search(text[begins:ends]):
        return Place.CONTAINER
    for words in (label[1] if label else "", section):
        if SAYS["host"].search(words):
            return Place.HOST
        if SAYS["of_container"].search(words):
            return Place.CONTAINER
    return Place.HOST
