"""The distributions that reports name: the table `distributions.toml`."""

import re
import tomllib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

TABLE = Path(__file__).with_suffix(".toml")


class Distribution(BaseModel):
    """A distribution, as /etc/os-release calls it, and as people write it: see the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    names: str
    version: str = r"\d\d?\.\d\d?"
    parts: int | None = None
    like: str | None = None
    codenames: dict[str, str] = Field(default_factory=dict)
    kernels: dict[str, str] = Field(default_factory=dict)

    def release(self, written: str) -> str:
        """The version in /etc/os-release of a version or a codename as it is written."""
        known = self.codenames.get(written.lower())
        return known or ".".join(written.split(".")[: self.parts])

    @property
    def family(self) -> str:
        """The distribution at the root: itself, or the one that it derives from."""
        return self.like or self.id


@cache
def table() -> dict[str, Distribution]:
    """Every distribution by its id, in the order of the table."""
    rows = tomllib.loads(TABLE.read_text())["distribution"]
    return {row["id"]: Distribution.model_validate(row) for row in rows}


@cache
def pattern() -> re.Pattern[str]:
    """A name, with the version or codename if one follows: groups `ID` and `ID_version`, with `_` for `-`."""
    parts = []
    for each in table().values():
        group = each.id.replace("-", "_")
        versions = "|".join([each.version, *each.codenames])
        parts.append(
            rf"(?P<{group}>{each.names})(?:[ :,_v-]{{0,2}}(?:release |version )?\(?"
            rf"(?P<{group}_version>{versions})(?![\d.]*\d))?"
        )
    return re.compile(rf"(?<![a-z0-9./])(?<!\d-)(?:{'|'.join(parts)})(?![a-z0-9]|\.[a-z])", re.IGNORECASE)


def family(name: str) -> str | None:
    """The id of the distribution at the root of one; None if the table does not have it."""
    known = table().get(name)
    return known.family if known else None
