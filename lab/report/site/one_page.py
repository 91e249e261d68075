"""A whole run as one HTML file: style inside, no script, and nothing else to load. The site has the rest."""

import base64
import hashlib
from pathlib import Path

from markupsafe import Markup

from lab import __version__
from lab.base import notices
from lab.record import RunResult
from lab.report import markdown, protection, table
from lab.report.markdown import MOST
from lab.report.site.maintainers import MARKS, MEANINGS
from lab.report.site.model import HostNumbers
from lab.report.site.page import STATIC, environment


def render(run: RunResult, folder: Path) -> str:
    """Render the run in `folder` as one page, without the names of its hosts."""
    run = HostNumbers().run(run)
    style = (STATIC / "style.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    found = markdown.find_sections(run, folder)
    weaknesses = protection.weaknesses(run.cells)
    weak = protection.weak_cells(weaknesses)
    return (
        environment()
        .get_template("one_page.html")
        .render(
            run=run,
            sections=found,
            guarded=lambda make, section: notices.shown_or_why(
                lambda: make(section), lambda why: f"{section.where}: {why}"
            ),
            explanations=markdown.explanations(),
            table=table,
            marks=MARKS,
            meanings={status: text for status, text in MEANINGS.items() if _has(run, status)},
            given=protection.given(run.cells),
            not_given=protection.not_given(run.cells),
            weaknesses=weaknesses,
            is_weak=lambda cell: id(cell) in weak,
            next_step=table.next_step(run, folder),
            most=MOST,
            repeated=table.rates_of_run(run),
            # The page may show this style sheet and do nothing else.
            policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
            style=Markup(style),  # noqa: S704 - a file of the lab's own
            lab_version=__version__,
        )
    )


def _has(run: RunResult, status: object) -> bool:
    return any(cell.status is status for cell in run.cells)
