"""What a run took of the processors of its hosts, by what each of them measures."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.record import ProcessorTime

# Largest number of seconds, and of processors, that is believed.
MOST_SECONDS = 1e9
MOST_PROCESSORS = 100_000


class Reading(BaseModel):
    """What a host measured since it joined. Its worker sends it at the end of each part.

    `session` tells one joining of a host from the next. The others are those of `ProcessorTime`; what lanes
    took is in the records of their parts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    session: str = Field(max_length=64)
    processors: int = Field(ge=1, le=MOST_PROCESSORS)
    wall: float = Field(ge=0, le=MOST_SECONDS)
    lab: float = Field(ge=0, le=MOST_SECONDS)
    idle: float = Field(ge=0, le=MOST_SECONDS)

    @classmethod
    def of(cls, session: str, measured: ProcessorTime) -> "Reading":
        """What a host sends."""
        return cls(
            session=session,
            processors=measured.processors,
            wall=measured.wall,
            lab=measured.lab,
            idle=measured.idle,
        )

    @classmethod
    def read(cls, said: Any) -> "Reading | None":
        """What a host said, which may be anything; None if it is no reading."""
        try:
            return cls.model_validate(said)
        except ValidationError:
            return None


class Spending:
    """Adds up what the hosts of one run measure."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], ProcessorTime] = {}

    def add(self, host: str, reading: Reading | None, lanes: float = 0.0) -> None:
        """Take in what a host sent at the end of a part, and what the part's lanes took.

        Nothing is known of a host that sends no reading, and nothing is added for it.
        """
        if reading is None:
            return
        before = self._found.get((host, reading.session))
        if before:
            lanes += before.lanes
        last = before if before and before.wall > reading.wall else reading
        self._found[host, reading.session] = ProcessorTime(
            host=host,
            processors=last.processors,
            wall=last.wall,
            lanes=min(round(lanes, 1), MOST_SECONDS),
            lab=last.lab,
            idle=last.idle,
        )

    def sessions(self) -> list[ProcessorTime]:
        """What each host did, once for each time that it joined."""
        return list(self._found.values())
