"""Where things are: the folders of the lab's cache, state and definitions; the classes in a package's files."""

import importlib
import os
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import platformdirs

APP = "boxlite-lab"

# The package `lab/`; in a checkout the definitions are beside it.
PACKAGE = Path(__file__).resolve().parents[1]


def definitions() -> Path:
    """Return the folder that holds `images/` and `cloud-init/`: the checkout, or the package's copy."""
    installed = PACKAGE / "_definitions"
    return installed if installed.is_dir() else PACKAGE.parent


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
        """Create a folder that the QEMU user can traverse, whatever the umask is."""
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            for part in (folder, *folder.parents):
                if part == self.cache.parent or part == self.state.parent:
                    break
                part.chmod(0o755)
        return folder


def classes[C](package: ModuleType, base: type[C]) -> dict[str, type[C]]:
    """Map each module's name to the one subclass of `base` that it defines.

    Modules whose names begin with `_` are skipped. Raises TypeError if a module does not define exactly one.
    """
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        own = [
            each
            for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, base) and each.__module__ == module.__name__
        ]
        if len(own) != 1:
            raise TypeError(f"{module.__name__} defines {len(own)} kinds of {base.__name__}, not one")
        found[info.name] = own[0]
    return found
