"""How often tests failed in repeats, as reports show it: apart from failures."""

from pathlib import Path
from typing import Any

from lab.record import CellResult, Outcome, RunOptions, RunResult, Status, TestResult
from lab.report import markdown, table
from lab.report.site import one_page
from lab.verdict.status import combine
from tests.builders.cells import cell
from tests.builders.output import printed, rows_of
from tests.builders.runs import run_of

NAMES = ("presets", "box_starts", "namespaces")


def repeated(times: int, **failed_in: list[int]) -> CellResult:
    """A cell that was repeated so often, with the repeats in which each test failed."""

    def result(number: int) -> CellResult:
        outcomes = {name: Outcome.FAIL if number in failed_in.get(name, []) else Outcome.PASS for name in NAMES}
        tests = [TestResult(name=name, outcome=outcome) for name, outcome in outcomes.items()]
        passed = Outcome.FAIL not in outcomes.values()
        return cell(status=Status.PASS if passed else Status.FAIL, tests=tests)

    return combine([result(number) for number in range(1, times + 1)])


def of_options(run: RunResult, **options: Any) -> RunResult:
    info = run.run.model_copy(update={"options": RunOptions(**options)})
    return run.model_copy(update={"run": info})


def test_tests_that_fail_now_and_then_come_first_and_those_alike_are_one_row() -> None:
    run = run_of(repeated(20), repeated(8, box_starts=[2, 5], namespaces=[*range(1, 9)]))
    assert rows_of(markdown.render(run).partition("## How often")[2].partition("##")[0])[2:] == [
        ["debian-13 stock", "box_starts", "2 of 8", "7% to 59%", "2, 5"],
        ["debian-13 stock", "presets, box_starts, namespaces", "0 of 20", "at most 16%", "-"],
        ["debian-13 stock", "namespaces", "8 of 8", "at least 68%", "1, 2, 3, 4, 5, 6, 7, 8"],
        ["debian-13 stock", "presets", "0 of 8", "at most 32%", "-"],
    ]
    assert "  debian-13 stock: 2 of 8, 7% to 59%: box_starts (in 2, 5)\n" in printed(run)
    assert "0 of 20, at most 16%: presets, box_starts, namespaces\n" in printed(run)


def test_the_page_of_a_run_has_them_apart_from_its_failures(tmp_path: Path) -> None:
    run = run_of(repeated(3, box_starts=[2]))
    page = one_page.render(run, tmp_path)
    failures, _, rest = page.partition("<h2>How often tests failed</h2>")
    assert "flaky 2/3" in failures
    assert "<td>1 of 3</td>" in rest.partition("</table>")[0]


def test_a_rate_that_ended_with_a_failure_is_told_to_be_too_high() -> None:
    run = run_of(repeated(3, box_starts=[3]))
    assert "rather too high" not in table.rates_note(run)
    assert "rather too high" in table.rates_note(of_options(run, repeat=100, until_fail=True))


def test_a_run_without_repeats_says_nothing_of_rates(tmp_path: Path) -> None:
    run = run_of(cell(), cell(variant="max-userns-zero", status=Status.FAIL))
    for text in (printed(run), markdown.render(run), one_page.render(run, tmp_path)):
        assert "How often" not in text


def test_long_lists_are_cut_and_say_so() -> None:
    [first, *_] = table.rates_of_cell(repeated(30, box_starts=[*range(1, 30)]))
    assert first.repeats == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, and 19 more"
    assert table.named_tests(["a", "b", "c"], 2) == "a, b and 1 more"


def test_a_shuffled_repeat_is_named_with_the_option_that_gives_its_order_again() -> None:
    found = repeated(3, box_starts=[2])
    seeds = [each.model_copy(update={"seed": 40 + number}) for number, each in enumerate(found.repeats, 1)]
    run = of_options(run_of(found.model_copy(update={"repeats": seeds})), repeat=3, shuffle=41)
    assert "1 of 3, 6% to 79%: box_starts (in 2 (--shuffle=42))" in printed(run)
    assert "gives that order again" in table.rates_note(run)
