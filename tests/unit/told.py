"""What a run told: an observer to test with."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lab.record import CellResult
from lab.run.observer import Silent

# How long anything may take: on a host with much to do an interpreter takes seconds to start.
SECONDS = 600.0


def run_in_a_loop[T](coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread of its own: a test's browser keeps a loop in the main thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


class Told(Silent):
    """What a run told, in order; a test can wait for it."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lanes: list[tuple[str, str]] = []
        self.cells: list[CellResult] = []
        self._changed = threading.Condition()

    def lane(self, lane: str, text: str) -> None:
        with self._changed:
            self.lanes.append((lane, text))
            self._changed.notify_all()

    def cell(self, result: CellResult) -> None:
        with self._changed:
            self.cells.append(result)
            self._changed.notify_all()

    def note(self, text: str) -> None:
        with self._changed:
            self.notes.append(text)
            self._changed.notify_all()

    def wait(self, for_what: Callable[[], object]) -> None:
        """Wait until something was told."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(for_what()), SECONDS), (self.notes, self.lanes)

    def noted(self, text: str) -> bool:
        return any(text in note for note in self.notes)
