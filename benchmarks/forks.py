"""Measures how long a fork takes: loads a checkpoint repeatedly and waits for SSH each time."""

import argparse
import statistics
import time

from rich.console import Console

from benchmarks import history
from lab import catalog
from lab.base.notices import quiet_libraries
from lab.base.paths import Paths
from lab.guest import ready
from lab.guest.session import Session
from lab.images import store
from lab.machine import acceleration
from lab.machine.checkpoint import MemoryCheckpoint
from lab.machine.connection import connection, default_uri
from lab.machine.lane import open_lane


def measure(guest_name: str, forks: int) -> dict[str, list[float]]:
    """Return, for each fork, the seconds to load the checkpoint and the seconds until SSH answers."""
    paths = Paths.default()
    guest = catalog.load().guest(guest_name)
    loads, answers = [], []
    with connection(default_uri()) as opened:
        image = store.ensure(paths, guest, print)
        how = acceleration.decide(opened, paths, image, lambda text: None)
        with open_lane(opened, paths, guest=guest, image=image, acceleration=how) as made:
            made.start()
            session = Session(made.endpoint, alive=made.check_alive, speed=how.speed)
            ready.wait_up(session, made)
            session.close()
            checkpoint = MemoryCheckpoint.take(made, "benchmark")
            for _ in range(forks):
                start = time.monotonic()
                checkpoint.fork()
                loads.append(time.monotonic() - start)
                session.wait_open(60)
                answers.append(time.monotonic() - start)
                session.close()
    return {"load": loads, "load and SSH": answers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guest", default="debian-13")
    parser.add_argument("--forks", type=int, default=20)
    history.add_options(parser)
    arguments = parser.parse_args()
    quiet_libraries()
    found = measure(arguments.guest, arguments.forks)
    for name, seconds in found.items():
        print(
            f"{name}: median {statistics.median(seconds):.2f} s, "
            f"least {min(seconds):.2f}, most {max(seconds):.2f}, {len(seconds)} times"
        )
    history.keep(
        Console(highlight=False),
        arguments,
        "forks",
        setting=arguments.guest,
        figures=[history.Figure.median(name, seconds) for name, seconds in found.items()],
        details=found,
    )


if __name__ == "__main__":
    main()
