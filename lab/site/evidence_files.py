"""The part of the site that holds the evidence."""

from collections.abc import Iterator

from lab.site.model import Site
from lab.site.page import Copy


def outputs(site: Site) -> Iterator[Copy]:
    """Yield the copies of all evidence that fits."""
    for found in site.evidence.values():
        yield from (file.copy for file in found.files)
