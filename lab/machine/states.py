"""Stored states: guests saved on disk right after their boot, or after a build was deployed.

A lane that restores one saves the time for both. A state holds the overlay of the lane that stored it, with an
internal snapshot of memory and disk (see `checkpoint`), and the keys that the guest knew. A lane gets a copy,
and installs a new client key before it does anything else.
"""

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree as ET

import libvirt
from pydantic import FailFast, TypeAdapter

from lab.base import process, scratch
from lab.base.data import parse_json
from lab.base.errors import LabError, format_error
from lab.base.files import hash_file, put_in_place, read_regular
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images.store import BaseImage
from lab.machine import domain, seed
from lab.machine.domain import Hardware, KernelBoot, MachinePlace
from lab.machine.seed import KeyPair
from lab.record import strip_kernel

# A stored boot of debian-13 took 0.3 GiB; a cache must not fill the disk.
FREE_GIB = 5.0
# Enough for such a state at 3 MiB/s.
COPY_SECONDS = 120.0

# Bytes of what a lane must know of a state: 150 for each file of a build.
MOST_KNOWN = 16 << 20

# What a lab is storing.
PARTIAL = ".partial-"

_STATE, _INFO = "state.qcow2", "known.json"


class DamagedState(LabError):
    """A stored state is not complete."""


@dataclass(frozen=True)
class StateInfo:
    """The content of `known.json`: what a lane must know to use the state.

    `tag` names the snapshot in the overlay, `client` and `host` are the keys that the guest knew, `files` maps
    each deployed file to its SHA-256. `agent`: whether it has one.
    """

    tag: str
    client: KeyPair
    host: KeyPair
    files: Annotated[dict[str, str], FailFast()] = field(default_factory=dict)
    agent: bool = False


_ADAPTER = TypeAdapter(StateInfo)


@dataclass(frozen=True)
class StoredState:
    """One stored state. Only the owner may read the folder: memory and keys are secrets."""

    folder: Path

    @property
    def size(self) -> int:
        """The disk space it takes, in bytes; 0 if it was removed meanwhile."""
        try:
            return (self.folder / _STATE).stat().st_blocks * 512
        except OSError:
            return 0

    @property
    def last_used(self) -> float:
        """When a lane last used it, or when it was stored: seconds since the epoch; 0 if it was removed."""
        try:
            return self.folder.stat().st_mtime
        except OSError:
            return 0.0

    def info(self) -> StateInfo:
        """Read `known.json`. Raises DamagedState."""
        file = self.folder / _INFO
        try:
            return _ADAPTER.validate_python(parse_json(read_regular(file, MOST_KNOWN)))
        except (OSError, ValueError) as error:
            raise DamagedState(f"{file} of a stored state cannot be read: {format_error(error)}") from error

    def copy_to(self, overlay: Path) -> None:
        """Copy the state; the copy shares its blocks if the file system can do that. Raises LabError."""
        with suppress(OSError):
            os.utime(self.folder)
        _copy(self.folder / _STATE, overlay)
        overlay.chmod(0o600)

    def drop(self) -> None:
        """Delete a state that could not be used; the lane that boots instead stores another one."""
        shutil.rmtree(self.folder, ignore_errors=True)


def list_stored_states(paths: Paths) -> list[StoredState]:
    """All stored states, the one that was used last first."""
    states = [StoredState(file.parent) for file in paths.states.glob(f"[!.]*/{_STATE}")]
    return sorted(states, key=lambda state: state.last_used, reverse=True)


def choose_states_above_limit(paths: Paths) -> list[StoredState]:
    """The stored states that have to go, so that the others are within the limit; the oldest use goes first."""
    states = list_stored_states(paths)
    together = accumulate(state.size for state in states)
    return [state for state, size in zip(states, together, strict=True) if size > paths.states_gib * 2**30]


