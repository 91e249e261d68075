"""Text from guests adds nothing to a report but words."""

import re
from typing import Any

import pytest

from lab.record import (
    Confidence,
    Experiment,
    LaneRecord,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    Status,
    TestResult,
)
from lab.report import markdown
from tests.builders.cells import cell
from tests.builders.facts import facts
from tests.builders.output import HOSTILE, SAID, STEERING, printed, rows_of, skeleton, told
from tests.builders.runs import run_of


def test_what_a_guest_says_stays_inside_its_square() -> None:
    run = run_of(cell(status=Status.NOT_APPLICABLE, reason=HOSTILE, facts=facts(kernel=HOSTILE)))
    text = markdown.render(run)
    assert [len(row) for row in rows_of(text)] == [3, 3, 3]
    assert "<b>" not in text
    assert rows_of(text)[2][2] == "n/a"
    [why] = [line for line in text.splitlines() if line.startswith("- n/a (a")]
    assert why.endswith("): debian-13")


def test_what_a_guest_says_stays_inside_its_paragraph() -> None:
    test = TestResult(name="jail_starts", outcome=Outcome.FAIL, message="first\n# second <b>")
    run = run_of(cell(status=Status.FAIL, cause="unknown", reason="one\n# two <b>", tests=[test]))
    text = markdown.render(run)
    assert "\none # two &lt;b>\n" in text
    assert "- `jail_starts`: fail: first # second &lt;b>\n" in text


@pytest.mark.parametrize("status", [Status.NOT_APPLICABLE, Status.ERROR])
def test_a_guest_cannot_steer_the_terminal(status: Status) -> None:
    text = printed(run_of(told(STEERING).model_copy(update={"status": status})))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert SAID in text


def test_a_kernel_s_name_is_no_markup() -> None:
    assert "[bold]6.12" in printed(run_of(cell(facts=facts(kernel="[bold]6.12.48"))))


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        STEERING,
        "# all passed",
        "- a list",
        "1. a list",
        "> a quotation",
        "```",
        "---",
        "<!-- the rest",
        "![pass](https://example.org/x.png) <https://example.org>",
        "[name]: https://example.org",
        "*pass* __pass__",
        # Cut inside an escape.
        "x" * 295 + "|" * 20,
    ],
)
def test_what_a_guest_says_is_no_markup_of_the_page(text: str) -> None:
    def page(said: str) -> str:
        note = LaneRecord(guest="debian-13", image="1" * 64, fork="memory", note=said, seconds={})
        more = {"status": Status.FAIL, "cause": "unknown", "confidence": Confidence.LIKELY}
        return markdown.render(run_of(told(said), told(said).model_copy(update=more), lanes=[note]))

    assert skeleton(page(text)) == skeleton(page("words"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", page(text))


@pytest.mark.parametrize("name", ["x) <img src=y> ## pass", "x\n\n## debian-13, stock: pass\n", "[x](y) |*z*"])
def test_the_name_of_a_file_that_a_guest_made_up_is_no_markup_of_the_page(name: str) -> None:
    def page(name: str) -> str:
        evidence = [f"cells/debian-13/stock/0.10.8/boxlite/{name}/boxlite.log"]
        tried = RemedyResult(name="a", result=RemedyOutcome.AVOIDS, price="", evidence=evidence)
        made = Experiment(tests=["t"], steps=[], evidence=evidence)
        more: dict[str, Any] = {
            "status": Status.FAIL,
            "cause": "unknown",
            "reason": "x",
            "remedies": [tried],
            "experiment": made,
        }
        return markdown.render(run_of(cell(**more, evidence=[*evidence, f"cells/{name}"])))

    assert skeleton(page(name)) == skeleton(page("words"))


def test_the_name_of_a_test_that_a_guest_made_up_is_no_markup_of_the_page() -> None:
    def page(name: str) -> str:
        test = TestResult(name=name, outcome=Outcome.ERROR, message="ran, but suite.toml does not name it")
        return markdown.render(run_of(cell(status=Status.FAIL, cause="unknown", reason="x", tests=[test])))

    hostile, tame = skeleton(page("a` <b> ![x](y) `b")), skeleton(page("words"))
    assert [kind for kind, _, _ in hostile] == [kind for kind, _, _ in tame]
