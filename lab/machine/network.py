"""What carries packets to package sources while an image is prepared: passt, or QEMU's own user network.

`lab.host.proof` tries which, and the verdict is kept until something that it depends on changes.
"""

import hashlib
import os
import platform
import shutil
from collections.abc import Iterable
from pathlib import Path

import libvirt
from pydantic import BaseModel

from lab.base.files import write_atomically
from lab.base.paths import Paths
from lab.machine.domain import Network

APPARMOR = Path("/etc/apparmor.d")
# Where AppArmor's rules for passt, QEMU and libvirt's daemons are: files, or folders of them.
PROFILES = (
    "usr.bin.passt",
    "usr.sbin.libvirtd",
    "usr.sbin.virtqemud",
    "usr.lib.libvirt.virt-aa-helper",
    "abstractions/passt",
    "abstractions/libvirt-qemu",
    "abstractions/libvirt-qemu.d",
    "libvirt/TEMPLATE.qemu",
    "local",
    "local/abstractions",
    "disable",
    "force-complain",
)
SWITCHES = (
    "/sys/module/apparmor/parameters/enabled",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    "/sys/fs/selinux/enforce",
)
# SELinux: the rules that are loaded next, and the labels of folders that were changed by hand.
POLICY = ("policy", "contexts/files/file_contexts.local")


class Verdict(BaseModel):
    """The content of `network.json`; `key` says for which host it holds.

    `proved` says what was seen. If lanes cannot run at all, the key is empty, so that the verdict never holds
    and the next command tries again. If something was refused, `denials` are the lines of the logs that
    tell of it, and `rule` is the one of setup.sh that allows it; empty if there is none. Without such lines,
    `unread` names the logs that the user may not read.
    """

    key: str
    network: Network
    proved: str
    denials: list[str] = []
    unread: list[str] = []
    rule: str = ""

    @property
    def instead(self) -> str:
        """What is used instead of passt, and why, as a clause; empty if passt is used."""
        if self.network is Network.PASST:
            return ""
        return f"images are prepared through QEMU's own user network instead of passt: {self.proved}"


def cached(connection: libvirt.virConnect, paths: Paths) -> Verdict | None:
    """The verdict, if there is one and nothing that it depends on has changed."""
    verdict = last(paths)
    return verdict if verdict and verdict.key == key(connection, paths) else None


def last(paths: Paths) -> Verdict | None:
    """What was found the last time, whether it still holds or not."""
    try:
        return Verdict.model_validate_json(paths.network.read_bytes())
    except (OSError, ValueError):
        return None


def keep(paths: Paths, verdict: Verdict) -> None:
    """Keep a verdict for all later commands."""
    paths.make(paths.cache)
    write_atomically(paths.network, verdict.model_dump_json() + "\n")


def key(connection: libvirt.virConnect, paths: Paths) -> str:
    """What a verdict depends on: the programs, who runs them where, and the rules of AppArmor and SELinux."""
    passt = shutil.which("passt")
    parts = [
        platform.release(),
        str(connection.getVersion()),
        str(connection.getLibVersion()),
        str(connection.getURI()),
        str(os.geteuid()),
        str(paths.state),
        _label(paths.state),
        _stamp(Path(passt)) if passt else "no passt",
        *(_text(Path(switch)) for switch in SWITCHES),
        *(_stamp(file) for file in _rules()),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _rules() -> Iterable[Path]:
    for name in PROFILES:
        place = APPARMOR / name
        yield from sorted(place.iterdir()) if place.is_dir() else [place]
    for policy in sorted(Path("/etc/selinux").glob("*")):
        yield from (policy / name for name in POLICY)


def _stamp(file: Path) -> str:
    """A file's name, size and time of change; of a file that is not there, its name."""
    try:
        found = file.stat()
    except OSError:
        return str(file)
    return f"{file} {found.st_size} {found.st_mtime_ns}"


def _label(folder: Path) -> str:
    """The SELinux label of a folder, or of the nearest one above it that exists."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        return os.getxattr(there, "security.selinux").decode(errors="replace")
    except OSError:
        return ""


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
