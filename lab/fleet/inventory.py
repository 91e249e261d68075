"""`hosts.toml`: the hosts that a run may use, and how each is reached."""

import shlex
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from lab.base.files import LONGEST_NAME
from lab.catalog.toml import NAME, Definition, read_versioned, validate_table

LOOPBACK = "127.0.0.1"

# This becomes a word of a command or an address: no space, no dash that makes it an option, and no `~`, which
# no shell replaces.
Word = Annotated[str, StringConstraints(pattern=r"^[^\s~-]\S*$")]
Name = Annotated[str, StringConstraints(pattern=rf"^{NAME.pattern}$", max_length=LONGEST_NAME)]


class ListenAddress(Definition):
    """Where dask's scheduler listens. Hosts that are started over SSH reach it through their logins.

    Only a host that dials in by itself needs a known `port`, and perhaps another `address` than loopback.
    """

    address: Word = LOOPBACK
    port: int | None = Field(default=None, ge=1, le=65535)


class HostEntry(Definition):
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

    coordinator: ListenAddress = ListenAddress()
    hosts: dict[Name, HostEntry] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_hosts(self) -> "Inventory":
        if not self.hosts and self.coordinator.port is None:
            raise ValueError(
                "expected a host, for example [hosts.lab-1], or coordinator.port for hosts that dial in"
            )
        return self


def load_inventory(file: Path) -> Inventory:
    """Read an inventory. Raises UsageError with everything that is wrong in it."""
    return validate_table(file, read_versioned(file, "inventory"), Inventory)
