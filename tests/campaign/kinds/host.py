"""How the host is set up: ports that are taken, masks of file modes."""

import socket
import stat
from pathlib import Path

from lab.machine import ports
from tests.campaign.home import Home
from tests.campaign.kinds._base import DONE, Fault, Scene

# How many of the lab's ports stay free. The lab begins its search anywhere: it nearly always meets a taken one.
FREE = 50
KEY_MARKS = (b"PRIVATE KEY", b'"private"')


class PortsTaken(Fault):
    name = "port-taken"
    happens = f"another program listens on all of the lab's ports but {FREE}"
    promise = "The lab takes the next free port."
    statuses = frozenset({DONE})

    def prepare(self, home: Home) -> None:
        self._sockets = []
        for number in range(ports.FIRST, ports.LAST + 1 - FREE):
            taken = socket.socket()
            try:
                taken.bind(("0.0.0.0", number))
                taken.listen(1)
            except OSError:  # Another lab has it.
                taken.close()
                continue
            self._sockets.append(taken)

    def inject(self, scene: Scene) -> str:
        return f"{len(self._sockets)} ports were taken from the start"

    def mend(self, scene: Scene) -> None:
        for taken in self._sockets:
            taken.close()


class _Umask(Fault):
    statuses = frozenset({DONE})
    mask = 0o022

    @property
    def umask(self) -> int:
        return self.mask

    def inject(self, scene: Scene) -> str:
        self._seen = exposed(scene.home.base)
        return f"the lab runs with umask {self.mask:03o}"

    def check(self, scene: Scene) -> list[str]:
        return sorted({*getattr(self, "_seen", []), *exposed(scene.home.base)})


class UmaskTight(_Umask):
    name = "umask-077"
    mask = 0o077
    happens = "the lab runs with `umask 077`"
    promise = "Everything works: QEMU's user reaches what it needs."


class UmaskOpen(_Umask):
    name = "umask-000"
    mask = 0o000
    happens = "the lab runs with `umask 000`"
    promise = "Nothing with a key is readable by others, and no file that the lab trusts is writable by others."


def exposed(base: Path) -> list[str]:
    """The files below a folder that others can write, and those with a private key that others can read."""
    found = []
    for file in sorted(base.rglob("*")):
        try:
            mode = file.lstat().st_mode
            if stat.S_ISREG(mode) and _reachable(file, base) and mode & stat.S_IWOTH:
                found.append(f"others can write {_place(file, base)}")
            if stat.S_ISREG(mode) and _reachable(file, base) and mode & stat.S_IROTH and _has_key(file):
                found.append(f"others can read the key in {_place(file, base)}")
        except OSError:  # The lab has removed it.
            continue
    return found


def _reachable(file: Path, base: Path) -> bool:
    """Whether others can enter every folder between them."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in file.parents if folder.is_relative_to(base))


def _place(file: Path, base: Path) -> str:
    """The path without a lane's random name."""
    parts = file.relative_to(base).parts
    return "/".join("lab-*" if part.startswith("lab-") else part for part in parts)


def _has_key(file: Path) -> bool:
    with file.open("rb") as stream:
        text = stream.read(2**20)
    return any(mark in text for mark in KEY_MARKS)
