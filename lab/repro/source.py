"""A report's text: the forms in which it arrives, its lines, and what stands around a word on one of them.

Markdown's blocks tell code from prose, rows of a table from sentences, and what belongs together. HTML is text.
What the words around a fact say is in the table `lines` of `reading.toml`.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from lab.base.errors import UsageError
from lab.base.files import check_values, clean_text, cut_text
from lab.repro.report import Place, Quote


def load_table(module: str) -> dict[str, Any]:
    """Load the table beside a module, by the module's file. The table explains its rows."""
    return tomllib.loads(Path(module).with_suffix(".toml").read_text("utf-8"))


TABLE = load_table(str(Path(__file__).with_name("reading.toml")))
# What all words have: a long line of digits and marks need not be looked at for each of them.
LETTER = re.compile(r"[^\W\d_]")
SAYS = {name: re.compile(pattern) for name, pattern in TABLE["lines"].items()}
# A report is cut to these; an issue of GitHub's has at most 65,536 characters.
MOST_BYTES = 8 * 2**20
MOST_CHARACTERS = 250_000
MOST_LINES = 10_000
MOST_IN_A_LINE = 4_000
# A wider gap tells nothing, and rules would look at each of its spaces.
WIDEST_GAP = 40
GAP = re.compile(rf"[^\S\n]{{{WIDEST_GAP},}}")
# Longest quote, and most of a sentence before or after a fact, in characters; and most facts of a line.
LONGEST = 1_000
MOST_ON_A_LINE = 20
# Most lines of output between a command and the sentence that says what came of it, and most lines of a block
# that a sentence goes on over. A paragraph may be as long as the report.
MOST_OUTPUT, MOST_WRAPPED = 200, 8
# Longest heading that can be the name of a form's field, and longest one that says which system the lines
# below it are from: a title says what a report is about.
LONGEST_LABEL, LONGEST_SECTION = 80, 30
URL = re.compile(r"https?://\S+")
ISSUE = re.compile(r"https?://github\.com/([\w.-]{1,100}/[\w.-]{1,100})/(?:issues|pull)/(\d{1,9})\b")
END_OF_SENTENCE = re.compile(r"[.!?](?=\s|$)")
# Byte order marks, as Windows' programs write them.
ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# Blocks, without what is inside a line; definitions of links would swallow lines such as `[1]: text`.
BLOCKS = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["reference", "inline"])
# What is inside a line: only what hides characters that were meant. Links stay as they were written.
INLINE = MarkdownIt("zero").enable(["backticks", "emphasis", "escape", "entity"])
# Characters that can begin any of these.
MARKS = frozenset("`*_\\&")
COMMENT = re.compile("<!(?=--).*?-->", re.DOTALL)


def format_source_command(address: str = "") -> str:
    """Return the command that gives an issue of GitHub as a report: the one at the address, if it is one."""
    issue = ISSUE.match(address)
    repository, number = issue.groups() if issue else ("OWNER/NAME", "NUMBER")
    return f"gh issue view {number} --repo {repository} --json title,body,comments | lab repro -"


