"""Measures what a session of a run does with the processors of its host."""

import os
import threading
import time

import psutil

from lab.record import ProcessorTime


class Meter:
    """Measures from its making on. Lanes tell it from their own threads what their machines took."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._lab = _lab()
        self._idle = _idle()
        self._lanes = 0.0
        self._lock = threading.Lock()

    def add_lane(self, seconds: float) -> None:
        """Add the processor time of a lane that is at its end."""
        with self._lock:
            self._lanes += seconds

    def read(self) -> ProcessorTime:
        """What was spent so far."""
        with self._lock:
            return ProcessorTime(
                processors=os.cpu_count() or 1,
                wall=round(time.monotonic() - self._start, 1),
                lanes=round(self._lanes, 1),
                lab=round(_lab() - self._lab, 2),
                # The kernel may count less waiting for a disk than before.
                idle=max(0.0, round(_idle() - self._idle, 1)),
            )


def _lab() -> float:
    """Seconds of processor time of this process, and of those that it started and waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _idle() -> float:
    """Seconds in which the host's processors had nothing to do, since it was booted."""
    spent = psutil.cpu_times()
    return float(spent.idle + spent.iowait)
