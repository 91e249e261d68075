"""A lane: one running virtual machine that serves cells one after another.

The order of a boot, and what undoes each step if this lab ends or is killed:

1. `open_lane` makes the folder with its lock and its mark, and takes a port: the next command removes them.
2. `set_up_disk` writes the seed with the lane's own keys, and makes the overlay over the image.
3. `start` has libvirt start the machine that `hardware` defines. It ends with the connection. From here on a
   `Watch` tells whether it runs and answers.
4. The guest's kernel writes to the console; `guest/ready.py` waits for SSH and for the end of the boot.
5. `guest/agent.py` starts the agent over SSH; `checkpoint` saves the state that cells are forked from.
6. `stop` ends the machine, and `open_lane` removes the folder.

A stored state takes the place of 2 to 5: `adopt` copies its overlay, `start` leaves the processors standing
still, a checkpoint loads its memory, and `resume` lets it run.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import libvirt

from lab.base.errors import Bug, LabError
from lab.base.files import format_free_space
from lab.base.paths import Paths
from lab.base.wait import Deadline, DeadlineExpired, Speed, call_within, measure_load, wait_for
from lab.catalog import Guest
from lab.images import disk
from lab.images.store import BaseImage
from lab.machine import clock, console, domain, leftovers, qemu, seed
from lab.machine.acceleration import Acceleration
from lab.machine.domain import Device, Hardware, MachinePlace, Network
from lab.machine.qemu import ANSWER_SECONDS, FAILED_WRITE, Watch
from lab.machine.states import StoredState
from lab.record import strip_kernel

# The longest path that a socket can have: sun_path of unix(7), with the null at its end.
MOST_SOCKET_BYTES = 107
CLOCK_AGAIN = "`lab doctor --again` finds out about this host's clock and KVM again"
# Errors that are the fault of the lab or its host, never of boxlite.
FAULTS = (LabError, libvirt.libvirtError, OSError)


def convert_to_fault(error: Exception) -> Exception:
    """Return the error if it is one of FAULTS; any other exception is a bug in the lab, and becomes a Bug.

    The first machine of a run is none of a lane's, so what its refusal needs is told here.
    """
    if isinstance(error, libvirt.libvirtError) and domain.CORE_LIMIT in str(error):
        return LabError(f"libvirt could not start a machine: {error}", hint=domain.choose_start_hint(error))
    return error if isinstance(error, FAULTS) else Bug(error)


class LaneDied(LabError):
    """The guest's machine is gone; the message ends in its console's last lines."""


class BootFailed(LabError):
    """The guest did not come up; the message ends in its console's last lines."""


class ClockMissing(BootFailed):
    """The machine has the host's clock, where a slower one was expected; the message says why."""


@dataclass(frozen=True)
class Endpoint:
    """How to reach a guest's SSH server, and the only host key that it may show."""

    port: int
    client_key: seed.KeyPair
    host_key: seed.KeyPair
    host: str = "127.0.0.1"