def read_lines(data: bytes) -> "ReportText":
    """Read a report from any of its forms, without control characters. Raises UsageError if it is none."""
    beginning_of_data = data[:MOST_BYTES]
    encoding = next((name for mark, name in ENCODINGS.items() if beginning_of_data.startswith(mark)), "utf-8")
    text = beginning_of_data.decode(encoding, errors="replace")
    beginning = text[:MOST_IN_A_LINE]
    odd = sum(character == "\ufffd" or character < "\t" for character in beginning)
    if "\0" in beginning or odd * 5 > len(beginning):
        raise UsageError(
            "the report is binary data, not text", hint=f"give the report's text: {format_source_command()}"
        )
    if text.lstrip().startswith(("{", "[")):
        text = _of_json(text)
    text = clean_text(text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.strip():
        raise UsageError(
            "the report is empty",
            hint=f"give the text of a report, as a file or through a pipe: {format_source_command()}",
        )
    if URL.fullmatch(text.strip()):
        raise UsageError(
            f"the report is an address, {text.strip()[:200]}, and nothing is fetched",
            hint=format_source_command(text.strip()),
        )
    lines = [line[:MOST_IN_A_LINE] for line in text[:MOST_CHARACTERS].split("\n", MOST_LINES)[:MOST_LINES]]
    cut = sum(map(len, lines)) + len(lines) - 1 < len(text) or len(data) > MOST_BYTES
    return ReportText(parse("\n".join(GAP.sub(" " * WIDEST_GAP, line) for line in lines)), len(text), cut)


def _of_json(text: str) -> str:
    """Return an issue in JSON as Markdown, with the title as its heading; other text unchanged."""
    try:
        check_values(text)
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(document, dict):
        raise UsageError("the report is JSON, but not an object with `body`", hint=format_source_command())
    comments = document.get("comments")
    parts = [document, *(comments if isinstance(comments, list) else [])]
    bodies = [part.get("body") for part in parts if isinstance(part, dict)]
    written = [body for body in bodies if isinstance(body, str) and body.strip()]
    if not written:
        raise UsageError(
            "the report is JSON without any text in `body` or `comments`", hint=format_source_command()
        )
    title = document.get("title")
    heading = [f"# {' '.join(title.split())}"] if isinstance(title, str) and title.strip() else []
    return "\n\n".join([*heading, *written])


# -- lines


class LineKind(StrEnum):
    """What a line is."""

    PROSE = "prose"
    CODE = "code"
    HEADING = "heading"
    ROW = "row"


@dataclass(frozen=True)
class ReportLine:
    """One line of a report. `number` counts from 1.

    `raw` is the line as it was written, `text` the same without Markdown's marks. A row of a table is written
    as `name: value`. Lines with the same `block` belong together: a paragraph, the first paragraph of a list's
    item, a block of code, a row. `label` is the heading right above; `section` is the last heading.
    """

    number: int
    raw: str
    text: str
    kind: LineKind
    block: int
    label: str = ""
    section: str = ""

    @property
    def labelled(self) -> str:
        """The line as `label: text` if it is the value of a form's field, else its text."""
        return f"{self.label}: {self.text}" if self.label else self.text


def parse(text: str) -> list[ReportLine]:
    """Return the lines of a Markdown text that hold anything, in order."""
    raw = text.split("\n")
    # Readers of an issue do not see HTML comments, which hold the form's own examples. Where none ends there is
    # nothing to look for, from any of their beginnings.
    head, end, foot = text.rpartition("-->")
    blanked = COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), head + end)
    visible = f"{blanked}{foot}".split("\n")
    lines: dict[int, ReportLine] = {}
    section, label, block = "", "", 0
    fences: set[int] = set()
    header: list[str] = []
    for kind, first, contents in _blocks(BLOCKS.parse("\n".join(visible))):
        block += 1
        if kind is LineKind.ROW:
            cells = [_inline(cell) for cell in contents]
            has_names = len(cells) > 2 and len(header) == len(cells)
            pairs = (f"{name}: {cell}" for name, cell in zip(header, cells, strict=False))
            contents, header = ["; ".join(pairs) if has_names else ": ".join(cells)], header or cells
        else:
            header = []
        if kind is LineKind.CODE and visible[first].lstrip().startswith(("```", "~~~")):
            fences |= {first, first + len(contents) + 1}
            first += 1
        for index, content in enumerate(contents, first):
            if not content.strip() or index in lines or index >= len(raw):
                continue
            words = _inline(content) if kind in (LineKind.PROSE, LineKind.HEADING) else content
            lines[index] = ReportLine(index + 1, raw[index], words, kind, block, label, section)
            label = ""
        if kind is LineKind.HEADING:
            section = " ".join(contents).strip()
            label = section.rstrip(": ") if len(section) <= LONGEST_LABEL else ""
    for index, content in enumerate(visible):
        # Blocks that are nested too deeply, and the like.
        if index not in lines and index not in fences and any(map(str.isalnum, content)):
            block += 1
            lines[index] = ReportLine(index + 1, raw[index], content, LineKind.PROSE, block)
    return [lines[index] for index in sorted(lines)]


def _blocks(tokens: Iterable[Token]) -> Iterator[tuple[LineKind, int, list[str]]]:
    """Yield each block: its kind, the index of its first line, and its lines, or the cells of a row."""
    row: list[str] | None = None
    heading = False
    for token in tokens:
        first = token.map[0] if token.map else 0
        match token.type:
            case "heading_open" | "heading_close":
                heading = token.type == "heading_open"
            case "tr_open":
                row, row_at = [], first
            case "tr_close" if row is not None:
                yield LineKind.ROW, row_at, row
                row = None
            case "inline" if row is not None:
                row.append(token.content)
            case "inline":
                yield LineKind.HEADING if heading else LineKind.PROSE, first, token.content.split("\n")
            case "fence" | "code_block":
                yield LineKind.CODE, first, token.content.removesuffix("\n").split("\n")


