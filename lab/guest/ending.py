"""How the command that runs a suite ended."""

import signal
from dataclasses import dataclass

from lab.builds import Build

# By `timeout`, whose first signal was enough. That of coreutils in Rust had the second status until 2026, with
# --kill-after (https://github.com/uutils/coreutils/pull/11392).
TIMED_OUT = (124, 125)
BY_SIGNAL = 128  # what a shell adds to the number of the signal that ended a command
KILLED = BY_SIGNAL + signal.SIGKILL
# Seconds are counted as the difference of two times, each without its fraction.
ROUNDING = 1


@dataclass(frozen=True)
class Ending:
    """The command's exit status, and how many seconds it took; `limit` is the suite's limit in seconds."""

    status: int
    seconds: int
    limit: float

    @property
    def at_limit(self) -> bool:
        """Whether the suite's limit ended it: the kernel, too, sends SIGKILL if memory runs out."""
        return self.status in (*TIMED_OUT, KILLED) and self.seconds >= int(self.limit) - ROUNDING

    def is_early(self, build: Build) -> bool:
        """Whether the suite ended before each of its tests had its turn."""
        return self.at_limit or self.status not in build.completed

    def __str__(self) -> str:
        """What happened to the suite, as the end of a sentence."""
        if self.at_limit:
            return f"was killed at its time limit of {self.limit:.0f} s"
        known = {each.value: each.name for each in signal.Signals}
        if name := known.get(self.status - BY_SIGNAL):
            early = f", before its time limit of {self.limit:.0f} s" if self.status == KILLED else ""
            return f"was ended by {name} (exit status {self.status}){early}"
        return f"ended with exit status {self.status}"
