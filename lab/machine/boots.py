"""Stored boots: guests as they were right after they booted, on disk, so that a lane need not boot again.

What is kept is the lane's overlay with an internal snapshot of memory and disk in it (see `checkpoint`), and
the keys that the guest then knows. A lane gets a copy, and a new client key before anything else happens in it.
"""

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import psutil

from lab import process
from lab.catalog import Guest
from lab.errors import LabError
from lab.files import sha256, write_atomically
from lab.images.store import BaseImage
from lab.machine import domain, firmware, seed
from lab.machine.acceleration import Acceleration
from lab.machine.domain import KernelBoot
from lab.machine.keys import KeyPair
from lab.paths import Paths

# The name of the snapshot inside the stored overlay.
TAG = "boot"
# A stored boot of debian-13 took 0.3 GiB; a disk that is nearly full is not for a cache.
FREE_GIB = 5.0
# Enough for that at 3 MiB/s.
COPY_SECONDS = 120.0

_STATE, _KEYS, _REFUSED = "state.qcow2", "keys.json", "refused.txt"


class Damaged(LabError):
    """A stored boot is not whole."""


@dataclass(frozen=True)
class StoredBoot:
    """One stored boot. The folder is the owner's alone: memory and keys are secrets."""

    folder: Path

    @property
    def keys(self) -> tuple[KeyPair, KeyPair]:
        """Client key and host key that the guest knew when it was stored. Raises LabError."""
        try:
            known = json.loads((self.folder / _KEYS).read_text())
            return KeyPair(**known["client"]), KeyPair(**known["host"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(f"the stored boot's keys cannot be read: {error}") from error

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


class Boots:
    """The stored boots of one guest's image on this host and QEMU."""

    def __init__(
        self,
        paths: Paths,
        connection: libvirt.virConnect,
        *,
        guest: Guest,
        image: BaseImage,
        acceleration: Acceleration,
    ) -> None:
        self._root = paths.boots
        self._paths = paths
        self._guest = guest.name
        self._folder = self._root / f"{guest.name}-{_digest(connection, guest, image, acceleration)}"

    def find(self) -> StoredBoot | None:
        """The stored boot, or None where there is none that can be used."""
        return StoredBoot(self._folder) if (self._folder / _STATE).is_file() else None

    @property
    def wanted(self) -> bool:
        """Whether a boot should be stored: there is none, none was refused, and there is room."""
        self._paths.make(self._paths.cache)
        free = shutil.disk_usage(self._paths.cache).free / 2**30
        return free >= FREE_GIB and self.find() is None and not (self._folder / _REFUSED).exists()

    def keep(self, overlay: Path, *, client: KeyPair, host: KeyPair) -> StoredBoot | None:
        """Move the overlay of a stopped lane into the store; None where another lab was faster.

        Boots of the guest's former images, or of another QEMU, go.
        """
        partial = self._root / f".partial-{self._folder.name}-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._root.chmod(0o700)
            partial.mkdir(mode=0o700)
            shutil.move(overlay, partial / _STATE)
            (partial / _STATE).chmod(0o400)
            keys = {"client": asdict(client), "host": asdict(host)}
            (partial / _KEYS).touch(0o600)
            (partial / _KEYS).write_text(json.dumps(keys) + "\n")
            partial.rename(self._folder)
        except OSError:
            return self.find()
        finally:
            # An interrupt too leaves none.
            shutil.rmtree(partial, ignore_errors=True)
        for folder in self._root.iterdir():
            if self._is_old(folder):
                with suppress(OSError):
                    shutil.rmtree(folder)
        return self.find()

    def _is_old(self, folder: Path) -> bool:
        """Whether it is another boot of the guest, or half of one, of a lab that was killed."""
        if half := re.fullmatch(r"\.partial-.*-(\d+)", folder.name):
            return not psutil.pid_exists(int(half[1]))
        same = re.fullmatch(re.escape(self._guest) + "-[0-9a-f]{16}", folder.name)
        return bool(same) and folder != self._folder


def _digest(connection: libvirt.virConnect, guest: Guest, image: BaseImage, acceleration: Acceleration) -> str:
    """Of all that a state in memory depends on: image, machine, firmware, seed, QEMU and processor."""
    boot = firmware.boot_of(connection, image)
    uefi = ""
    if isinstance(boot, KernelBoot):
        boot = KernelBoot(Path("kernel"), Path("initrd"))
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
