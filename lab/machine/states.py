"""Stored states: guests as they were right after they booted, or after a build was deployed, on disk, so that
a lane need not do that again.

What is kept is the lane's overlay with an internal snapshot of memory and disk in it (see `checkpoint`), and
the keys that the guest then knows. A lane gets a copy, and a new client key before anything else happens in it.
"""

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import psutil

from lab.base import process
from lab.base.errors import LabError
from lab.base.files import sha256, write_atomically
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images.store import BaseImage
from lab.machine import domain, firmware, seed
from lab.machine.acceleration import Acceleration
from lab.machine.domain import KernelBoot
from lab.machine.keys import KeyPair

# A stored boot of debian-13 took 0.3 GiB; a disk that is nearly full is not for a cache.
FREE_GIB = 5.0
# Enough for that at 3 MiB/s.
COPY_SECONDS = 120.0
# Of each guest: whoever compares a few builds gets all of them deployed.
DEPLOYED_STATES = 3

_STATE, _KNOWN, _REFUSED = "state.qcow2", "known.json", "refused.txt"


class Damaged(LabError):
    """A stored state is not whole."""


@dataclass(frozen=True)
class Known:
    """What has to be known of a stored state: the snapshot's name in the overlay, the keys that the guest knew
    when it was stored, and what was deployed in it, each file with its SHA-256.
    """

    tag: str
    client: KeyPair
    host: KeyPair
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredState:
    """One stored state. The folder is the owner's alone: memory and keys are secrets."""

    folder: Path

    def known(self) -> Known:
        """Raises Damaged."""
        try:
            known = json.loads((self.folder / _KNOWN).read_text())
            client, host = KeyPair(**known["client"]), KeyPair(**known["host"])
            return Known(known["tag"], client, host, dict(known["files"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(f"what is known of the stored state cannot be read: {error}") from error

    def copy_to(self, overlay: Path) -> None:
        """Copy the state, shared with the original where the file system can. Raises LabError."""
        command: list[str | Path] = ["cp", "--reflink=auto", "--sparse=always", self.folder / _STATE, overlay]
        process.run(command, timeout=COPY_SECONDS)
        overlay.chmod(0o600)

    def refuse(self, reason: str) -> None:
        """Drop a state that could not be used, and remember it, so that it is not tried in every run."""
        with suppress(OSError):  # Another lab may have removed it for a newer one.
            write_atomically(self.folder / _REFUSED, reason + "\n")
            (self.folder / _STATE).unlink(missing_ok=True)


class States:
    """The stored states of one guest's image on this host and QEMU.

    `deployment` stands for all that was deployed; empty, it is the guest right after its boot that is meant.
    """

    def __init__(
        self,
        paths: Paths,
        connection: libvirt.virConnect,
        *,
        guest: Guest,
        image: BaseImage,
        acceleration: Acceleration,
    ) -> None:
        self._root = paths.states
        self._paths = paths
        self._guest = guest.name
        self._machine = f"{guest.name}-{_digest(connection, guest, image, acceleration)}"

    def find(self, deployment: str = "") -> StoredState | None:
        """The stored state, or None where there is none that can be used."""
        folder = self._folder(deployment)
        return StoredState(folder) if (folder / _STATE).is_file() else None

    def wanted(self, deployment: str = "") -> bool:
        """Whether a state should be stored: there is none, none was refused, and there is room."""
        self._paths.make(self._paths.cache)
        free = shutil.disk_usage(self._paths.cache).free / 2**30
        refused = (self._folder(deployment) / _REFUSED).exists()
        return free >= FREE_GIB and self.find(deployment) is None and not refused

    def keep(self, overlay: Path, known: Known, deployment: str = "") -> StoredState | None:
        """Move the overlay of a stopped lane into the store; None where that cannot be.

        Where another lab was faster, it is that one's. States of the guest's former images, or of another
        QEMU, go, and all but the newest with a deployed build.
        """
        folder = self._folder(deployment)
        partial = self._root / f".partial-{folder.name}-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._root.chmod(0o700)
            partial.mkdir(mode=0o700)
            shutil.move(overlay, partial / _STATE)
            (partial / _STATE).chmod(0o400)
            (partial / _KNOWN).touch(0o600)
            (partial / _KNOWN).write_text(json.dumps(asdict(known)) + "\n")
            partial.rename(folder)
        except OSError:
            return self.find(deployment)
        finally:
            # An interrupt too leaves none.
            shutil.rmtree(partial, ignore_errors=True)
        for old in [*filter(self._is_old, self._root.iterdir()), *self._deployed()[DEPLOYED_STATES:]]:
            with suppress(OSError):
                shutil.rmtree(old)
        return self.find(deployment)

    def _folder(self, deployment: str) -> Path:
        digest = f"-{hashlib.sha256(deployment.encode()).hexdigest()[:16]}" if deployment else ""
        return self._root / f"{self._machine}{digest}"

    def _deployed(self) -> list[Path]:
        """Those with a build, the newest first."""
        found = [(folder.stat().st_mtime, folder) for folder in self._root.glob(f"{self._machine}-*")]
        return [folder for _, folder in sorted(found, reverse=True)]

    def _is_old(self, folder: Path) -> bool:
        """Whether it is of another machine of the guest, or half of one, of a lab that was killed."""
        if half := re.fullmatch(r"\.partial-.*-(\d+)", folder.name):
            return not psutil.pid_exists(int(half[1]))
        same = re.fullmatch(f"({re.escape(self._guest)}-[0-9a-f]{{16}})(-[0-9a-f]{{16}})?", folder.name)
        return same is not None and same[1] != self._machine


def _digest(connection: libvirt.virConnect, guest: Guest, image: BaseImage, acceleration: Acceleration) -> str:
    """Of all that a state in memory depends on: image, machine, firmware, seed, QEMU and processor."""
    boot = firmware.boot_of(connection, image, guest.kernel_arguments)
    uefi = ""
    if isinstance(boot, KernelBoot):
        boot = replace(boot, kernel=Path("kernel"), initrd=Path("initrd"))
    elif boot.uefi:
        uefi = sha256(boot.uefi)
    spec = domain.DomainSpec(
        name="",
        lane="",
        uuid="",
        kvm=acceleration.kvm,
        memory_mib=guest.memory_mib,
        cpus=guest.cpus,
        boot=boot,
        console=Path("console"),
        disk=Path("disk"),
        seed=Path("seed"),
        port=0,
    )
    nobody = KeyPair("", "")
    files = seed.render(instance="", hostname=guest.name, client_key=nobody, host_key=nobody)
    processor = ET.fromstring(connection.getCapabilities()).find("host/cpu")
    if processor is not None:
        for counter in processor.findall("counter"):
            processor.remove(counter)  # A frequency that is measured anew at each start of the host.
    parts = [
        image.manifest.disk_sha256,
        domain.to_xml(spec),
        uefi,
        json.dumps(files, sort_keys=True),
        f"{connection.getVersion()} {connection.getLibVersion()}",
        "" if processor is None else ET.tostring(processor, encoding="unicode"),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
