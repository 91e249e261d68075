"""A report's text: the forms in which it arrives, and its lines with what Markdown makes of them.

Markdown's blocks tell code from prose, rows of a table from sentences, and what belongs together. HTML is text.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from markdown_it import MarkdownIt
from markdown_it.token import Token

from lab.base.errors import UsageError
from lab.base.files import plain

# A report is cut to these; an issue of GitHub's has at most 65,536 characters.
MOST_BYTES = 8 * 2**20
MOST_CHARACTERS = 250_000
MOST_LINES = 10_000
MOST_IN_A_LINE = 4_000
# A wider gap tells nothing, and rules would look at each of its spaces.
WIDEST_GAP = 40
GAP = re.compile(rf"[^\S\n]{{{WIDEST_GAP},}}")
URL = re.compile(r"https?://\S+")
ISSUE = re.compile(r"https?://github\.com/([\w.-]{1,100}/[\w.-]{1,100})/(?:issues|pull)/(\d{1,9})\b")
# Byte order marks, as Windows' programs write them.
ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# Blocks, without what is inside a line; definitions of links would swallow lines such as `[1]: text`.
BLOCKS = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["reference", "inline"])
# What is inside a line: only what hides characters that were meant. Links stay as they were written.
INLINE = MarkdownIt("zero").enable(["backticks", "emphasis", "escape", "entity"])
# Characters that can begin any of these.
MARKS = frozenset("`*_\\&")
COMMENT_BEGINS, COMMENT_ENDS = "<!--", "-->"
# Longest heading that can be the name of a form's field.
LONGEST_LABEL = 80


@dataclass(frozen=True)
class Source:
    """A report's text, without control characters. `size` counts characters; `cut`: only a part was kept."""

    text: str
    size: int
    cut: bool


def how_to_give(address: str = "") -> str:
    """Return the command that gives an issue of GitHub as a report: the one at the address, if it is one."""
    issue = ISSUE.match(address)
    repository, number = issue.groups() if issue else ("OWNER/NAME", "NUMBER")
    return f"gh issue view {number} --repo {repository} --json title,body,comments | lab repro -"


