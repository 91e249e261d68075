"""What happens inside of a guest while the suite runs there. Commands go over SSH with the lane's own key."""

import time
from collections.abc import Iterator
from io import StringIO

import paramiko

from lab.base.errors import LabError
from tests.campaign.kinds._base import Fault, Scene

LOGIN_SECONDS = 60.0


def run_in_guest(scene: Scene, script: str) -> None:
    """Start a shell script as root in the guest and do not wait for it. Raises LabError."""
    end = time.monotonic() + LOGIN_SECONDS
    error = "no lane"
    while time.monotonic() < end and scene.lab.poll() is None:
        for port, key in _ways_in(scene):
            try:
                _run(port, key, script)
                return
            except (paramiko.SSHException, OSError, EOFError) as failed:
                error = str(failed)
        time.sleep(0.5)
    raise LabError(f"could not log into the guest: {error}")


def _ways_in(scene: Scene) -> Iterator[tuple[int, str]]:
    """The ports of lanes with the keys of clients, the newest key first."""
    for lock in scene.home.paths.ports.glob("*.lock"):
        port = int(lock.stem)
        for file in sorted(scene.home.keys.iterdir(), reverse=True):
            yield port, file.read_text()


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
        detached = f"nohup sudo -n sh -c {_quoted(script)} >/dev/null 2>&1 </dev/null &"
        _, out, _ = client.exec_command(detached, timeout=20)
        out.channel.recv_exit_status()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


class _InGuest(Fault):
    in_guest = True
    script = ""

    def inject(self, scene: Scene) -> str:
        run_in_guest(scene, self.script)
        return f"in the guest: {self.script}"


class GuestPowersOff(_InGuest):
    name = "guest-powers-off"
    happens = "the guest powers off"
    promise = "The machine's end is noticed in seconds; the cell is tried again on a fresh lane."
    script = "systemctl poweroff --force --force"


class GuestReboots(_InGuest):
    name = "guest-reboots"
    happens = "the guest reboots"
    promise = "A restart ends the machine; the cell is tried again on a fresh lane."
    script = "systemctl reboot --force --force"


class GuestPanics(_InGuest):
    name = "guest-panics"
    happens = "the guest's kernel panics"
    promise = "As a restart; the console with the panic is in the cell's evidence."
    script = "echo c > /proc/sysrq-trigger"


class GuestDiskFull(_InGuest):
    name = "guest-disk-full"
    happens = "the guest's disk is full"
    promise = "The cell says what its tests and probes showed, or that they could not; the next fork has space."
    script = "fallocate -l $(($(stat -f -c %f /) * $(stat -f -c %S /))) /fill; cat /dev/zero > /fill2"


class GuestOutOfMemory(_InGuest):
    name = "guest-out-of-memory"
    happens = "a process in the guest takes all memory"
    promise = (
        "A suite that the kernel's out-of-memory killer ended is told as that, and never blamed on boxlite."
    )
    script = "for each in 1 2 3; do tail /dev/zero & done; wait"


class GuestLosesNetwork(_InGuest):
    name = "guest-loses-network"
    happens = "the guest loses its network"
    promise = "The guest is given up after 90 s of silence; the cell is tried again on a fresh lane."
    script = "for each in /sys/class/net/e*; do ip link set ${each##*/} down; done"


class GuestClockBack(_InGuest):
    name = "guest-clock-back"
    happens = "the guest's clock is set an hour back"
    promise = "The cell's result is the same: the lab measures with clocks that only go forward."
    script = "date -s '1 hour ago'"


class GuestSshdKilled(_InGuest):
    name = "guest-sshd-killed"
    happens = "kill -9 of sshd in the guest, sessions included"
    promise = "SSH breaks; the lab logs in again or tries the cell again."
    script = "pkill -9 sshd"


class GuestAgentKilled(_InGuest):
    name = "guest-agent-killed"
    happens = "kill -9 of the lab's agent in the guest"
    promise = "The lab notices within seconds; the cell is tried again on a fresh lane, or needed no agent."
    # The brackets keep this script's own shell from being found.
    script = "pkill -9 -f '[l]ab-agent.py'"
