"""What a part of a run tells the host that runs it: a line of JSON for each event."""

import json
import threading
from typing import Any, TextIO

from lab.base.files import bounded, plain
from lab.images.store import BaseImage
from lab.record import CellResult
from lab.run.observer import Silent

# Longest text of an event, in characters.
LONGEST = 4000


class EventLines(Silent):
    """An observer that writes events.

    Their `kind` is `lane`, `note`, `prepared` (an image, and the folder that has it), or `refused` (why this
    host must not run the part).
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def lane(self, lane: str, text: str) -> None:
        self.tell("lane", lane=lane, text=text)

    def cell(self, result: CellResult) -> None:
        # The lane that ended it: another one may have run its suite, on another host.
        text = f"decided {result.variant} {result.build}: {result.status}"
        self.tell("lane", lane=result.trials_lane or result.lane, text=text)

    def note(self, text: str) -> None:
        self.tell("note", text=text)

    def image(self, image: BaseImage) -> None:
        if image.manifest.base:
            self.tell("prepared", folder=str(image.folder), image=image.content.model_dump(mode="json"))

    def tell(self, kind: str, **more: Any) -> None:
        """Write one event."""
        if "text" in more:
            more["text"] = bounded(plain(more["text"]), LONGEST)
        with self._lock:
            self._stream.write(json.dumps({"kind": kind, **more}) + "\n")
            self._stream.flush()
