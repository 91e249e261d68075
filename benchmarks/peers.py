"""Measures the lab beside tmt with testcloud: the same disk, the same commands in each guest, as many cells.

    python -m benchmarks.peers [--cells N] [--only WAY]... [--json FILE]

A cell is a guest in its first state in which a script changes a sysctl, reads it back and does a fixed piece of
work. Each way runs the cells one after another, in a guest with one processor and the same memory:

- tmt with testcloud boots a machine for each cell. It runs without /dev/kvm and in a network of its own: it
  takes any /dev/kvm for one that works, and opens its port on all addresses;
- the lab, cold, boots a machine for each cell, too;
- the lab, forked, boots one machine, takes a checkpoint and forks each cell from it. It uses no stored state.

Only the lab's machines and logins are measured, not its suites, variants and evidence. It needs root; tmt and
testcloud are installed into a folder of their own in the lab's cache. Nothing else may use the host meanwhile.
"""

import argparse
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial

import libvirt
from rich.console import Console
from rich.table import Table

from benchmarks import history, usage
from benchmarks.same_cells import SCRIPT, Bench, Measured
from benchmarks.with_tmt import PEERS, tmt
from lab import catalog
from lab.base.notices import quiet_libraries
from lab.base.paths import Paths
from lab.guest import ready
from lab.guest.session import Session
from lab.images import store
from lab.machine import acceleration
from lab.machine.acceleration import Acceleration
from lab.machine.checkpoint import MemoryCheckpoint
from lab.machine.clock import REAL
from lab.machine.connection import connection, default_uri
from lab.machine.lane import Lane, open_lane
from tests.vm import cloud_disk

# On ordinary hardware with KVM; the lab stretches it.
SCRIPT_SECONDS = 10.0
# Why others of the field are not measured.
LEFT_OUT = {
    "spread": "its QEMU backend starts the program `kvm`, without another choice: it needs a KVM that works",
    "autopkgtest-virt-qemu": "needs a root shell on the guest's second serial port, which this disk has not",
    "openQA": "needs a web server, a database and tests of its own kind; it does not log in over SSH",
    "Avocado-VT": "its guests are images from its project's server, prepared for it",
    "cockpit's bots": "its guests are images from its project's servers",
}
MEMORY_MIB = 1024


def lab_ways(bench: Bench, *, cold: bool) -> Measured:
    """Run the cells on the lab's own lanes. Raises LabError."""
    found = Measured()
    with connection(default_uri()) as opened, usage.sampled() as used:
        # What this host is able to do is found out once and kept.
        how = acceleration.decide(opened, bench.paths, bench.image, lambda text: None)
        # The host's clock, as tmt's guests have: the kernel of this disk would stop at a slower one.
        how = replace(how, clock=REAL)
        if how.kvm:
            raise SystemExit("the peers run without /dev/kvm here, and on this host the lab would use it")
        begun = time.monotonic()
        if cold:
            for _ in range(bench.cells):
                start = time.monotonic()
                with _booted(bench, opened, how) as (_, session):
                    _run(session)
                found.cells.append(time.monotonic() - start)
        else:
            with _booted(bench, opened, how) as (lane, session):
                session.close()
                checkpoint = MemoryCheckpoint.take(lane, "peers")
                for _ in range(bench.cells):
                    start = time.monotonic()
                    checkpoint.fork()
                    session.wait_open(ready.BOOT_SECONDS)
                    _run(session)
                    session.close()
                    found.cells.append(time.monotonic() - start)
        found.wall = time.monotonic() - begun
    found.cpu, found.peak_mib = used.seconds, used.peak_mib
    return found


@contextmanager
def _booted(bench: Bench, opened: libvirt.virConnect, how: Acceleration) -> Iterator[tuple[Lane, Session]]:
    """A machine that has just booted, with a login."""
    with open_lane(opened, bench.paths, guest=bench.guest, image=bench.image, acceleration=how) as lane:
        lane.start()
        session = Session(lane.endpoint, alive=lane.check_alive, speed=how.speed)
        ready.wait_up(session, lane)
        yield lane, session
        session.close()


def _run(session: Session) -> None:
    session.run(f"sudo -n sh -c {shlex.quote(SCRIPT)}", seconds=SCRIPT_SECONDS, name="the script")


WAYS: dict[str, Callable[[Bench], Measured]] = {
    "tmt with testcloud": tmt,
    "lab, cold": partial(lab_ways, cold=True),
    "lab, forked": partial(lab_ways, cold=False),
}
FORKED = "lab, forked"


def prepare(cells: int) -> Bench:
    """Make the disk, if the cache has none, and take it into the lab's store. Raises LabError."""
    paths = Paths.default()
    # rsync: tmt copies the tests with it.
    recipe = replace(cloud_disk.SMALL, packages=(*cloud_disk.PACKAGES, "rsync"))
    disk = cloud_disk.ensure(paths, recipe).disk
    known = catalog.load().guest("debian-13-cloud")
    # A name of its own, so that no image of a user's is replaced.
    guest = known.model_copy(update={"name": "benchmark-peers", "memory_mib": MEMORY_MIB})
    image = store.import_file(paths, guest, disk, print)
    return Bench(paths, disk, guest, image, cells)


def show(console: Console, found: dict[str, Measured], cells: int) -> None:
    """Print what each way took, and how often what the forked lab took."""
    table = Table("", "wall time, s", "QEMU, processor s", "most memory of QEMU, MiB", "s per cell", box=None)
    for way, each in found.items():
        own = f"{statistics.median(each.cells):.1f}" if each.cells else f"{each.wall / cells:.1f}"
        table.add_row(way, f"{each.wall:.1f}", f"{each.cpu:.1f}", f"{each.peak_mib:.0f}", own)
    console.print(table)
    if base := found.get(FORKED):
        for way, each in found.items():
            if way != FORKED:
                wall, cpu = each.wall / base.wall, each.cpu / base.cpu
                console.print(f"{way} / {FORKED}: wall time {wall:.1f}, processor time {cpu:.1f}")
    for peer, why in LEFT_OUT.items():
        console.print(f"not measured: {peer}: {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--only", choices=WAYS, action="append", metavar="WAY", help="; ".join(WAYS))
    history.add_options(parser)
    options = parser.parse_args()
    quiet_libraries()
    if os.geteuid() != 0:
        parser.error("needs root, to put tmt and testcloud into namespaces of their own")
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    bench = prepare(options.cells)
    found: dict[str, Measured] = {}
    for way in options.only or WAYS:
        console.print(f"{way}: {bench.cells} cells")
        found[way] = WAYS[way](bench)
    show(console, found, bench.cells)
    history.keep(
        console,
        options,
        "peers",
        setting=f"{bench.cells} cells, {', '.join(found)}",
        note=f"{', '.join(PEERS)}; Python {platform.python_version()}",
        figures=[
            history.Figure(name=way, value=getattr(each, name), unit=unit)
            for way, each in found.items()
            for name, unit in (("wall", "s"), ("cpu", "processor s"), ("peak_mib", "MiB"))
        ],
        details={way: asdict(each) for way, each in found.items()},
    )


if __name__ == "__main__":
    main()
