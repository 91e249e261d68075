"""Charts: a text alternative for each, and colours that follow the dark mode."""

from pathlib import Path

from playwright.sync_api import expect

from tests.browser import checks
from tests.conftest import Visiting

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
