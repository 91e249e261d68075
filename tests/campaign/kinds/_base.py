"""What a kind of fault is."""

import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lab.record import RunResult
from tests.campaign.home import Home

# Every cell as expected; something could not be run.
DONE, INCOMPLETE = 0, 3
INTERRUPTED = 130
# Signals after which a shell reports 128 + the number; Popen reports the negative number.
KILLED = -9

KINDS: "dict[str, type[Fault]]" = {}


@dataclass
class Scene:
    """What a fault can reach. `run_lab` runs a command of the lab in the try's home: (status, output)."""

    home: Home
    lab: subprocess.Popen[bytes]
    random: random.Random
    run_lab: Callable[..., tuple[int | None, str]]

    @property
    def results(self) -> RunResult:
        """Raises UsageError."""
        return RunResult.read(self.home.run)


class Fault:
    """One kind of fault. A new object is made for each try, so it may remember what it did."""

    name: ClassVar[str] = ""
    # What happens, and what the lab promises then.
    happens: ClassVar[str]
    promise: ClassVar[str]
    # The exit statuses of the disturbed run that are right.
    statuses: ClassVar[frozenset[int]] = frozenset({DONE, INCOMPLETE})
    # Whether it happens in the guest, and so while the suite runs.
    in_guest: ClassVar[bool] = False
    # Whether the run has no stored state to start from: it boots and deploys.
    boots: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if cls.name:
            assert cls.name not in KINDS, f"two kinds of fault are called {cls.name}"
            KINDS[cls.name] = cls

    @property
    def mounts(self) -> list[Path]:
        """The file systems that it mounts in the try's home."""
        return []

    @property
    def umask(self) -> int:
        """The file mode creation mask of the try's labs."""
        return 0o022

    def prepare(self, home: Home) -> None:
        """Before the lab is started: the home's folders exist, its cache is empty."""

    def inject(self, scene: Scene) -> str:
        """Do it, and return in a few words what was done. Raises LabError if it cannot be done now."""
        raise NotImplementedError

    def mend(self, scene: Scene) -> None:
        """Put the host right after the disturbed run; also called when nothing was done."""

    def check(self, scene: Scene) -> list[str]:
        """What else is not as promised, after the disturbed run and `mend`."""
        return []
