"""A whole run as one HTML file: style inside, no script, and nothing else to load. The site has the rest."""

import base64
import hashlib
from pathlib import Path

from markupsafe import Markup

from lab import __version__
from lab.base import notices
from lab.record import RunResult
from lab.report import markdown
from lab.report.site import maintainers
from lab.report.site.model import HostNumbers
from lab.report.site.page import STATIC, environment


def render(run: RunResult, folder: Path) -> str:
    """Render the run in `folder` as one page, without the names of its hosts."""
    run = HostNumbers().run(run)
    style = (STATIC / "style.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment().get_template("one_page.html")
    return page.render(
        markdown.values_of_page(run, folder),
        guarded=lambda make, section: notices.shown_or_why(
            lambda: make(section), lambda why: f"{section.where}: {why}"
        ),
        explanations=markdown.explanations(),
        marks=maintainers.MARKS,
        meanings=maintainers.meanings(run.cells),
        # The page may show this style sheet and do nothing else.
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704 - a file of the lab's own
        lab_version=__version__,
    )
