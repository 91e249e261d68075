"""The site of a real run, in a browser: with the texts, names and files of evidence of real guests."""

from pathlib import Path

import pytest

from lab.record import RunResult
from lab.report.site.publish import publish_site
from tests.browser import checks
from tests.conftest import Visiting
from tests.vm.test_matrix import reads_matrix


@pytest.fixture
def site(run: RunResult, folder: Path, tmp_path: Path) -> Path:
    publish_site([folder], tmp_path / "site")
    return tmp_path / "site"


@reads_matrix
def test_every_page_of_a_real_run_loads_without_an_error_and_is_valid(site: Path, visit: Visiting) -> None:
    tab = visit()
    paths = checks.paths(site)
    for path in paths:
        tab.open(path)
        tab.check()
    assert checks.invalid_html([site / path for path in paths]) == []
