"""`lab report RUN --format html`: a run as one file, which needs no other."""

from pathlib import Path

import pytest

from lab.record import RunResult
from lab.report.site import one_page
from tests.browser import checks
from tests.conftest import Visiting

PAGE = "report.html"


@pytest.fixture(scope="module")
def site(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the page of the newer of the example runs."""
    run = site.parent / "20261120-080000"
    folder = tmp_path_factory.mktemp("report")
    (folder / PAGE).write_text(one_page.render_one_page(RunResult.read(run), run))
    return folder


def test_the_file_asks_for_no_other_and_no_text_becomes_code(visit: Visiting) -> None:
    tab = visit()
    page = tab.open(PAGE)
    assert {request.rpartition("/")[2] for request in tab.requests} == {PAGE}
    assert page.title() != "owned"
    assert page.locator("script, img").count() == 0


def test_the_file_is_valid_and_for_everyone(site: Path, visit: Visiting) -> None:
    assert checks.invalid_html([site / PAGE]) == []
    assert checks.faults(visit, [PAGE]) == {}
