"""Valid HTML, as the Nu Html Checker sees it."""

from pathlib import Path

from tests.browser import checks


def test_every_page_is_valid(site: Path) -> None:
    assert checks.invalid_html([site / path for path in checks.paths(site)]) == []


def test_the_checker_finds_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><html lang=en><head><title>x</title></head><body><p id=a><b id=a></p></body>"
    )
    assert any("Duplicate ID" in line for line in checks.invalid_html([page]))
