"""The matrix as Markdown: `matrix.md` in the run's folder."""

import re
from pathlib import Path

import jinja2

from lab.diagnosis import causes
from lab.files import plain
from lab.report import table
from lab.results import RunResult

TEMPLATES = Path(__file__).parent / "templates"


def render(run: RunResult) -> str:
    """The whole run on one page: the table, what every unexpected cell says, and what it was run with."""
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
        # A run of long ago may know a cause that there is no more.
        "explanation": lambda name: known[name].explanation if name in known else "",
    }
    return environment.get_template("matrix.md").render(run=run, table=table)


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
