"""Delta debugging: the smallest part of a set that still has the effect of the whole."""

from collections.abc import Callable, Sequence
from itertools import pairwise


def smallest[T](whole: Sequence[T], does: Callable[[Sequence[T]], bool]) -> list[T]:
    """A part of `whole` that still `does` it, and from which no element can be left out.

    `whole` itself is known to do it and is not asked. This is ddmin of A. Zeller and R. Hildebrandt,
    Simplifying and Isolating Failure-Inducing Input (IEEE Transactions on Software Engineering 28, 2002): ever
    smaller chunks are tried alone, then everything but each of them.
    """
    part, count = list(whole), 2
    while len(part) > 1:
        chunks = _split(part, count)
        if alone := next((chunk for chunk in chunks if does(chunk)), None):
            part, count = alone, 2
            continue
        # With two chunks, each is the rest of the other.
        rests = [_without(chunks, chunk) for chunk in chunks] if count > 2 else []
        if rest := next((rest for rest in rests if does(rest)), None):
            part, count = rest, count - 1
            continue
        if count >= len(part):
            break
        count = min(2 * count, len(part))
    return part


def _split[T](part: Sequence[T], count: int) -> list[list[T]]:
    """The part split, in order, into `count` chunks of nearly the same length."""
    ends = [len(part) * number // count for number in range(count + 1)]
    return [list(part[start:end]) for start, end in pairwise(ends)]


def _without[T](chunks: Sequence[list[T]], left_out: list[T]) -> list[T]:
    return [each for chunk in chunks if chunk is not left_out for each in chunk]
