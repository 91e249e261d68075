"""A guest in the state that a cell's tests see: it is brought there by the same steps as a cell's guest."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import libvirt

from lab.base import scratch
from lab.base.errors import NotApplicable
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.guest import programs
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import entrance, prepare_image
from lab.lane.cell import CellRunner
from lab.lane.entrance import Entrance
from lab.lane.guest import LaneGuest, holding
from lab.lane.running import RunningLane, Work
from lab.machine import acceleration, opening
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Processors
from lab.machine.connection import connection_for_lanes
from lab.machine.lane import Lane
from lab.machine.states import States
from lab.plan import Cell

Say = Callable[[str], None]


@dataclass(frozen=True)
class Opened:
    """A lane whose guest is in the state of a cell, and the way into it."""

    lane: Lane
    entrance: Entrance

    def check_alive(self) -> None:
        """Raise LaneDied if the guest's machine is gone."""
        self.lane.check_alive()


@contextmanager
def ready(cell: Cell, paths: Paths, uri: str, say: Say, *, own_rootfs: Path | None = None) -> Iterator[Opened]:
    """Bring a guest into the state that the cell's tests see; nothing of it is left after the block.

    The boxes boot from `own_rootfs`, or from the lab's own layout. Raises LabError, or NotApplicable if the
    variant makes no sense on the guest.
    """
    with connection_for_lanes(uri) as opened, scratch.temporary() as folder:
        lanes = _prepare(opened, cell, paths, uri, say, folder, own_rootfs)
        lanes.store_deployment()
        # A lane for one cell gains nothing from a checkpoint.
        with lanes.open(cold=True) as running:
            runner = _start(running, cell)
            running.deploy(cell.build)
            runner.apply(cell.variant)
            running.close()
            made = running.lane
            way_in = entrance.make(made.endpoint, made.folder, cell, speed=made.speed)
            yield Opened(made, way_in)


@dataclass(frozen=True)
class _Lanes:
    """All that lanes for one cell need. `states`: where the guest's states are stored, if they may be."""

    connection: libvirt.virConnect
    cell: Cell
    uri: str
    say: Say
    image: BaseImage
    acceleration: Acceleration
    states: States | None
    work: Work

    @contextmanager
    def open(self, *, cold: bool) -> Iterator[RunningLane]:
        """A lane that is not started yet; `cold`: it takes no checkpoint."""
        work = replace(self.work, cold=cold)
        with opening.open_lane(
            self.connection,
            work.paths,
            guest=self.cell.guest,
            image=self.image,
            acceleration=self.acceleration,
            uri=self.uri,
            arguments=self.cell.machine.arguments,
        ) as made:
            running = RunningLane(work, LaneGuest(made, work.processors, self.say), self.states)
            try:
                yield running
            finally:
                running.close()

    def store_deployment(self) -> None:
        """Store the guest with the deployed build, if that is not stored yet: the next shell needs seconds."""
        if self.states is None or not self.states.wanted(self.work.deployment):
            return
        with self.open(cold=False) as running:
            _start(running, self.cell)
            running.deploy(self.cell.build)
            running.store_deployment()


def _prepare(
    opened: libvirt.virConnect,
    cell: Cell,
    paths: Paths,
    uri: str,
    say: Say,
    folder: Path,
    own_rootfs: Path | None,
) -> _Lanes:
    image = store.ensure(paths, cell.guest, say)
    how = acceleration.decide(opened, paths, image, say)
    processors = Processors(os.cpu_count() or 1)
    hold_processors = partial(holding, processors, how=how, say=say)
    preparation = prepare_image.Preparation(opened, paths, uri, how, say, hold_processors)
    image = prepare_image.ensure(preparation, cell.guest, image)
    work = Work(
        paths=paths,
        folder=folder,
        rootfs=own_rootfs or rootfs.make(folder / "rootfs"),
        processors=processors,
        build=cell.build,
        sysctls=cell.variant.sysctls,
    )
    # A stored state was booted without further arguments.
    arguments = cell.machine.arguments
    states = None
    if not arguments:
        states = States(
            paths,
            opened,
            guest=cell.guest,
            image=image,
            acceleration=how,
            agent=programs.loader(),
        )
    return _Lanes(opened, cell, uri, say, image, how, states, work)


def _start(running: RunningLane, cell: Cell) -> CellRunner:
    """Bring the guest up. Raises NotApplicable if the variant makes no sense on it."""
    running.start()
    runner = CellRunner(running)
    if reason := runner.why_not(cell):
        raise NotApplicable(reason)
    return runner
