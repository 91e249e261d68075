"""A whole run as one HTML file: its page in Markdown with a style, no script, and nothing else to load."""

import base64
import hashlib
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from lab import __version__
from lab.record import RunResult, Status
from lab.report import markdown, table
from lab.report.site.maintainers import MARKS
from lab.report.site.model import HostNumbers
from lab.report.site.page import STATIC, make_environment

# The columns of the table of squares that are no squares: the guest and its kernel.
HEADINGS = 2


def render_one_page(run: RunResult, folder: Path) -> str:
    run = HostNumbers().run(run)
    style = (STATIC / "style.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = make_environment().get_template("one_page.html")
    return page.render(
        title=table.describe_run(run),
        # Markdown from the lab's own templates, which escape all text of guests.
        content=Markup(_html(markdown.render_run(run, folder, linked=False))),  # noqa: S704
        # The page may show this style sheet and do nothing else.
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704 - a file of the lab's own
        run=run,
        lab_version=__version__,
    )


def _html(text: str) -> str:
    """Render the Markdown page of a run. Squares have marks; keys reach tables and code, to scroll them."""
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    mark = make_environment().from_string('{% import "parts.html" as parts %}{{ parts.mark(kind, status) }}')
    tokens: list[Token] = []
    tables = column = 0
    for token in reader.parse(text):
        match token.type:
            case "table_open":
                tables += 1
                frame, kind = ("matrix-frame", "matrix") if tables == 1 else ("scroll", "results")
                token.attrSet("class", kind)
                region = f'role="region" aria-label="Table {tables}" tabindex="0"'
                tokens.append(_markup(f'<div class="{frame}" {region}>'))
            case "tr_open":
                column = 0
            case "th_open":
                token.attrSet("scope", "col")
            case "td_open":
                column += 1
                if column == 1:
                    token.tag = "th"
                    token.attrSet("scope", "row")
            case "td_close" if column == 1:
                token.tag = "th"
            case "inline" if tables == 1 and column > HEADINGS and tokens[-1].type == "td_open":
                words = token.children or [Token("text", "", 0, content="not in the plan")]
                status, space, note = words[0].content.partition(" ")
                status, comma, _ = status.partition(",")
                if status in MARKS:
                    first = _markup(mark.render(kind=MARKS[Status(status)], status=status))
                    words[:1] = [first, Token("text", "", 0, content=f"{comma}{space}{note}")]
                token.children = words
            case "fence":
                token = _markup(f'<pre tabindex="0"><code>{escape(token.content)}</code></pre>')
        tokens.append(token)
        if token.type == "table_close":
            tokens.append(_markup("</div>"))
    return str(reader.renderer.render(tokens, reader.options, {}))


def _markup(html: str) -> Token:
    return Token("html_block", "", 0, content=html)
