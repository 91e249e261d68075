"""The faults: a row of FAULTS for each, and what makes it. docs/faults.md says what the lab promises then."""

import errno
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from shlex import quote

import paramiko
import psutil

from lab.base.errors import LabError
from lab.machine import leftovers
from lab.record import RunResult
from tests.campaign import host
from tests.campaign.host import PLAN, Home

# Every cell as expected; something could not be run.
DONE, INCOMPLETE = 0, 3
INTERRUPTED = 130
# Popen reports the negative number of a signal.
KILLED = -9


@dataclass
class Scene:
    """What a fault can reach. `run_lab` runs a command of the lab in the try's home: (status, output).

    `afterwards` has what puts the host right after the disturbed run, and what looks for more `findings` then.
    `lab` is the disturbed run, once it is started.
    """

    home: Home
    random: random.Random
    run_lab: Callable[..., tuple[int | None, str]]
    afterwards: ExitStack
    findings: list[str] = field(default_factory=list)
    lab: "subprocess.Popen[bytes]" = field(init=False)


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    `make` does it, and says in a few words what was done; it raises LabError if it cannot be done now.
    `statuses` are the exit statuses of the disturbed run that are right. `prepare` is called before the lab
    is started. A fault `in_guest` is made while the suite runs there. With `boots` the run has no stored state
    to start from: it boots and deploys.
    """

    make: Callable[[Scene], str]
    statuses: frozenset[int] = frozenset({DONE, INCOMPLETE})
    prepare: Callable[[Scene], object] = lambda scene: None
    in_guest: bool = False
    boots: bool = False
    umask: int = 0o022


# -- signals to the lab itself


def sends(number: signal.Signals, scene: Scene) -> str:
    scene.lab.send_signal(number)
    return f"sent {number.name}"


def interrupts_twice(scene: Scene) -> str:
    pause = scene.random.uniform(0.0, 2.0)
    scene.lab.send_signal(signal.SIGINT)
    time.sleep(pause)
    if scene.lab.poll() is None:
        scene.lab.send_signal(signal.SIGINT)
    return f"sent SIGINT twice, {pause:.1f} s apart"


def stops_the_lab(scene: Scene) -> str:
    pause = scene.random.uniform(5.0, 40.0)
    os.killpg(scene.lab.pid, signal.SIGSTOP)
    try:
        time.sleep(pause)
    finally:
        os.killpg(scene.lab.pid, signal.SIGCONT)
    return f"stopped the lab for {pause:.0f} s"


# -- what happens to a guest's machine and to the daemons that hold it

# From the start of the lab to its first machine, on a busy host.
MACHINE_SECONDS = 60.0


def qemu_of(scene: Scene) -> psutil.Process:
    """The machine of the run's lane, or of the next one. Raises LabError if none comes."""
    end = time.monotonic() + MACHINE_SECONDS
    while scene.lab.poll() is None and time.monotonic() < end:
        for process in scene.home.processes():
            with suppress(psutil.NoSuchProcess):
                if process.name().startswith("qemu"):
                    return process
        time.sleep(0.1)
    raise LabError("no QEMU ran")


def kills_qemu(scene: Scene) -> str:
    qemu_of(scene).kill()
    return "killed QEMU"


def stops_qemu(scene: Scene) -> str:
    def go_on() -> None:
        with suppress(psutil.NoSuchProcess):
            qemu.resume()

    qemu = qemu_of(scene)
    qemu.suspend()
    scene.afterwards.callback(go_on)
    return "stopped QEMU"


def after(scene: Scene, pause: float, do: Callable[..., object], *arguments: object) -> None:
    """Do something after so many seconds, and before the run is judged."""
    timer = threading.Timer(pause, do, arguments)
    timer.start()
    scene.afterwards.callback(timer.join)


def kills(daemon: str, scene: Scene) -> str:
    pause = scene.random.uniform(1.0, 8.0)
    host.signal_daemon(daemon, signal.SIGKILL)
    after(scene, pause, host.start_daemons)
    return f"killed {daemon}, started again {pause:.1f} s later"


def stops_libvirtd(scene: Scene) -> str:
    pause = scene.random.uniform(5.0, 100.0)
    host.signal_daemon("libvirtd", signal.SIGSTOP)
    after(scene, pause, host.signal_daemon, "libvirtd", signal.SIGCONT)
    return f"stopped libvirtd for {pause:.1f} s"


# -- what happens inside of a guest while the suite runs there; commands go over SSH with the key of the lane

LOGIN_SECONDS = 60.0


def runs_in_guest(script: str, scene: Scene) -> str:
    """Start a shell script as root in the guest and do not wait for it."""
    end = time.monotonic() + LOGIN_SECONDS
    error = "no lane"
    while time.monotonic() < end and scene.lab.poll() is None:
        for mark in scene.home.paths.lanes.glob(f"*/{leftovers.MARK}"):
            port = leftovers.LaneMark.model_validate_json(mark.read_bytes()).port
            # The newest first: it may have replaced another.
            for key in sorted(scene.home.keys.iterdir(), reverse=True):
                try:
                    _run(port, key.read_text(), script)
                except (paramiko.SSHException, OSError, EOFError) as failed:
                    error = str(failed)
                else:
                    return f"in the guest: {script}"
        time.sleep(0.5)
    raise LabError(f"could not log into the guest: {error}")


