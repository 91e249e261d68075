"""Delta debugging on sets whose smallest failing part is known."""

from collections.abc import Sequence
from itertools import combinations

import pytest

from lab.trials.experiment import smallest


def parts(whole: str, needed: set[str]) -> tuple[str, list[str]]:
    """What is found where `needed` is needed, and every part that was asked about."""
    asked: list[str] = []

    def does(part: Sequence[str]) -> bool:
        asked.append("".join(part))
        return needed <= set(part)

    return "".join(smallest(whole, does)), asked


@pytest.mark.parametrize("size", range(1, 8))
def test_exactly_what_is_needed_is_found_whatever_it_is(size: int) -> None:
    whole = "abcdefg"[:size]
    for count in range(1, size + 1):
        for needed in combinations(whole, count):
            assert parts(whole, set(needed))[0] == "".join(needed)


def test_where_any_of_several_does_it_nothing_can_be_left_out_of_what_is_found() -> None:
    def does(part: Sequence[str]) -> bool:
        return {"a", "f"} <= set(part) or {"b", "c", "g"} <= set(part)

    found = smallest("abcdefgh", does)
    assert does(found)
    assert not any(does([each for each in found if each != left_out]) for left_out in found)


def test_one_of_many_takes_few_tries() -> None:
    found, asked = parts("".join(map(chr, range(100, 164))), {"x"})
    assert found == "x"
    assert len(asked) <= 12


def test_of_two_that_are_needed_together_each_is_tried_alone_and_nothing_twice() -> None:
    assert parts("ab", {"a", "b"}) == ("ab", ["a", "b"])


def test_a_single_one_needs_no_try() -> None:
    assert parts("a", {"a"}) == ("a", [])
