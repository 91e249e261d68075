"""The order of a suite's tests: shuffled by a seed, recorded, and kept by what runs them."""

import json
import runpy

from lab.builds import HIGHEST_SEED, shuffle_tests
from lab.builds.kinds.nextest import RUNNER

PRIORITIES = runpy.run_path(str(RUNNER))["priorities"]
TESTS = ["a", "b", "c", "d", "e"]


def test_a_seed_gives_one_order_whichever_order_it_is_given() -> None:
    assert shuffle_tests(TESTS, 7) == shuffle_tests(reversed(TESTS), 7)
    assert sorted(shuffle_tests(TESTS, 7)) == TESTS
    assert HIGHEST_SEED < 2**31
    assert len({tuple(shuffle_tests(TESTS, seed)) for seed in range(50)}) > 30
    # As records have it: it must be the same for all labs.
    assert shuffle_tests(TESTS, 0) == ["e", "b", "a", "c", "d"]


def test_two_tests_have_the_same_order_in_a_part_of_the_suite() -> None:
    for seed in range(20):
        assert [name for name in shuffle_tests(TESTS, seed) if name in "ace"] == shuffle_tests("ace", seed)


def test_more_tests_than_nextest_has_priorities_share_them_in_their_order() -> None:
    for count in (1, 7, 201, 202, 1000):
        text = PRIORITIES([f"t{number}" for number in range(count)])
        priorities = [int(line.split(" = ")[1]) for line in text.splitlines() if line.startswith("priority")]
        assert priorities == sorted(priorities, reverse=True)
        assert (len(priorities), priorities[0]) == (count, 100)
        assert min(priorities) >= -100
        assert len(set(priorities)) == min(count, 201)


def test_an_expression_stays_what_it_is_in_nextest_s_profile() -> None:
    expression = 'test(=a"b\\c)'
    [line] = [line for line in PRIORITIES([expression]).splitlines() if line.startswith("filter")]
    assert json.loads(line.partition(" = ")[2]) == expression
