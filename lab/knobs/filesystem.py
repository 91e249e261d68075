"""Kinds of file systems: `[filesystem]`, what the files of a folder are on."""

from typing import Literal

from lab.knobs._base import MapKnob
from lab.probes import Facts, SuiteUser


class Filesystem(MapKnob):
    """File systems by folder. The folder's content moves to a new one, which is in a file of the guest's."""

    root: dict[Literal["/home"], Literal["btrfs"]]

    def why_not(self, facts: Facts) -> str | None:
        for path, kind in self.root.items():
            if facts.mounts[path].type == kind:
                return f"its {path} is on {kind} to begin with"
        return "has no mkfs.btrfs" if facts.mkfs_btrfs is False else None

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        return [
            f"{path} is on {facts.mounts[path].type}, not on {kind}"
            for path, kind in self.root.items()
            if facts.mounts[path].type != kind
        ]
