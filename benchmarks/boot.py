"""Measures how long a guest takes to boot and to get a build, and QEMU's processor seconds for both.

With several images they are booted alternately, so that a busy host slows all of them down.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
from rich.console import Console

from benchmarks import history
from lab import builds, catalog
from lab.base import scratch
from lab.base.activity import UNWATCHED, Task
from lab.base.architecture import X86_64
from lab.base.errors import LabError
from lab.base.notices import quiet_libraries
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.catalog import Guest
from lab.guest import deploy, ready, variant
from lab.guest.session import Session
from lab.images import store
from lab.images.store import BaseImage
from lab.machine import acceleration
from lab.machine.connection import get_default_uri, hold_connection
from lab.machine.lane import Lane, open_lane

# What a guest says of its own boot. The first one waits until systemd has nothing left to start.
ASKED = (
    "systemctl is-system-running --wait",
    "systemd-analyze",
    "systemd-analyze blame",
    "systemd-analyze critical-chain",
    "systemctl show --property=Id,CPUUsageNSec *.service init.scope",
    "cloud-init analyze blame",
    "dmesg",
)


@dataclass
class Measured:
    """What was measured with one image: seconds and processor seconds of each round, by step; what it said."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor_seconds: dict[str, list[float]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def add(self, step: str, lane: Lane, do: Callable[[], object]) -> None:
        """Do a step and measure it."""
        start, before = time.monotonic(), lane.processor_seconds
        do()
        self.seconds.setdefault(step, []).append(time.monotonic() - start)
        self.processor_seconds.setdefault(step, []).append(lane.processor_seconds - before)

    def figures(self, image: str) -> list[history.Figure]:
        return [
            history.Figure.median(f"{image}: {step}", values).model_copy(update={"unit": unit})
            for unit, steps in (("s", self.seconds), ("processor s", self.processor_seconds))
            for step, values in steps.items()
        ]


def measure(
    opened: libvirt.virConnect, paths: Paths, guest: Guest, image: BaseImage, build: str, found: Measured
) -> None:
    """Boot an image once and put a build into the guest. Raises LabError."""
    how = acceleration.decide_acceleration(opened, paths, image, UNWATCHED)
    with open_lane(opened, paths, guest=guest, image=image, acceleration=how) as lane:
        session = Session(lane.endpoint, alive=lane.check_alive, speed=lane.speed)

        def boot() -> None:
            lane.start()
            ready.wait_for_boot(session, lane)
            lane.learn_speed()
            session.set_speed(lane.speed)

        found.add("boot", lane, boot)
        # It takes as long as a boot, and is much the same each time.
        for command in () if found.said else ASKED:
            found.said[command] = session.run(f"sudo -n {command}", seconds=60, check=False).stdout
        assert lane.agent is not None, "a guest without a port has no agent"
        session.start_agent(lane.agent)
        facts = variant.read_facts(session, [])
        wanted = builds.resolve_build(build)
        files = wanted.fetch(paths, facts, UNWATCHED)
        with scratch.make_temporary_folder() as folder:
            layout = rootfs.make(folder / "rootfs", X86_64, rootfs.find_busybox())

            def put() -> None:
                deploy.deploy_build(
                    session,
                    wanted,
                    files,
                    rootfs=layout,
                    python=facts.python,
                    show=UNWATCHED.show,
                )

            found.add("deploy", lane, put)
        session.disconnect()


def run(guest_name: str, folders: Sequence[Path], build: str, rounds: int) -> dict[str, Measured]:
    """What was measured, by the name of each image's folder."""
    paths = Paths.default()
    guest = catalog.load_catalog().guest(guest_name)
    with hold_connection(get_default_uri()) as opened:
        wanted = folders or [
            store.ensure_image(paths, guest, Task(lambda progress: print(progress.text))).folder
        ]
        found = {folder.name: Measured() for folder in wanted}
        for number in range(rounds):
            for folder in wanted:
                image = store.read_image(folder)
                if image is None:
                    raise LabError(f"{folder} holds no image")
                measured = found[folder.name]
                measure(opened, paths, guest, image, build, measured)
                last = {step: round(values[-1], 1) for step, values in measured.seconds.items()}
                spent = {step: round(values[-1], 1) for step, values in measured.processor_seconds.items()}
                print(f"round {number + 1}, {folder.name}: {last} s, {spent} processor s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guest", default="debian-13")
    parser.add_argument("--build", default="0.10.8")
    parser.add_argument(
        "--image",
        action="append",
        type=Path,
        default=[],
        help="a folder of the image store, for example of the guest before a change; default: the guest's own",
    )
    parser.add_argument("--rounds", type=int, default=3)
    history.add_options(parser)
    arguments = parser.parse_args()
    quiet_libraries()
    found = run(arguments.guest, arguments.image, arguments.build, arguments.rounds)
    history.keep(
        Console(highlight=False),
        arguments,
        "boot",
        setting=f"{arguments.guest} {arguments.build}",
        figures=[figure for name, measured in found.items() for figure in measured.figures(name)],
        details={name: measured.said for name, measured in found.items()},
    )


if __name__ == "__main__":
    main()
