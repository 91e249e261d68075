"""What QEMU processes use: processor time, and memory at its peak."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

SAMPLE_SECONDS = 0.5


def of_a_lane(process: psutil.Process) -> bool:
    """Whether a QEMU process is the machine of one of the lab's lanes."""
    return any(part.startswith("guest=lab-") for part in process.cmdline())


def below(pid: int) -> Callable[[psutil.Process], bool]:
    """Whether a process was started by this one, or by one that it started."""
    return lambda process: any(parent.pid == pid for parent in process.parents())


@dataclass
class Usage:
    """The usage of QEMU processes: processor seconds by process, and peak memory of all together.

    It is sampled, so up to half a second at the end of each process is missing.
    """

    is_meant: Callable[[psutil.Process], bool]
    cpu: dict[int, float] = field(default_factory=dict)
    peak_mib: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(self.cpu.values())

    def sample(self) -> None:
        memory = 0
        for process in psutil.process_iter(["name"]):
            with suppress(psutil.NoSuchProcess):
                if "qemu" in (process.info["name"] or "") and self.is_meant(process):
                    times = process.cpu_times()
                    memory += process.memory_info().rss
                    self.cpu[process.pid] = times.user + times.system
        self.peak_mib = max(self.peak_mib, memory / 2**20)


@contextmanager
def sampled(is_meant: Callable[[psutil.Process], bool] = of_a_lane) -> Iterator[Usage]:
    """Sample the QEMU processes that are meant until the block ends."""
    usage, done = Usage(is_meant), threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            usage.sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        done.set()
        thread.join()
