"""How often tests failed in repeats, as reports show it: apart from failures."""

from pathlib import Path

import pytest

from lab.record import RunOptions
from lab.report import markdown, table
from lab.report.site import one_page
from tests.builders.cells import cell
from tests.builders.output import printed
from tests.builders.runs import run_of
from tests.unit.test_report_cells import repeated


def test_tests_that_fail_now_and_then_come_first_and_those_alike_are_one_row() -> None:
    cells = [
        repeated("debian-13", "stock", 20),
        repeated("debian-13", "stock", 8, box_starts=[2, 5], namespaces=[*range(1, 9)]),
    ]
    rates = table.rates_of_run(run_of(*cells))
    assert [(rate.tests, rate.failed, rate.interval, rate.repeats) for rate in rates] == [
        (["box_starts"], "2 of 8", "7% to 59%", "2, 5"),
        (["presets", "box_starts", "namespaces"], "0 of 20", "at most 16%", "-"),
        (["namespaces"], "8 of 8", "at least 68%", "1, 2, 3, 4, 5, 6, 7, 8"),
        (["presets"], "0 of 8", "at most 32%", "-"),
    ]
    assert rates[1].named_tests(2) == "presets, box_starts and 1 more"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (RunOptions(), []),
        (RunOptions(repeat=100, until_fail=True), ["rather too high"]),
        (RunOptions(repeat=9, shuffle=3), ["an order of its own"]),
    ],
)
def test_what_to_mind_about_rates_is_told(options: RunOptions, expected: list[str]) -> None:
    note = table.rates_note(run_of(repeated("debian-13", "stock", 3, box_starts=[3]), options=options))
    possible = ("rather too high", "an order of its own")
    assert [words for words in possible if words in note] == expected


def test_a_run_without_repeats_says_nothing_of_rates(tmp_path: Path) -> None:
    run = run_of(cell())
    for text in (printed(run), markdown.render(run), one_page.render(run, tmp_path)):
        assert "How often" not in text


def test_long_lists_are_cut_and_a_shuffled_repeat_is_named_with_the_option_for_its_order() -> None:
    long = repeated("debian-13", "stock", 30, box_starts=[*range(1, 30)])
    [first, *_] = table.rates_of_cell(long)
    assert first.repeats == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, and 19 more"
    seeds = [repeat.model_copy(update={"seed": 40 + number}) for number, repeat in enumerate(long.repeats, 1)]
    [first, *_] = table.rates_of_cell(long.model_copy(update={"repeats": seeds}))
    assert first.repeats.startswith("1 (--shuffle=41), 2 (--shuffle=42)")
