"""The LAB_HOME of one try: it shares images and stored states with the user's cache, and nothing else."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.base.errors import LabError
from lab.base.paths import Paths

GUEST, BUILD = "debian-13", "0.10.8"
# Blocked in different ways, the second before any box starts: it takes the least time.
VARIANTS = ("userns-clone-off", "kvm-denied")
PLAN = [
    *("matrix", "-g", GUEST, *(word for name in VARIANTS for word in ("-v", name)), "--build", BUILD),
    *("--no-remedies", "--no-experiment", "--jobs", "1", "--verbose"),
]
# What the plan needs of the cache, by folder.
DIGEST = "[0-9a-f]" * 16
SHARED = {
    "images": f"{GUEST}-{DIGEST}",
    "states": f"{GUEST}-{DIGEST}*",
    "wheels": f"boxlite-{BUILD}-*",
}
COPY_SECONDS = 300.0


@dataclass(frozen=True)
class Home:
    """The folders of one try. `temporary` is TMPDIR of its labs; `keys` has the keys of its lanes."""

    base: Path

    @property
    def paths(self) -> Paths:
        return Paths(cache=self.base / "cache", state=self.base / "state")

    @property
    def temporary(self) -> Path:
        return self.base / "tmp"

    @property
    def keys(self) -> Path:
        return self.base / "keys"

    @property
    def out(self) -> Path:
        """The parent of the run's folder: a small file system can be mounted here."""
        return self.base / "out"

    @property
    def run(self) -> Path:
        return self.out / "run"

    @property
    def folders(self) -> list[Path]:
        """The folders that must exist before a lab starts."""
        return [self.paths.cache, self.paths.state, self.temporary, self.keys, self.out]

    def environment(self) -> dict[str, str]:
        """The environment of the try's labs."""
        own = {"LAB_HOME": self.base, "TMPDIR": self.temporary, "CAMPAIGN_KEYS": self.keys}
        return {**os.environ, **{name: str(value) for name, value in own.items()}}

    def make(self) -> None:
        self.base.mkdir(mode=0o755, parents=True)
        for folder in self.folders:
            folder.mkdir()
        self.keys.chmod(0o700)

    def fill_cache(self, *, states: bool = True) -> None:
        """Link what the plan needs from the user's cache, or copy it to another file system."""
        own = Paths.default().cache
        for name, pattern in SHARED.items():
            target = self.paths.cache / name
            target.mkdir(exist_ok=True)
            for entry in [] if name == "states" and not states else sorted((own / name).glob(pattern)):
                if entry.suffix != ".lock" and not (target / entry.name).exists():
                    _link_or_copy(entry, target / entry.name)
        if (own / "acceleration.json").exists():
            shutil.copy2(own / "acceleration.json", self.paths.cache / "acceleration.json")

    def remove(self) -> None:
        subprocess.run(["rm", "-rf", "--one-file-system", self.base], check=True, timeout=COPY_SECONDS)


def _link_or_copy(source: Path, target: Path) -> None:
    how = "--link" if source.stat().st_dev == target.parent.stat().st_dev else "--sparse=always"
    done = subprocess.run(
        ["cp", "-a", how, source, target], capture_output=True, text=True, check=False, timeout=COPY_SECONDS
    )
    if done.returncode != 0:
        raise LabError(f"cannot share {source} with a try: {done.stderr.strip()}")
