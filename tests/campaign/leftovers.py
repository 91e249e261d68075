"""What a try left on the host: processes, domains, folders, locks, mounts."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.campaign import private_host
from tests.campaign.home import Home


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
    domains = private_host.domains()
    found = [f"domain {name}" for name in domains or []] if domains is not None else ["libvirt does not answer"]
    found += processes_left(home.base, private_host.lanes(), running())
    found += files_left(home) + (run_files_left(home) if resumed else [])
    known = {str(folder) for folder in expected_mounts}
    return found + [f"mount {place}" for place in sorted(private_host.mounts(home.base) - known)]


def running() -> list[Running]:
    """The processes that the campaign, its daemons or its labs may have started."""
    assert private_host.is_entered(), "without mounts of its own, every process would be one of the campaign's"
    mine = _mounts_of(os.getpid())
    own = {os.getpid(), *(pid for name in private_host.DAEMONS if (pid := private_host.pid_of(name)))}
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
    """The folders of lanes, the locks of ports, half-made images, states and wheels, and temporary files."""
    paths = home.paths
    found = [
        *paths.lanes.glob("lab-*"),
        *paths.ports.glob("*.lock"),
        *paths.cache.rglob(".partial-*"),
        *(entry for entry in paths.state.glob("*") if entry not in (paths.lanes, paths.ports, paths.runs)),
        *home.temporary.glob("*"),
    ]
    return _named(found, home)


def run_files_left(home: Home) -> list[str]:
    """The locks and half-written files in the folders of runs."""
    return _named(home.out.glob("*/.*"), home)


def _named(paths: Iterable[Path], home: Home) -> list[str]:
    return [f"file {path.relative_to(home.base)}" for path in sorted(paths)]
