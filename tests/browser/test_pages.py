"""What holds for every page of the site, whatever it shows."""

from pathlib import Path

from playwright.sync_api import expect

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


# -- charts: a text alternative for each, and colours that follow the dark mode

CHARTS = "figure[data-chart]"


def test_each_chart_has_a_name_and_its_figures_as_a_table(site: Path, visit: Visiting) -> None:
    tab, charts = visit(), 0
    for path in [path for path in checks.paths(site) if path.startswith("runs")]:
        for chart in tab.open(path).locator(CHARTS).all():
            charts += 1
            picture = chart.get_by_role("img")
            expect(picture).to_have_accessible_name(checks.SOMETHING)
            expect(chart.locator("table th[scope=row]").first).to_be_attached()
            assert chart.locator("table tbody tr").count() >= picture.locator("g").count() > 0
            table = chart.locator("details")
            table.locator("summary").press("Enter")
            expect(table.locator("table")).to_be_visible()
    assert charts


def test_the_ink_of_a_chart_follows_the_dark_mode(visit: Visiting) -> None:
    inks = []
    path = "runs/20261120-080000.html"
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme).open(path)
        text = page.locator(f"{CHARTS} text.name").first
        inks.append(
            text.evaluate("(each) => [getComputedStyle(each).fill, getComputedStyle(document.body).color]")
        )
    assert inks[0] != inks[1]
    assert [fill for fill, _ in inks] == [text for _, text in inks]
