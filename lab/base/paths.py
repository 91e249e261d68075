"""Where things are: the folders of the lab's cache, state and definitions."""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from lab.base.files import make_folder

APP = "boxlite-lab"

# The package `lab/`; in a checkout the definitions are beside it.
PACKAGE = Path(__file__).resolve().parents[1]


def find_definitions() -> Path:
    """Return the folder that holds `images/` and `cloud-init/`: the checkout, or the package's copy."""
    installed = PACKAGE / "_definitions"
    return installed if installed.is_dir() else PACKAGE.parent


# What helps where the lab's folders cannot be written.
ANOTHER_HOME = "make it writable, or set $LAB_HOME to a folder for the lab's files"

# A guest's stored states take about 1 GiB: 0.3 for its boot, 0.6 for it with a deployed build.
STATES_GIB = 20


@dataclass(frozen=True)
class Paths:
    """The lab's folders. `cache` can be deleted at any time; `state` holds runs and lanes.

    `states_gib` limits the disk space that `states` takes.
    """

    cache: Path
    state: Path
    states_gib: int = STATES_GIB

    @classmethod
    def default(cls) -> "Paths":
        """Return this user's folders. `LAB_HOME` overrides them with one folder for both.

        Root gets the site folders: it runs guests under qemu:///system, whose QEMU user cannot read /root.
        """
        if home := os.environ.get("LAB_HOME"):
            base = Path(home).resolve()
            return cls(cache=base / "cache", state=base / "state")
        if os.geteuid() == 0:
            return cls(cache=platformdirs.site_cache_path(APP), state=platformdirs.site_state_path(APP))
        return cls(cache=platformdirs.user_cache_path(APP), state=platformdirs.user_state_path(APP))

    @property
    def images(self) -> Path:
        return self.cache / "images"

    @property
    def downloads(self) -> Path:
        return self.cache / "downloads"

    @property
    def states(self) -> Path:
        return self.cache / "states"

    @property
    def acceleration(self) -> Path:
        return self.cache / "acceleration.json"

    @property
    def lanes(self) -> Path:
        return self.state / "lanes"

    @property
    def runs(self) -> Path:
        return self.state / "runs"

    def make(self, folder: Path) -> Path:
        """Create a folder that the QEMU user can traverse, whatever the umask is. Raises as `make_folder`."""
        make_folder(folder, ANOTHER_HOME)
        if os.geteuid() == 0:
            for part in (folder, *folder.parents):
                if part == self.cache.parent or part == self.state.parent:
                    break
                part.chmod(0o755)
        return folder
