"""What is published about tested hosts: a site holds this model, `lab check` and the front page read it."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from lab.base.errors import UsageError, one_line
from lab.base.files import plain
from lab.check.settings import CONFINED, LIMITS, PROFILE, UNCONFINED, VERSIONS
from lab.probes import script
from lab.record import Status

FILE = "published.json"
# Bytes of that file that are read. A site of 1000 cells has about 2 MiB.
LARGEST = 64 << 20
LONGEST = 2000  # characters of one text
AGAIN = "publish the site again with this lab"

# A text without characters that control a terminal or hide others: guests and sites are not trusted.
Text = Annotated[str, AfterValidator(lambda text: plain(text)[:LONGEST])]


class Kind(StrEnum):
    """The kind of an answer: it has a shape, a colour, and the words of its headline."""

    WORKS = "works"
    BLOCKED = "blocked"
    TROUBLE = "trouble"
    UNTESTED = "untested"

    @classmethod
    def of(cls, status: Status | None) -> "Kind":
        """Return the kind for a cell's status; None: the cell was in no run."""
        match status:
            case Status.PASS | Status.XPASS:
                return cls.WORKS
            case Status.FAIL | Status.XFAIL:
                return cls.BLOCKED
            case Status.FLAKY:
                return cls.TROUBLE
        return cls.UNTESTED


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True)


class SystemName(_Data):
    """How a system names itself in /etc/os-release."""

    id: Text | None
    version: Text | None
    codename: Text | None


class Distribution(_Data):
    """A release of a distribution, with the answer for it as installed. `page` is its page in the site."""

    name: Text
    title: Text
    page: Text
    kind: Kind
    headline: Text
    reason: Text
    systems: tuple[SystemName, ...]


class Remedy(_Data):
    """A remedy that was verified on a cell, or several together; the digests are those of what was tried."""

    name: Text
    title: Text
    price: Text
    digests: dict[Text, Text]


class Cell(_Data):
    """A tested cell: its settings, and the answer for a user.

    `distribution` is a place in `Published.distributions`. `changed` is the number of settings in which the
    cell differs from the same guest as installed. `part` is the id of its section in the distribution's page.
    """

    distribution: int
    guest: Text
    system: Text
    variant: Text
    title: Text
    build: Text
    kind: Kind
    headline: Text
    causes: tuple[Text, ...]
    why: tuple[Text, ...]
    remedy: Remedy | None
    settings: dict[Text, Text | None]
    changed: int = 0
    part: Text


class Rules(_Data):
    """How settings are compared, for the front page: see `settings`."""

    profile: str = PROFILE
    shown_profiles: tuple[str, ...] = script.PROFILES
    confined: str = CONFINED
    unconfined: str = UNCONFINED
    versions: tuple[str, ...] = VERSIONS
    limits: str = LIMITS


class Published(_Data):
    """All that is published."""

    distributions: tuple[Distribution, ...]
    cells: tuple[Cell, ...]
    rules: Rules = Rules()

    @model_validator(mode="after")
    def _has_the_distributions(self) -> "Published":
        for cell in self.cells:
            if not 0 <= cell.distribution < len(self.distributions):
                raise ValueError(
                    f"a cell of {cell.guest} is of distribution {cell.distribution}, which is not there"
                )
        return self

    def of(self, distributions: Iterable[Distribution]) -> list[Cell]:
        """Return the cells of some distributions that have settings to compare with."""
        chosen = set(distributions)
        return [
            cell for cell in self.cells if cell.settings and self.distributions[cell.distribution] in chosen
        ]


def read(site: Path) -> Published:
    """Read what a site holds. Raises UsageError for a file that is no such thing."""
    path = site / FILE
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UsageError(f"--results {site}: {FILE} is larger than {LARGEST >> 20} MiB", hint=AGAIN)
        return Published.model_validate_json(content)
    except OSError as error:
        raise UsageError(f"--results {site}: {FILE}: {error.strerror}", hint=AGAIN) from error
    except ValidationError as error:
        raise UsageError(f"--results {site}: {FILE}: {one_line(error)}", hint=AGAIN) from error


def join(parts: Sequence[Published]) -> Published:
    """Return all that several runs and sites hold."""
    distributions: list[Distribution] = []
    cells: list[Cell] = []
    for part in parts:
        first = len(distributions)
        cells += [cell.model_copy(update={"distribution": first + cell.distribution}) for cell in part.cells]
        distributions += part.distributions
    return Published(distributions=tuple(distributions), cells=tuple(cells))
