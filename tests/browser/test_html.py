"""Valid HTML, as the Nu Html Checker sees it."""

from pathlib import Path

from tests.browser import checks


def test_every_page_is_valid_and_the_checker_finds_what_is_not(site: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.html"
    wrong.write_text(
        "<!doctype html><html lang=en><title>x</title><body><p id=a><b id=a></b></p></body></html>"
    )
    found = checks.invalid_html([wrong, *(site / path for path in checks.paths(site))])
    assert [line for line in found if "wrong.html" not in line] == []
    assert any("Duplicate ID" in line for line in found)
