"""What must hold after a try: its run's table is true, and nothing of it is left on the host."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import BaseModel

from lab.record import CellResult, RunResult
from tests.campaign import host
from tests.campaign.host import Home


class Square(BaseModel):
    """What a cell did: its status, its cause, and the outcome of each test."""

    status: str
    cause: str | None
    tests: dict[str, str]

    def __str__(self) -> str:
        return f"{self.status} {self.cause}" if self.cause else self.status


Table = dict[str, Square]


def table_of(run: RunResult) -> Table:
    return {cell.name: _square(cell) for cell in run.cells}


def untrue(reference: Table, run: RunResult) -> list[str]:
    """The cells of a disturbed run that claim what is not so, and those that are missing.

    A cell may do as in the undisturbed run, or say with a reason that it could not be run.
    """
    found = [f"{name} is missing from the results" for name in reference.keys() - table_of(run).keys()]
    for cell in run.cells:
        name, square = cell.name, _square(cell)
        if cell.status.could_not_run:
            if not cell.reason.strip():
                found.append(f"{name} is {cell.status} without a reason")
        elif name not in reference:
            found.append(f"{name} was not planned")
        elif square != reference[name]:
            found.append(f"{name} is {square} ({cell.reason.strip()[:200]}), expected {reference[name]}")
            found += _tests(name, reference[name], square)
    return sorted(found)


def _tests(name: str, expected: Square, found: Square) -> list[str]:
    differ = [test for test in expected.tests if expected.tests[test] != found.tests.get(test)]
    return [f"{name}: {test} is {found.tests.get(test)}, expected {expected.tests[test]}" for test in differ]


def unfinished(run: RunResult) -> list[str]:
    """The cells that could not be run, or on which more is to be tried."""
    return [cell.name for cell in run.cells if cell.status.could_not_run or cell.has_more_to_try]


def _square(cell: CellResult) -> Square:
    tests = {test.name: str(test.outcome) for test in cell.tests}
    return Square(status=str(cell.status), cause=cell.cause, tests=tests)


@dataclass(frozen=True)
class Running:
    """A process as far as it matters here. `inside`: it sees the campaign's own mounts."""

    pid: int
    name: str
    command: str
    inside: bool


def find(home: Home, expected_mounts: Iterable[Path] = (), *, resumed: bool = True) -> list[str]:
    """Everything that is left of a try whose labs have ended.

    What is in the run's folder counts if the run was `resumed`: no other command knows of the folder.
    """
    domains = host.domains()
    found = [f"domain {name}" for name in domains or []] if domains is not None else ["libvirt does not answer"]
    found += processes_left(home.base, host.lanes(), running())
    found += files_left(home) + (run_files_left(home) if resumed else [])
    known = {str(folder) for folder in expected_mounts}
    return found + [f"mount {place}" for place in sorted(host.mounts(home.base) - known)]


def running() -> list[Running]:
    """The processes that the campaign, its daemons or its labs may have started."""
    assert host.is_entered(), "without mounts of its own, every process would be one of the campaign's"
    mine = _mounts_of(os.getpid())
    own = {os.getpid(), *(pid for name in host.DAEMONS if (pid := host.pid_of(name)))}
    found = []
    for process in psutil.process_iter(["name", "cmdline", "status"]):
        if process.pid in own or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        command = " ".join(process.info["cmdline"] or [])
        found.append(Running(process.pid, process.info["name"] or "", command, _mounts_of(process.pid) == mine))
    return found


def processes_left(base: Path, lanes: set[str], candidates: Iterable[Running]) -> list[str]:
    """Which processes belong to a try: they see its mounts, or are machines of its lanes."""
    return [
        f"process {each.pid} {each.name}: {each.command[:160]}"
        for each in candidates
        if each.inside or (each.name.startswith("qemu") and _names(each.command, base, lanes))
    ]


def _names(command: str, base: Path, lanes: set[str]) -> bool:
    return f"{base}/" in command or any(lane in command for lane in lanes)


def _mounts_of(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:  # It has ended.
        return ""


def files_left(home: Home) -> list[str]:
    """The folders of lanes, half-made images, states and wheels, and temporary files."""
    paths = home.paths
    found = [
        *paths.lanes.glob("lab-*"),
        *paths.cache.rglob(".partial-*"),
        *(entry for entry in paths.state.glob("*") if entry not in (paths.lanes, paths.runs)),
        *home.temporary.glob("*"),
    ]
    return _named(found, home)


def run_files_left(home: Home) -> list[str]:
    """The locks and half-written files in the folders of runs."""
    return _named(home.out.glob("*/.*"), home)


def _named(paths: Iterable[Path], home: Home) -> list[str]:
    return [f"file {path.relative_to(home.base)}" for path in sorted(paths)]
