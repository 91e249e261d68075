"""The matrix as Markdown: `matrix.md` in the run's folder. And what every page in Markdown needs."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from lab import causes, remedies
from lab.base.files import plain
from lab.record import CellResult, RunResult
from lab.report import squares
from lab.upstream import told
from lab.upstream.recorded import Recorded
from lab.upstream.told import Judged

TEMPLATES = Path(__file__).parent / "templates"


def render(run: RunResult, folder: Path | None = None) -> str:
    """The whole run on one page: the table, what every unexpected cell says, and what it was run with.

    Where the run's `folder` is given, what boxlite itself took for the cause of a cell is judged, too.
    """
    known = remedies.load()

    def misdiagnosis(cell: CellResult) -> str:
        judged = told.judge(cell, Recorded(cell, folder).told, known) if folder else None
        return "" if judged in (None, Judged.RIGHT) else str(judged)

    return page("matrix.md", run=run, folder=folder, table=squares, misdiagnosis=misdiagnosis)


def page(template: str, **values: Any) -> str:
    """A page made of one of the templates, whose filters keep what a guest said in its place."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    known = causes.known()
    environment.filters |= {
        "cell": _escape,
        "paragraph": _paragraph,
        "code": _code,
        "block": _block,
        "link": _link,
        # A run of long ago may know a cause that there is no more.
        "explanation": lambda name: known[name].explanation if name in known else "",
    }
    return environment.get_template(template).render(values)


def _words(text: object) -> str:
    """Text on one line, without what would steer a terminal."""
    return " ".join(plain(str(text)).split())


def _escape(text: object) -> str:
    """Text that stays inside its square of a Markdown table, whatever a guest's output puts into it."""
    escaped = re.sub(r"([\\|`*\[\]~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", _words(text))
    return escaped.replace("<", "&lt;")


def _paragraph(text: object) -> str:
    """Text that stays a paragraph: no heading, list, quotation or rule."""
    return re.sub(r"^(\d*)([#>+.)=-])", r"\1\\\2", _escape(text))


def _code(text: object) -> str:
    """Text between backticks, where nothing can be escaped."""
    return _words(text).replace("`", "'")


def _link(path: object) -> str:
    """A file of the run's folder as a link goes to it: its name may have been made in a guest."""
    return quote(str(path), safe="/+:@~")


def _block(text: object) -> str:
    """Text as a block of code in its own lines, between more backticks than it has anywhere."""
    shown = plain(str(text))
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", shown)), 0)
    return f"{fence}text\n{shown}\n{fence}"
