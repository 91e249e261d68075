"""A run as one HTML file."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from lab.record import Outcome, Protection, RunResult, Status, TestResult
from lab.report.site import one_page
from tests.builders.cells import JAILED, cell
from tests.builders.output import Parsed
from tests.builders.runs import run_of

DATA = Path(__file__).parent / "data"


def page_of(run: RunResult, folder: Path) -> Parsed:
    (folder / "page.html").write_text(one_page.render(run, folder))
    return Parsed(folder / "page.html")


def test_the_policy_allows_the_page_s_own_style_and_nothing_else(tmp_path: Path) -> None:
    text = one_page.render(run_of(cell()), tmp_path)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = page_of(run_of(cell()), tmp_path)
    [policy] = [
        each["content"] for each in page.of("meta") if each.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not {"script", "link", "img", "iframe", "a"} & {tag for tag, _ in page.elements}
    assert page.attributes("style") == page.attributes("src") == page.attributes("href") == []


def test_the_page_says_what_the_table_and_the_sections_say(tmp_path: Path) -> None:
    run = run_of(
        cell("debian-12", status=Status.FAIL, cause="unknown", reason="x", rerun="lab matrix -g debian-12"),
        cell("debian-13", status=Status.FAIL, cause="unknown", reason="x", rerun="lab matrix -g debian-13"),
        cell("debian-14", status=Status.NOT_RUN, reason="no image"),
    )
    page = page_of(run, tmp_path)
    text = " ".join(page.text.split())
    assert "boxlite : the jailer on 3 guests" not in text
    assert "2 fail, 1 not-run" in text
    assert "not-run (no image): debian-14" in text
    assert "fail unknown: 2 cells on 2 guests" in text
    assert "lab matrix -g debian-12 lab matrix -g debian-13" in text
    # A status is a word and a shape.
    assert [each["class"] for each in page.of("span") if "mark" in str(each.get("class"))][:3] == [
        "mark mark-blocked",
        "mark mark-blocked",
        "mark mark-untested",
    ]
    assert [each["scope"] for each in page.of("th")] == ["col", "col", "row", "row", "row"]


def test_a_cell_that_no_plan_has_says_so_and_a_run_without_cells_too(tmp_path: Path) -> None:
    page = page_of(run_of(cell("debian-12"), cell("debian-13", "max-userns-zero")), tmp_path)
    assert page.text.count("not in the plan") == 2
    assert "This run has no cells." in page_of(run_of(), tmp_path).text


HOSTILE = "</style></code><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}\u202e\x1b[31m"


@pytest.mark.parametrize("size", [1, 100_000])
def test_hostile_text_stays_text_and_is_cut(tmp_path: Path, size: int) -> None:
    tests = [TestResult(name=HOSTILE, outcome=Outcome.FAIL, message=HOSTILE * size)]
    texts = dict.fromkeys(("guest", "variant", "build", "cause", "rerun"), HOSTILE)
    hostile = cell(status=Status.FAIL).model_copy(update={**texts, "reason": HOSTILE * size, "tests": tests})
    page = page_of(run_of(hostile), tmp_path)
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert "alert(1)" in page.text
    assert "{{ 7*7 }}" in page.text
    assert not re.search("[\u202e\x1b]", page.text)
    assert (tmp_path / "page.html").stat().st_size < 100_000


def test_the_page_says_what_confines_a_box_and_what_was_asked_for_and_is_not_seen(tmp_path: Path) -> None:
    asked = Protection.model_validate(JAILED | {"seccomp": ["off"], "asked": {"seccomp_enabled": True}})
    tests = [TestResult(name="starts", outcome=Outcome.PASS, protection=asked)]
    strong = TestResult(name="starts", outcome=Outcome.PASS, protection=Protection.model_validate(JAILED))
    run = run_of(
        cell("debian-12", status=Status.PASS, tests=tests),
        cell("debian-13", status=Status.PASS, tests=[strong]),
    )
    text = " ".join(page_of(run, tmp_path).text.split())
    assert text.count("pass less protected") == 1
    assert "debian-12 stock: less protected: the box of starts lacked seccomp filter" in text
    assert (
        "starts asked for a seccomp filter (seccomp_enabled): no thread of libkrun VM has one; in debian-12"
        in text
    )
    assert "ipc namespace, mnt namespace, pid namespace, user namespace, uts namespace, no_new_privs," in text
