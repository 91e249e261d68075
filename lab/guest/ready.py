"""Waiting for a guest to be up, and for cloud-init where it has that; checking that it is as defined."""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace

from pydantic import BaseModel

from lab.base.data import parse_json
from lab.base.errors import LabError, format_error
from lab.base.files import cut_text
from lab.base.wait import DeadlineExpired
from lab.catalog import Guest
from lab.guest.programs import MOST_SHOWN, RemoteFailed
from lab.guest.session import Session
from lab.machine import console
from lab.machine.lane import BootFailed, Lane
from lab.probes import Facts

# Limits on ordinary hardware with KVM; the session stretches them by this host's speed. Boots under emulation
# took from 21 to 190 s, depending on the host's speed and on how many guests shared it.
BOOT_SECONDS = 30.0
CLOUD_INIT_SECONDS = 18.0
# A guest that has written to its console within so many seconds gets the time for its boot again, as does one
# on a host that is slower than was known, and so often in all: a boot that never ends can write for ever.
STILL_SECONDS, MOST_WAITS = 6.0, 5
RESULT = "/run/cloud-init/result.json"
# Whether all units could be started is not asked here.
BOOT_ENDED = "systemctl is-system-running --wait"


class _Stages(BaseModel):
    """What cloud-init says of all its stages."""

    errors: list[object]
    datasource: object


class _Result(BaseModel):
    """The content of cloud-init's `result.json`."""

    v1: _Stages


class NotAsDefined(LabError):
    lasting = True


class CloudInitFailed(LabError):
    """cloud-init did not do what the seed says. The message holds its errors, the evidence its whole log."""


def wait_ready(session: Session, listens: Callable[[], bool], *, cloud_init: bool) -> None:
    """Wait until SSH answers and the boot has ended; `listens` says whether SSH may answer.

    With `cloud_init`, that has to have succeeded. A guest without it lets nobody in before it has its seed.

    Raises CloudInitFailed, DeadlineExpired, or what `listens` and the session's `alive` raise.
    """
    session.wait_open(BOOT_SECONDS, listens=listens)
    if not cloud_init:
        session.run(BOOT_ENDED, seconds=CLOUD_INIT_SECONDS, check=False)
        return
    try:
        reply = session.run(
            f"until test -e {RESULT}; do sleep 0.2; done; cat {RESULT}", seconds=CLOUD_INIT_SECONDS
        )
        result = _Result.model_validate(parse_json(reply.stdout)).v1
    except (RemoteFailed, ValueError) as error:
        problem = f"left no result: {format_error(error)}"
    else:
        if not result.errors and "NoCloud" in str(result.datasource):
            return
        reported = "; ".join(map(str, result.errors)) or f"it used {result.datasource}"
        problem = f"failed: {cut_text(reported, MOST_SHOWN)}"
    log = session.run("sudo -n cat /var/log/cloud-init.log", seconds=10, check=False).stdout
    raise CloudInitFailed(f"cloud-init in the guest {problem}", evidence={"cloud-init.log": log})


def wait_for_boot(session: Session, lane: Lane) -> None:
    """Do the same for a guest that was just started, and longer for one whose console grows.

    Also longer if its kernel, or how busy the host is now, shows that this host is slower than was known.
    Raises BootFailed with the console's last lines if it does not come up in time.
    """
    size, grown = 0, -math.inf

    def listens() -> bool:
        nonlocal size, grown
        text = lane.console_text()
        if len(text) > size:
            size, grown = len(text), time.monotonic()
        if console.FROZEN in text:
            raise BootFailed(f"{lane.guest.name} did not come up: its systemd gave up\n{lane.last_words()}")
        return console.shows_ssh(text)

    for waits in itertools.count(1):
        try:
            wait_ready(session, listens, cloud_init=lane.image.firmware is not None)
            return
        except DeadlineExpired as error:
            earlier = session.speed
            learned = lane.acceleration.learned(lane.console_text()).kernel_seconds
            now = replace(lane.speed, kernel_seconds=learned, more=earlier.more)
            is_slower = now.factor > earlier.factor
            if is_slower:
                session.set_speed(now)
            is_alive = time.monotonic() - grown < earlier.from_kvm(STILL_SECONDS)
            if waits < MOST_WAITS and (is_slower or is_alive):
                continue
            times = f" {waits} times" if waits > 1 else ""
            raise BootFailed(
                f"{lane.guest.name} did not come up: {error}{times}\n{lane.last_words()}"
            ) from error


def check_as_defined(guest: Guest, facts: Facts) -> None:
    """Compare what the guest shows with what its definition promises. Raises NotAsDefined."""
    policy = guest.image.selinux
    if policy is None:
        return
    selinux = facts.selinux
    state = f"SELinux is {selinux.mode} with policy {selinux.policy}" if selinux else "SELinux is not in use"
    if selinux is None or (selinux.mode, selinux.policy) != ("enforcing", policy):
        raise NotAsDefined(
            f"{guest.name} should enforce the SELinux policy {policy}, but {state}",
            hint=f"see [image] in images/{guest.name}.toml, and what the console says of the policy",
        )
