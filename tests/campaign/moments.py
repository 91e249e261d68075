"""Which fault a try makes, and when: decided by its name alone, so that it can be repeated."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel

from lab.base.errors import UsageError
from lab.run.journal import RUN_LOG

SUITE = "running the suite"


class Step(BaseModel):
    """One line of a run's log, `seconds` after the lab was started."""

    text: str
    seconds: float


class Timeline(BaseModel):
    """The steps of an undisturbed run, and how long it took."""

    steps: list[Step]
    seconds: float


@dataclass(frozen=True)
class Moment:
    """`delay` seconds after the line `after` (counted from 0) of the run's log; None: after its start.

    The line `ends`, if there is one, comes next: the moment is no later than that.
    """

    after: int | None
    delay: float
    text: str = ""
    ends: int | None = None

    def __str__(self) -> str:
        return f"{self.text or 'start'} + {self.delay:.1f} s"


@dataclass(frozen=True)
class Name:
    """A try's name: `SEED:NUMBER:FAULT`."""

    seed: int
    number: int
    fault: str

    @classmethod
    def parse(cls, text: str) -> "Name":
        """Raises UsageError."""
        parts = text.split(":")
        if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
            raise UsageError(f"{text!r} names no try", hint="expected SEED:NUMBER:FAULT, as in record.jsonl")
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.seed}:{self.number}:{self.fault}"

    def random(self) -> random.Random:
        return random.Random(str(self))


def names(seed: int, tries: int, faults: Sequence[str], first: int = 0) -> list[Name]:
    """The tries of a campaign: every fault once in a random order, then again."""
    found: list[Name] = []
    for number in range(first, first + tries):
        order = list(faults)
        random.Random(f"{seed}:{number // len(order)}").shuffle(order)
        found.append(Name(seed, number, order[number % len(order)]))
    return found


def moment(source: random.Random, timeline: Timeline, *, in_suite: bool) -> Moment:
    """A moment of the run, each second as likely as any other; `in_suite`: while the suite runs."""
    spans = _spans(timeline)
    if in_suite:
        spans = [span for span in spans if span[2].endswith(SUITE)]
    left = source.random() * sum(length for _, length, _ in spans)
    chosen = spans[-1]
    for span in spans:
        if left <= span[1]:
            chosen = span
            break
        left -= span[1]
    after, length, text = chosen
    following = 0 if after is None else after + 1
    ends = following if following < len(timeline.steps) else None
    return Moment(after, round(min(left, length), 2), text, ends)


def _spans(timeline: Timeline) -> list[tuple[int | None, float, str]]:
    """Each step with its place and its length; the first span is the time before any step."""
    starts = [0.0, *(step.seconds for step in timeline.steps), timeline.seconds]
    texts = ["", *(step.text for step in timeline.steps)]
    lengths = [max(0.0, later - earlier) for earlier, later in pairwise(starts)]
    places: list[int | None] = [None, *range(len(timeline.steps))]
    return list(zip(places, lengths, texts, strict=True))


def steps(run: Path, began: datetime | None = None) -> list[Step]:
    """The lines of a run's log, with the seconds since `began`; notes are left out."""
    try:
        lines = (run / RUN_LOG).read_text(errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        stamp, _, text = line.partition(" ")
        if text and not text.startswith("note:"):
            found.append(Step(text=_short(text), seconds=_since(stamp, began)))
    return found


def last_step(run: Path) -> str:
    """What the run was doing, as its log says."""
    found = steps(run)
    return found[-1].text if found else "before the first step"


def _short(text: str) -> str:
    """A step without the times that a decided cell has."""
    return text.partition(" (")[0][:200]


def _since(stamp: str, began: datetime | None) -> float:
    if began is None:
        return 0.0
    try:
        at = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return max(0.0, round((at - began).total_seconds(), 2))
