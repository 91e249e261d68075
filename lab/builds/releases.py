"""The words of `--build` that stand for a release: `0.10.x`, the newest of a series, and `previous`."""

import re
from collections.abc import Sequence

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from lab.base.errors import UsageError

# The newest release before the newest one.
PREVIOUS = "previous"
# 0.10.x, and 0.10.* as packaging tools write it.
SERIES = re.compile(r"v?(\d+(?:\.\d+)*)\.[xX*]", re.ASCII)


def is_word(text: str) -> bool:
    """Whether a text stands for a release that has to be looked up."""
    return text == PREVIOUS or SERIES.fullmatch(text) is not None


def choose(word: str, known: Sequence[Version], where: str) -> str:
    """The version that a word stands for, among known releases, oldest first; `where` says where they are from.

    Raises UsageError if it stands for none of them.
    """
    series = SERIES.fullmatch(word)
    if series:
        found = list(SpecifierSet(f"=={series[1]}.*").filter(known))
        problem = f"{where} has no release of the series {series[1]}"
    else:
        found = list(known[:-1])
        problem = f"{where} has no release before the newest"
    if not found:
        there = ", ".join(map(str, known))
        raise UsageError(
            f"--build {word}: {problem}", hint=f"there are {there}" if there else "name a wheel instead"
        )
    return str(found[-1])
