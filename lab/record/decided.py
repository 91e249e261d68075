"""What a run decided since its `results.json` was written: `decided.jsonl`, to which each decision adds a line.

To write the whole record at each cell would cost a run of many cells more the longer it goes on. The file's
first line names the `results.json` that it continues, by its SHA-256; it says nothing about any other.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic_core import from_json

from lab.record.outcome import Entry

DECIDED_FILE = "decided.jsonl"
FOLLOWS = "follows"
# What a line can hold: a cell's result, a lane's record, a step of a lane, or a build's record.
Kind = Literal["cell", "lane", "step", "build"]


def line(kind: Kind, entry: Entry) -> bytes:
    """One line of the file."""
    return f'{{"{kind}":{entry.model_dump_json(by_alias=True)}}}\n'.encode()


class DecidedFile:
    """Adds lines to the file of one run. `size` is how many bytes were added since the record was written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / DECIDED_FILE
        self._first_line = b""
        self.size = 0

    def follow(self, record: bytes) -> None:
        """Begin anew after this `results.json`, which is on disk and has all that was added before."""
        self._first_line, self.size = first_line(record), 0

    def add(self, lines: bytes) -> None:
        """Add lines; they are on disk when this returns. After an OSError the file must follow a new record."""
        begins = not self.size
        with self._path.open("wb" if begins else "ab") as stream:
            if begins:
                stream.write(self._first_line + b"\n")
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())
        self.size += len(lines)

    def remove(self) -> None:
        """Delete the file: the record has everything."""
        self._path.unlink(missing_ok=True)


def read(folder: Path) -> bytes:
    """The file's content, empty if there is none.

    Read it before `results.json`: one that is written meanwhile has all that this content adds.
    """
    try:
        return (folder / DECIDED_FILE).read_bytes()
    except FileNotFoundError:
        return b""


def added(content: bytes, first_line: bytes) -> Iterator[tuple[Kind, Any]]:
    """What the file adds to the record that `first_line` names: kinds and parsed entries.

    Nothing is added to another record. A last line without an end is what a lab was writing when it was killed,
    and does not count. Raises ValueError if the file is damaged.
    """
    first, *lines = content.split(b"\n")[:-1] or [b""]
    if first != first_line:
        return
    for text in lines:
        try:
            [(kind, entry)] = from_json(text).items()
        except AttributeError:
            raise ValueError("expected an object on each line") from None
        yield kind, entry


def first_line(record: bytes) -> bytes:
    """The line that names the `results.json` with this content."""
    return json.dumps({FOLLOWS: hashlib.sha256(record).hexdigest()}).encode()
