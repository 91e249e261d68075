"""The remedies: changes that are claimed to cure causes, one TOML file each in `lab/remedies/`.

A remedy changes either the host, with a shell script, or the way boxlite is run. The lab runs the same script
in its guests that `lab remedies show NAME --script` prints.
"""

from collections.abc import Collection, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator, model_validator

from lab import causes
from lab.base.errors import UsageError, make_unknown_name_error
from lab.base.paths import PACKAGE
from lab.catalog.confinement import Service
from lab.catalog.toml import Definition, load_folder
from lab.record import Needs

if TYPE_CHECKING:
    import jinja2

FOLDER = PACKAGE / "remedies"
TEMPLATE = "script.sh"
# Joins the names of remedies that are tried together.
AND = "+"
# In `cures`, stands for every cause that blocks only the sandbox.
SANDBOX = "sandbox"
# Makes the suite start boxes without the jailer.
JAILER_OFF = {"LAB_JAILER": "off"}


class HostChange(Definition):
    """Commands for a POSIX shell, run as root. `script.sh` is the script around them."""

    functions: list[str] = Field([], description="Files `NAME.sh` of this folder whose functions are used.")
    about_user: bool = Field(False, description="Whether it changes one account, whose name is in $user.")
    possible: str = Field(description="Fails and prints the reason on a host where the remedy cannot work.")
    check: str = Field(description="Succeeds if the remedy is in place. Changes nothing.")
    apply: str = Field(
        description="Puts the remedy in place, also for later boots; saves what `undo` needs in $state."
    )
    undo: str = Field(description="Restores what `apply` found.")


class RunChange(Definition):
    """Another way to run boxlite on the same host."""

    example: str = Field(description="The code or command that a user would write.")
    environment: dict[str, str] = Field(
        {}, description="Environment variables that make the suite run boxlite this way."
    )
    variants: list[list[str]] = Field(
        [],
        description="Variants that are added to the cell's own to run boxlite this way: of each list the first "
        "that makes sense on the guest.",
    )
    service: Service | None = Field(
        None, description="Settings that this way changes in the systemd service in which boxlite runs."
    )


class Remedy(Definition):
    """One remedy. `loss` ranks the protection given up: 0 is none, 100 is all that the jailer gives."""

    name: str
    title: str
    cures: list[str] = Field(
        min_length=1, description=f"Causes that it is claimed to cure, or only {SANDBOX!r}."
    )
    does: str
    price: str = Field(description="The protection that it gives up.")
    loss: int = Field(ge=0, le=100)
    advised: list[str] = Field([], description="Parts of commands in boxlite's advice that do the same.")
    helps_with: dict[str, str] = Field(
        {},
        description="Settings, as `lab check` names them, of the hosts that it changes; not advised on others.",
    )
    host: HostChange | None = None
    run: RunChange | None = None

    @field_validator("does", "price")
    @classmethod
    def _one_line(cls, text: str) -> str:
        return " ".join(text.split())

    @model_validator(mode="after")
    def _one_kind(self) -> "Remedy":
        if (self.host is None) == (self.run is None):
            raise ValueError("exactly one of `host` and `run` must be given")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of everything that determines what a trial of this remedy does."""
        text = self.model_dump_json() if self.host is None else self.script()
        return sha256(text.encode()).hexdigest()

    @property
    def has_no_sandbox(self) -> bool:
        """Whether it starts boxes without the jailer."""
        return self.run is not None and self.run.environment.items() >= JAILER_OFF.items()

    @property
    def changes_service(self) -> bool:
        """Whether it changes the systemd service that boxlite runs in."""
        return self.run is not None and self.run.service is not None

    @property
    def about_user(self) -> bool:
        """Whether its script is about one account of the host."""
        return self.host is not None and self.host.about_user

    def is_advised_by(self, command: str) -> bool:
        """Whether a command that boxlite advises does what this remedy does."""
        return any(words in command for words in self.advised)

    def script(self) -> str:
        """Return the POSIX shell script that applies the remedy on a host and undoes it."""
        assert self.host is not None
        return _template().render(remedy=self, host=self.host)


@cache
def _template() -> "jinja2.Template":
    import jinja2  # Most commands print no script.

    environment = jinja2.Environment(  # noqa: S701 - a shell script of the lab's own texts
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE)


@cache
def load_remedies(folder: Path = FOLDER) -> Mapping[str, Remedy]:
    """Return all remedies by name, sorted by loss. Raises UsageError for a wrong file.

    A folder is read once in the life of a process, as the catalog is.
    """
    remedies = load_folder(folder, Remedy)
    rows = causes.list_causes()
    blocking = [name for name, cause in rows.items() if cause.breaks is Needs.SANDBOX]
    for name, remedy in remedies.items():
        cures = blocking if remedy.cures == [SANDBOX] else remedy.cures
        for cause in cures:
            if cause not in rows:
                unknown = make_unknown_name_error("cause", cause, rows)
                raise UsageError(f"{folder / name}.toml: cures: {unknown.args[0]}", hint=unknown.hint)
        remedies[name] = remedy.model_copy(update={"cures": cures})
    return dict(sorted(remedies.items(), key=lambda item: (item[1].loss, item[0])))


def find_remedy(name: str) -> Remedy:
    """Return one remedy. Raises UsageError for an unknown name."""
    remedies = load_remedies()
    if name not in remedies:
        raise make_unknown_name_error("remedy", name, remedies)
    return remedies[name]


def choose_candidates(remedies: Mapping[str, Remedy], causes: Collection[str]) -> list[Remedy]:
    """Return the remedies that claim to cure one of these causes, in the order of `remedies`."""
    return [remedy for remedy in remedies.values() if not set(causes).isdisjoint(remedy.cures)]
