"""What a site is made of: pages with their frame, texts, copies of files. Paths are relative to its folder."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape

from lab import __version__
from lab.base.files import clean_text, cut_text
from lab.report.site.charts import format_duration
from lab.report.table import format_count

# The pages that each page links to, in this order.
NAVIGATION = {
    "index.html": "Hosts",
    "changes.html": "Changes",
    "matrix.html": "Matrix",
    "findings.html": "Findings",
    "runs.html": "Runs",
}


@dataclass(frozen=True)
class Page:
    """One HTML page, rendered from a template that extends `base.html`.

    `scripts` are files of `static/` that the page loads after `site.js`.
    """

    path: str
    title: str
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    scripts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextFile:
    """A file with this text."""

    path: str
    text: str


@dataclass(frozen=True)
class Copy:
    """A copy of a file of a run: at most `size` bytes of it, so that a file that grows stays within bounds.

    `name` is what pages call it.
    """

    path: str
    source: Path
    size: int
    name: str


Output = Page | TextFile | Copy


def make_stand_in(path: str, title: str, reason: str) -> Page:
    """Make the page that stands in place of one that could not be made."""
    return Page(path, title, "not_shown.html", {"reason": reason})


TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"
# A page loads nothing but the site's own files: no code or style in the page itself, no other address, no form.
# Chromium takes 'self' of a page from file:// for every file:// address; a page still names its own files only.
POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind} 'self'" for kind in ("script-src", "style-src", "img-src")),
        "base-uri 'none'",
        "form-action 'none'",
    ]
)
LONGEST_TEXT = 16_000  # characters of one text from a record; the whole text is in the evidence


def make_renderer(runs: Sequence[str]) -> Callable[[Page], str]:
    """Return what renders a page. `runs` are the names of the runs that the site shows.

    Templates have `link(path)`: the address of another file of the site.
    """
    templates = make_environment()
    templates.globals |= {"nav": NAVIGATION, "runs": runs, "policy": POLICY, "lab_version": __version__}

    def render(page: Page) -> str:
        template = templates.get_template(page.template)
        return template.render(page=page, link=partial(link, page.path), **page.values)

    return render


def make_environment() -> jinja2.Environment:
    """Return the environment of all HTML templates: it escapes every value and rejects unknown names."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["prose"] = prose
    templates.filters["day"] = lambda moment: moment.strftime("%Y-%m-%d")
    templates.filters["duration"] = format_duration
    templates.filters["counted"] = format_count
    templates.filters["minute"] = lambda moment: moment.strftime("%Y-%m-%d %H:%M UTC")
    return templates


def prose(text: str) -> Markup:
    """Return a sentence of the lab's with what stands between backticks as code; everything is escaped."""
    parts = clean_text(text).split("`")
    if len(parts) % 2 == 0:  # one backtick is left over
        return escape(clean_text(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def link(page: str, path: str) -> str:
    """Return the relative address of a file of the site, seen from one of its pages; `#part` may follow."""
    file, mark, part = path.partition("#")
    if not file:
        return f"#{quote(part)}"
    address = quote(posixpath.relpath(file, posixpath.dirname(page) or "."), safe="/+")
    return f"{address}#{quote(part)}" if mark else address


def _harmless(value: Any) -> Any:
    """Remove control characters from text that a template prints, and cut it to a bounded length."""
    # Whatever is printed becomes text: a path holds names that a record may have from anywhere.
    return value if isinstance(value, Markup) else clean_text(cut_text(str(value), LONGEST_TEXT))
