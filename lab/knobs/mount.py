"""File systems: `[mount]`, mount options of folders."""

from typing import Literal

from lab.knobs._base import MapKnob
from lab.probes import Facts, Who

# The folders whose mounts are among the facts.
Folder = Literal["/home", "/tmp"]  # noqa: S108


class Mount(MapKnob):
    """Mount options by folder. The folder becomes a mount of its own with the same content."""

    root: dict[Folder, list[Literal["noexec"]]]

    def words(self) -> str:
        return ", ".join(f"{path} {','.join(options)}" for path, options in self.root.items())

    def differences(self, facts: Facts, who: Who) -> list[str]:
        return [
            f"{path} is mounted without {option}"
            for path, options in self.root.items()
            for option in options
            if option not in facts.mounts[path].options
        ]
