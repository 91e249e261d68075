"""A shell in the state that a cell's tests see: it takes the same steps as a cell, up to the suite."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lab.base.errors import NotApplicable
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.guest import suite, variant
from lab.images import store
from lab.lane import prepare_image
from lab.lane.cell import CellRunner
from lab.lane.guest import LaneGuest, holding
from lab.lane.running import RunningLane, Work
from lab.machine import acceleration, lane
from lab.machine.budget import Processors
from lab.machine.connection import connection
from lab.machine.states import States
from lab.plan import Cell


@contextmanager
def ready(cell: Cell, paths: Paths, uri: str, say: Callable[[str], None]) -> Iterator[list[str]]:
    """Bring a guest up, apply the variant, and give the command of an SSH login as the suite's user.

    Raises LabError, or NotApplicable if the variant makes no sense on the guest.
    """
    with connection(uri) as opened, tempfile.TemporaryDirectory(prefix="boxlite-lab-") as name:
        folder = Path(name)
        image = store.ensure(paths, cell.guest, say)
        how = acceleration.decide(opened, paths, image)
        processors = Processors(os.cpu_count() or 1)
        hold_processors = partial(holding, processors, how=how, say=say)
        image = prepare_image.ensure(
            prepare_image.Preparation(opened, paths, uri, how, say, hold_processors), cell.guest, image
        )
        work = Work(
            paths=paths,
            folder=folder,
            rootfs=rootfs.make(folder / "rootfs"),
            processors=processors,
            build=cell.build,
            sysctls=cell.variant.sysctls,
            # A lane for one cell gains nothing from a checkpoint.
            cold=True,
        )
        arguments = cell.machine.arguments
        with lane.open_lane(
            opened, paths, guest=cell.guest, image=image, acceleration=how, uri=uri, arguments=arguments
        ) as made:
            # A stored state was booted without further arguments.
            stored = (
                None if arguments else States(paths, opened, guest=cell.guest, image=image, acceleration=how)
            )
            running = RunningLane(work, LaneGuest(made, processors, say), stored)
            running.start()
            runner = CellRunner(running)
            if reason := runner.why_not(cell):
                raise NotApplicable(reason)
            running.deploy(cell.build)
            runner.apply(cell.variant)
            running.close()
            yield _ssh(made.endpoint, folder, cell)


def _ssh(endpoint: lane.Endpoint, folder: Path, cell: Cell) -> list[str]:
    key, hosts = folder / "key", folder / "known_hosts"
    key.touch(0o600)
    key.write_text(endpoint.client_key.private)
    hosts.write_text(f"[{endpoint.host}]:{endpoint.port} {endpoint.host_key.public}\n")
    inside = suite.in_state_of_tests(cell.build, cell.variant, "bash -i")
    options = {
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(hosts),
        "GlobalKnownHostsFile": os.devnull,
        "LogLevel": "ERROR",
    }
    words = ["ssh", "-t", "-F", os.devnull, "-i", str(key), "-p", str(endpoint.port)]
    words += [word for item in options.items() for word in ("-o", "=".join(item))]
    return [*words, f"{variant.login(cell.variant)}@{endpoint.host}", variant.as_run(cell.variant, inside)]
