"""Outcomes that a box which died for reasons of its own could have made are tried twice."""

from enum import StrEnum

# Where the evidence of a second try goes, below that of the first.
AGAIN = "again"


def agreed[T: StrEnum](first: tuple[T, str], second: tuple[T, str], error: T) -> tuple[T, str]:
    """The outcome of two tries, and why; `error` where they disagree: then neither tells anything."""
    if first[0] is second[0]:
        return first[0], f"twice: {first[1]}"
    said = "; ".join(": ".join(filter(None, each)) for each in (first, second))
    return error, f"two tries disagree: {said}"
