"""The definitions: guests from `images/*.toml`, variants from `cloud-init/variants/*.toml`, sets, the suite."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from lab.errors import UsageError, unknown_name
from lab.paths import PACKAGE, definitions
from lab.results import Cause, Expectation

NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


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
    security: bool = Field(True, description="Whether packages may come from the suite's security archive.")
    expired: bool = Field(
        False, description="Take the archive's lists although they are past their Valid-Until."
    )
    selinux: str | None = Field(
        None, pattern=r"^[a-z]+$", description="SELinux policy by whose file contexts the disk is labelled."
    )
    kernel_arguments: str = Field("", description="What the kernel's command line has beyond every guest's.")
    disk_gib: int = Field(6, ge=2, le=64)


class Guest(_Definition):
    """One operating system to test on."""

    name: str
    title: str
    image: DebianImage
    memory_mib: int = Field(2048, ge=512)
    cpus: int = Field(2, ge=1, le=16)


class Feature(StrEnum):
    """Something of a guest's kernel that a variant cannot do without; read in the guest, never assumed."""

    APPARMOR_USERNS = "apparmor-userns"


class AppArmorMode(StrEnum):
    ENFORCE = "enforce"
    COMPLAIN = "complain"


class AppArmorProfile(_Definition):
    """A profile that the variant loads: its own text, or one that the guest ships, in another mode."""

    name: str
    mode: AppArmorMode = AppArmorMode.ENFORCE
    text: str | None = None
    shipped: str | None = Field(None, description="Path in the guest of the profile's own file.")

    @model_validator(mode="after")
    def _one_source(self) -> "AppArmorProfile":
        if (self.text is None) == (self.shipped is None):
            raise ValueError("exactly one of `text` and `shipped` must be given")
        return self


class Variant(_Definition):
    """One named set of security settings put on a guest."""

    name: str
    title: str
    expect: Expectation = Expectation()
    needs: list[Feature] = []
    sysctl: dict[str, int] = {}
    apparmor: list[AppArmorProfile] = []
    confine_suite_by: str | None = Field(
        None, description="AppArmor profile under which the suite and the probes are run."
    )

    @model_validator(mode="after")
    def _expectation_is_whole(self) -> "Variant":
        if (self.expect.status == "xfail") != (self.expect.cause is not None):
            raise ValueError('expect.cause must be given with status "xfail", and only with it')
        if self.expect.cause is Cause.UNKNOWN:
            raise ValueError('expect.cause cannot be "unknown": an expected failure has a known cause')
        return self


class Set(_Definition):
    """A named choice of cells: each of its guests in each of its variants."""

    name: str
    title: str
    guests: list[str]
    variants: list[str]


class Needs(StrEnum):
    """What a test of the suite needs of its host, and so which ones a blocked sandbox fails."""

    NOTHING = "nothing"
    BOX = "box"
    SANDBOX = "sandbox"


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
        return {name for name, what in self.tests.items() if what is needs}


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
        return _lookup("variant", name, self.variants)

    def set(self, name: str) -> Set:
        return _lookup("set", name, self.sets)


def load(root: Path | None = None) -> Catalog:
    """Read every definition below `root`, the lab's own by default.

    Raises UsageError for the first file that is wrong, with all that is wrong in it.
    """
    root = root or definitions()
    catalog = Catalog(
        guests=_load_folder(root / "images", Guest),
        variants=_load_folder(root / "cloud-init" / "variants", Variant),
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
