"""The page of a run: what fails in the same way is told once."""

from typing import Any

import pytest

from lab.record import CellResult, Confidence, Outcome, RemedyOutcome, RemedyResult, Status, TestResult
from lab.report import markdown
from lab.report.table import LOOKS, sections
from tests.builders.cells import blocked as a_blocked_cell
from tests.builders.cells import cell
from tests.builders.runs import run_of

BLOCKED = TestResult(name="jail_starts", outcome=Outcome.FAIL, message="no sandbox")


def blocked(guest: str, variant: str = "max-userns-zero", **more: Any) -> CellResult:
    given: dict[str, Any] = {
        "tests": [TestResult(name="options", outcome=Outcome.PASS), BLOCKED],
        "evidence": [f"cells/{guest}/{variant}/0.10.8/kernel.log"],
        "rerun": f"lab matrix -g {guest} -v {variant}",
    }
    return a_blocked_cell(guest=guest, variant=variant, **(given | more))


def remedy(result: RemedyOutcome, reason: str = "") -> RemedyResult:
    return RemedyResult(name="limit-raise", result=result, reason=reason, price="Every program may.")


def test_cells_that_fail_in_the_same_way_are_one_section() -> None:
    run = run_of(
        blocked("debian-12"), cell("debian-13"), blocked("debian-13"), blocked("debian-13", "limit-one")
    )
    [section] = sections(run)
    assert section.title == "xfail userns-limit: 3 cells on 2 guests"
    assert [(tests.names, tests.message, tests.cells) for tests in section.failed] == [
        (["jail_starts"], "no sandbox", 3)
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"status": Status.FAIL},
        {"cause": "userns-sysctl"},
        {"confidence": Confidence.LIKELY},
        {"causes": []},
        {"reason": "the limit is reached"},
        {"tests": [BLOCKED, BLOCKED.model_copy(update={"name": "jail_ends"})]},
        {"tests": [BLOCKED.model_copy(update={"outcome": Outcome.ERROR})]},
        {"remedies": [remedy(RemedyOutcome.VERIFIED)]},
        {"remedies": [remedy(RemedyOutcome.DOES_NOT_HELP)]},
        {"retried": ["no SSH"]},
    ],
)
def test_cells_that_differ_in_how_they_fail_are_sections_of_their_own(other: dict[str, Any]) -> None:
    run = run_of(blocked("debian-12"), blocked("debian-13", **other))
    assert sorted(section.first.guest for section in sections(run)) == ["debian-12", "debian-13"]


def test_cells_are_sections_of_their_own_if_boxlite_says_something_else_about_them() -> None:
    run = run_of(blocked("debian-12"), blocked("debian-13"))
    judged = sections(run, lambda cell: "unknown" if cell.guest == "debian-13" else "")
    assert [(section.first.guest, section.misdiagnosis) for section in judged] == [
        ("debian-12", ""),
        ("debian-13", "unknown"),
    ]


def test_the_same_failure_in_other_words_of_another_build_is_one_section_with_both_messages() -> None:
    other = BLOCKED.model_copy(update={"message": "RuntimeError: no sandbox"})
    run = run_of(blocked("debian-12", build="0.10.0", tests=[other]), blocked("debian-12"))
    page = markdown.render(run)
    assert "## xfail userns-limit: 2 cells on 1 guest\n" in page
    assert "max-userns-zero 0.10.0" in page
    assert "- `jail_starts`: fail: RuntimeError: no sandbox (in 1 of 2 cells)\n" in page
    assert "- `jail_starts`: fail: no sandbox (in 1 of 2 cells)\n" in page


def test_what_needs_a_person_comes_first_and_what_passed_has_no_section() -> None:
    cells = [cell(f"guest-{status}", status=status, reason="x") for status in reversed(LOOKS)]
    listed = sections(run_of(*cells, cell("passed")))
    statuses = ["fail", "xpass", "flaky", "error", "xfail", "pass"]
    assert [str(section.first.status) for section in listed] == statuses
    assert set(LOOKS) == set(Status)


def test_a_section_says_that_nothing_cures_it_and_why_under_each_remedy() -> None:
    failed = [
        blocked(guest, remedies=[remedy(RemedyOutcome.CANNOT, f"{guest} has no podman")])
        for guest in ("debian-12", "debian-13")
    ]
    open_part, folded = markdown.render(run_of(*failed)).split("<details>")
    assert "- remedies tried: 1; none cures it\n" in open_part
    assert (
        "- remedy `limit-raise`: cannot be tried here: debian-12 has no podman / debian-13 has no podman\n"
        in folded
    )


def test_evidence_is_one_link_however_many_files_there_are() -> None:
    files = [f"cells/debian-13/max-userns-zero/0.10.8/{number}.log" for number in range(30)]
    page = markdown.render(run_of(blocked("debian-13", evidence=files)))
    assert page.count("](") == 1
    assert "](" not in markdown.render(run_of(blocked("debian-13", evidence=[])))


def test_a_run_without_cells_says_so() -> None:
    page = markdown.render(run_of())
    assert page.startswith("# boxlite: the jailer on 0 guests\n\nThis run has no cells.\n\n## Environment\n")


def test_a_section_lists_so_many_tests_and_messages_and_says_that_there_are_more() -> None:
    tests = [TestResult(name=f"t{number}", outcome=Outcome.FAIL, message="same") for number in range(25)]
    tests += [TestResult(name="u", outcome=Outcome.FAIL, message=f"other {number}") for number in range(25)]
    page = markdown.render(run_of(blocked("debian-13", tests=tests)))
    assert "`t19` and more: fail: same\n" in page
    assert "`t20`" not in page
    assert "- and 6 more messages\n" in page
