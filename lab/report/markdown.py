"""The matrix as Markdown: `matrix.md` in the run's folder."""

from pathlib import Path

import jinja2

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
    environment.filters["cell"] = _escape
    return environment.get_template("matrix.md").render(run=run, table=table)


def _escape(text: object) -> str:
    """Text that stays inside its square of a Markdown table, whatever a guest's output puts into it."""
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(escaped.split())
