"""The remedies: changes that are claimed to cure causes, each a TOML file in this folder.

A remedy either changes the host, by a shell script, or changes how boxlite is run. The script that
`lab remedies show NAME --script` prints is the very one that the lab runs in a guest.
"""

import textwrap
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path

import jinja2
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lab import catalog, causes
from lab.base.errors import UsageError, unknown_name
from lab.record import Needs

FOLDER = Path(__file__).parent
TEMPLATE = "script.sh"
# Between the names of remedies that are tried together.
AND = "+"
# Instead of the names of causes: every one that blocks the sandbox and nothing else.
SANDBOX = "sandbox"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class HostChange(_Table):
    """Commands for a POSIX shell, run as root. `script.sh` says what stands around them."""

    functions: list[str] = Field([], description="Files `NAME.sh` of this folder whose functions are used.")
    about_user: bool = Field(False, description="Whether it is about one account, which is in $user.")
    possible: str = Field(description="Fails, and prints why, on a host where it can do nothing.")
    check: str = Field(description="Succeeds where it is in place. Changes nothing.")
    apply: str = Field(description="Puts it in place, for later boots too; what undoing needs goes to $state.")
    undo: str = Field(description="Puts back what `apply` found.")


class RunChange(_Table):
    """Another way to run boxlite on the same host."""

    example: str = Field(description="What a user would write or type.")
    environment: dict[str, str] = Field(
        {}, description="What the suite gets to see, so that it runs boxlite in that way."
    )
    variants: list[str] = Field([], description="What is put on the guest beside the cell's own, likewise.")


class Remedy(_Table):
    """One remedy. `loss` ranks the protection given up, from 0, none, to 100, all that the jailer gives."""

    name: str
    title: str
    cures: list[str] = Field(
        min_length=1, description=f"Causes that it is claimed to cure, or {SANDBOX!r} alone."
    )
    does: str
    price: str = Field(description="What protection it gives up.")
    loss: int = Field(ge=0, le=100)
    advised: list[str] = Field([], description="Words of boxlite's own advice that mean this very remedy.")
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
        """Of all that decides what a trial of it does."""
        text = self.model_dump_json() if self.host is None else self.script()
        return sha256(text.encode()).hexdigest()

    def is_advised_by(self, command: str) -> bool:
        """Whether a command that boxlite advises does what this remedy does."""
        return any(words in command for words in self.advised)

    def script(self) -> str:
        """The POSIX shell script that puts it in place on a host, and takes it back."""
        assert self.host is not None
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters |= {"wrapped": wrapped, "body": _body}
        return environment.get_template(TEMPLATE).render(remedy=self, host=self.host)


def load(folder: Path = FOLDER) -> dict[str, Remedy]:
    """Every remedy by its name, the one that gives up least first. Raises UsageError for a wrong file."""
    found = catalog.load_folder(folder, Remedy)
    known = causes.known()
    blocking = [name for name, cause in known.items() if cause.breaks is Needs.SANDBOX]
    for name, remedy in found.items():
        cures = blocking if remedy.cures == [SANDBOX] else remedy.cures
        for cause in cures:
            if cause not in known:
                unknown = unknown_name("cause", cause, known)
                raise UsageError(f"{folder / name}.toml: cures: {unknown.args[0]}", hint=unknown.hint)
        found[name] = remedy.model_copy(update={"cures": cures})
    return dict(sorted(found.items(), key=lambda item: (item[1].loss, item[0])))


def find(name: str) -> Remedy:
    """One remedy. Raises UsageError for a name that there is not."""
    known = load()
    if name not in known:
        raise unknown_name("remedy", name, known)
    return known[name]


def candidates(known: Mapping[str, Remedy], causes: Collection[str]) -> list[Remedy]:
    """The remedies that claim to cure one of these causes, in the order of `known`."""
    return [remedy for remedy in known.values() if not set(causes).isdisjoint(remedy.cures)]


def wrapped(text: str, prefix: str = "") -> str:
    """A paragraph in lines that a terminal shows whole."""
    return textwrap.fill(text, 96, initial_indent=prefix, subsequent_indent=prefix)


def _body(commands: str) -> str:
    return textwrap.indent(commands.strip(), "    ")
