"""What is kept of each try: one JSON object in a line of `record.jsonl`."""

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, Field

FILE = "record.jsonl"


class TryRecord(BaseModel):
    """One try. `moment` is when the fault was to happen, `doing` what the lab's log said when it did.

    `statuses` maps each command of the try to its exit status, in order. `findings` are what was not as
    promised.
    """

    name: str
    fault: str
    started: datetime
    lab: str = Field(description="The commit of the lab.")
    moment: str
    happened: str = Field(default="", description="What was done; empty: the run ended before the moment.")
    doing: str = ""
    statuses: list[tuple[str, int | None]] = Field(default_factory=list)
    cells: dict[str, str] = Field(default_factory=dict)
    findings: list[str] = Field(default_factory=list)
    seconds: float = 0.0


def append(folder: Path, record: TryRecord) -> None:
    with (folder / FILE).open("a") as stream:
        stream.write(record.model_dump_json() + "\n")
