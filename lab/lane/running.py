"""A running lane: its guest is brought up once and each build deployed once; cells are forks of that."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.base.activity import Activity, Step
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.builds import Build, elf
from lab.guest import deploy
from lab.lane.bring_up import BringUp
from lab.lane.guest import LaneGuest
from lab.machine.budget import Processors
from lab.machine.checkpoint import Checkpoint, DiskCheckpoint, MemoryCheckpoint
from lab.machine.lane import FAULTS, Lane, LaneDied
from lab.machine.states import Known, States
from lab.probes import Facts
from lab.record import LaneRecord

# How a cell is made that is not forked.
COLD = "cold"
# Names of snapshots in a lane's overlay.
BASE, DEPLOYED = "base", "build"


@dataclass(frozen=True)
class Work:
    """What every lane of a run needs to know. `build`: the build of all cells, None if there are several.

    `sysctls` are those that any variant of the catalog or of the plan sets: they are read in each guest.
    `agent`: whether the lab's own programs are run by an agent in the guest, or over SSH.
    """

    paths: Paths
    folder: Path
    rootfs: Path
    processors: Processors
    build: Build | None
    sysctls: Sequence[str]
    cold: bool = False
    agent: bool = True

    @property
    def deployment(self) -> str:
        """A digest of what a stored state with the run's build holds; empty if there are several builds."""
        return deploy.identity(self.build, self.rootfs) if self.build else ""


@dataclass(frozen=True)
class _Deployed:
    """A build in the guest: its checkpoint, None where cells are cold, and its files with their SHA-256."""

    checkpoint: Checkpoint | None
    files: dict[str, str]


@dataclass
class RunningLane:
    """A lane from its start to its last cell. `states`: where the guest's states are stored, if they may be."""

    work: Work
    guest: LaneGuest
    states: States | None = None
    _facts: Facts | None = None
    _base: Checkpoint | None = None
    _deployed: dict[str, _Deployed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bring_up = BringUp(self.guest, self.states, agent=self.work.agent)

    @property
    def lane(self) -> Lane:
        return self.guest.lane

    @property
    def facts(self) -> Facts:
        """The guest's facts, as `start` read them."""
        assert self._facts is not None, "the lane was not started"
        return self._facts

    def start(self) -> None:
        """Bring the guest up and read its facts. Raises LabError."""
        self._bring_up.run(self.work.deployment if self.states else "")
        with self.guest.watch.step("boot"):
            self._facts = self.guest.read_facts(self.work.sysctls)
        if self.work.build is None and not self.work.cold:
            # Each build is deployed from here, so that no build sees what another one left.
            self._base = self._take_checkpoint(BASE)

    def deploy(self, build: Build) -> dict[str, str] | None:
        """Deploy a build and take its checkpoint, unless that was done before.

        Returns the deployed files, each with its SHA-256; None if the build was deployed before. Raises
        NotApplicable if this build has nothing for this guest, LabError for a fault.
        """
        if build.name in self._deployed:
            return None
        files = self._bring_up.files or self._deploy(build)
        tag = f"{DEPLOYED}-{len(self._deployed)}"
        self._deployed[build.name] = _Deployed(None if self.work.cold else self._take_checkpoint(tag), files)
        return files

    def checkpoint(self, build: Build) -> Checkpoint | None:
        """The checkpoint that a deployed build's cells are forked from; None where cells are cold."""
        return self._deployed[build.name].checkpoint

    def store_deployment(self) -> None:
        """Store the guest with its deployed build for later lanes; the lane is stopped then.

        If that fails, the lane's note says why. No error is raised: the lane has served its last cell.
        """
        build = self.work.build
        if not self.states or build is None or self._bring_up.files:
            return
        deployed = self._deployed.get(build.name)
        if deployed is None or deployed.checkpoint is None or deployed.checkpoint.kind != MemoryCheckpoint.kind:
            return
        if not self.states.wanted(self.work.deployment):
            return
        tag, endpoint = deployed.checkpoint.tag, self.lane.endpoint
        known = Known(tag, endpoint.client_key, endpoint.host_key, deployed.files, self.guest.agent_programs)
        try:
            with self.guest.watch.step("checkpoint"):
                self.guest.close()
                self.lane.check_alive()
                self.lane.stop()
                self.lane.rewind(tag)
                self.states.keep(self.lane.overlay, known, self.work.deployment)
        except FAULTS as error:
            self.guest.add_note(f"the deployed build was not stored: {str(error).splitlines()[0]}")

    def record(self) -> LaneRecord:
        """What the cells of this lane share."""
        taken = [each.checkpoint for each in self._deployed.values() if each.checkpoint]
        return LaneRecord(
            guest=self.lane.guest.name,
            image=self.lane.image.manifest.disk_sha256,
            fork=taken[-1].kind if taken else COLD,
            network=self.lane.network,
            note=self.guest.note,
            agent=bool(self.guest.agent_programs),
            restored=self._bring_up.restored,
            stored_build=bool(self._bring_up.files),
            kernel_seconds=self.lane.acceleration.kernel_seconds,
            clock=self.lane.acceleration.clock.rate,
            limits_factor=self.lane.acceleration.speed.factor,
            seconds=dict(self.guest.watch.seconds),
            processor_seconds=self.lane.processor_seconds,
        )

    def close(self) -> None:
        """Drop the connections to the guest."""
        self.guest.close()

    def _deploy(self, build: Build) -> dict[str, str]:
        watch = self.guest.watch
        with watch.step("fetch"):
            files = build.fetch(self.work.paths, self.facts, self._say_while_alive)
            elf.check(files, self.facts)
        if self._base:
            self.guest.fork(self._base)
        with self.guest.holding(Step("deploying", Activity.DEPLOY)), watch.step("deploy"):
            self.guest.deploy(build, files, self.work.rootfs, python=self.facts.python)
        return build.record(files).files

    def _say_while_alive(self, text: str) -> None:
        """Say what is waited for, or end the wait if the machine is gone, as after an interrupt."""
        self.lane.check_alive()
        self.guest.say(Step.of(text, Activity.DEPLOY))

    def _take_checkpoint(self, tag: str) -> Checkpoint:
        """Take a checkpoint of memory, or of the disk if that fails; the lane's note says why."""
        self.guest.say(Step("taking a checkpoint", Activity.DEPLOY))
        with self.guest.watch.step("checkpoint"):
            self.guest.session.close()
            try:
                return self.guest.take_snapshot(tag)
            except LaneDied:
                raise
            except LabError as error:
                self.guest.add_note(
                    f"no checkpoint of memory ({error}); every cell boots from the deployed disk"
                )
                self.guest.power_off()
                return DiskCheckpoint(self.lane, tag)
