"""What holds for every page of the site, whatever it shows."""

from pathlib import Path

from tests.browser import checks
from tests.conftest import Visiting


def test_every_page_loads_without_an_error_and_from_the_folder_alone(site: Path, visit: Visiting) -> None:
    tab = visit()
    for path in checks.paths(site):
        page = tab.open(path)
        assert page.title().endswith(" - boxlite lab")
        assert page.title() != "owned"
        tab.check()


def test_the_pages_are_for_everyone(site: Path, visit: Visiting) -> None:
    assert checks.faults(visit, checks.kinds(site)) == {}


def test_without_javascript_everything_but_the_filters_is_readable(site: Path, visit: Visiting) -> None:
    bare, full = visit(java_script_enabled=False), visit()
    for path in checks.kinds(site):
        text = full.open(path).locator("main").inner_text()
        page = bare.open(path)
        assert page.locator("h1").first.is_visible()
        # Controls are shown by scripts; words of results are there without.
        assert checks.words_of_tables(page) == checks.words_of_tables(full.page), path
        assert text
        for control in page.locator("main button, main input, main select, main textarea").all():
            assert not control.is_visible(), f"{path}: a control without a script"


def test_every_page_is_valid_html(site: Path) -> None:
    """As the Nu Html Checker sees it."""
    assert checks.invalid_html([site / path for path in checks.paths(site)]) == []