def _inline(content: str) -> str:
    """Return a line without Markdown's marks."""
    if MARKS.isdisjoint(content):
        return content
    parts = INLINE.parseInline(content)[0].children or []
    # An entity may stand for a character that hides text or ends the line.
    return clean_text("".join(part.content for part in parts)).replace("\n", " ")


def quote_line(line: ReportLine, last: int = 0) -> Quote:
    """Quote a line. `last`: the number of the last line that was read with it."""
    return Quote(line.number, cut_text(line.raw.strip(), LONGEST), last or line.number)


def find_matches(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The first matches on a line; no line that a person wrote holds more."""
    return islice(pattern.finditer(text), MOST_ON_A_LINE)


# -- what stands around a word


@dataclass(frozen=True)
class ReportText:
    """The lines of a report, and how they belong together.

    `size` is the report's length in characters; `cut`: only a part of it was kept.
    """

    lines: Sequence[ReportLine]
    size: int = 0
    cut: bool = False

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

    @cached_property
    def build_steps(self) -> frozenset[int]:
        """The indexes of lines that are steps of a Dockerfile, or of the log of a build or of a workflow."""
        steps = set[int]()
        for index, line in enumerate(self.lines):
            goes_on = index - 1 in steps and self.lines[index - 1].raw.rstrip().endswith("\\")
            if goes_on or SAYS["build_step"].match(line.text):
                steps.add(index)
        return frozenset(steps)

    def lead(self, index: int, start: int) -> str:
        """The words before column `start` of a line: its sentence so far, or what introduces its block."""
        line, block = self.lines[index], self.blocks[self.lines[index].block]
        earlier = (
            [] if line.kind is LineKind.CODE else self.lines[max(block.start, index - MOST_WRAPPED) : index]
        )
        words = " ".join([*(other.text for other in earlier), line.text[:start]])[-LONGEST:]
        words = words[max((end.end() for end in END_OF_SENTENCE.finditer(words)), default=0) :]
        return words if words.strip(" -*:$#") else f"{self.introduction(index)} {words}"

    def tail(self, index: int, end: int) -> str:
        """The words after column `end` of a line: the rest of its sentence."""
        line, block = self.lines[index], self.blocks[self.lines[index].block]
        stop = index + 1 if line.kind is LineKind.CODE else min(block.stop, index + 1 + MOST_WRAPPED)
        words = line.text[end:]
        for following in self.lines[index + 1 : stop]:
            if SAYS["else"].match(following.text):
                break
            words += f" {following.text}"
        return END_OF_SENTENCE.split(words[:LONGEST], maxsplit=1)[0]

    def next_sentence(self, index: int) -> str:
        """The first sentence after the block of a line, if it is prose."""
        stop = self.blocks[self.lines[index].block].stop
        for number in range(stop, min(stop + MOST_OUTPUT, len(self.lines))):
            if self.lines[number].kind is not LineKind.CODE:
                return self.tail(number, 0) if self.lines[number].kind is LineKind.PROSE else ""
        return ""

    def introduction(self, index: int) -> str:
        """The line that introduces the block of a line, mostly with a colon. Empty if there is none."""
        start = self.blocks[self.lines[index].block].start
        for earlier in reversed(self.lines[max(0, start - MOST_WRAPPED) : start]):
            if SAYS["introduces"].search(earlier.text):
                return earlier.text
            if earlier.kind is not self.lines[start].kind:
                break
        return ""


def find_place(line: ReportLine, start: int = 0) -> Place:
    """Which system the words at column `start` of a line are about."""
    text = line.labelled
    start += len(text) - len(line.text)
    parts = [part.span() for part in SAYS["clause"].finditer(text)]
    begin = max((stop for _, stop in parts if stop <= start), default=0)
    end = min((begins for begins, _ in parts if begins > start), default=len(text))
    label = SAYS["label"].match(text)
    field = label[1] if label else ""
    section = line.section if len(line.section) <= LONGEST_SECTION else ""
    for words, container in (
        (text[begin:end], "container"),
        (field, "of_container"),
        (section, "of_container"),
    ):
        if SAYS["host"].search(words):
            return Place.HOST
        if SAYS[container].search(words):
            return Place.CONTAINER
    return Place.HOST
