"""Bisection: the first of ordered candidates that is bad, found by trying few of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    """What a candidate is. Skipped: it could not be run, or what it shows is neither good nor bad."""

    GOOD = "good"
    BAD = "bad"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Search[T]:
    """A bisection at one moment: the candidates in order, and the state of those that were tried.

    The last candidate is the one that is reported to be bad. Both ends are tried first: a bisection means
    something only if the last candidate is bad and an early one is good.
    """

    candidates: Sequence[T]
    states: Mapping[T, State] = field(default_factory=dict)

    @property
    def next(self) -> T | None:
        """The candidate to try next; None if nothing more can be learnt."""
        first, last = self.candidates[0], self.candidates[-1]
        if last not in self.states:
            return last
        if not self.is_bad:
            return None
        if first not in self.states:
            return first
        # The one in the middle of those left; beside a candidate that was skipped, its neighbour.
        left = self.untried
        return left[len(left) // 2] if left else None

    @property
    def is_bad(self) -> bool:
        """Whether the last candidate is bad: otherwise there is nothing to look for."""
        return self.states.get(self.candidates[-1]) is State.BAD

    @property
    def first_bad(self) -> T | None:
        """The earliest candidate that was seen to be bad; None if the last one is not."""
        return self.candidates[self._high] if self.is_bad else None

    @property
    def last_good(self) -> T | None:
        """The latest candidate before the first bad one that was seen to be good; None if none was."""
        low = self._low
        return self.candidates[low] if low >= 0 and self._state(low) is State.GOOD else None

    @property
    def untried(self) -> list[T]:
        """The candidates that can still change the answer."""
        return [each for each in self.candidates[self._low + 1 : self._high] if each not in self.states]

    @property
    def between(self) -> list[T]:
        """The skipped candidates of which one may be the first bad one."""
        return [each for each in self.candidates[self._low + 1 : self._high] if each in self.states]

    def _state(self, index: int) -> State | None:
        return self.states.get(self.candidates[index])

    @property
    def _high(self) -> int:
        """The index of the first bad candidate; that of the last candidate if none was seen to be bad."""
        last = len(self.candidates) - 1
        return next((index for index in range(last) if self._state(index) is State.BAD), last)

    @property
    def _low(self) -> int:
        """The index of the last good candidate before the first bad one; -1 if there is none.

        While no candidate is good, the last skipped one stands for it: those that cannot be run at all are
        expected to be the oldest ones.
        """
        below = range(self._high - 1, -1, -1)
        for state in (State.GOOD, State.SKIPPED):
            if (found := next((index for index in below if self._state(index) is state), None)) is not None:
                return found
        return -1
