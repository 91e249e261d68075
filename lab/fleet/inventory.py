"""`hosts.toml`: the hosts that a run may use, and how each is reached."""

import ipaddress
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from lab.catalog.toml import NAME, Definition, read, validate

LOOPBACK = "127.0.0.1"

# This becomes a word of a command or an address: no space, and no dash that makes it an option.
Word = Annotated[str, StringConstraints(pattern=r"^[^\s-]\S*$")]


def _path_there(path: str) -> str:
    if not path or path[0] in "~-":
        raise ValueError(f"expected an absolute path, or one that begins at the user's home, found {path!r}")
    return path


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"expected an IP address of this host, found {text!r}") from None


PathThere = Annotated[str, AfterValidator(_path_there)]


class Coordinator(Definition):
    """Where dask's scheduler listens. Hosts that are started over SSH reach it through their logins.

    Only a host that dials in by itself needs a known `port`, and perhaps another `address` than loopback.
    """

    address: Annotated[str, AfterValidator(_address)] = LOOPBACK
    port: int | None = Field(default=None, ge=1, le=65535)


class Host(Definition):
    """A host of a run.

    `user` and `port` are what `ssh` would take without them. `lab` is the folder of the lab's checkout there;
    `python`, in its place, the Python that has the lab. `home` is LAB_HOME there. `lanes` and `memory_mib`
    limit what the run may use of the host. `kvm`: the host is not used if its guests run without KVM.
    """

    address: Word
    user: Word | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    lab: PathThere | None = None
    python: PathThere | None = None
    home: PathThere | None = None
    lanes: int | None = Field(default=None, ge=1, le=64)
    memory_mib: int | None = Field(default=None, ge=1)
    kvm: bool = False

    @model_validator(mode="after")
    def _one_program(self) -> "Host":
        if (self.lab is None) == (self.python is None):
            raise ValueError("expected `lab`, the folder of the lab's checkout there, or in its place `python`")
        return self

    def words(self, module: str, *arguments: str, **environment: str) -> list[str]:
        """The command that runs a module of the lab's Python there."""
        home = {"LAB_HOME": self.home} if self.home else {}
        settings = [f"{name}={value}" for name, value in {**home, **environment}.items()]
        return ["env", *settings, self.python or f"{self.lab}/.venv/bin/python", "-m", module, *arguments]

    @property
    def reached(self) -> str:
        """How it is reached, for people."""
        user, port = f"{self.user}@" if self.user else "", f" -p {self.port}" if self.port else ""
        return f"ssh{port} {user}{self.address}"


class Inventory(Definition):
    """All hosts, by the names that the run calls them."""

    coordinator: Coordinator = Coordinator()
    hosts: dict[str, Host] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> "Inventory":
        wrong = [*_wrong_names(self.hosts), *_twice(self.hosts)]
        if not self.hosts and self.coordinator.port is None:
            wrong.append(
                "expected a host, for example [hosts.lab-1], or coordinator.port for hosts that dial in"
            )
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


def load(file: Path) -> Inventory:
    """Read an inventory. Raises UsageError with everything that is wrong in it."""
    return validate(file, read(file), Inventory)


def _wrong_names(names: Sequence[str] | dict[str, Host]) -> Iterator[str]:
    for name in names:
        if not NAME.fullmatch(name):
            yield f"hosts.{name}: expected a name of lower-case letters, digits, '.' and '-'"


def _twice(hosts: dict[str, Host]) -> Iterator[str]:
    """A host offers all that is free of it, so it must not be named twice."""
    seen: dict[tuple[object, ...], str] = {}
    for name, host in hosts.items():
        first = seen.setdefault((host.address, host.port or 22, host.user, host.home), name)
        if first != name:
            yield f"hosts.{name}: the same host, user and home as hosts.{first}"
