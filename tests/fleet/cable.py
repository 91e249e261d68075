"""Two hosts and a cable between them: network namespaces of the test's own, which vanish with it."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from lab.base.wait import Deadline, wait_for

# What the two hosts are called inside, where nobody else is.
NEAR, FAR = "10.77.0.1", "10.77.0.2"
USER = ["--user", "--map-root-user"]
SECONDS = 60.0


class NoNamespaces(Exception):
    """This host or this user makes no network namespaces."""


class Namespace:
    """A network namespace. `within` are the words before a command that runs in it.

    It has no name anywhere: it lives as long as a process in it, and the first one, `cat`, ends when the
    test's process does.
    """

    def __init__(self, *, beside: "Namespace | None" = None) -> None:
        """Make one; `beside` is another one, whose user namespace this one shares. Raises NoNamespaces."""
        own = [*beside.within, "unshare"] if beside else ["unshare", *USER]
        self.process = subprocess.Popen(
            [*own, "--net", "--", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # When `cat` answers, the namespace is there.
        with suppress(BrokenPipeError):
            self.process.stdin.write(b"!\n")
            self.process.stdin.flush()
        if self.process.stdout.readline() != b"!\n":
            raise NoNamespaces(self.process.communicate()[1].decode().strip())

    @property
    def within(self) -> list[str]:
        target = str(self.process.pid)
        return ["nsenter", "--target", target, "--user", "--preserve-credentials", "--net", "--"]

    def run(self, *words: str) -> None:
        """Run a command in it. Raises NoNamespaces if that fails."""
        done = subprocess.run([*self.within, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NoNamespaces(f"{' '.join(words)}: {done.stderr.strip()}")

    def end(self) -> None:
        self.process.communicate()  # Closes its standard input.
        self.process.wait(timeout=SECONDS)


class Cable:
    """A virtual Ethernet between two namespaces; `far` is the host whose cable is pulled."""

    def __init__(self, near: Namespace, far: Namespace) -> None:
        self.near, self.far = near, far
        peer = str(far.process.pid)
        near.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", peer)
        for host, name, address in ((near, "near", NEAR), (far, "far", FAR)):
            host.run("ip", "address", "add", f"{address}/24", "dev", name)
            for device in ("lo", name):
                host.run("ip", "link", "set", device, "up")

    def cut(self) -> None:
        """Pull it: nothing more arrives, and nobody is told."""
        self.far.run("ip", "link", "set", "far", "down")

    def mend(self) -> None:
        self.far.run("ip", "link", "set", "far", "up")


@contextmanager
def laid() -> Iterator[Cable]:
    """A cable between two new namespaces. Raises NoNamespaces; nothing is left of them afterwards."""
    with ExitStack() as stack:
        near = Namespace()
        stack.callback(near.end)
        far = Namespace(beside=near)
        stack.callback(far.end)
        yield Cable(near, far)
        made = {identity(host.process.pid) for host in (near, far)}
    wait_for(
        lambda: not made & {identity(pid) for pid in psutil.pids()} or None,
        Deadline(SECONDS, "the last process in the namespaces to end"),
    )


def identity(pid: int) -> int:
    """The number of a process's network namespace; 0 if it has gone, or is another user's."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0
