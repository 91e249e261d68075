"""A running lane: its guest is brought up once and each build deployed once; cells are forks of that.

Runs, shells and kept guests open their lanes with `open_running_lane`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import libvirt

from lab.base.activity import Activity, Progress, ShowProgress, Task
from lab.base.errors import LabError
from lab.base.files import format_free_space
from lab.base.paths import Paths
from lab.base.wait import DeadlineExpired, Stopwatch
from lab.builds import Build, elf
from lab.catalog import Guest
from lab.catalog.debian_packages import list_image_omissions
from lab.guest import deploy, programs, ready, variant
from lab.guest.agent import AgentLost
from lab.guest.session import Session
from lab.images.store import BaseImage
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Processors, occupy_processor
from lab.machine.checkpoint import Checkpoint, CheckpointFailed
from lab.machine.lane import Lane, open_lane
from lab.machine.states import DamagedState, StateInfo, States, StoredState
from lab.plan import Machine
from lab.probes import Facts
from lab.record import LaneRecord

# How cells are made: in forks of a checkpoint, or in the lane as it is.
FORKED, COLD = "memory", "cold"
# Names of snapshots in a lane's overlay. The first one is that of a stored boot.
BOOT, BASE, DEPLOYED = "boot", "base", "build"
# How long a guest may take to write all its data to its disk.
SYNC_SECONDS = 30.0


@dataclass(frozen=True)
class Work:
    """What every lane of a run needs to know. `build`: the build of all cells, None if there are several.

    `rootfs` has the layout that boxes boot from, by the guest's architecture. `sysctls` are those that any
    variant of the catalog or of the plan sets: they are read in each guest.
    `checkpoints`: whether cells are forked. `cold`: lanes use no stored states and leave none, and the lab's
    programs are run over SSH, not by an agent in the guest.
    """

    paths: Paths
    folder: Path
    rootfs: Mapping[str, Path]
    processors: Processors
    build: Build | None
    sysctls: Sequence[str]
    checkpoints: bool = True
    cold: bool = False

    def deployment(self, guest: Guest) -> str:
        """A digest of what a stored state with the run's build holds; empty if there are several builds."""
        return deploy.compute_deploy_digest(self.build, self.rootfs[guest.arch]) if self.build else ""


@dataclass(frozen=True)
class _Deployed:
    """A build in the guest: its checkpoint, None where cells are cold, and its files with their SHA-256."""

    checkpoint: Checkpoint | None
    files: dict[str, str]


@contextmanager
def open_running_lane(
    connection: libvirt.virConnect,
    work: Work,
    *,
    machine: Machine,
    image: BaseImage,
    acceleration: Acceleration,
    task: Task,
) -> Iterator["RunningLane"]:
    """A lane for cells of this machine, not started yet; nothing of it is left after the block.

    While the lane waits for its guest, it asks whether the machine lives and whether the task is cancelled.
    """
    with open_lane(
        connection,
        work.paths,
        guest=machine.guest,
        image=image,
        acceleration=acceleration,
        arguments=machine.arguments,
    ) as lane:
        states = None
        # A stored state was booted without further arguments of the kernel.
        if not work.cold and not machine.arguments:
            states = States(
                work.paths,
                connection,
                guest=machine.guest,
                image=image,
                hardware=lane.hardware,
                agent=programs.compute_programs_digest(),
            )

        def check_alive() -> None:
            task.check()
            lane.check_alive()

        session = Session(lane.endpoint, alive=check_alive, speed=lane.speed)
        try:
            yield RunningLane(work, lane, session, task.show, states)
        finally:
            session.disconnect()


