"""What holds for every page of the site, whatever it shows."""

from pathlib import Path

import pytest

from tests.browser import checks
from tests.browser.chromium import PHONE
from tests.conftest import Visiting


def test_every_page_loads_without_an_error_and_asks_for_nothing_outside_of_the_folder(
    site: Path, visit: Visiting
) -> None:
    tab = visit()
    for path in checks.paths(site):
        page = tab.open(path)
        assert page.title().endswith(" - boxlite lab")
        assert page.title() != "owned"
        tab.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_on_any_kind_of_page(site: Path, visit: Visiting, scheme: str) -> None:
    tab = visit(color_scheme=scheme)
    violations = {}
    for path in checks.kinds(site):
        tab.open(path)
        violations[path] = tab.axe()
    assert {path: wrong for path, wrong in violations.items() if wrong} == {}


def test_at_320_pixels_no_page_scrolls_sideways_and_keys_reach_what_does(site: Path, visit: Visiting) -> None:
    tab = visit(size=PHONE)
    wide, unreachable = {}, {}
    for path in checks.kinds(site):
        page = tab.open(path)
        wide[path] = checks.sideways(page)
        unreachable[path] = checks.scrolling_without_focus(page)
    assert {path: wrong for path, wrong in wide.items() if wrong} == {}
    assert {path: wrong for path, wrong in unreachable.items() if wrong} == {}


def test_printed_pages_have_all_details_and_no_navigation(site: Path, visit: Visiting) -> None:
    tab = visit()
    for path in checks.kinds(site):
        page = tab.open(path)
        assert checks.unreadable_on_paper(page) == [], path
        page.emulate_media(media="print")
        assert not page.locator("header nav").first.is_visible()
        page.emulate_media(media="screen")


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


def test_nothing_moves_for_those_who_want_no_motion(site: Path, visit: Visiting) -> None:
    tab = visit(reduced_motion="reduce")
    for path in checks.kinds(site):
        assert checks.moving(tab.open(path)) == [], path


def test_every_page_is_valid_html(site: Path) -> None:
    """As the Nu Html Checker sees it."""
    assert checks.invalid_html([site / path for path in checks.paths(site)]) == []
