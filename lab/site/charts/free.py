"""When a run left processors of its host free: stretches in which fewer lanes were at work than there are."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from operator import itemgetter

from lab.machine.acceleration import EMULATION
from lab.record import RunInfo
from lab.site.charts.kinds import Kind
from lab.site.charts.segment import LaneTime, Segment

ROW = "processors"


def row(lanes: Iterable[LaneTime], processors: int | None) -> list[LaneTime]:
    """The row of a chart that says when how many processors were free; none if they never were.

    `processors` are those of the host, None where lanes do not tell how busy they are.
    """
    found = list(_segments(lanes, processors)) if processors else []
    return [LaneTime(ROW, found)] if found else []


def processors_of(info: RunInfo) -> int | None:
    """How many processors the lanes of a run share; None where a lane may keep more than one busy.

    An emulated machine has one processor.
    """
    hosts = info.hosts()
    shared = len(hosts) == 1 and hosts[0].acceleration == EMULATION
    return hosts[0].cpus if shared else None


def _segments(lanes: Iterable[LaneTime], processors: int) -> Iterator[Segment]:
    for at_work, stretches in groupby(_stretches(lanes), key=itemgetter(0)):
        (_, start, end), *more = stretches
        if at_work < processors:
            text = f"{processors - at_work} of {processors} processors without a lane at work"
            yield Segment(Kind.FREE, start, (more[-1][2] if more else end) - start, text)


def _stretches(lanes: Iterable[LaneTime]) -> Iterator[tuple[int, float, float]]:
    """How many lanes are at work, from when to when."""
    changes: Counter[float] = Counter({0.0: 0})
    for segment in (segment for lane in lanes for segment in lane.segments):
        works = segment.kind is not Kind.WAITING
        changes[segment.start] += works
        changes[segment.start + segment.seconds] -= works
    at_work = 0
    for start, end in pairwise(sorted(changes)):
        at_work += changes[start]
        yield at_work, start, end
