"""The definitions: guests from `images/*.toml`, variants from `cloud-init/variants/*.toml`, sets, the suite."""

import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, reduce
from pathlib import Path
from typing import Annotated, Any, Literal

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
IMAGE_KINDS = ("debian", "cloud")


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

    @property
    def origin(self) -> str:
        """Where the image comes from, for people."""
        return f"built from the packages of Debian {self.suite}"


class Firmware(StrEnum):
    """What starts the disk's own boot loader."""

    BIOS = "bios"
    UEFI = "uefi"


class PackageManager(StrEnum):
    """What installs packages in the guest."""

    APT = "apt"
    DNF = "dnf"


class SignatureForm(StrEnum):
    """How a checksum file is signed: by a file of its name and `.gpg` beside it, or within its own text."""

    DETACHED = "detached"
    CLEAR = "clear"


class SignedChecksums(_Definition):
    """The file beside a disk that holds its digest, signed by its distribution."""

    file: str = Field(pattern=r"^[^/]+$")
    form: SignatureForm
    key: str = Field(
        pattern=r"^[^/]+\.asc$", description="File in `images/keys/` with the one key that counts."
    )


class CloudImage(_Definition):
    """A guest that its distribution publishes as a disk. `{build}` in `url` and `checksums.file` is `build`.

    Each disk is vouched for by checksums that its distribution signs, or by `digest`, pinned in the definition.
    """

    kind: Literal["cloud"]
    url: str = Field(pattern=r"^https?://[^/]+/.*[^/]$")
    build: str | None = None
    checksums: SignedChecksums | None = None
    digest: str | None = Field(
        None, pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$", description="Of the disk, pinned."
    )
    firmware: Firmware
    user: str = Field(description="The login that the distribution gives its images.")
    package_manager: PackageManager
    selinux: str | None = Field(None, pattern=r"^[a-z]+$", description="SELinux policy that it enforces.")
    disk_gib: int = Field(10, ge=2, le=64, description="What the disk is grown to in the guest.")

    @model_validator(mode="after")
    def _vouched_for_once(self) -> "CloudImage":
        if self.checksums is not None and self.digest is not None:
            raise ValueError("only one of `checksums` and `digest` can vouch for a disk")
        if self.digest is not None and self.address is None:
            raise ValueError("a digest is that of one build: `build` must be given with it")
        return self

    @property
    def address(self) -> str | None:
        """The disk's URL; None as long as its build is not pinned."""
        return self._filled(self.url)

    @property
    def checksums_address(self) -> str | None:
        """The checksum file's URL, which is beside the disk; None where the distribution signs none."""
        if self.checksums is None or self.address is None:
            return None
        return f"{self.address.rpartition('/')[0]}/{self._filled(self.checksums.file)}"

    @property
    def origin(self) -> str:
        """Where the image comes from, for people."""
        return self.address or f"{self.url} (no build is pinned yet)"

    def _filled(self, text: str) -> str | None:
        if self.build is None:
            return None if "{build}" in text else text
        return text.replace("{build}", self.build)


class Guest(_Definition):
    """One operating system to test on."""

    name: str
    title: str
    image: Annotated[DebianImage | CloudImage, Field(discriminator="kind")]
    memory_mib: int = Field(2048, ge=512)
    cpus: int = Field(2, ge=1, le=16)

    @property
    def kernel_arguments(self) -> str:
        """What its kernel is told beyond what every guest's is; a disk's own loader tells its kernel itself."""
        return self.image.kernel_arguments if isinstance(self.image, DebianImage) else ""


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

    @property
    def kernel_arguments(self) -> list[str]:
        """What it adds to the kernel's command line: a guest has to be booted for it."""
        return [word for knob in self.knobs.values() for word in knob.kernel_arguments()]

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
    remedies: bool = Field(True, description="Whether remedies are tried on the cells that fail.")


class Suite(_Definition):
    """The tests that run inside the guest. `tests` names every one, so that a missing result is seen."""

    name: str
    title: str
    control: str = Field(description="The test that passes where only the jailer is blocked.")
    witness: str = Field(
        description="The test that tells most alone: a box starts in the sandbox, and the sandbox is one."
    )
    test_seconds: int = Field(description="Limit of one test, on a host with hardware acceleration.")
    suite_seconds: int = Field(description="Limit of the whole suite, likewise.")
    tests: dict[str, Needs]

    @property
    def folder(self) -> Path:
        return PACKAGE / "suites" / self.name

    def only(self, tests: Collection[str]) -> "Suite":
        """The suite with these tests alone."""
        chosen = {name: needs for name, needs in self.tests.items() if name in tests}
        return self.model_copy(update={"tests": chosen})

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
            apart = " ".join(f"-v {each}" for each in name.split(AND))
            raise UsageError(
                f"the variants of {name} cannot be put on one guest: {why}",
                hint=f"each in a cell of its own: {apart}",
            ) from why

    def set(self, name: str) -> Set:
        return _lookup("set", name, self.sets)


def load(root: Path | None = None) -> Catalog:
    """Read every definition below `root`, the lab's own by default.

    Raises UsageError for the first file that is wrong, with all that is wrong in it.
    """
    root = root or definitions()
    catalog = Catalog(
        guests=load_folder(root / "images", Guest),
        variants=load_folder(root / "cloud-init" / "variants", _variant_file(tuple(knobs.kinds().items()))),
        sets=load_folder(root / "images" / "sets", Set),
        suite=_load_file(PACKAGE / "suites" / "jailer" / "suite.toml", Suite, name="jailer"),
    )
    _check_keys(root, catalog)
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


def key_file(name: str, root: Path | None = None) -> Path:
    """The file of a key that signs checksums, below `root` or the lab's own definitions."""
    return (root or definitions()) / "images" / "keys" / name


def _check_keys(root: Path, catalog: Catalog) -> None:
    for guest in catalog.guests.values():
        signed = guest.image.checksums if isinstance(guest.image, CloudImage) else None
        if signed and not key_file(signed.key, root).is_file():
            file = root / "images" / f"{guest.name}.toml"
            raise UsageError(f"{file}: image.checksums.key: there is no file {key_file(signed.key, root)}")


def _lookup[T](kind: str, name: str, known: Mapping[str, T]) -> T:
    try:
        return known[name]
    except KeyError:
        raise unknown_name(kind, name, known) from None


def load_folder[D: BaseModel](folder: Path, model: type[D]) -> dict[str, D]:
    """The definitions in a folder's TOML files, by name. Raises UsageError for the first that is wrong."""
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise UsageError(f"no definitions in {folder}", hint="run the lab from a whole checkout")
    return {file.stem: _load_file(file, model, name=file.stem) for file in files}


def _load_file[D: BaseModel](file: Path, model: type[D], *, name: str) -> D:
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
    parts = [str(part) for part in detail["loc"]]
    if parts[:1] == ["image"]:
        # Where a kind was chosen, its name stands in the path; the file has no such key.
        parts[1:2] = [part for part in parts[1:2] if part not in IMAGE_KINDS]
    expected = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        expected = "no such key is known"
    elif detail["type"].startswith("union_tag"):
        parts.append("kind")
        expected = f"one of {', '.join(IMAGE_KINDS)}, found {detail['input'].get('kind')!r}"
    elif detail["type"] not in ("missing", "value_error"):
        expected = f"{expected}, found {detail['input']!r}"
    return f"{file}: {'.'.join(parts) or '(whole file)'}: {expected}"
