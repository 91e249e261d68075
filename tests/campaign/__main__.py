"""Run a campaign: python -m tests.campaign -o DIR"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import click

from lab.base.errors import LabError, unknown_name
from tests.campaign import host
from tests.campaign.attempt import Attempt, Reference, TryRecord, make_reference
from tests.campaign.host import Home
from tests.campaign.kinds import KINDS
from tests.campaign.moments import Name, names

ROOT = Path(__file__).parents[2]
# Where homes are made: QEMU's user must be able to enter it, and links to the cache need its file system.
HOMES = Path("/var/tmp")


@click.command()
@click.option("--tries", default=10, show_default=True, help="How many tries to make.")
@click.option("--seed", default=1, show_default=True, help="Decides faults and moments.")
@click.option("--first", default=0, show_default=True, help="The number of the first try of this seed.")
@click.option("--faults", metavar="NAME,...", help="Make only these. Default: every kind.")
@click.option("--again", "repeated", multiple=True, metavar="SEED:NUMBER:FAULT", help="Repeat a try.")
@click.option("--minutes", type=float, help="Begin no further try after so many minutes.")
@click.option(
    "-o", "folder", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Keep the record here."
)
def campaign(
    tries: int,
    seed: int,
    first: int,
    faults: str | None,
    repeated: tuple[str, ...],
    minutes: float | None,
    folder: Path,
) -> None:
    """Break small real runs of the lab, one fault each, and check what the lab promises.

    Exit status: 0 if everything was as promised, 1 if not, 2 for wrong usage, 3 if a campaign is not possible.
    """
    # Started in the background by a shell, a program ignores SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        chosen = [_known(Name.parse(text)) for text in repeated] or names(seed, tries, _faults(faults), first)
        host.enter()
        sys.exit(_make(chosen, folder, minutes))
    except LabError as error:
        click.echo(f"campaign: {error}", err=True)
        sys.exit(error.exit_status)


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Once: a second signal must not stop the taking down.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _faults(words: str | None) -> list[str]:
    wanted = words.split(",") if words else list(KINDS)
    for name in wanted:
        if name not in KINDS:
            raise unknown_name("kind of fault", name, KINDS)
    return wanted


def _known(name: Name) -> Name:
    _faults(name.fault)
    return name


def _make(chosen: list[Name], folder: Path, minutes: float | None) -> int:
    """Make the tries one after another; the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    began, failed = time.monotonic(), 0
    try:
        host.start_daemons()
        reference = _reference(folder)
        for name in chosen:
            if minutes and time.monotonic() - began > minutes * 60:
                click.echo(f"time is up; the next try would be {name}")
                break
            made = _try(name, reference, folder)
            failed += bool(made.findings)
            click.echo(_line(made))
    finally:
        host.stop_daemons()
    return 1 if failed else 0


def _reference(folder: Path) -> Reference:
    """The undisturbed run of this campaign, made by now if there is none in its folder."""
    file = folder / "reference.json"
    if file.exists():
        return Reference.model_validate_json(file.read_bytes())
    home = _new_home()
    try:
        made = make_reference(home, _revision())
    finally:
        home.remove()
    file.write_text(made.model_dump_json(indent=2) + "\n")
    click.echo(f"the undisturbed run took {made.timeline.seconds:.0f} s")
    return made


def _try(name: Name, reference: Reference, folder: Path) -> TryRecord:
    home = _new_home()
    try:
        made = Attempt(name, home, _revision(), reference).run()
        made.append(folder)
        if made.findings:
            _keep(home, folder / str(name).replace(":", "-"))
        return made
    finally:
        home.remove()


def _keep(home: Home, target: Path) -> None:
    """Keep what explains a finding: the outputs of the lab, and the run's folder."""
    target.mkdir(exist_ok=True)
    found = [*home.base.glob("output-*"), *home.out.glob("*")]
    subprocess.run(["cp", "-a", *found, target], check=False, timeout=120)


def _new_home() -> Home:
    return Home(HOMES / f"boxlite-lab-campaign-{os.getpid()}-{time.time_ns()}")


def _revision() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _line(made: TryRecord) -> str:
    statuses = ", ".join(f"{what} {status}" for what, status in made.statuses)
    text = f"{made.name} at {made.moment}: {made.happened or 'nothing done'} ({statuses}; {made.seconds:.0f} s)"
    return "\n".join([text, *(f"  FINDING {finding}" for finding in made.findings)])


if __name__ == "__main__":
    campaign()