def _run(port: int, key: str, script: str) -> None:
    client = paramiko.SSHClient()
    # The lane's own key proves enough: a wrong guest does not accept it.
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    with client:
        client.connect(
            "127.0.0.1",
            port=port,
            username="lab",
            pkey=paramiko.Ed25519Key.from_private_key(StringIO(key)),
            allow_agent=False,
            look_for_keys=False,
            timeout=10,
            banner_timeout=30,
            auth_timeout=30,
        )
        detached = f"nohup sudo -n sh -c {quote(script)} >/dev/null 2>&1 </dev/null &"
        _, out, _ = client.exec_command(detached, timeout=20)
        out.channel.recv_exit_status()


# -- the host's disk is full, in one of the folders that the lab writes: each is a small file system


def fills(folder: str, scene: Scene) -> str:
    filler = scene.home.base / folder / "filler"
    scene.afterwards.callback(filler.unlink, missing_ok=True)
    with filler.open("wb", buffering=0) as stream:
        for block in (bytes(2**20), bytes(4096)):
            try:
                while True:
                    stream.write(block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        return f"filled {folder}/ with {stream.tell() // 2**20} MiB"


# -- what other programs do to the lab's store

SECOND_SECONDS = 500.0


def removes_the_store(scene: Scene) -> str:
    def put_back() -> None:
        scene.home.paths.cache.mkdir(exist_ok=True)
        scene.home.fill_cache()

    shutil.rmtree(scene.home.paths.cache, ignore_errors=True)
    scene.afterwards.callback(put_back)
    return "deleted the cache"


def runs_a_second_lab(scene: Scene) -> str:
    folder, began = scene.home.out / "second", time.monotonic()
    status, output = scene.run_lab("second lab", *PLAN, "-o", str(folder), seconds=SECOND_SECONDS)
    if status != DONE:
        scene.findings.append(f"the second lab ended with {status}: {output[-300:]}")
    else:
        cells = RunResult.read(folder).cells
        wrong = [cell for cell in cells if cell.status != "xfail"]
        scene.findings += [f"the second lab: {cell.variant} is {cell.status}" for cell in wrong]
    return f"ran a second lab for {time.monotonic() - began:.0f} s"


# -- the table

INTERRUPTS = frozenset({INTERRUPTED, DONE})


def full(folder: str, size: str, *, boots: bool = False) -> Fault:
    return Fault(partial(fills, folder), prepare=lambda scene: scene.home.mount(folder, size), boots=boots)


def guest(script: str) -> Fault:
    return Fault(partial(runs_in_guest, script), in_guest=True)


FAULTS: dict[str, Fault] = {
    "full-run-folder": full("out", "64M"),
    "full-lanes": full("state", "3G"),
    "full-temporary": full("tmp", "64M"),
    "full-cache": full("cache", "6G", boots=True),
    "guest-powers-off": guest("systemctl poweroff --force --force"),
    "guest-reboots": guest("systemctl reboot --force --force"),
    "guest-panics": guest("echo c > /proc/sysrq-trigger"),
    "guest-disk-full": guest(
        "fallocate -l $(($(stat -f -c %f /) * $(stat -f -c %S /))) /fill; cat /dev/zero > /fill2"
    ),
    "guest-out-of-memory": guest("for each in 1 2 3; do tail /dev/zero & done; wait"),
    "guest-loses-network": guest("for each in /sys/class/net/e*; do ip link set ${each##*/} down; done"),
    "guest-clock-back": guest("date -s '1 hour ago'"),
    "guest-sshd-killed": guest("pkill -9 sshd"),
    # The brackets keep this script's own shell from being found.
    "guest-agent-killed": guest("pkill -9 -f '[l]ab-agent.py'"),
    "umask-077": Fault(lambda scene: "the lab runs with umask 077", frozenset({DONE}), umask=0o077),
    "lab-sigkill": Fault(partial(sends, signal.SIGKILL), frozenset({KILLED, DONE})),
    "lab-sigterm": Fault(partial(sends, signal.SIGTERM), INTERRUPTS),
    "lab-sigint": Fault(partial(sends, signal.SIGINT), INTERRUPTS),
    "lab-sigint-twice": Fault(interrupts_twice, INTERRUPTS),
    "lab-sigstop": Fault(stops_the_lab),
    "qemu-sigkill": Fault(kills_qemu),
    "qemu-sigstop": Fault(stops_qemu),
    "libvirtd-sigkill": Fault(partial(kills, "libvirtd")),
    "libvirtd-sigstop": Fault(stops_libvirtd),
    "virtlogd-sigkill": Fault(partial(kills, "virtlogd")),
    "store-removed": Fault(removes_the_store),
    "two-labs": Fault(runs_a_second_lab),
}
