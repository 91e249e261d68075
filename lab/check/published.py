"""What is published about tested hosts: a site holds this model, `lab check` and the front page read it."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from lab.base.errors import UsageError, one_line
from lab.base.files import plain
from lab.check.settings import CONFINED, LIMITS, PROFILE, UNCONFINED, VERSIONS
from lab.probes import script
from lab.record import Status

FILE = "published.json"
LONGEST = 2000  # characters of one text

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


class Remedy(_Data):
    """A remedy that was verified on a cell, or several together; the digests are those of what was tried."""

    name: Text
    title: Text
    price: Text
    digests: dict[Text, Text]


class Cell(_Data):
    """A tested cell: its settings, and the answer for a user.

    `changed` is the number of settings in which the cell differs from the same guest as installed. `part` is
    the id of its section in the distribution's page.
    """

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


class Distribution(_Data):
    """A release of a distribution: the answer for it as installed, and its tested cells.

    `page` is its page in the site.
    """

    name: Text
    title: Text
    page: Text
    kind: Kind
    headline: Text
    reason: Text
    systems: tuple[SystemName, ...]
    cells: tuple[Cell, ...]


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
    rules: Rules = Rules()


def cells_of(distributions: Iterable[Distribution]) -> list[Cell]:
    """Return the cells of distributions that have settings to compare with."""
    return [cell for distribution in distributions for cell in distribution.cells if cell.settings]


def read(site: Path) -> Published:
    """Read what a site holds. Raises UsageError for a file that is no such thing."""
    try:
        return Published.model_validate_json((site / FILE).read_bytes())
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else one_line(error)
        raise UsageError(
            f"--results {site}: {FILE}: {why}", hint="publish the site again with this lab"
        ) from error