class States:
    """The stored states of one guest's image on this host and QEMU, with this agent and its programs.

    `hardware` is the definition with which the guest's lanes start. `deployment` identifies all that was
    deployed; it is empty for a guest right after its boot.
    """

    def __init__(
        self,
        paths: Paths,
        connection: libvirt.virConnect,
        *,
        guest: Guest,
        image: BaseImage,
        hardware: Hardware,
        agent: str = "",
    ) -> None:
        self._paths = paths
        self._guest = guest.name
        self._machine = f"{guest.name}-{_digest(connection, guest, image, hardware, agent)}"

    def find(self, deployment: str = "") -> StoredState | None:
        """The stored state, or None if there is no usable one."""
        folder = self._folder(deployment)
        return StoredState(folder) if (folder / _STATE).is_file() else None

    def should_store(self, deployment: str = "") -> bool:
        """Whether to store a state: any may be stored, there is none, the disk has room."""
        if not self._paths.states_gib:
            return False
        self._paths.make(self._paths.cache)
        free = shutil.disk_usage(self._paths.cache).free / 2**30
        return free >= FREE_GIB and self.find(deployment) is None

    def keep(self, overlay: Path, info: StateInfo, deployment: str = "") -> StoredState | None:
        """Copy a lane's overlay into the store; None if that fails.

        If another lab stored the same state first, that one is returned. States of the guest's former images or
        of another QEMU are deleted, and so is what was not used for longest and is above the limit of the
        store. The state that was just stored stays.
        """
        folder, root = self._folder(deployment), self._paths.states
        try:
            root.mkdir(parents=True, exist_ok=True)
            root.chmod(0o700)
            with scratch.make_locked_folder(root, PARTIAL) as partial:
                try:
                    _copy(overlay, partial / _STATE)
                    (partial / _STATE).chmod(0o400)
                    (partial / _INFO).touch(0o600)
                    (partial / _INFO).write_bytes(_ADAPTER.dump_json(info) + b"\n")
                    if not (folder / _STATE).exists():  # What is left of one that was dropped.
                        shutil.rmtree(folder, ignore_errors=True)
                    # Only a whole state has its name.
                    put_in_place(partial, folder)
                finally:
                    # After an interrupt, too.
                    shutil.rmtree(partial, ignore_errors=True)
        except (OSError, LabError):
            return self.find(deployment)
        over = [state.folder for state in choose_states_above_limit(self._paths)]
        for old in [*filter(self._is_old, root.iterdir()), *over]:
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
        return self.find(deployment)

    def _folder(self, deployment: str) -> Path:
        digest = f"-{hashlib.sha256(deployment.encode()).hexdigest()[:16]}" if deployment else ""
        return self._paths.states / f"{self._machine}{digest}"

    def _is_old(self, folder: Path) -> bool:
        same = re.fullmatch(f"({re.escape(self._guest)}-[0-9a-f]{{16}})(-[0-9a-f]{{16}})?", folder.name)
        return same is not None and same[1] != self._machine


def _copy(source: Path, target: Path) -> None:
    """Copy an overlay, as few blocks as the file system allows. Raises CommandFailed."""
    command: list[str | Path] = ["cp", "--reflink=auto", "--sparse=always", source, target]
    process.run_command(command, timeout=COPY_SECONDS)


def _digest(
    connection: libvirt.virConnect, guest: Guest, image: BaseImage, hardware: Hardware, agent: str
) -> str:
    """Digest of all that a state in memory depends on: image, machine, firmware, seed, agent, QEMU, CPU."""
    boot, uefi = hardware.boot, ""
    if isinstance(boot, KernelBoot):
        # Files of the image, wherever that is stored.
        boot = replace(boot, kernel=Path("kernel"), initrd=Path("initrd"))
    elif boot.uefi:
        uefi = hash_file(boot.uefi)
    anywhere = MachinePlace(Path("lane"), port=0, uuid="")
    nobody = KeyPair("", "")
    files = seed.render(instance="", hostname=strip_kernel(guest.name), client_key=nobody, host_key=nobody)
    processor = ET.fromstring(connection.getCapabilities()).find("host/cpu")
    if processor is not None:
        for counter in processor.findall("counter"):
            processor.remove(counter)  # A frequency, measured again at each boot of the host.
    parts = [
        image.manifest.disk_sha256,
        domain.render_domain(replace(hardware, boot=boot), anywhere),
        uefi,
        json.dumps(files, sort_keys=True),
        agent,
        f"{connection.getVersion()} {connection.getLibVersion()}",
        "" if processor is None else ET.tostring(processor, encoding="unicode"),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
