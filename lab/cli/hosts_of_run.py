"""A run of `lab matrix` on other hosts."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.cli import common
from lab.fleet import certificates, inventory, joining
from lab.fleet.address import Address
from lab.fleet.certificates import Bundle
from lab.fleet.extra import needs_dask
from lab.fleet.inventory import Host, Inventory
from lab.record import RunResult
from lab.run.observer import Observer
from lab.run.start import PlannedRun


@dataclass(frozen=True)
class SeveralHosts:
    """Where hosts join, and how they and this one are known to each other."""

    asked: str
    address: Address
    bundle: Bundle
    paths: Paths
    inventory: Inventory | None = None

    def run(self, planned: PlannedRun, observer: Observer, *, offline: bool, kvm: bool = False) -> RunResult:
        """Run the cells that are left, as `PlannedRun.run` does on this host; `kvm`: only on hosts with KVM."""
        from lab.fleet.coordinator import Coordinator

        def listening(address: str) -> None:
            observer.note(f"hosts join with: lab worker {address}")

        if ending := self.bundle.ends_soon(datetime.now(UTC)):
            observer.note(ending)
        security = self.bundle.security()
        coordinator = Coordinator(
            planned, self.paths, self.address, security, observer, offline, listening, needs_kvm=kvm
        )
        if self.inventory is None:
            return coordinator.run()
        again = f"lab matrix --resume {planned.folder} --hosts {self.asked}"
        with joining.joined(self.inventory, self.paths, self._worker, observer.note, coordinator.stop, again):
            return coordinator.run()

    def _worker(self, name: str, host: Host) -> list[str]:
        """The arguments of `lab` for the worker of a host."""
        limits = {"--lanes": host.lanes, "--memory": host.memory_mib}
        given = [str(word) for limit in limits.items() if limit[1] is not None for word in limit]
        return ["worker", str(self.address), "--name", name, "--end-with-stdin", *given]


def read(lab: common.Lab, hosts: str, jobs: int | None, memory: int | None) -> SeveralHosts:
    """What --hosts asks for: an address, or an inventory, which is a TOML file. Raises UsageError."""
    with needs_dask("lab matrix --hosts"):
        import distributed  # noqa: F401
    if jobs is not None or memory is not None:
        raise UsageError(
            "--jobs and --memory are for the machines of this host, and with --hosts it runs none",
            hint="give each host its own: lab worker ADDRESS --lanes N --memory MIB",
        )
    known = inventory.load(Path(hosts)) if hosts.endswith(".toml") else None
    address = Address.parse(hosts, "--hosts") if known is None else Address(*known.coordinator.listens)
    bundle = certificates.load_coordinator(lab.paths)
    if known is not None:
        joining.bundles(known, lab.paths)
    return SeveralHosts(hosts, address, bundle, lab.paths, known)
