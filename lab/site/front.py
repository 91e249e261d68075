"""The front page."""

from collections.abc import Iterator

from lab.site.model import Site
from lab.site.page import Page


def outputs(site: Site) -> Iterator[Page]:
    yield Page("index.html", "Will boxlite work on my host?", "index.html", {"site": site}, nav="Hosts")
