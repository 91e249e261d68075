"""Valid HTML, as the Nu Html Checker sees it."""

from pathlib import Path

from tests.browser import checks


def test_every_page_is_valid(site: Path) -> None:
    assert checks.invalid_html([site / path for path in checks.paths(site)]) == []
