"""The log of a run: `run.log` in its folder, one line with the time (UTC) per event."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from lab.base.files import bounded, plain
from lab.base.space import free_text
from lab.images.store import BaseImage
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
        self._lock = threading.Lock()
        self._last: dict[str, str] = {}
        self._started = False
        self._ended = False

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._started:
            self._log(f"ended by {type(error).__name__}: {error}")

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

    def image(self, image: BaseImage) -> None:
        self._view.image(image)

    def _log(self, text: str) -> None:
        """Write one line, even if the text has several. The log ends where it cannot be written."""
        line = bounded(" / ".join(filter(str.strip, plain(text).splitlines())), LONGEST)
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3]
        with self._lock:
            if self._ended:
                return
            try:
                self._write(f"{now}Z {line}\n")
            except OSError as error:
                self._ended = True
                self._view.note(
                    f"{self._folder / RUN_LOG} ends here: {error.strerror}; {free_text(self._folder)}"
                )

    def _write(self, line: str) -> None:
        # With the first line: a run that is refused must neither create the folder nor write to another's log.
        if not self._started:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._started = True
        with (self._folder / RUN_LOG).open("a", encoding="utf-8") as log:
            log.write(line)
