"""The names of lanes in a run of several hosts: that of the host stands before that of the machine."""

import threading

from lab.base.files import plain
from lab.run.labels import NUMBERED, Labels

SEPARATOR = ": "


def parts(label: str) -> tuple[str, str]:
    """The host of a lane, and what the lane is called there."""
    host, _, own = label.partition(SEPARATOR)
    return host, own


class LaneNames:
    """The names of one part's lanes, by what its host calls them. No other lane of the run has any of them."""

    def __init__(self, host: str, labels: Labels) -> None:
        self.host = host
        self._labels = labels
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def __getitem__(self, own: str) -> str:
        if not own:
            return ""
        if own not in self._known:
            machine = plain(own).partition(NUMBERED)[0]
            self._known[own] = self._labels.next(f"{self.host}{SEPARATOR}{machine}")
        return self._known[own]

    def all(self) -> list[str]:
        """Those that were asked for."""
        return list(self._known.values())
