"""What a site is made of: pages, texts, and copies of files. Paths are relative to the site's folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

UNSAFE = re.compile(r"[^a-z0-9._+-]+")
# How names end that got a digest. Another name that ends like this gets one too, so that it stays another name.
DIGEST_END = re.compile(r"-[0-9a-f]{12}$")
LONGEST_NAME = 80  # characters; file systems allow 255 bytes


@dataclass(frozen=True)
class Page:
    """One HTML page, rendered from a template that extends `base.html`.

    `nav` is its name in the navigation of every page; empty: it is not there. `scripts` are files of
    `static/` that the page loads after `site.js`.
    """

    path: str
    title: str
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    nav: str = ""
    scripts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """A file with this text."""

    path: str
    text: str


@dataclass(frozen=True)
class Copy:
    """A copy of a file of a run: at most `size` bytes of it, so that a file that grows stays within bounds."""

    path: str
    source: Path
    size: int


Output = Page | Text | Copy


def not_shown(path: str, title: str, why: str, nav: str = "") -> Page:
    """Make the page that stands in place of one that could not be made."""
    return Page(path, title, "not_shown.html", {"why": why}, nav)


def slug(name: str) -> str:
    """Return a name as one part of a path: only characters that need no quoting, and never `.` or `..`.

    A name that has to be changed gets a digest, so that two names never become one, whether a file system tells
    capitals from small letters or not.
    """
    safe = UNSAFE.sub("-", name.lower()).lstrip(".-")[:LONGEST_NAME]
    if safe and safe == name and not DIGEST_END.search(name):
        return safe
    return f"{safe or '_'}-{sha256(name.encode(errors='surrogatepass')).hexdigest()[:12]}"
