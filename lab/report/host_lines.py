"""The lines about the hosts of a run on several: how each is, and what its lanes do."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from rich.text import Text

from lab.base.files import inert, plain
from lab.fleet import names
from lab.run.several import HostNow, HostsNow

# How the line of a host looks that is not as it should be.
TROUBLE = "bold red"


def header(host: HostNow) -> str:
    """A host and how it is."""
    said = [f"{host.used} of {_lanes(host.lanes)}, {'KVM' if host.kvm else 'emulation'}"]
    if host.gone:
        said = ["gone"]
    elif host.silent:
        said.append(f"has not answered for {host.silent:.0f} s")
    if host.refused:
        said.append(f"gets no more parts: {host.refused}")
    elif host.rests_after:
        times = f" {host.rests_after} times in a row" if host.rests_after > 1 else ""
        said.append(f"rests: its lab failed{times}")
    return f"{host.name}: {', '.join(said)}"


def progress(now: HostsNow) -> str:
    """How far the run is, and how much time is left."""
    done = cells(now.decided, len(now.told), now.cells)
    if now.decided == now.cells:
        return done
    return f"{done}, {left(now.seconds_left, is_typical=now.is_typical)}"


def cells(decided: int, told: int, all_cells: int) -> str:
    """How many cells are decided; so many more are, as their hosts tell, and their results are to come."""
    return f"{decided + told} of {all_cells} cells{f', {told} on their way' if told else ''}"


def left(seconds: float | None, *, is_typical: bool = False) -> str:
    """Say how much time is left. An estimate that has run out says nothing about the rest."""
    if seconds is None or seconds <= 0:
        return "time left unknown"
    return f"about {clock(seconds)} left{' by typical times' if is_typical else ''}"


def clock(seconds: float) -> str:
    """A time in hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def forms(now: HostsNow, lanes: Mapping[str, str], most: int) -> Iterator[list[Text]]:
    """The lines of all hosts, by several forms, the longest first; the last has no more than `most` lines.

    `lanes` maps the label of each lane to what it does, in the order in which they are shown. What is done on
    none of the hosts stands before them: the coordinator gets images.
    """
    own: dict[str, dict[str, str]] = {}
    for label, text in lanes.items():
        host, lane = names.parts(label)
        own.setdefault(host, {})[lane] = text
    known = {host.name: host for host in now.hosts}
    groups = [(_of(other, "bold"), own[other]) for other in own if other not in known]
    groups += [(_line(host), own.get(host.name, {})) for host in now.hosts]
    yield [line for head, of in groups for line in (head, *(_of(f"  {lane}: {of[lane]}") for lane in of))]
    others = [_of(f"{other}; {_doing(own[other])}") for other in own if other not in known]
    short = [_line(host, own.get(host.name, {})) for host in now.hosts]
    yield [*others, *short]
    room = max(1, most)
    yield [*others[: room - 1], *_bounded(now.hosts, short, room - len(others[: room - 1]))]


def _bounded(hosts: Sequence[HostNow], lines: Sequence[Text], most: int) -> list[Text]:
    """So many of the hosts' lines, those that need to be seen first, and a line that counts the others."""
    if len(lines) <= most:
        return list(lines)
    order = sorted(range(len(hosts)), key=lambda number: _rank(hosts[number]))
    shown = sorted(order[: most - 1])
    rest = [hosts[number] for number in sorted(order[most - 1 :])]
    return [*(lines[number] for number in shown), _of(_counted(rest, more=bool(shown)))]


def _rank(host: HostNow) -> int:
    """How soon a host is shown where not all can be: one that does not answer is news."""
    if host.gone:
        return 2
    return 0 if host.silent else 3 if host.refused else 1


def _counted(hosts: Sequence[HostNow], *, more: bool) -> str:
    there = [host for host in hosts if not host.gone]
    found = Counter(
        {
            "not answering": sum(bool(host.silent) for host in there),
            "with no more parts": sum(bool(host.refused) for host in there),
            "resting": sum(bool(host.rests_after) for host in there),
            "gone": len(hosts) - len(there),
        }
    )
    lanes = f"{sum(host.used for host in there)} of {_lanes(sum(host.lanes for host in there))}"
    counts = [f"{count} {what}" for what, count in found.items() if count]
    what = f"{'more ' if more else ''}host{'s' if len(hosts) > 1 else ''}"
    return f"{len(hosts)} {what}: {', '.join([lanes, *counts])}"


def _line(host: HostNow, lanes: Mapping[str, str] | None = None) -> Text:
    trouble = host.silent or host.gone or host.refused or host.rests_after
    text = header(host) + (f"; {_doing(lanes)}" if lanes else "")
    return _of(text, TROUBLE if trouble else "dim" if lanes is not None else "bold")


def _doing(lanes: Mapping[str, str]) -> str:
    return "; ".join(f"{lane}: {text}" for lane, text in lanes.items())


def _of(text: str, style: str = "dim") -> Text:
    """One line, whatever is in it; what does not fit is cut off."""
    return Text(inert(plain(text)).replace("\n", " "), style, no_wrap=True, overflow="ellipsis")


def _lanes(count: int) -> str:
    return f"{count} lane{'s' if count != 1 else ''}"


class HostLog:
    """The lines for a log: each host that is not as before, and now and then how far the run is."""

    # How often it is said how far the run is, in seconds.
    EVERY = 60.0

    def __init__(self) -> None:
        self._headers: dict[str, str] = {}
        self._progress: tuple[float, str] | None = None

    def lines(self, now: HostsNow, seconds: float) -> list[str]:
        """The lines at a moment, by a clock in seconds that never goes back."""
        found = []
        for host in now.hosts:
            # For how long it does not answer is no change.
            text = header(replace(host, silent=0.0)) + (", does not answer" if host.silent else "")
            if self._headers.get(host.name) != text:
                self._headers[host.name] = text
                found.append(f"host {text}")
        last = self._progress
        text = progress(now)
        if now.hosts and (last is None or (seconds - last[0] >= self.EVERY and text != last[1])):
            self._progress = seconds, text
            found.append(text)
        return found
