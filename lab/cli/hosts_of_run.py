"""A run of `lab matrix` on other hosts."""

from dataclasses import dataclass
from typing import Any

from lab.base.errors import UsageError
from lab.cli import common
from lab.fleet import certificates
from lab.fleet.address import Address
from lab.fleet.extra import needs_dask
from lab.record import RunResult
from lab.run.observer import Observer
from lab.run.start import PlannedRun


@dataclass(frozen=True)
class SeveralHosts:
    """Where hosts join, and how they and this one are known to each other."""

    address: Address
    security: dict[str, Any]

    def run(self, planned: PlannedRun, observer: Observer, *, offline: bool) -> RunResult:
        """Run the cells that are left, as `PlannedRun.run` does on this host."""
        from lab.fleet.coordinator import Coordinator

        def listening(address: str) -> None:
            observer.note(f"hosts join with: lab worker {address}")

        if unfinished := [each for each in planned.kept.values() if each.has_more_to_try]:
            observer.note(
                f"{len(unfinished)} cells have something left to try, which --resume does without --hosts"
            )
        return Coordinator(planned, self.address, self.security, observer, offline, listening).run()


def read(lab: common.Lab, hosts: str, jobs: int | None, memory: int | None) -> SeveralHosts:
    """What --hosts asks for. Raises UsageError."""
    with needs_dask("lab matrix --hosts"):
        import distributed  # noqa: F401
    if jobs is not None or memory is not None:
        raise UsageError(
            "--jobs and --memory are for the machines of this host, and with --hosts it runs none",
            hint="give each host its own: lab worker ADDRESS --lanes N --memory MIB",
        )
    address = Address.parse(hosts, "--hosts")
    return SeveralHosts(address, certificates.load_coordinator(lab.paths).security())
