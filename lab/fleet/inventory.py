"""`hosts.toml`: the hosts that a run may use, and how each is reached."""

import shlex
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from lab.catalog.toml import NAME, Definition, read, validate

LOOPBACK = "127.0.0.1"

# This becomes a word of a command or an address: no space, no dash that makes it an option, and no `~`, which
# no shell replaces.
Word = Annotated[str, StringConstraints(pattern=r"^[^\s~-]\S*$")]
Name = Annotated[str, StringConstraints(pattern=rf"^{NAME.pattern}$")]


class Host(Definition):
    """A host of a run.

    `address` is as fabric takes it, `USER@HOST:PORT`; what it lacks is what `ssh` would take. `python` is the
    Python that has the lab there, and `home` is LAB_HOME there. `lanes` and `memory_mib` limit what the run may
    use of the host.
    """

    address: Word
    python: Word
    home: Word | None = None
    lanes: int | None = Field(default=None, ge=1, le=64)
    memory_mib: int | None = Field(default=None, ge=1)

    @property
    def command(self) -> str:
        """The command that runs a worker there."""
        home = [f"LAB_HOME={self.home}"] if self.home else []
        return shlex.join(["env", *home, self.python, "-m", "lab.fleet.host"])


class Inventory(Definition):
    """All hosts, by the names that the run calls them."""

    hosts: dict[Name, Host] = Field(min_length=1)


def load(file: Path) -> Inventory:
    """Read an inventory. Raises UsageError with everything that is wrong in it."""
    return validate(file, read(file), Inventory)
