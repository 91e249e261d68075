"""Markdown pages from templates. What a template prints through a filter is escaped: guests wrote it."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from lab import causes
from lab.base.files import clean_text, cut_text, escape_commands, escape_markdown, join_lines
from lab.report import table

TEMPLATES = Path(__file__).parent / "templates"
# Longest text from a guest in a page, in characters: between words, and as a block.
LONGEST, LONGEST_BLOCK = 4000, 20_000


def render_template(template: str, templates: Path = TEMPLATES, **values: Any) -> str:
    """Render one of the templates in a folder. Its filters escape text from guests.

    Whatever a template leaves unescaped, the page holds no control characters and no command to a CI job.
    """
    environment = jinja2.Environment(  # noqa: S701 - Markdown, escaped by the filters below
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    all_causes = causes.list_causes()
    environment.filters |= {
        "cell": escape_markdown,
        "paragraph": _paragraph,
        "code": _code,
        "block": _block,
        "link": _link,
        "counted": table.format_count,
        # Another lab may have found a cause that this one does not know.
        "explanation": lambda name: all_causes[name].explanation if name in all_causes else "",
    }
    return escape_commands(clean_text(environment.get_template(template).render(values)))


def _paragraph(text: object) -> str:
    """Escape text so that it stays a paragraph and does not become a heading, list, quotation or rule."""
    return re.sub(r"^(\d*)([#>+.)=-])", r"\1\\\2", escape_markdown(text))


def _code(text: object) -> str:
    """Replace the backticks in text that goes between backticks, where nothing can be escaped."""
    return join_lines(str(text), LONGEST).replace("`", "'")


def _link(path: object) -> str:
    """Quote the path of a file in the run's folder for a link; a guest may have chosen its name."""
    return quote(clean_text(str(path)), safe="/+:@~")


def _block(text: object, language: str = "text") -> str:
    """Return text as a code block, fenced with more backticks than it contains."""
    content = clean_text(cut_text(str(text), LONGEST_BLOCK))
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", content)), 0)
    return f"{fence}{language}\n{content}\n{fence}"
