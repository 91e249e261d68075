"""The browser, for tests of a site that is made of records, and of one that is made of a real run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # Tests that need no browser do not wait for its driver.
    from playwright.sync_api import Browser

    from tests.browser.chromium import Visit

Visiting = Callable[..., "Visit"]


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """The distribution's own Chromium, started once."""
    from tests.browser import chromium

    with chromium.running() as started:
        yield started


@pytest.fixture
def visit(browser: "Browser", site: Path) -> Iterator[Visiting]:
    """Open tabs on the site. At the end of the test none of them may have met an error or left the folder."""
    from tests.browser.chromium import Visit

    opened: list[Visit] = []

    def start(**options: Any) -> Visit:
        opened.append(Visit(browser, site, options))
        return opened[-1]

    yield start
    for each in opened:
        each.close()
    for each in opened:
        each.check()
