"""What a cell ran on, as short texts that can be compared: image, kernel, policies, programs, definitions."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lab.base.files import plain
from lab.record import CellResult, Entry, RunInfo, RunResult

# The parts of a cell's environment, in the order in which files and reports have them. A part that is missing
# was never read: nothing is said about it.
PARTS: Final = (
    *("image", "kernel", "bubblewrap", "apparmor", "profiles", "selinux"),
    *("host", "qemu", "acceleration", "network"),
    *("load", "order"),
)
# What parts are that are kept only where they are something else.
USUAL: Final = {"load": "none", "order": "as listed"}
# The guest was asked and has no such thing.
NONE: Final = "none"
# Long enough to tell digests apart, short enough to read.
DIGEST_LENGTH: Final = 12
# Definitions that touch every cell.
COMMON: Final = ("programs", "seed", "rootfs", "rule set", "deployment")


class EnvironmentChange(Entry):
    """One part of a cell's environment that is not what it was."""

    what: str
    old: str
    new: str

    def __str__(self) -> str:
        """Say what changed. The values of a digest tell nobody anything."""
        if self.what in PARTS and self.what not in ("image", "profiles"):
            return f"{self.what} {self.old} -> {self.new}"
        names = {
            "profiles": "AppArmor profiles",
            "programs": "the lab's programs in the guest",
            "rule set": "the lab's rules for causes and statuses",
            "deployment": "how the lab deploys builds",
        }
        definition = "definition of " if self.what.startswith(("guest ", "variant ")) else ""
        return f"{definition}{names.get(self.what, self.what)} changed"


def of_cell(cell: CellResult, run: RunResult) -> dict[str, str]:
    """Return what a cell of a run ran on; empty if the lab never read it."""
    if cell.facts is None:
        return {}
    facts = cell.facts.model_dump(mode="json")
    found = {**_of_facts(facts), **_of_host(cell, run.run), "load": ", ".join(cell.stress)}
    found |= {"order": "shuffled"} if cell.seed is not None else {}
    return {part: " ".join(plain(found[part]).split()) for part in PARTS if found.get(part)}


def definitions(run: RunResult) -> dict[str, str]:
    """Return the digests of the definitions that decided what the cells of a run did, shortened."""
    cells = {name for cell in run.cells for name in (f"guest {cell.guest}", f"variant {cell.variant}")}
    kept = {
        name: digest[:DIGEST_LENGTH]
        for name, digest in run.run.definitions.items()
        if name in cells or name in COMMON or name.startswith("suite ")
    }
    return {"rootfs": "the lab's own"} | kept if kept else {}


def concerning(names: Iterable[str], guest: str, variant: str) -> list[str]:
    """Return the names of those definitions that decide what a cell does."""
    own = (f"guest {guest}", f"variant {variant}", *COMMON)
    return [name for name in names if name in own or name.startswith("suite ")]


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[EnvironmentChange]:
    """Compare what is known on both sides."""
    before, now = ({**USUAL, **side} if side else {} for side in (old, new))
    return [
        EnvironmentChange(what=what, old=value, new=now[what])
        for what, value in before.items()
        if what in now and now[what] != value
    ]


def _of_facts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Read the parts of the environment that the guest reports."""
    readers = {"bubblewrap": _bubblewrap, "apparmor": _apparmor, "selinux": _selinux, "profiles": _profiles}
    sources = {"profiles": "apparmor"}
    found = {"kernel": str(facts["kernel"])}
    for part, read in readers.items():
        reported = facts[sources.get(part, part)]
        found[part] = read(reported) if reported is not None else NONE
    return found


def _bubblewrap(said: Mapping[str, Any]) -> str:
    return f"{said.get('version') or 'does not run'}{' setuid' if said.get('setuid') else ''}"


def _apparmor(said: Mapping[str, Any]) -> str:
    return str(said.get("version") or "without parser")


def _profiles(said: Mapping[str, Any]) -> str:
    text = json.dumps(said.get("profiles") or {}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def _selinux(said: Mapping[str, Any]) -> str:
    parts = [said.get("mode"), said.get("policy"), said.get("policy_version")]
    return " ".join(str(part) for part in parts if part is not None)


def _of_host(cell: CellResult, info: RunInfo) -> dict[str, str]:
    """Read what the cell's lane ran on. A host's name tells nothing, so it is no part of it."""
    hosts = info.hosts(cell.guest, cell.lane)
    own = info.lanes_of(cell.guest, cell.lane)
    values = {
        "image": {lane.image[:DIGEST_LENGTH] for lane in own},
        "host": {f"{host.system} with kernel {host.kernel}" for host in hosts},
        "qemu": {host.qemu for host in hosts},
        "acceleration": {host.acceleration for host in hosts},
        "network": {lane.network for lane in own if lane.network},
    }
    return {part: ", ".join(sorted(found)) for part, found in values.items()}
