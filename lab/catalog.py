"""The definitions: guests from `images/*.toml`, variants from `cloud-init/variants/*.toml`, sets, the suite."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from pydantic_core import ErrorDetails

from lab import knobs
from lab.diagnosis import causes
from lab.errors import UsageError, unknown_name
from lab.knobs import Conflict, Knob
from lab.paths import PACKAGE, definitions
from lab.results import Expectation, Needs

NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
# Between the names of variants that are put on a guest together.
AND = "+"


class _Definition(BaseModel):
    """A table of a TOML file: no key that is not declared, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DebianImage(_Definition):
    """A guest built from Debian's packages by mmdebstrap."""

    kind: Literal["debian"]
    suite: str = Field(pattern=r"^[a-z0-9.-]+$")
    backports: list[str] = Field(
        [], description="Packages taken from the suite's backports, the kernel first of all."
    )
    packages: list[str] = Field([], description="Packages beyond those every guest has.")
    disk_gib: int = Field(6, ge=2, le=64)


class Guest(_Definition):
    """One operating system to test on."""

    name: str
    title: str
    image: DebianImage
    memory_mib: int = Field(2048, ge=512)
    cpus: int = Field(2, ge=1, le=16)


class Variant(_Definition):
    """One named set of security settings put on a guest.

    Beside these keys it has one for each kind of setting in `lab.knobs`, under its name: see `_variant_file`.
    """

    name: str
    title: str
    expect: Expectation = Expectation()

    @property
    def knobs(self) -> dict[str, Knob]:
        """Its settings, by the names of their kinds."""
        return {name: value for name, value in self if isinstance(value, Knob)}

    @model_validator(mode="after")
    def _expectation_is_whole(self) -> "Variant":
        cause = self.expect.cause
        if (self.expect.status == "xfail") != (cause is not None):
            raise ValueError('expect.cause must be given with status "xfail", and only with it')
        if cause is not None and cause not in causes.known():
            raise ValueError(f"expect.cause must be one of {', '.join(causes.known())}; found {cause!r}")
        return self

    def combined(self, other: "Variant") -> "Variant":
        """Both on one guest. Raises Conflict for settings that exclude each other.

        It is expected to fail where one of them is, for the cause that boxlite meets first.
        """
        knobs = self.knobs
        for name, theirs in other.knobs.items():
            mine = knobs.get(name)
            try:
                knobs[name] = mine.combined(theirs) if mine else theirs
            except Conflict as why:
                raise Conflict(f"{name}: {why}") from None
        expected = [cause for cause in causes.known() if cause in (self.expect.cause, other.expect.cause)]
        update = {
            "name": f"{self.name}{AND}{other.name}",
            "title": f"{self.title}; {other.title}",
            "expect": Expectation(status="xfail", cause=expected[0]) if expected else Expectation(),
        }
        return self.model_copy(update={**update, **knobs})


class Set(_Definition):
    """A named choice of cells: each of its guests in each of its variants."""

    name: str
    title: str
    guests: list[str]
    variants: list[str]


class Suite(_Definition):
    """The tests that run inside the guest. `tests` names every one, so that a missing result is seen."""

    name: str
    title: str
    control: str = Field(description="The test that passes where only the jailer is blocked.")
    test_seconds: int = Field(description="Limit of one test, on a host with hardware acceleration.")
    suite_seconds: int = Field(description="Limit of the whole suite, likewise.")
    tests: dict[str, Needs]

    @property
    def folder(self) -> Path:
        return PACKAGE / "suites" / self.name

    def needing(self, needs: Needs) -> set[str]:
        """The tests that cannot pass without this much of a host."""
        return {name for name, what in self.tests.items() if what.includes(needs)}


@dataclass(frozen=True)
class Catalog:
    """All definitions, validated."""

    guests: Mapping[str, Guest]
    variants: Mapping[str, Variant]
    sets: Mapping[str, Set]
    suite: Suite

    def guest(self, name: str) -> Guest:
        return _lookup("guest", name, self.guests)

    def variant(self, name: str) -> Variant:
        """One variant, or several at once: `userns-clone-off+bwrap-absent`. Raises UsageError."""
        first, *others = [_lookup("variant", each, self.variants) for each in name.split(AND)]
        try:
            return reduce(Variant.combined, others, first)
        except Conflict as why:
            raise UsageError(f"the variants of {name} cannot be put on one guest: {why}") from why

    def set(self, name: str) -> Set:
        return _lookup("set", name, self.sets)


def load(root: Path | None = None) -> Catalog:
    """Read every definition below `root`, the lab's own by default.

    Raises UsageError for the first file that is wrong, with all that is wrong in it.
    """
    root = root or definitions()
    catalog = Catalog(
        guests=_load_folder(root / "images", Guest),
        variants=_load_folder(root / "cloud-init" / "variants", _variant_file(tuple(knobs.kinds().items()))),
        sets=_load_folder(root / "images" / "sets", Set),
        suite=_load_file(PACKAGE / "suites" / "jailer" / "suite.toml", Suite, name="jailer"),
    )
    for chosen in catalog.sets.values():
        file = root / "images" / "sets" / f"{chosen.name}.toml"
        for key, names, find in (
            ("guests", chosen.guests, catalog.guest),
            ("variants", chosen.variants, catalog.variant),
        ):
            for name in names:
                try:
                    find(name)
                except UsageError as error:
                    raise UsageError(f"{file}: {key}: {error.args[0]}", hint=error.hint) from None
    return catalog


@cache  # Variants of different classes are never equal.
def _variant_file(kinds: tuple[tuple[str, type[Knob]], ...]) -> type[Variant]:
    """What a variant's file holds: its own keys, and a table for each kind of setting that it makes."""
    tables: dict[str, Any] = {name: (kind | None, None) for name, kind in kinds}
    return create_model("VariantFile", __base__=Variant, **tables)


def _lookup[T](kind: str, name: str, known: Mapping[str, T]) -> T:
    try:
        return known[name]
    except KeyError:
        raise unknown_name(kind, name, known) from None


def _load_folder[D: _Definition](folder: Path, model: type[D]) -> dict[str, D]:
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise UsageError(f"no definitions in {folder}", hint="run the lab from a whole checkout")
    return {file.stem: _load_file(file, model, name=file.stem) for file in files}


def _load_file[D: _Definition](file: Path, model: type[D], *, name: str) -> D:
    if not NAME.fullmatch(name):
        raise UsageError(f"{file}: a definition's name is of lower-case letters, digits, '.' and '-'")
    try:
        table = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not valid TOML: {error}") from error
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    if "name" in table:
        raise UsageError(f"{file}: name: not wanted, the file's name is the name")
    try:
        # JSON, because only from it do strict models take the name of an enum's member.
        return model.model_validate_json(json.dumps({**table, "name": name}, default=_no_text))
    except ValidationError as error:
        raise UsageError("\n".join(_explain(file, detail) for detail in error.errors())) from error


def _no_text(value: object) -> dict[str, str]:
    """TOML's dates and times, which no key of a definition takes, as something that no key takes either."""
    return {"date or time": str(value)}


def _explain(file: Path, detail: ErrorDetails) -> str:
    """One validation error as: file, key path, what was expected, what was found."""
    key = ".".join(str(part) for part in detail["loc"]) or "(whole file)"
    expected = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        expected = "no such key is known"
    elif detail["type"] not in ("missing", "value_error"):
        expected = f"{expected}, found {detail['input']!r}"
    return f"{file}: {key}: {expected}"
