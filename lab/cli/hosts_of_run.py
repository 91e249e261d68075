"""A run of `lab matrix` on several hosts."""

from dataclasses import dataclass
from pathlib import Path

from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.cli import common
from lab.fleet import inventory
from lab.fleet.inventory import Inventory
from lab.record import RunResult
from lab.run.observer import Observer
from lab.run.start import PlannedRun


@dataclass(frozen=True)
class SeveralHosts:
    """The hosts of a run, as they were asked for."""

    file: Path
    inventory: Inventory
    paths: Paths

    def run(self, planned: PlannedRun, observer: Observer, *, offline: bool, kvm: bool = False) -> RunResult:
        """Run the cells that are left, as `PlannedRun.run` does on this host; `kvm`: only on hosts with KVM."""
        from lab.fleet.coordinator import Coordinator

        again = f"lab matrix --resume {planned.folder} --hosts {self.file}"
        return Coordinator(
            planned, self.paths, self.inventory, observer, offline=offline, needs_kvm=kvm, again=again
        ).run()


def read(lab: common.Lab, hosts: Path, jobs: int | None, memory: int | None) -> SeveralHosts:
    """Read the inventory that --hosts names. Raises UsageError."""
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            "lab matrix --hosts needs dask.distributed, which is not installed",
            hint="./setup.sh installs it with: ./setup.sh matrix --hosts ...; "
            "or: pip install --require-hashes -r requirements/hosts.txt",
        ) from error
    if jobs is not None or memory is not None:
        raise UsageError(
            "--jobs and --memory are for the machines of this host, and with --hosts it runs none",
            hint="give each host its own: lanes and memory_mib in its table of the inventory",
        )
    return SeveralHosts(hosts, inventory.load(hosts), lab.paths)
