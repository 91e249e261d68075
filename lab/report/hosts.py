"""What hosts a run had, and which of several ran which cells."""

from collections import Counter
from dataclasses import dataclass

from lab.record import CellResult, Host, RunInfo, RunResult
from lab.report import squares


@dataclass(frozen=True)
class Alike:
    """Hosts of a run that differ in their names alone. `names` is empty if the run had one host."""

    host: Host
    names: list[str]


def alike(run: RunResult) -> list[Alike]:
    """Return the hosts of a run, those that are alike together: it may have had hundreds of one kind."""
    called = names(run.run)
    found: dict[Host, list[str]] = {}
    for host, name in called.items():
        found.setdefault(host.model_copy(update={"name": ""}), []).append(name)
    return [Alike(host, each if len(called) > 1 else []) for host, each in found.items()]


def names(info: RunInfo) -> dict[Host, str]:
    """What to call each host of a run: its name, numbered where that does not tell it from the others."""
    found = info.hosts()
    counted = Counter(host.name for host in found)
    seen = Counter[str]()
    called = {}
    for host in found:
        seen[host.name] += 1
        unlike = f" ({seen[host.name]})" if counted[host.name] > 1 else ""
        called[host] = f"{host.name}{unlike}"
    return called


def lines(run: RunResult) -> list[str]:
    """Say what each of several hosts ran, and of which cells more than one had a part; nothing of one host."""
    called = names(run.run)
    if len(called) < 2:
        return []
    ran: dict[Host, list[CellResult]] = {host: [] for host in called}
    several = []
    for cell in run.cells:
        own = _of_lane(run.run, cell, cell.lane)
        if len(own) == 1:
            ran[own[0]].append(cell)
        if line := _of_several(cell, [called[each] for each in own], _tried_on(run.run, cell, called)):
            several.append(line)
    return [f"{called[host]} ran {_ran(run, cells)}" for host, cells in ran.items()] + several


def _of_lane(info: RunInfo, cell: CellResult, lane: str) -> list[Host]:
    """Return what a lane of a cell ran on; several if the record does not say which, none without a lane."""
    return info.hosts(cell.guest, lane) if lane else []


def _tried_on(info: RunInfo, cell: CellResult, called: dict[Host, str]) -> list[str]:
    return [called[host] for host in _of_lane(info, cell, cell.trials_lane)]


def _ran(run: RunResult, cells: list[CellResult]) -> str:
    """Say how many cells these are, and which."""
    if not cells:
        return "no cell"
    return f"{len(cells)} cell{'s' if len(cells) > 1 else ''}: {squares.listed(run, cells)}"


def _of_several(cell: CellResult, own: list[str], others: list[str]) -> str:
    """Say that a cell's lanes were on different hosts, or that its host is not known; else empty."""
    name = f"{cell.guest} {cell.variant} {cell.build}"
    if len(own) > 1:
        return f"{name}: the record does not say which of these ran it: {', '.join(own)}"
    if len(own) == len(others) == 1 and own != others:
        return f"{name}: its suite ran on {own[0]}; its remedies and changes were tried on {others[0]}"
    return ""
