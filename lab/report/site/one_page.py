"""A whole run as one HTML file: its page in Markdown with a style, no script, and nothing else to load."""

import base64
import hashlib
import re
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup

from lab import __version__
from lab.record import RunResult, Status
from lab.report import markdown, table
from lab.report.site.maintainers import MARKS
from lab.report.site.model import HostNumbers
from lab.report.site.page import STATIC, environment

# A square begins with its status.
SQUARE = re.compile(rf"<td>({'|'.join(map(re.escape, Status))})(?=[ ,<])")


def render(run: RunResult, folder: Path) -> str:
    run = HostNumbers().run(run)
    style = (STATIC / "style.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment().get_template("one_page.html")
    return page.render(
        title=table.title(run),
        # Markdown from the lab's own templates, which escape all text of guests.
        content=Markup(_html(markdown.render(run, folder, linked=False))),  # noqa: S704
        # The page may show this style sheet and do nothing else.
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704 - a file of the lab's own
        run=run,
        lab_version=__version__,
    )


def _html(text: str) -> str:
    """Render the Markdown page of a run. Squares have marks; keys reach tables and code, to scroll them.

    All text of guests is escaped in it, so what is searched for are the page's own elements.
    """
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    html = re.sub(r"<pre><code[^>]*>", '<pre tabindex="0"><code>', html).replace("<th>", '<th scope="col">')
    html = re.sub(r"<tr>\n<td>(.*?)</td>", r'<tr>\n<th scope="row">\1</th>', html)
    mark = environment().from_string('{% import "parts.html" as parts %}{{ parts.mark(kind, status) }}')
    squares, end, rest = html.partition("</table>")
    squares = squares.replace("<td></td>", "<td>not in the plan</td>")

    def marked(found: re.Match[str]) -> str:
        status = Status(found[1])
        return f"<td>{mark.render(kind=MARKS[status], status=status)}"

    squares = SQUARE.sub(marked, squares)
    parts = f"{squares}{end}{rest}".replace("</table>", "</table></div>").split("<table>")
    for number in range(1, len(parts)):
        frame, kind = ("matrix-frame", "matrix") if number == 1 else ("scroll", "results")
        region = f'role="region" aria-label="Table {number}" tabindex="0"'
        parts[number] = f'<div class="{frame}" {region}><table class="{kind}">{parts[number]}'
    return "".join(parts)
