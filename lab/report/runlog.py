"""The log of a run: `run.log` in its folder, one line with the time (UTC) per event."""

import logging
import time
from pathlib import Path
from types import TracebackType

from lab.base.files import bounded, plain
from lab.record import CellResult
from lab.report import squares
from lab.run.journal import RUN_LOG
from lab.run.observer import Silent

# Longest line, in characters.
LONGEST = 20_000


class RunLog(Silent):
    """An observer that logs all events to a file, and forwards them to `view`."""

    def __init__(self, folder: Path, view: Silent) -> None:
        self._folder = folder
        self._view = view
        self._logger = logging.Logger("run", logging.INFO)
        self._last: dict[str, str] = {}
        self._started = False

    def __enter__(self) -> "RunLog":
        # `delay`: a run that is refused must neither create the folder nor write to another lab's log.
        handler = logging.FileHandler(self._folder / RUN_LOG, delay=True)
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        self._logger.addHandler(handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._started:
            self._log(f"ended by {type(error).__name__}: {error}")
        for handler in list(self._logger.handlers):
            handler.close()
            self._logger.removeHandler(handler)

    def lane(self, lane: str, text: str) -> None:
        self._view.lane(lane, text)
        # Logging the progress within a step would give one line per chunk of an upload.
        step = squares.step(text)
        if step != self._last.get(lane):
            self._last[lane] = step
            self._log(f"{lane}: {step or 'done'}")

    def cell(self, result: CellResult) -> None:
        self._view.cell(result)
        name = f"{result.guest} {result.variant} {result.build}"
        spent = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in result.seconds.items())
        self._log(f"{name}: {squares.outcome(result)}" + (f" ({spent})" if spent else ""))
        for fault in result.retried:
            self._log(f"{name}: tried again after: {fault}")

    def note(self, text: str) -> None:
        self._view.note(text)
        self._log(f"note: {text}")

    def time_left(self, seconds: float | None) -> None:
        self._view.time_left(seconds)

    def _log(self, text: str) -> None:
        """Write one line, even if the text has several."""
        if not self._started:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._started = True
        self._logger.info("%s", bounded(" / ".join(filter(str.strip, plain(text).splitlines())), LONGEST))
