"""The order of a suite's tests, shuffled by a seed."""

import hashlib
from collections.abc import Iterable

# The highest seed; the lowest is 0. Short enough to be typed.
HIGHEST_SEED = 999_999_999


def shuffled(tests: Iterable[str], seed: int) -> list[str]:
    """Return the tests in the order that the seed gives, the same on every host and for every Python.

    Two tests have the same order in every suite that has both.
    """
    return sorted(tests, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
