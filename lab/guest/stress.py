"""Load in a guest while its suite runs, made by stress-ng."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from lab.base.errors import LabError
from lab.base.files import clean_text, cut_text
from lab.base.wait import Speed
from lab.guest.session import Session
from lab.record import Stress

UNIT = "lab-stress"
# What stress-ng is told: a worker for each processor, one that writes a tenth of the free memory again and
# again, and one that writes a file of 32 MiB.
ARGUMENTS = {
    Stress.CPU: "--cpu 0",
    Stress.MEMORY: "--vm 1 --vm-bytes 10%",
    Stress.IO: "--hdd 1 --hdd-bytes 32M --temp-path /var/tmp",
}
# How much of each processor the load gets in percent, and how much on a slow host. boxlite gives a box 30 s to
# start whatever else the guest does. On two emulated processors, with another guest beside it, one of five
# boxes missed that under a load that took half.
SHARE, SLOW_SHARE = 75, 25
# A service of the guest's own, apart from the suite's user and its limits. If memory runs out, it goes first.
# `exec`: whoever starts it is told if that fails.
PROPERTIES = ("Type=exec", "OOMScoreAdjust=1000", "TimeoutStopSec=10")
# Limits under hardware acceleration.
START_SECONDS, STOP_SECONDS = 10.0, 20.0


class StressFailed(LabError):
    """The load could not be started, ended before the suite did, or could not be stopped."""


def command(kinds: Sequence[Stress], speed: Speed) -> str:
    """The command that starts the load as a service, for a host of this speed."""
    quota = f"CPUQuota=$(({SLOW_SHARE if speed.is_slow else SHARE} * $(nproc)))%"
    properties = " ".join(f"--property={word}" for word in (*PROPERTIES, quota))
    arguments = " ".join(ARGUMENTS[kind] for kind in kinds)
    return f"sudo -n systemd-run --quiet --unit={UNIT} {properties} stress-ng {arguments}"


@contextmanager
def stress_guest(session: Session, kinds: Sequence[Stress]) -> Iterator[None]:
    """Load the guest while the block runs; with no kinds, do nothing.

    Raises StressFailed, SessionLost, or what the block raises.
    """
    if not kinds:
        yield
        return
    started = session.run(command(kinds, session.speed), seconds=START_SECONDS, check=False)
    if started.status != 0:
        raise StressFailed(f"the load could not be started in the guest: {_line(started.stderr)}")
    try:
        yield
    except BaseException:
        # The block's own error says what happened; the next fork has no load anyway.
        with suppress(LabError):
            _stop(session)
        raise
    if not _stop(session):
        script = f"sudo -n journalctl --no-pager --output=cat --unit={UNIT} | tail -n 3"
        printed = session.run(script, seconds=10, check=False).stdout
        raise StressFailed(f"the load ended before the suite did: {_line(printed)}")


def _stop(session: Session) -> bool:
    """Stop the load; whether it ran until then. Raises StressFailed if it still runs afterwards."""
    script = (
        f"systemctl is-active {UNIT}; sudo -n systemctl stop {UNIT}; "
        f"if systemctl is-active --quiet {UNIT}; then exit 9; fi"
    )
    output = session.run(script, seconds=STOP_SECONDS, check=False)
    if output.status == 9:
        raise StressFailed(f"the load could not be stopped: {_line(output.stderr)}")
    return output.stdout.split()[:1] == ["active"]


def _line(text: str) -> str:
    return cut_text(" ".join(clean_text(text).split()), 400) or "nothing was said"
