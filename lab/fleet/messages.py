"""What the coordinator and a host say to each other, as models.

Those of a host have bounds. What they refuse is a fault of that host. The record of its part is the one thing
that is not here: it is read as every record is.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter

from lab.base.activity import Activity, Progress
from lab.base.files import LONGEST_NAME, clean_text
from lab.images.store import ImageManifest
from lab.record.outcome import Entry, Foreseen, Prediction

# Longest text of an event and longest path, in characters.
LONGEST, LONGEST_PATH = 5000, 4096
# What dask calls what a host offers: lanes, and MiB of memory for all of them. Beside them each architecture.
LANE, MEMORY = "lane", "memory"

Line = Annotated[str, StringConstraints(max_length=LONGEST), AfterValidator(clean_text)]
LaneName = Annotated[str, StringConstraints(max_length=300), AfterValidator(clean_text)]
FolderPath = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_PATH)]
# Visible characters of ASCII: a host that dials in without a name is called by its address.
HostName = Annotated[str, StringConstraints(pattern=rf"^[!-~]{{1,{LONGEST_NAME}}}$")]
# More than any host has of anything, and a number.
Amount = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class WorkerSettings(Entry):
    """What dask's worker on a host is told by the login that starts it: one line of JSON.

    `scheduler` and `contact` are the addresses, on that host and on the coordinator's, by which the worker and
    dask's scheduler reach each other. `key` is the run's key in PEM. Without `lanes` or `memory_mib` the run
    may use all that the host has.
    """

    name: str
    key: str
    scheduler: str
    contact: str
    lanes: int | None
    memory_mib: int | None


class HostOffer(Entry):
    """What a host offers to a run: dask's resources by name. Of a worker dask knows much more."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    name: HostName
    resources: dict[str, Amount]


class WorkerStart(Entry):
    """The line that a worker prints on its host before it joins."""

    pid: int = Field(gt=1)
    port: int = Field(ge=1, le=65535)


class PartEnd(Entry):
    """How the child ended that ran a part: its exit status, and its last words."""

    host: HostName
    status: int
    words: Line


class PartBegins(Entry):
    """A host begins with a part."""

    kind: Literal["begins"]
    part: int


class LaneEvent(Entry):
    """What a lane does now: the beginning of a step, if it has an activity; without a text the lane is done."""

    kind: Literal["lane"]
    part: int
    lane: LaneName
    text: Line
    activity: Activity | None = None
    name: Line = ""

    @property
    def progress(self) -> Progress | None:
        """What an observer is told."""
        return Progress(self.text, self.activity, self.name) if self.text else None


class PredictionEvent(Entry):
    """What the probes alone expect of a cell of the part."""

    kind: Literal["prediction"]
    part: int
    cell: Line
    says: Foreseen
    cause: Line | None = None
    reason: Line = ""

    @property
    def prediction(self) -> Prediction:
        """What an observer is told."""
        return Prediction(says=self.says, cause=self.cause, reason=self.reason)


class NoteEvent(Entry):
    """Something to show once."""

    kind: Literal["note"]
    part: int
    text: Line


class ImageLacks(Entry):
    """The host of a part lacks its image, and waits for it in a folder."""

    kind: Literal["lacks image"]
    part: int
    folder: FolderPath


class ImagePrepared(Entry):
    """The host of a part has prepared an image, which is in a folder there."""

    kind: Literal["prepared"]
    part: int
    folder: FolderPath
    image: ImageManifest


Event = PartBegins | LaneEvent | PredictionEvent | NoteEvent | ImageLacks | ImagePrepared
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def read_event(message: Any) -> Event:
    """Read what a host tells of a part. Raises ValidationError."""
    return _EVENT.validate_python(message)
