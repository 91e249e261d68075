"""Where the lab keeps its things, and where its definitions are."""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

APP = "boxlite-lab"

# Everything under `lab/`, and in a checkout the definitions beside it.
PACKAGE = Path(__file__).resolve().parents[1]


def definitions() -> Path:
    """The folder that holds `images/` and `cloud-init/`: the checkout, or the installed package's copy."""
    installed = PACKAGE / "_definitions"
    return installed if installed.is_dir() else PACKAGE.parent


@dataclass(frozen=True)
class Paths:
    """The lab's folders. `cache` can be deleted at any time, `state` holds runs and lanes."""

    cache: Path
    state: Path

    @classmethod
    def default(cls) -> "Paths":
        """The folders of this user; `LAB_HOME` puts all of them in one place.

        Root runs guests under qemu:///system, whose QEMU user cannot read /root: site folders then.
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
    def wheels(self) -> Path:
        return self.cache / "wheels"

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
    def ports(self) -> Path:
        return self.state / "ports"

    @property
    def runs(self) -> Path:
        return self.state / "runs"

    def make(self, folder: Path) -> Path:
        """Create one of the folders so that the QEMU user can pass through it, whatever the umask."""
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            for part in (folder, *folder.parents):
                if part == self.cache.parent or part == self.state.parent:
                    break
                part.chmod(0o755)
        return folder