def source(data: bytes) -> Source:
    """Read a report from any of its forms. Raises UsageError if it is none."""
    text = _text(data)
    if (issue := _issue(text)) is not None:
        text = issue
    text = plain(text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.strip():
        raise UsageError(
            "the report is empty",
            hint=f"give the text of a report, as a file or through a pipe: {how_to_give()}",
        )
    if URL.fullmatch(text.strip()):
        raise UsageError(
            f"the report is an address, {text.strip()[:200]}, and nothing is fetched",
            hint=how_to_give(text.strip()),
        )
    kept, cut = _cut(text)
    return Source(kept, len(text), cut or len(data) > MOST_BYTES)


def _text(data: bytes) -> str:
    data = data[:MOST_BYTES]
    encoding = next((name for mark, name in ENCODINGS.items() if data.startswith(mark)), "utf-8")
    text = data.decode(encoding, errors="replace")
    beginning = text[:MOST_IN_A_LINE]
    odd = sum(character == "\ufffd" or character < "\t" for character in beginning)
    if "\0" in beginning or odd * 5 > len(beginning):
        raise UsageError("the report is binary data, not text", hint=f"give the report's text: {how_to_give()}")
    return text


def _issue(text: str) -> str | None:
    """Return an issue in JSON as Markdown, with the title as its heading; None if the text is no JSON."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        raise UsageError("the report is JSON, but no object with `body`", hint=how_to_give())
    comments = document.get("comments")
    parts = [document, *(comments if isinstance(comments, list) else [])]
    bodies = [part.get("body") for part in parts if isinstance(part, dict)]
    written = [body for body in bodies if isinstance(body, str) and body.strip()]
    if not written:
        raise UsageError("the report is JSON without any text in `body` or `comments`", hint=how_to_give())
    title = document.get("title")
    heading = [f"# {' '.join(title.split())}"] if isinstance(title, str) and title.strip() else []
    return "\n\n".join([*heading, *written])


def _cut(text: str) -> tuple[str, bool]:
    lines = text[:MOST_CHARACTERS].split("\n", MOST_LINES)
    kept = [line[:MOST_IN_A_LINE] for line in lines[:MOST_LINES]]
    cut = sum(map(len, kept)) + len(kept) - 1 < len(text)
    return "\n".join(GAP.sub(" " * WIDEST_GAP, line) for line in kept), cut


# -- lines


class Kind(StrEnum):
    """What a line is."""

    PROSE = "prose"
    CODE = "code"
    HEADING = "heading"
    ROW = "row"


@dataclass(frozen=True)
class Line:
    """One line of a report. `number` counts from 1.

    `raw` is the line as it was written, `text` the same without Markdown's marks; `spans` are its code spans. A
    row of a table is written as `name: value`. Lines with the same `block` belong together: a paragraph, the
    first paragraph of a list's item, a block of code, a row. `label` is the heading right above; `section` is
    the last heading.
    """

    number: int
    raw: str
    text: str
    kind: Kind
    block: int
    spans: tuple[str, ...] = ()
    label: str = ""
    section: str = ""

    @property
    def labelled(self) -> str:
        """The line as `label: text` if it is the value of a form's field, else its text."""
        return f"{self.label}: {self.text}" if self.label else self.text


def parse(text: str) -> list[Line]:
    """Return the lines of a Markdown text that hold anything, in order."""
    raw = text.split("\n")
    visible = _without_comments(text).split("\n")
    lines: dict[int, Line] = {}
    section, label, block = "", "", 0
    fences: set[int] = set()
    header: list[str] = []
    for kind, first, contents in _blocks(BLOCKS.parse("\n".join(visible))):
        block += 1
        if kind is Kind.ROW:
            texts = [_inline(cell)[0] for cell in contents]
            contents, header = [_row(header, texts)], header or texts
        else:
            header = []
        if kind is Kind.CODE and visible[first].lstrip().startswith(("```", "~~~")):
            fences |= {first, first + len(contents) + 1}
            first += 1
        for index, content in enumerate(contents, first):
            if not content.strip() or index in lines or index >= len(raw):
                continue
            shown, spans = _inline(content) if kind in (Kind.PROSE, Kind.HEADING) else (content, ())
            lines[index] = Line(index + 1, raw[index], shown, kind, block, spans, label, section)
            label = ""
        if kind is Kind.HEADING:
            section = " ".join(contents).strip()
            label = section.rstrip(": ") if len(section) <= LONGEST_LABEL else ""
    for index, content in enumerate(visible):
        # Blocks that are nested too deeply, and the like.
        if index not in lines and index not in fences and any(map(str.isalnum, content)):
            block += 1
            lines[index] = Line(index + 1, raw[index], content, Kind.PROSE, block)
    return [lines[index] for index in sorted(lines)]


def _without_comments(text: str) -> str:
    """Blank out HTML comments, which readers of an issue do not see: they hold the form's own examples."""
    parts, at = [], 0
    while (begin := text.find(COMMENT_BEGINS, at)) >= 0 and (end := text.find(COMMENT_ENDS, begin)) >= 0:
        end += len(COMMENT_ENDS)
        parts += [text[at:begin], "\n" * text.count("\n", begin, end)]
        at = end
    return "".join([*parts, text[at:]])


def _blocks(tokens: Iterable[Token]) -> Iterator[tuple[Kind, int, list[str]]]:
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
                yield Kind.ROW, row_at, row
                row = None
            case "inline" if row is not None:
                row.append(token.content)
            case "inline":
                yield Kind.HEADING if heading else Kind.PROSE, first, token.content.split("\n")
            case "fence" | "code_block":
                yield Kind.CODE, first, token.content.removesuffix("\n").split("\n")


def _row(header: list[str], cells: list[str]) -> str:
    if len(cells) > 2 and len(header) == len(cells):
        return "; ".join(f"{name}: {cell}" for name, cell in zip(header, cells, strict=True))
    return ": ".join(cells)


def _inline(content: str) -> tuple[str, tuple[str, ...]]:
    """Return a line without Markdown's marks, and its code spans."""
    if MARKS.isdisjoint(content):
        return content, ()
    parts = INLINE.parseInline(content)[0].children or []
    # An entity may stand for a character that hides text or ends the line.
    shown = plain("".join(part.content for part in parts)).replace("\n", " ")
    return (
        shown,
        tuple(part.content for part in parts if part.type == "code_inline"),
    )
