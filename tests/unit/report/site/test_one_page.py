"""A run as one HTML file. What the page says of each cell: `report/test_cells.py`."""

import base64
import hashlib
import re
from pathlib import Path

from lab.record import Outcome, RunResult, Status, TestResult
from lab.report.site import one_page
from tests.builders.cells import cell
from tests.builders.output import Parsed
from tests.builders.runs import run_of


def page_of(run: RunResult, folder: Path) -> Parsed:
    (folder / "page.html").write_text(one_page.render_one_page(run, folder))
    return Parsed(folder / "page.html")


def test_the_policy_allows_the_page_s_own_style_and_nothing_else(tmp_path: Path) -> None:
    page = page_of(run_of(cell()), tmp_path)
    [style] = re.findall(r"<style>(.*?)</style>", (tmp_path / "page.html").read_text(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = [
        meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not {"script", "link", "img", "iframe", "a"} & {tag for tag, _ in page.elements}
    assert page.attributes("style") == page.attributes("src") == page.attributes("href") == []


def test_a_cell_that_no_plan_has_says_so_and_a_run_without_cells_too(tmp_path: Path) -> None:
    page = page_of(run_of(cell("debian-12"), cell("debian-13", "max-userns-zero")), tmp_path)
    assert page.text.count("not in the plan") == 2
    assert "This run has no cells." in page_of(run_of(), tmp_path).text


def test_a_megabyte_makes_no_large_page(tmp_path: Path) -> None:
    text = "<script>" * 130_000
    tests = [TestResult(name="starts", outcome=Outcome.FAIL, message=text)]
    page_of(run_of(cell(status=Status.FAIL, reason=text, tests=tests)), tmp_path)
    assert (tmp_path / "page.html").stat().st_size < 100_000
