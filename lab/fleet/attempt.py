"""The hosts of a run, the pieces that its plan is cut into, and the attempts: which host runs which piece."""

import math
import secrets
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lab.images.content import Content
from lab.plan import Cell
from lab.record import CellResult

# How long a host gets no part after its lab failed; after the second failure in a row twice as long, and so on.
# Another host so has a minute to join before the only one has tried a part three times.
REST_SECONDS = 20.0
MOST_REST_SECONDS = 60.0

# Why a host cannot take a part that has room for it at other times.
BUSY = "busy"


@dataclass
class Host:
    """A host that is connected. `memory_mib` is what its lanes may use together.

    `refused`: why it gets no more parts. `failures`: how often in a row its lab failed and decided nothing;
    parts that ran at the same time count once. `images` are those that it has, by their digests; `booted` are
    the machines that it ran parts of.
    """

    name: str
    lanes: int
    memory_mib: int
    kvm: bool = False
    refused: str = ""
    failures: int = 0
    running: dict[str, "Attempt"] = field(default_factory=dict)
    images: dict[str, Content] = field(default_factory=dict)
    booted: set[str] = field(default_factory=set)
    _failed: float = -math.inf

    def __str__(self) -> str:
        lanes = f"{self.lanes} lane{'s' if self.lanes != 1 else ''}"
        return f"{lanes}, {self.memory_mib} MiB of memory, {'with' if self.kvm else 'without'} KVM"

    @property
    def free_lanes(self) -> int:
        """How many more machines it may run at once."""
        return self.lanes - len(self.running)

    @property
    def is_resting(self) -> bool:
        """Whether its last failure is so recent that it gets no part yet."""
        rest = min(REST_SECONDS * self.failures, MOST_REST_SECONDS)
        return bool(self.failures) and time.monotonic() < self._failed + rest

    def fails(self, attempt: "Attempt") -> None:
        """Its lab failed with a part, and decided nothing of it."""
        if attempt.begun >= self._failed:
            self.failures += 1
            self._failed = time.monotonic()

    def succeeds(self) -> None:
        """Its lab decided something: whatever it failed with before was not for good."""
        self.failures = 0

    def why_not(self, piece: "Piece") -> str:
        """Why the host cannot take a part now; empty if it can."""
        if self.refused:
            return self.refused
        if piece.memory_mib > self.memory_mib:
            return f"a lane needs {piece.memory_mib} MiB of memory, and {self.name} has {self.memory_mib} MiB"
        taken = sum(attempt.piece.memory_mib for attempt in self.running.values())
        if self.is_resting or len(self.running) >= self.lanes or taken + piece.memory_mib > self.memory_mib:
            return BUSY
        return ""


@dataclass
class Piece:
    """The cells of one part; `seconds` are typical ones, from the start of its lane on.

    `faults` says what happened to it before, and `lost_with` on which hosts.
    """

    number: int
    cells: list[Cell]
    seconds: float
    memory_mib: int
    faults: list[str] = field(default_factory=list)
    lost_with: set[str] = field(default_factory=set)

    @property
    def guest(self) -> str:
        """The guest of all its cells."""
        return self.cells[0].guest.name

    @cached_property
    def machine(self) -> str:
        """The machine of all its cells."""
        return self.cells[0].machine.name


@dataclass
class Attempt:
    """A part that was given to a host. Nobody else knows its token.

    `shown` are the results that its host was told, of those of its cells on which only trials are left.
    """

    piece: Piece
    host: str
    shown: dict[Path, CellResult] = field(default_factory=dict)
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    begun: float = field(default_factory=lambda: time.monotonic())
    _end: float | None = None

    def tell_left(self, seconds: float | None) -> None:
        """Its host estimates that it takes so many seconds more."""
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def told_seconds(self) -> float | None:
        """How long it takes from its beginning to its end, by its host's word; None if that does not say."""
        return None if self._end is None else self._end - self.begun

    def seconds_left(self, factor: float) -> float:
        """How long it takes, by its host's word, or else by typical seconds times `factor`."""
        end = self.begun + self.piece.seconds * factor if self._end is None else self._end
        return max(0.0, end - time.monotonic())
