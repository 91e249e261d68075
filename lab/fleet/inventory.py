"""`hosts.toml`: the worker hosts that a run may use, and how each is reached."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from lab.catalog.toml import NAME, Definition, read, validate
from lab.fleet.address import PORT

LOOPBACK = "127.0.0.1"

# What becomes a word of a command or an address: no space, and no dash that makes it an option.
Word = Annotated[str, StringConstraints(pattern=r"^[^\s-]\S*$")]


def _path_there(path: str) -> str:
    if not path or path[0] in "~-":
        raise ValueError(f"expected an absolute path, or one that begins at the user's home, found {path!r}")
    return path


PathThere = Annotated[str, AfterValidator(_path_there)]


class Coordinator(Definition):
    """Where the coordinator listens, as its hosts reach it."""

    address: Word = LOOPBACK
    port: int = Field(default=PORT, ge=1, le=65535)

    @property
    def listens(self) -> tuple[str, int]:
        return self.address, self.port


class Host(Definition):
    """A worker host.

    `user` and `port` are what `ssh` would take without them. `lab` is the folder of the lab's checkout there;
    `command`, in its place, what runs the lab. `home` is LAB_HOME there. `lanes` and `memory_mib` limit what
    the run may use of the host. `kvm`: the host is not used if its user may not open /dev/kvm.
    """

    address: Word
    user: Word | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    lab: PathThere | None = None
    command: list[str] | None = Field(default=None, min_length=1)
    home: PathThere | None = None
    lanes: int | None = Field(default=None, ge=1, le=64)
    memory_mib: int | None = Field(default=None, ge=1)
    kvm: bool = False

    @model_validator(mode="after")
    def _one_program(self) -> "Host":
        if self.lab is not None and self.command is not None:
            raise ValueError("lab and command contradict each other; leave one of them out")
        return self

    @property
    def program(self) -> list[str]:
        """The words that run the lab there."""
        words = self.command or [f"{self.lab}/.venv/bin/lab" if self.lab else "lab"]
        return ["env", f"LAB_HOME={self.home}", *words] if self.home else list(words)

    @property
    def reached(self) -> str:
        """How it is reached, for people."""
        user, port = f"{self.user}@" if self.user else "", f" -p {self.port}" if self.port else ""
        return f"ssh{port} {user}{self.address}"


class Inventory(Definition):
    """All hosts, by the names in their certificates."""

    coordinator: Coordinator = Coordinator()
    hosts: dict[str, Host] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Inventory":
        wrong = [*_wrong_names(self.hosts), *_twice(self.hosts)]
        if is_loopback(self.coordinator.address):
            wrong += [
                f"hosts.{name}: {host.address} is another machine, but the coordinator listens on "
                f"{self.coordinator.address} alone: set coordinator.address to what the host can reach"
                for name, host in self.hosts.items()
                if not is_loopback(host.address)
            ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


def load(file: Path) -> Inventory:
    """Read an inventory. Raises UsageError with everything that is wrong in it."""
    return validate(file, read(file), Inventory)


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own, which nobody else reaches."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _wrong_names(hosts: Mapping[str, Host]) -> list[str]:
    return [
        f"hosts.{name}: expected a name of lower-case letters, digits, '.' and '-', as in `lab hosts list`"
        for name in hosts
        if not NAME.fullmatch(name)
    ]


def _twice(hosts: Mapping[str, Host]) -> list[str]:
    """A host worker has its host's folders for itself."""
    seen: dict[tuple[object, ...], str] = {}
    wrong = []
    for name, host in hosts.items():
        first = seen.setdefault((host.address, host.port or 22, host.user, host.home), name)
        if first != name:
            wrong.append(f"hosts.{name}: the same host, user and home as hosts.{first}")
    return wrong
