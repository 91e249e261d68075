"""How long nothing was heard, by a clock that nobody sets and that stands still with this process."""

import time
from collections.abc import Mapping

# What passes between two looks counts no longer than this, in seconds; there is a look each second. A process
# that was stopped or blocked heard nothing because it did not listen.
MOST_SECONDS = 2.0


class Watch:
    """Tells how many seconds have passed since it was looked at last, of those in which this process ran."""

    def __init__(self) -> None:
        self._looked = time.monotonic()

    def passed(self) -> float:
        """The seconds since the last time."""
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        return min(passed, MOST_SECONDS)


class Silences:
    """For how long each host has said nothing, as of the last look: `seconds`, by the hosts' addresses."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._watch = Watch()
        self._last: dict[str, float] = {}

    def look(self, last: Mapping[str, float]) -> None:
        """Look at when each host said something last, by any clock: what counts is whether that has changed."""
        passed = self._watch.passed()
        self.seconds = {
            host: self.seconds[host] + passed if self._last.get(host) == time else 0.0
            for host, time in last.items()
        }
        self._last = dict(last)
