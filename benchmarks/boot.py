"""Measures how long guests boot: seconds to the lab's login, and QEMU's processor seconds.

Images are booted alternately, so that a busy host slows all of them down.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import libvirt
import psutil

from lab import catalog
from lab.base.errors import LabError
from lab.base.log import quiet_libraries
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.guest import ready
from lab.guest.session import Session
from lab.images import store
from lab.images.store import BaseImage
from lab.machine import acceleration, opening
from lab.machine.connection import connection, default_uri
from lab.machine.lane import Lane

# What the guest says of its own boot. The first one waits until systemd has nothing left to start.
ASKED = (
    "systemctl is-system-running --wait",
    "systemd-analyze",
    "systemd-analyze blame",
    "systemd-analyze critical-chain",
    "cloud-init analyze blame",
    "dmesg",
)


@dataclass(frozen=True)
class Boot:
    """One boot: seconds until the lab can use the guest, QEMU's processor seconds by then, and its size."""

    wall: float
    cpu: float
    rss_mib: float


def measure(
    opened: libvirt.virConnect, paths: Paths, guest: Guest, image: BaseImage, *, asked: Sequence[str]
) -> tuple[Boot, dict[str, str]]:
    """Boot an image once. Returns also what the guest answers to the commands. Raises LabError."""
    how = acceleration.decide(opened, paths, image, lambda text: None)
    with opening.open_lane(opened, paths, guest=guest, image=image, acceleration=how) as lane:
        start = time.monotonic()
        lane.start()
        session = Session(lane.endpoint, alive=lane.check_alive, speed=how.speed)
        ready.wait_up(session, lane)
        wall = time.monotonic() - start
        qemu = process_of(lane)
        times = qemu.cpu_times()
        boot = Boot(wall, times.user + times.system, qemu.memory_info().rss / 2**20)
        said = {command: session.run(f"sudo -n {command}", seconds=30, check=False).stdout for command in asked}
        session.close()
    return boot, said


def process_of(lane: Lane) -> psutil.Process:
    """The QEMU of a running lane."""
    return next(
        each
        for each in psutil.process_iter(["name", "cmdline"])
        if "qemu" in (each.info["name"] or "") and f"guest={lane.name}" in " ".join(each.info["cmdline"] or [])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guest", default="debian-13")
    parser.add_argument(
        "--image",
        action="append",
        type=Path,
        help="a folder of the image store, for example of the guest before a change; default: the guest's own",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    quiet_libraries()
    paths = Paths.default()
    guest = catalog.load().guest(arguments.guest)
    found: dict[str, list[dict[str, Any]]] = {}
    with connection(default_uri()) as opened:
        folders = arguments.image or [store.ensure(paths, guest, print).folder]
        for _ in range(arguments.rounds):
            for folder in folders:
                image = store.read(folder)
                if image is None:
                    raise LabError(f"{folder} holds no image")
                # The answers take as long as a boot, and are much the same each time.
                boot, said = measure(opened, paths, guest, image, asked=() if folder.name in found else ASKED)
                found.setdefault(folder.name, []).append({**asdict(boot), "said": said})
                print(f"{folder.name}: {boot.wall:.1f} s, {boot.cpu:.1f} processor seconds", flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    for name, boots in found.items():
        walls, cpus = [each["wall"] for each in boots], [each["cpu"] for each in boots]
        print(
            f"{name}: {len(boots)} boots, median {statistics.median(walls):.1f} s "
            f"({min(walls):.1f} to {max(walls):.1f}), median {statistics.median(cpus):.1f} processor seconds"
        )


if __name__ == "__main__":
    main()
