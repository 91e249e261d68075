"""The search for the first bad candidate, without any run."""

import math
from collections.abc import Mapping

import pytest

from lab.repro.bisection import Search, State

BAD, GOOD, SKIPPED = State.BAD, State.GOOD, State.SKIPPED


def search(truth: str) -> tuple[Search[int], list[int]]:
    """Search among candidates 0, 1, ..., of which each letter tells the state; and what was tried, in order."""
    known = [{"b": BAD, "g": GOOD, "s": SKIPPED}[letter] for letter in truth]
    states: dict[int, State] = {}
    found = Search(range(len(truth)), states)
    while (wanted := found.next) is not None:
        assert wanted not in states, "a candidate was tried twice"
        states[wanted] = known[wanted]
    return found, list(states)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 15, 100])
def test_every_first_bad_candidate_is_found_in_few_steps(count: int) -> None:
    for first in range(1, count):
        found, tried = search("g" * first + "b" * (count - first))
        assert (found.last_good, found.first_bad) == (first - 1, first)
        assert {first - 1, first} <= set(tried), "both neighbours were tried"
        assert len(tried) <= 2 + math.ceil(math.log2(count))


def test_both_ends_are_tried_first_the_reported_one_before_all() -> None:
    assert search("gggbbb")[1][:2] == [5, 0]


@pytest.mark.parametrize("last", ["g", "s"])
def test_if_the_reported_candidate_is_not_bad_nothing_else_is_tried(last: str) -> None:
    found, tried = search("ggg" + last)
    assert tried == [3]
    assert (found.is_bad, found.first_bad) == (False, None)


def test_if_the_first_candidate_is_bad_all_are_taken_to_be_bad() -> None:
    found, tried = search("bbbbb")
    assert tried == [4, 0]
    assert (found.first_bad, found.last_good) == (0, None)


def test_of_one_candidate_nothing_is_learnt_but_its_own_state() -> None:
    found, tried = search("b")
    assert (found.first_bad, found.last_good, tried) == (0, None, [0])


@pytest.mark.parametrize(
    ("truth", "good", "bad", "between"),
    [
        ("ggsbb", 1, 3, [2]),
        ("gsssb", 0, 4, [1, 2, 3]),
        ("ggbsb", 1, 2, []),
        ("gsgbb", 2, 3, []),
        ("gssgb", 3, 4, []),
    ],
)
def test_a_skip_beside_the_border_is_no_answer(truth: str, good: int, bad: int, between: list[int]) -> None:
    found, _ = search(truth)
    assert (found.last_good, found.first_bad, found.between, found.untried) == (good, bad, between, [])


def test_if_the_oldest_cannot_be_run_a_newer_one_stands_for_it() -> None:
    found, tried = search("sssgggbbb")
    assert (found.last_good, found.first_bad) == (5, 6)
    assert len(tried) < 7


def test_if_none_that_can_be_run_is_good_the_oldest_of_them_is_the_answer() -> None:
    found, tried = search("sssssbbbb")
    assert (found.first_bad, found.last_good) == (5, None)
    assert 4 in tried


def test_all_skipped_but_the_reported_one_ends() -> None:
    found, tried = search("sssb")
    assert (found.first_bad, found.last_good, found.untried) == (3, None, [])
    assert tried[0] == 3


def test_a_search_at_its_beginning_knows_nothing() -> None:
    none: Mapping[int, State] = {}
    found = Search(range(3), none)
    assert (found.next, found.first_bad, found.last_good, found.is_bad) == (2, None, None, False)
