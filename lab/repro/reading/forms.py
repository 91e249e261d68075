"""The forms in which a report arrives, each read as one Markdown text."""

import json
import re
from dataclasses import dataclass

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
# How files begin that are no text.
BINARY = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"\x1f\x8b": "a gzip file",
    b"\x7fELF": "a program",
}
# Byte order marks, as Windows' programs write them.
ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


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
    for begins, what in BINARY.items():
        if data.startswith(begins):
            raise _no_text(what)
    data = data[:MOST_BYTES]
    encoding = next((name for mark, name in ENCODINGS.items() if data.startswith(mark)), "utf-8")
    text = data.decode(encoding, errors="replace")
    beginning = text[:MOST_IN_A_LINE]
    odd = sum(character == "\ufffd" or character < "\t" for character in beginning)
    if "\0" in beginning or odd * 5 > len(beginning):
        raise _no_text("binary data")
    return text


def _no_text(what: str) -> UsageError:
    return UsageError(f"the report is {what}, not text", hint=f"give the report's text: {how_to_give()}")


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
    bodies = [
        document.get("body"),
        *(
            each.get("body")
            for each in (comments if isinstance(comments, list) else [])
            if isinstance(each, dict)
        ),
    ]
    written = [each for each in bodies if isinstance(each, str) and each.strip()]
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
