"""Run a campaign: python -m tests.campaign -o DIR"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from lab.base.errors import LabError, make_unknown_name_error
from tests.campaign import host
from tests.campaign.faults import FAULTS
from tests.campaign.host import Home
from tests.campaign.tries import ROOT, Try, names

# Where homes are made: QEMU's user must be able to enter it, and links to the cache need its file system.
HOMES = Path("/var/tmp")


@click.command()
@click.option("--tries", default=10, show_default=True, help="How many tries to make.")
@click.option("--seed", default=1, show_default=True, help="Decides faults and moments.")
@click.option("--seconds", default=90.0, show_default=True, help="How long an undisturbed run takes here.")
@click.option("--faults", metavar="NAME,...", default=",".join(FAULTS), help="Make only these.")
@click.option("--again", "repeated", multiple=True, metavar="SEED:NUMBER:FAULT", help="Repeat a try.")
@click.option(
    "-o", "folder", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Keep the record here."
)
def campaign(
    tries: int, seed: int, seconds: float, faults: str, repeated: tuple[str, ...], folder: Path
) -> None:
    """Break small real runs of the lab, one fault each, and check what the lab promises.

    Exit status: 0 if everything was as promised, 1 if not, 2 for wrong usage, 3 if a campaign is not possible.
    """
    # Started in the background by a shell, a program ignores SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        chosen = list(repeated) or names(seed, tries, faults.split(","))
        for name in chosen:
            if (fault := name.rpartition(":")[2]) not in FAULTS:
                raise make_unknown_name_error("kind of fault", fault, FAULTS)
        host.enter()
        sys.exit(_make(chosen, seconds, folder))
    except LabError as error:
        click.echo(f"campaign: {error}", err=True)
        sys.exit(error.exit_status)


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Once: a second signal must not stop the taking down.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _make(chosen: list[str], seconds: float, folder: Path) -> int:
    """Make the tries one after another; the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    describe = ["git", "describe", "--always", "--dirty"]
    revision = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"
    failed = 0
    try:
        host.start_daemons()
        for name in chosen:
            with _new_home() as home:
                attempt = Try(home, name, revision, seconds)
                attempt.run()
                with (folder / "record.jsonl").open("a") as record:
                    record.write(attempt.record())
                if attempt.findings:
                    # What explains them: the outputs of the lab, and the run's folder.
                    kept = folder / name.replace(":", "-")
                    kept.mkdir(exist_ok=True)
                    files = [*home.base.glob("output-*"), *home.out.glob("*")]
                    subprocess.run(["cp", "-a", *files, kept], check=False, timeout=120)
            failed += bool(attempt.findings)
            statuses = ", ".join(f"{what} {status}" for what, status in attempt.statuses)
            what = f"{attempt.happened or 'nothing done'} ({statuses}; {attempt.seconds:.0f} s)"
            click.echo(f"{name} at {attempt.moment} s: {what}")
            for finding in attempt.findings:
                click.echo(f"  FINDING {finding}")
    finally:
        for daemon in reversed(host.DAEMONS):
            host.signal_daemon(daemon, signal.SIGTERM)
    return 1 if failed else 0


@contextmanager
def _new_home() -> Iterator[Home]:
    home = Home(HOMES / f"boxlite-lab-campaign-{os.getpid()}-{time.time_ns()}")
    try:
        yield home
    finally:
        home.remove()


if __name__ == "__main__":
    campaign()
