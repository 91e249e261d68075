"""Which host ran which cells, where a run had several."""

from collections import Counter
from dataclasses import dataclass

from lab.record import CellResult, Host, RunInfo, RunResult
from lab.report import squares


@dataclass(frozen=True)
class ShownHost:
    """A host of a run. `name` and `ran`, its cells, are empty if the run had no other host."""

    host: Host
    name: str = ""
    ran: str = ""


def of_run(run: RunResult) -> list[ShownHost]:
    """Return the hosts of a run, each with what it ran if there are several."""
    called = names(run.run)
    if len(called) < 2:
        return [ShownHost(host) for host in called]
    ran: dict[Host, list[CellResult]] = {host: [] for host in called}
    for cell in run.cells:
        if len(own := of_lane(run.run, cell, cell.lane)) == 1:
            ran[own[0]].append(cell)
    return [ShownHost(host, called[host], _ran(run, cells)) for host, cells in ran.items()]


def names(info: RunInfo) -> dict[Host, str]:
    """What to call each host of a run: its name, numbered where that does not tell it from the others."""
    found = info.hosts()
    counted = Counter(host.name for host in found)
    seen = Counter[str]()
    called = {}
    for number, host in enumerate(found, 1):
        seen[host.name] += 1
        unlike = f" ({seen[host.name]})" if counted[host.name] > 1 else ""
        called[host] = f"{host.name}{unlike}" if host.name else f"host {number}"
    return called


def of_lane(info: RunInfo, cell: CellResult, lane: str) -> list[Host]:
    """Return what a lane of a cell ran on; several if the record does not say which, none without a lane."""
    return info.hosts(cell.guest, lane) if lane else []


def lines(run: RunResult) -> list[str]:
    """Say what each of several hosts ran, and of which cells more than one host had a part."""
    return [f"{each.name} ran {each.ran}" for each in of_run(run) if each.name] + of_several(run)


def _ran(run: RunResult, cells: list[CellResult]) -> str:
    """Say how many cells these are, and which."""
    if not cells:
        return "no cell"
    return f"{len(cells)} cell{'s' if len(cells) > 1 else ''}: {squares.listed(run, cells)}"


def of_several(run: RunResult) -> list[str]:
    """Return a line for each cell whose lanes were on different hosts, or whose host is not known."""
    called = names(run.run)
    found = []
    for cell in run.cells:
        own = of_lane(run.run, cell, cell.lane)
        others = of_lane(run.run, cell, cell.trials_lane)
        name = f"{cell.guest} {cell.variant} {cell.build}"
        if len(own) > 1:
            which = ", ".join(called[each] for each in own)
            found.append(f"{name}: the record does not say which of these ran it: {which}")
        elif len(own) == len(others) == 1 and own != others:
            tried = f"its remedies and changes were tried on {called[others[0]]}"
            found.append(f"{name}: its suite ran on {called[own[0]]}; {tried}")
    return found
