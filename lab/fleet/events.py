"""What a child tells while it runs a part: a line of JSON for each event, on its standard output."""

import threading
from typing import Literal, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.base.files import bounded, plain
from lab.fleet.names import LaneNames
from lab.fleet.spending import MOST_SECONDS
from lab.images.store import BaseImage
from lab.record import CellResult, Status
from lab.run.observer import Observer, Silent

# Longest text of an event, in characters, and longest line, in bytes.
LONGEST_TEXT = 4_000
LONGEST_LINE = 64 * 1024


class Event(BaseModel):
    """One event. `lane`: what a lane does; `left`: the estimated seconds until the part's end.

    `cell`: a cell is decided, and how; the run learns it only with the part's result. `image`: the prepared
    image that a lane starts from, as JSON of its content. `refused`: why this host does not run the part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["lane", "cell", "note", "left", "image", "refused"]
    lane: str = Field(default="", max_length=200)
    text: str = Field(default="", max_length=LONGEST_TEXT + 100)
    seconds: float | None = Field(default=None, ge=0, le=MOST_SECONDS)
    guest: str = Field(default="", max_length=200)
    variant: str = Field(default="", max_length=200)
    build: str = Field(default="", max_length=200)
    status: Status | None = None

    @classmethod
    def read(cls, line: str | bytes) -> "Event | None":
        """Parse a line; None if it is no event."""
        try:
            return cls.model_validate_json(line)
        except ValidationError:
            return None


class EventLines(Silent):
    """An observer that writes events."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def lane(self, lane: str, text: str) -> None:
        self._tell(Event(kind="lane", lane=bounded(lane, 150), text=_short(text)))

    def cell(self, result: CellResult) -> None:
        self._tell(
            Event(
                kind="cell",
                # The lane that ended it: another one may have run its suite, on another host.
                lane=bounded(result.trials_lane or result.lane, 150),
                guest=bounded(result.guest, 150),
                variant=bounded(result.variant, 150),
                build=bounded(result.build, 150),
                status=result.status,
            )
        )

    def note(self, text: str) -> None:
        self._tell(Event(kind="note", text=_short(text)))

    def time_left(self, seconds: float | None) -> None:
        self._tell(Event(kind="left", seconds=seconds))

    def image(self, image: BaseImage) -> None:
        if image.manifest.base:
            self._tell(Event(kind="image", text=image.content.model_dump_json()))

    def refuse(self, reason: str) -> None:
        """Tell that this host does not run the part."""
        self._tell(Event(kind="refused", text=_short(reason)))

    def _tell(self, event: Event) -> None:
        with self._lock:
            self._stream.write(event.model_dump_json(exclude_defaults=True) + "\n")
            self._stream.flush()


def show(event: Event, names: LaneNames, observer: Observer) -> None:
    """Show an event of a part, under the name of its host."""
    match event.kind:
        case "lane":
            observer.lane(names[event.lane], plain(event.text))
        case "cell":
            decided = f"{event.variant} {event.build}: {event.status or 'no status'}"
            observer.lane(names[event.lane], f"decided {plain(decided)}")
        case "note":
            observer.note(f"{names.host}: {plain(event.text)}")


def _short(text: str) -> str:
    return bounded(plain(text), LONGEST_TEXT)