@dataclass(eq=False)
class Lane:
    """One running virtual machine. Made by `open_lane`, which also takes it down again."""

    connection: libvirt.virConnect
    guest: Guest
    image: BaseImage
    acceleration: Acceleration
    folder: Path
    port: int
    network: Network = Network.CLOSED
    arguments: str = ""
    endpoint: Endpoint = field(init=False)
    _watch: Watch | None = field(default=None, init=False)
    _uuid: str = field(default_factory=lambda: str(uuid.uuid4()), init=False)
    _boots: int = field(default=0, init=False)
    _given_up: bool = field(default=False, init=False)
    _spent: float = field(default=0.0, init=False)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def overlay(self) -> Path:
        return self.folder / Device.OVERLAY

    @property
    def console(self) -> Path:
        """The serial console's output since the last boot."""
        return self.folder / f"console-{self._boots}.log"

    @property
    def agent(self) -> Path | None:
        """The socket that leads to the port of the guest's agent; None if no socket can have its path."""
        path = self.folder / Device.AGENT
        return path if len(os.fsencode(path)) <= MOST_SOCKET_BYTES else None

    @property
    def speed(self) -> Speed:
        """How fast its machine is now, for limits of time."""
        return replace(self.acceleration.speed, busy=measure_load())

    @property
    def is_emulated(self) -> bool:
        return not self.acceleration.kvm

    def learn_speed(self) -> bool:
        """Learn from its newest boot how fast this host is. Whether that was slower than what was known."""
        earlier = self.acceleration
        self.acceleration = earlier.learned(self.console_text())
        return self.acceleration.speed.factor > earlier.speed.factor

    @property
    def hardware(self) -> Hardware:
        """The definition of its machine, by which stored states are found, too. Raises NoFirmware."""
        arguments = f"{self.guest.kernel_arguments} {self.arguments}".strip()
        return Hardware(
            kvm=self.acceleration.kvm,
            memory_mib=self.guest.memory_mib,
            cpus=self.acceleration.processors(self.guest.cpus),
            boot=domain.choose_boot(self.connection, self.image, arguments),
            architecture=self.guest.architecture,
            devices=frozenset(Device) if self.agent else frozenset(Device) - {Device.AGENT},
            network=self.network,
            environment=self.acceleration.clock.environment,
        )

    @property
    def domain(self) -> libvirt.virDomain:
        """The libvirt domain; raises LaneDied when the lane has none."""
        return self._watched().machine

    @property
    def processor_seconds(self) -> float:
        """The processor time of its machines so far. One that ended by itself is not counted."""
        return round(self._spent + (qemu.measure_processor_seconds(self.name) if self._watch else 0.0), 2)

    # -- its disk

    def set_up_disk(self) -> None:
        """Write the seed with keys of this lane's own, and make the overlay over the base image."""
        self._write_seed(seed.make_keys("lab"), seed.make_keys(f"root@{self.guest.name}"))
        # A distribution's disk has partitions of the distribution's size, and its guest grows its root at boot:
        # the overlay is as large as the guest's definition says.
        size = self.guest.image.disk_gib if self.image.firmware else None
        disk.create_overlay(self.overlay, self.image.disk, gib=size)

    def adopt(self, stored: StoredState) -> None:
        """Use a copy of a stored state as the overlay, with the keys that its guest knows. Raises LabError."""
        info = stored.info()
        self._write_seed(info.client, info.host)
        self.overlay.unlink(missing_ok=True)
        stored.copy_to(self.overlay)
        # The lab that stored it may have had the image in another place.
        disk.rebase_overlay(self.overlay, self.image.disk)

    def renew_seed(self) -> None:
        """Write the seed again, with the keys that the guest knows by now: it may read them at a boot."""
        self._write_seed(self.endpoint.client_key, self.endpoint.host_key)

    def _write_seed(self, client_key: seed.KeyPair, host_key: seed.KeyPair) -> None:
        self.endpoint = Endpoint(self.port, client_key, host_key)
        files = seed.render(
            instance=self.name,
            hostname=strip_kernel(self.guest.name),
            client_key=client_key,
            host_key=host_key,
            nameserver=seed.NAMESERVER if self.network is Network.OPEN else "",
        )
        seed.write(self.folder / Device.SEED, files)

    # -- its machine

    def start(self, *, paused: bool = False, may_restart: bool = False) -> None:
        """Start the machine on its overlay; `paused`, its processors stand still until `resume`.

        `may_restart`: the guest may restart itself; otherwise a restart is its death. Raises LabError.
        """
        self._boots += 1
        hardware = replace(self.hardware, may_restart=may_restart)
        place = MachinePlace(self.folder, self.port, self.console.name, self._uuid)
        self.check_wanted()
        try:
            machine = domain.start_machine(self.connection, hardware, place, paused=paused)
        except libvirt.libvirtError as error:
            raise BootFailed(
                f"libvirt could not start {self.name}: {error}", hint=domain.choose_start_hint(error)
            ) from error
        self._watch = Watch(machine)
        self.check_wanted()
        # What QEMU may load can have changed since that was found out.
        if why_not := clock.explain_missing_clock(self.acceleration.clock, self.name):
            self.check_running()  # A machine that is gone says nothing of its clock.
            raise ClockMissing(why_not, hint=CLOCK_AGAIN)

    def resume(self) -> None:
        """Let a paused machine run. Raises BootFailed, LaneDied if QEMU does not answer."""
        self._command(self.domain.resume, "resume")

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let the machine's processors stand still for a block; before it, QEMU writes all data to the overlay.

        Raises BootFailed, LaneDied.
        """
        self._command(self.domain.suspend, "suspend")
        try:
            yield
        finally:
            self.resume()

    def _command(self, do: Callable[[], object], action: str) -> None:
        """Have libvirt resume or suspend the machine. Raises BootFailed, LaneDied."""
        try:
            call_within(do, Deadline(ANSWER_SECONDS, f"QEMU to {action}"))
        except DeadlineExpired as error:
            raise LaneDied(f"the machine of {self.guest.name} stands still: {error}") from error
        except libvirt.libvirtError as error:
            self.check_running()
            raise BootFailed(f"libvirt could not {action} {self.name}: {error}") from error

    def ask(self, command: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """What QEMU's monitor answers. Raises libvirtError, LaneDied if it does not answer in time."""
        try:
            return self._watched().ask(command, seconds, **arguments)
        except DeadlineExpired as error:
            raise LaneDied(f"the machine of {self.guest.name} stands still: {error}") from error

    def check_alive(self) -> None:
        """Raise LaneDied when the machine no longer runs, or does not answer."""
        self.check_running()
        if problem := self._watched().why_not_answering():
            raise LaneDied(f"the machine of {self.guest.name} {problem}\n{self.last_words()}")

    @property
    def is_alive(self) -> bool:
        """Whether its machine runs and answers."""
        try:
            self.check_alive()
        except LaneDied:
            return False
        return True

    def check_running(self) -> None:
        """Raise LaneDied when the machine no longer runs."""
        problem = self._watched().why_not_running()
        if not problem:
            return
        message = f"the machine of {self.guest.name} {problem}"
        if problem == FAILED_WRITE:
            message += f": {format_free_space(self.folder)}"
        raise LaneDied(f"{message}\n{self.last_words()}")

    def _watched(self) -> Watch:
        if self._watch is None:
            raise LaneDied(f"{self.name} is not running")
        return self._watch

    def last_words(self) -> str:
        return console.cut_last_words(self.console_text())

    def console_text(self) -> str:
        """What the guest wrote to its serial console since it was started."""
        return console.read_console(self.console)

    # -- its end

    def stop(self) -> None:
        """Take the machine down at once; the overlay stays."""
        watch, self._watch = self._watch, None
        if watch is None:
            return
        self._spent += qemu.measure_processor_seconds(self.name)
        try:
            watch.machine.destroy()
        except libvirt.libvirtError as error:
            if error.get_error_code() not in leftovers.GONE:
                raise

    def give_up(self) -> None:
        """Take the machine down for good, from another thread: it is never started again."""
        self._given_up = True
        self.stop()

    def check_wanted(self) -> None:
        """Raise LaneDied when the lane was given up."""
        if self._given_up:
            self.stop()
            raise LaneDied(f"{self.name} was given up")

    def wait_until_off(self, seconds: float) -> None:
        """Wait for a guest that was told to power off, so many seconds under KVM. Raises DeadlineExpired."""

        def off() -> bool | None:
            # Wait until libvirt has forgotten it: a machine that is shut off still holds its name.
            try:
                self.connection.lookupByUUIDString(self._uuid)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return True
                raise
            return None

        wait_for(off, self.speed.deadline(seconds, f"{self.guest.name} to power off"))
        self.stop()


@contextmanager
def open_lane(
    connection: libvirt.virConnect,
    paths: Paths,
    *,
    guest: Guest,
    image: BaseImage,
    acceleration: Acceleration,
    network: Network = Network.CLOSED,
    arguments: str = "",
) -> Iterator[Lane]:
    """A lane whose disk and seed are ready, not started yet; nothing of it is left afterwards.

    Its mark is written first: if this lab is killed, the next command removes what it left.
    """
    uri = connection.getURI()
    with leftovers.make_lane_folder(paths, guest=guest.name, uri=uri) as (folder, port):
        lane = Lane(connection, guest, image, acceleration, folder, port, network, arguments)
        try:
            lane.set_up_disk()
            yield lane
        finally:
            try:
                lane.stop()
            except libvirt.libvirtError:
                # Its daemon is gone or knows nothing of it any more.
                leftovers.end_machine(lane.name, uri)