@dataclass
class RunningLane:
    """A lane at work, from its start to its last cell: its machine, its guest and its builds.

    `session` leads into the guest. `states`: where the guest's states are stored, if they may be. `watch` adds
    up the seconds of the lane's own steps. After `start`, `restored` tells whether a stored state was used, and
    `has_agent` whether an agent runs the lab's programs. `note` is for the lane's record. `alone`: its suites
    run while no other lane is at work.
    """

    work: Work
    lane: Lane
    session: Session
    show: ShowProgress
    states: States | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)
    restored: bool = False
    has_agent: bool = False
    note: str = ""
    alone: bool = False
    # What was deployed in the state that was restored, each file with its SHA-256.
    _restored_files: dict[str, str] = field(default_factory=dict)
    _facts: Facts | None = None
    _base: Checkpoint | None = None
    # The build in whose checkpoint's state the guest is, because nothing was done in it since.
    _untouched: str = ""
    _fetched: dict[str, dict[str, Path]] = field(default_factory=dict)
    _deployed: dict[str, _Deployed] = field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        """The guest's facts, as `start` read them."""
        assert self._facts is not None, "the lane was not started"
        return self._facts

    # -- bringing the guest up

    def start(self) -> None:
        """Bring the guest up, with the run's build if that is stored, and read its facts. Raises LabError."""
        deployment = self._deployment if self.states else ""
        self.restored = self._restore(deployment) or self._restore()
        if not self.restored:
            self._boot()
            with self.watch.step("boot"):
                self._store(BOOT)
        with self.watch.step("boot"):
            self._facts = variant.read_facts(self.session, self.work.sysctls)
        if self.work.build is None and self.work.checkpoints:
            # Each build is deployed from here, so that no build sees what another one left.
            self._base = self._take_checkpoint(BASE)

    def _restore(self, deployment: str = "") -> bool:
        """Restore a stored state; False without one, or if it cannot be used. A bad one is dropped."""
        stored = self.states.find(deployment) if self.states else None
        if stored is None:
            return False
        work = "restoring the deployed build" if deployment else "restoring its boot"
        self.show(Progress(work, Activity.START))
        try:
            with self.watch.step("boot"):
                self._load(stored)
        except (LabError, OSError) as error:
            self.lane.check_wanted()
            if isinstance(error, (CheckpointFailed, DeadlineExpired, AgentLost, DamagedState)):
                stored.drop()
            problem = f"a stored state could not be used: {str(error).splitlines()[0]}"
            self.show(Progress(problem))
            self.note = "; ".join(filter(None, [self.note, problem]))
            # Back to an empty overlay and to keys of the lane's own.
            self.session.disconnect()
            self.lane.stop()
            self.lane.set_up_disk()
            self.session.use(self.lane.endpoint)
            return False
        return True

    def _load(self, stored: StoredState) -> None:
        lane, session = self.lane, self.session
        info = stored.info()
        lane.adopt(stored)
        session.use(lane.endpoint)
        lane.start(paused=True)
        snapshot = Checkpoint(lane, info.tag)
        snapshot.fork()
        # A checkpoint of this lane may use the same name, and needs the room.
        snapshot.drop()
        lane.resume()
        if info.agent and lane.agent:
            session.meet_agent(lane.agent)
            self.has_agent = True
        else:
            session.wait_back(ready.BOOT_SECONDS)
        # The stored keys were on disk, so this lane continues with a client key of its own.
        lane.endpoint = session.renew_key()
        self._restored_files = info.files

    def _boot(self, work: str = "booting") -> None:
        # The step begins after the wait for processors: it measures the boot alone.
        with self.hold_processor(Progress(work, Activity.START)), self.watch.step("boot"):
            self.lane.start()
            self._wait_up()
            if not self.work.cold and self.lane.agent:
                self.session.start_agent(self.lane.agent)
                self.has_agent = True

    def boot_again(self) -> None:
        """Cut the guest's power once its data are on disk, and boot it from there. Raises LabError.

        The lane's checkpoints stay. What was only in the guest's memory is gone, the settings of a cell too.
        """
        self.session.run("sync", seconds=SYNC_SECONDS)
        self.session.disconnect()
        self.lane.stop()
        self.lane.renew_seed()
        self._boot("booting again")

    def _wait_up(self) -> None:
        """Wait for a guest that was just started, and learn this host's speed. Raises BootFailed, LaneDied."""
        lane = self.lane
        ready.wait_for_boot(self.session, lane)
        is_slower = lane.learn_speed()
        # Limits of time fit how slow the boot was, and how busy the host is now.
        self.session.set_speed(lane.speed)
        if is_slower:
            self.show(Progress(f"this boot was slower than those before: {lane.acceleration.told()}"))

    def _store(self, tag: str, deployment: str = "", files: Mapping[str, str] | None = None) -> None:
        """Store the guest as it is now for later lanes, and go on; `deployment` and `files` say what it holds.

        A stored state that is bad shows when it is used.
        """
        if self.states is None or not self.states.should_store(deployment):
            return
        lane, session = self.lane, self.session
        self.show(Progress(f"storing {'the deployed build' if deployment else 'its boot'}", Activity.START))
        session.close()
        info = StateInfo(
            tag, lane.endpoint.client_key, lane.endpoint.host_key, dict(files or {}), self.has_agent
        )
        try:
            snapshot = Checkpoint.take(lane, tag)
        except CheckpointFailed:
            return  # If there is to be a checkpoint of the deployed build, that will say why.
        # QEMU writes nothing to the overlay meanwhile, and has written all that it kept in memory.
        with lane.standing_still():
            self.states.keep(lane.overlay, info, deployment)
        # A checkpoint of this lane needs the room.
        snapshot.drop()
        # The one that the guest knows is in the store.
        lane.endpoint = session.renew_key()

    # -- builds

    def deploy(self, build: Build) -> dict[str, str] | None:
        """Deploy a build and take its checkpoint, unless that was done before; the run's only one is stored.

        Returns the deployed files, each with its SHA-256; None if the build was deployed before. Raises
        NotApplicable if this build has nothing for this guest, LabError for a fault.
        """
        if build.name in self._deployed:
            return None
        files = (build == self.work.build and self._restored_files) or self._deploy(build)
        tag = f"{DEPLOYED}-{len(self._deployed)}"
        self._deployed[build.name] = _Deployed(
            self._take_checkpoint(tag) if self.work.checkpoints else None, files
        )
        self._untouched = build.name
        return files

    @property
    def _deployment(self) -> str:
        return self.work.deployment(self.lane.guest)

    def fetch(self, build: Build) -> dict[str, Path]:
        """The build's files for this guest, by their names; nothing is deployed.

        Raises NotApplicable if this build has nothing for this guest, LabError if a file cannot be fetched.
        """
        if build.name not in self._fetched:
            with self.watch.step("fetch"):
                files = build.fetch(self.work.paths, self.facts, Task(self._show_fetch, self.lane.check_alive))
                elf.check_files(files, self.facts)
            self._fetched[build.name] = files
        return self._fetched[build.name]

    def _deploy(self, build: Build) -> dict[str, str]:
        watch, files = self.watch, self.fetch(build)
        if self._base:
            self._fork(self._base)
        else:
            assert not self._deployed or self.work.cold, "a second build needs a state to go back to"
        with self.hold_processor(Progress("deploying", Activity.DEPLOY)), watch.step("deploy"):
            deploy.deploy_build(
                self.session,
                build,
                files,
                rootfs=self.work.rootfs[self.lane.guest.arch],
                python=self.facts.python,
                show=self.show,
            )
        deployed = build.record(files).files
        if build == self.work.build:
            if self._base:
                # What is stored has its room, and no cell of another build needs it.
                self._base.drop()
                self._base = None
            with watch.step("deploy"):
                self._store(DEPLOYED, self._deployment, deployed)
        return deployed

    def _show_fetch(self, progress: Progress) -> None:
        self.show(progress.within(Activity.DEPLOY))

    def _take_checkpoint(self, tag: str) -> Checkpoint:
        """Take a checkpoint. Raises CheckpointFailed, LaneDied."""
        self.show(Progress("taking a checkpoint", Activity.DEPLOY))
        with self.watch.step("checkpoint"):
            self.session.close()
            try:
                return Checkpoint.take(self.lane, tag)
            except CheckpointFailed as error:
                hint = "free disk space if it is full; with --cold each cell boots a guest, without checkpoints"
                where = format_free_space(self.lane.folder)
                raise CheckpointFailed(f"no checkpoint of the guest: {error}; {where}", hint=hint) from error

    # -- what its cells use

    def checkpoint(self, build: Build) -> Checkpoint | None:
        """The checkpoint that a deployed build's cells are forked from; None where cells are cold."""
        return self._deployed[build.name].checkpoint

    def fork(self, build: Build) -> None:
        """Put the guest back into the state right after this build was deployed. Raises LabError.

        The first cell after the deployment finds it there.
        """
        checkpoint = self.checkpoint(build)
        assert checkpoint is not None, "cold cells are not forked"
        if build.name == self._untouched:
            self._untouched = ""
            self.session.set_speed(self.lane.speed)
        else:
            self._fork(checkpoint)

    @property
    def has_no_build(self) -> bool:
        """Whether the guest can be forked as it booted, because no build was deployed or restored in it."""
        return self.work.checkpoints and not self._deployed and not self._restored_files

    def fork_base(self) -> None:
        """Put the guest back into the state right after its boot, with no build. Raises LabError."""
        if self._base is None:
            assert self.has_no_build, "the guest has a build already"
            # The guest is in that state.
            self._base = self._take_checkpoint(BASE)
            return
        self._fork(self._base)

    def _fork(self, checkpoint: Checkpoint) -> None:
        """Put the guest into the checkpoint's state and wait until it answers."""
        self._untouched = ""
        self.session.close()
        # Limits of time fit how busy the host is now.
        self.session.set_speed(self.lane.speed)
        checkpoint.fork()
        self.session.wait_back(ready.BOOT_SECONDS)

    def hold_processor(self, work: Progress, *, alone: bool = False) -> AbstractContextManager[None]:
        """Hold a processor of the host for `work`, which is shown; `alone`: all of them."""
        return occupy_processor(
            self.work.processors, work, acceleration=self.lane.acceleration, show=self.show, alone=alone
        )

    def record(self) -> LaneRecord:
        """What the cells of this lane share."""
        acceleration = self.lane.acceleration
        return LaneRecord(
            guest=self.lane.guest.name,
            image=self.lane.image.manifest.disk_sha256,
            packages=self.lane.image.manifest.packages_digest,
            kernel=self.lane.image.manifest.kernel_digest,
            omissions=list_image_omissions(self.lane.guest.image),
            fork=FORKED if any(deployed.checkpoint for deployed in self._deployed.values()) else COLD,
            network=self.lane.network,
            note=self.note,
            agent=self.has_agent,
            restored=self.restored,
            stored_build=bool(self._restored_files),
            kernel_seconds=acceleration.kernel_seconds,
            clock=acceleration.clock.rate,
            seconds=dict(self.watch.seconds),
            processor_seconds=self.lane.processor_seconds,
        )
