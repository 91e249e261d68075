"""What happens to a guest's machine and to the daemons that hold it."""

import signal
import threading
import time
from contextlib import suppress

import psutil

from lab.base.errors import LabError
from tests.campaign import leftovers, private_host
from tests.campaign.kinds._base import Fault, Scene

# From the start of the lab to its first machine, on a busy host.
MACHINE_SECONDS = 60.0


def process_of_lane(scene: Scene, program: str) -> psutil.Process:
    """A program of the run's lane, or the next one. Raises LabError if none comes."""
    end = time.monotonic() + MACHINE_SECONDS
    while scene.lab.poll() is None and time.monotonic() < end:
        for each in leftovers.running():
            left = leftovers.processes_left(scene.home.base, private_host.lanes(), [each])
            if left and each.name.startswith(program):
                return psutil.Process(each.pid)
        time.sleep(0.1)
    raise LabError(f"no {program} ran")


class QemuKilled(Fault):
    name = "qemu-sigkill"
    happens = "kill -9 of QEMU"
    promise = "The cell is tried again on a fresh lane; if that fails too it is `error` with the reason."

    def inject(self, scene: Scene) -> str:
        process_of_lane(scene, "qemu").kill()
        return "killed QEMU"


class QemuStopped(Fault):
    name = "qemu-sigstop"
    happens = "QEMU is stopped (SIGSTOP) and does not go on"
    promise = "Within two minutes the lane is given up and taken down; the cell is tried again on a fresh one."

    def inject(self, scene: Scene) -> str:
        self._qemu = process_of_lane(scene, "qemu")
        self._qemu.suspend()
        return "stopped QEMU"

    def mend(self, scene: Scene) -> None:
        with suppress(AttributeError, psutil.NoSuchProcess):
            self._qemu.resume()


class _DaemonKilled(Fault):
    daemon = ""

    def inject(self, scene: Scene) -> str:
        pause = scene.random.uniform(1.0, 8.0)
        private_host.kill_daemon(self.daemon, signal.SIGKILL)
        self._timer = threading.Timer(pause, private_host.start_daemons)
        self._timer.start()
        return f"killed {self.daemon}, started again {pause:.1f} s later"

    def mend(self, scene: Scene) -> None:
        with suppress(AttributeError):
            self._timer.join()
        private_host.start_daemons()


class LibvirtdKilled(_DaemonKilled):
    name = "libvirtd-sigkill"
    daemon = "libvirtd"
    happens = "kill -9 of libvirtd, which comes back within 8 s"
    promise = (
        "The lab waits for it, takes its lane down and goes on with a fresh one; no QEMU outlives the run."
    )


class LibvirtdStopped(Fault):
    name = "libvirtd-sigstop"
    happens = "libvirtd is stopped (SIGSTOP) for 5 to 100 s and goes on"
    promise = "A short pause changes nothing; after a minute the lab gives the lane up and waits for libvirt."

    def inject(self, scene: Scene) -> str:
        pause = scene.random.uniform(5.0, 100.0)
        private_host.kill_daemon("libvirtd", signal.SIGSTOP)
        self._timer = threading.Timer(pause, private_host.kill_daemon, ("libvirtd", signal.SIGCONT))
        self._timer.start()
        return f"stopped libvirtd for {pause:.1f} s"

    def mend(self, scene: Scene) -> None:
        with suppress(AttributeError):
            self._timer.join()


class VirtlogdKilled(_DaemonKilled):
    name = "virtlogd-sigkill"
    daemon = "virtlogd"
    happens = "kill -9 of virtlogd, which comes back within 8 s"
    promise = "The run goes on; at worst the console's text is lost, or the cell is tried again."
