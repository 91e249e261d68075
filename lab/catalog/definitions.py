"""The definitions: a guest (`images/*.toml`), a variant (`cloud-init/variants/*.toml`), a set, a suite."""

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, create_model, model_validator

from lab import causes
from lab.base.architecture import ARCHITECTURES, Architecture, get_guest_architecture
from lab.base.errors import UsageError
from lab.base.files import clean_text
from lab.base.paths import PACKAGE
from lab.catalog.kernels import Kernel
from lab.catalog.knob import Conflict, Knob
from lab.catalog.knobs import KINDS
from lab.catalog.toml import Definition
from lab.record import AT, Expectation, Needs, strip_kernel

# Joins the names of variants that are combined on a guest.
AND = "+"
PASS = "pass"
# How the name begins of a guest that has traits of a system and is not that system.
TWIN = "twin-"


def check_expectation(expect: Expectation) -> None:
    """Raise ValueError if its cause is missing, not needed or unknown."""
    if (expect.status == "xfail") != (expect.cause is not None):
        raise ValueError('expect.cause must be given with status "xfail", and only with it')
    if expect.cause is not None and expect.cause not in causes.list_causes():
        raise ValueError(
            f"expect.cause must be one of {', '.join(causes.list_causes())}; found {expect.cause!r}"
        )


def choose_expectation(*expectations: Expectation) -> Expectation:
    """Return the one whose cause boxlite meets first; a pass if none has a cause."""
    by_cause = {expected.cause: expected for expected in expectations}
    return next((by_cause[cause] for cause in causes.list_causes() if cause in by_cause), Expectation())


class Variant(Definition):
    """A named set of security settings for a guest.

    Besides these keys it has one for each kind of setting in `lab.catalog.knobs`: see `VariantFile`.
    """

    name: str
    title: str
    expect: Expectation = Expectation()
    # The cause that it can bring about, if that depends on the build: `expect` is about the newest one.
    brings: str | None = None
    # What becomes of a cause that a guest has by itself: a pass, or another cause.
    turns: dict[str, str] = Field(default_factory=dict)
    # Remedies of which a cell with this variant cannot tell what they do on a real host, each with the reason.
    not_judged: dict[str, str] = Field(default_factory=dict)
    # In what a guest with this variant differs from the host that the variant stands for, by that host's name.
    differs: dict[str, list[str]] = Field(default_factory=dict)

    @property
    def knobs(self) -> dict[str, Knob]:
        """The variant's settings, by the name of their kind."""
        return {name: value for name, value in self if isinstance(value, Knob)}

    @property
    def kernel_arguments(self) -> list[str]:
        """Arguments that it adds to the kernel's command line; they require a boot."""
        return [word for knob in self.knobs.values() for word in knob.kernel_arguments()]

    @property
    def is_put_on(self) -> bool:
        """Whether something is set in a guest that runs, which a boot may take back."""
        return any(knob.settings() is not None for knob in self.knobs.values())

    @property
    def sysctls(self) -> list[str]:
        """The sysctls that must be read in a guest to tell whether the variant makes sense and is in effect."""
        return [name for knob in self.knobs.values() for name in knob.sysctls()]

    @model_validator(mode="after")
    def _expectation_is_whole(self) -> "Variant":
        check_expectation(self.expect)
        names = {*causes.list_causes(), PASS}
        if unknown := [name for pair in self.turns.items() for name in pair if name not in names]:
            raise ValueError(f"turns must hold causes and {PASS!r}; found {unknown[0]!r}")
        if self.brings not in (None, *causes.list_causes()):
            raise ValueError(f"brings must be a cause; found {self.brings!r}")
        if empty := [name for name, knob in self.knobs.items() if not knob.given()]:
            raise ValueError(f"[{empty[0]}] sets nothing; name a setting, or leave the table out")
        return self

    @property
    def leads_to(self) -> str | None:
        """The cause that it can bring about; None if it changes nothing for the worse."""
        return self.brings or self.expect.cause

    def combined(self, other: "Variant") -> "Variant":
        """Combine both variants on one guest. Raises Conflict if their settings exclude each other.

        The result is expected to fail if one of them is, for the cause that boxlite meets first.
        """
        knobs = self.knobs
        for name, other_knob in other.knobs.items():
            knob = knobs.get(name)
            try:
                knobs[name] = knob.combined(other_knob) if knob else other_knob
            except Conflict as error:
                raise Conflict(f"{name}: {error}") from None
        update = {
            "name": f"{self.name}{AND}{other.name}",
            "title": f"{self.title}; {other.title}",
            "expect": choose_expectation(self.expect, other.expect),
            "brings": self.brings or other.brings,
            "turns": self.turns | other.turns,
            "not_judged": self.not_judged | other.not_judged,
            "differs": self.differs | other.differs,
        }
        return self.model_copy(update={**update, **knobs})


@dataclass(frozen=True)
class Change:
    """Settings, by the names of their kinds, that are added to a variant, or left out of it (`without`)."""

    name: str
    settings: Mapping[str, Knob]
    without: bool = False

    def __str__(self) -> str:
        # A name may come from a guest.
        return clean_text(f"{'without' if self.without else 'with'} {self.name}")

    @property
    def wants_own_machine(self) -> bool:
        """Whether a machine has to be booted for it."""
        return any(knob.kernel_arguments() for knob in self.settings.values())

    def on(self, variant: Variant) -> Variant:
        """The changed variant, under its own name. Its settings that contradict the change give way."""
        update: dict[str, Knob | None] = {}
        for kind, knob in self.settings.items():
            before = variant.knobs.get(kind)
            if self.without:
                update[kind] = before.less(knob) if before else None
            else:
                update[kind] = before.giving_way_to(knob) if before else knob
        return variant.model_copy(update=update)


# The model of a variant's file: its own keys, and a table for each kind of setting.
_TABLES: dict[str, Any] = {name: (kind | None, None) for name, kind in KINDS.items()}
VariantFile: type[Variant] = create_model("VariantFile", __base__=Variant, **_TABLES)


class DebianImage(Definition):
    """A guest built from Debian's packages by mmdebstrap."""

    kind: Literal["debian"]
    suite: str = Field(pattern=r"^[a-z0-9.-]+$")
    backports: list[str] = Field(
        [], description="Packages taken from the suite's backports, usually the kernel."
    )
    packages: list[str] = Field([], description="Packages in addition to those of every guest.")
    security: bool = Field(True, description="Whether packages may come from the suite's security archive.")
    expired: bool = Field(False, description="Accept the archive's package lists after their Valid-Until date.")
    selinux: str | None = Field(
        None, pattern=r"^[a-z]+$", description="SELinux policy whose file contexts label the disk."
    )
    kernel_arguments: str = Field("", description="Kernel arguments in addition to those of every guest.")
    disk_gib: int = Field(6, ge=2, le=64)

    # Not a field: no definition sets it. See `lab.images.debian.collect_debian_inputs`.
    _kernel: Kernel | None = PrivateAttr(None)

    @property
    def kernel(self) -> Kernel | None:
        """The kernel that it has instead of its own."""
        return self._kernel

    def with_kernel(self, kernel: Kernel) -> "DebianImage":
        image = self.model_copy()
        image._kernel = kernel
        return image

    @property
    def origin(self) -> str:
        """Where the image comes from, as text for users."""
        return f"built from Debian {self.suite} packages" + (f" with {self.kernel.name}" if self.kernel else "")


class Firmware(StrEnum):
    """The firmware that starts the disk's own boot loader."""

    BIOS = "bios"
    UEFI = "uefi"


class PackageManager(StrEnum):
    """The program that installs packages in the guest."""

    APT = "apt"
    DNF = "dnf"
    PACMAN = "pacman"


class SignatureForm(StrEnum):
    """How a checksum file is signed: by a file beside it that is called like it, or inside its own text."""

    DETACHED = "detached"
    ARMOURED = "armoured"
    CLEAR = "clear"

    @property
    def suffix(self) -> str | None:
        """What the name of the separate file ends with; None if there is no such file."""
        return {"detached": ".gpg", "armoured": ".asc"}.get(self)


class SignedChecksums(Definition):
    """The checksum file beside a disk, signed by the distribution."""

    file: str = Field(pattern=r"^[^/]+$")
    form: SignatureForm
    key: str = Field(pattern=r"^[^/]+\.asc$", description="File in `images/keys/` with the only trusted key.")


class UnsignedChecksums(Definition):
    """A checksum file that nobody signs: a digest of it is pinned if all servers have the same."""

    file: str = Field(pattern=r"^[^/]+$", description="The file's name; with `{build}`.")
    mirrors: list[str] = Field(
        [], description="Folders with that file on other servers than `url`; with `{build}`."
    )


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression: {error}") from None
    return text


class CloudImage(Definition):
    """A guest that its distribution publishes as a disk. `{build}` in `url` and `checksums.file` means `build`.

    A disk is verified with checksums that the distribution signs, or with `digest`. Unless the definition has
    `build` itself, both come from `images/pins/pins.toml`.
    """

    kind: Literal["cloud"]
    url: str = Field(pattern=r"^https?://[^/]+/.*[^/]$")
    archive: str | None = Field(
        None,
        pattern=r"^https?://[^/]+/.*[^/]$",
        description="Where the disk is after the distribution has moved its release there; like `url`.",
    )
    build: str | None = None
    builds: Annotated[str, AfterValidator(_expression)] | None = Field(
        None, description="A regular expression that the names of dated builds match."
    )
    checksums: SignedChecksums | None = None
    unsigned: UnsignedChecksums | None = None
    digest: str | None = Field(
        None, pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$", description="The disk's pinned digest."
    )
    firmware: Firmware
    user: str = Field(description="The default login of the distribution's images.")
    package_manager: PackageManager
    # It decides what is prepared of the disk, not which disk that is.
    packages: list[str] = Field(
        [], exclude=True, description="Packages to install while it is prepared, besides what the suite needs."
    )
    python: str | None = Field(
        None,
        pattern=r"^python3\.\d+$",
        exclude=True,
        description="Package and program of a newer Python than the system's own, for the suite.",
    )
    selinux: str | None = Field(None, pattern=r"^[a-z]+$", description="SELinux policy that it enforces.")
    disk_gib: int = Field(10, ge=2, le=64, description="Size to which the disk is grown in the guest.")

    @model_validator(mode="after")
    def _vouched_for_once(self) -> "CloudImage":
        if self.checksums is not None and self.digest is not None:
            raise ValueError("only one of `checksums` and `digest` can be given")
        if self.digest is not None and self.address is None:
            raise ValueError("`build` must be given with `digest`, which belongs to one build")
        return self

    @property
    def address(self) -> str | None:
        """The disk's URL; None if it needs a build and none is pinned."""
        return self._filled(self.url)

    @property
    def checksums_address(self) -> str | None:
        """The URL of the checksum file beside the disk; None if the distribution does not sign one."""
        if self.checksums is None or self.address is None:
            return None
        return f"{self.address.rpartition('/')[0]}/{self._filled(self.checksums.file)}"

    @property
    def archived(self) -> "CloudImage | None":
        """The same disk in the distribution's archive; None if the definition names no archive."""
        return self.model_copy(update={"url": self.archive, "archive": None}) if self.archive else None

    @property
    def origin(self) -> str:
        """Where the image comes from, as text for users."""
        return self.address or f"{self.url} (no build is pinned yet)"

    def _filled(self, text: str) -> str | None:
        if self.build is None:
            return None if "{build}" in text else text
        return text.replace("{build}", self.build)


class Pin(Definition):
    """A section of `images/pins/pins.toml`: a guest's build, when it was pinned, and what vouches for it."""

    build: str = Field(pattern=r"^[\w.-]+$")
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    digest: str | None = None
    mirrors: list[str] = Field([], description="The servers that agreed on the digest.")


class Guest(Definition):
    """One operating system to test on."""

    name: str
    title: str
    image: Annotated[DebianImage | CloudImage, Field(discriminator="kind")]
    system: str = Field(
        "",
        pattern=r"^[a-z]*(-[\d.]+)?$",
        description="ID and VERSION_ID of its os-release, if the guest is not named after them.",
    )
    arch: Literal["x86_64", "aarch64"] = Field("x86_64", description="Its processor's architecture.")
    memory_mib: int = Field(2048, ge=512)
    cpus: int = Field(2, ge=1, le=16, description="Processors under KVM; emulated guests have one.")
    expect: Expectation = Field(
        Expectation(),
        description="What boxlite does on it as installed; a variant may change that.",
    )
    because: str = Field("", description="The guest's own setting that is the expected cause, and the source.")
    besides: str | None = Field(None, description="A second cause that it has as installed.")

    # Not a field: no definition sets it, and it does not make another definition of the guest.
    _only_image: str = PrivateAttr("")

    @model_validator(mode="after")
    def _expectation_is_whole(self) -> "Guest":
        check_expectation(self.expect)
        if self.expect.cause and not self.because:
            raise ValueError("`because` must be given with an expected cause")
        if self.besides:
            if not self.expect.cause:
                raise ValueError("`besides` must be given with an expected cause")
            check_expectation(Expectation(status="xfail", cause=self.besides))
        return self

    @property
    def own_causes(self) -> list[str]:
        """The causes that it has as installed."""
        return [cause for cause in (self.expect.cause, self.besides) if cause]

    @model_validator(mode="after")
    def _firmware_is_its_machine_s(self) -> "Guest":
        image = self.image
        if isinstance(image, CloudImage) and image.firmware is Firmware.BIOS and self.arch == "aarch64":
            raise ValueError('`firmware` must be "uefi" for a guest of aarch64, whose machines have no BIOS')
        return self

    @model_validator(mode="after")
    def _name_tells_architecture(self) -> "Guest":
        # Reports, baselines and comparisons know a guest by its name.
        if get_guest_architecture(self.name).name != self.arch:
            raise ValueError("guests of aarch64, and no others, have `arm64` in their name")
        return self

    @property
    def only_image(self) -> str:
        """The digest of the one image that the guest may run from; empty if any of its definition will do."""
        return self._only_image

    def from_image(self, digest: str) -> "Guest":
        """The guest that runs from the image with this digest and from no other."""
        guest = self.model_copy()
        guest._only_image = digest
        return guest

    def pinned(self, pin: Pin) -> "Guest":
        """The guest with this build of its disk. Raises ValueError if the pin does not suit it."""
        if not isinstance(self.image, CloudImage):
            raise ValueError("its image is built locally")
        fields = {**dict(self.image), "build": pin.build, "digest": pin.digest}
        return self.model_copy(update={"image": CloudImage.model_validate(fields)})

    def with_packages(self, *names: str) -> "Guest":
        """The guest with further packages: another image, beside the one without them."""
        packages = [*self.image.packages, *names]
        return self.model_copy(update={"image": self.image.model_copy(update={"packages": packages})})

    def with_kernel(self, kernel: Kernel) -> "Guest":
        """The guest with another kernel than its own: another guest, with an image of its own.

        Raises UsageError if its kernel cannot be chosen.
        """
        if not isinstance(self.image, DebianImage):
            raise UsageError(
                f"{self.name} starts the kernel on its distribution's disk, so it cannot have {kernel.name}",
                hint="name a guest that is built from packages: lab list guests",
            )
        if kernel.architecture not in ("", self.architecture.debian):
            raise UsageError(
                f"{kernel.name} is a kernel for {kernel.architecture}, and {self.name} is a guest of "
                f"{self.architecture.debian}",
                hint=f"name a kernel for {self.architecture.debian}, or another guest: lab list guests",
            )
        if self.kernel:
            raise UsageError(
                f"{self.name} names its kernel, and {kernel.name} would be a second one",
                hint=f"name one of them: {strip_kernel(self.name)}{AT}{kernel.argument}, or no --kernel",
            )
        update = {
            "name": f"{self.name}{AT}{kernel.name}",
            "title": f"{self.title} with the kernel {kernel.name}",
            "image": self.image.with_kernel(kernel),
        }
        return self.model_copy(update=update)

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.arch]

    @property
    def kernel(self) -> Kernel | None:
        """The kernel that it was given instead of its own."""
        return self.image.kernel if isinstance(self.image, DebianImage) else None

    @property
    def argument(self) -> str:
        """What names it on a command line, with its kernel."""
        return f"{strip_kernel(self.name)}{AT}{self.kernel.argument}" if self.kernel else self.name

    @property
    def kernel_arguments(self) -> str:
        """Additional kernel arguments; none for a cloud image, whose own boot loader passes them."""
        return self.image.kernel_arguments if isinstance(self.image, DebianImage) else ""


class Set(Definition):
    """A named selection of cells: each of its guests with each of its variants."""

    name: str
    title: str
    guests: list[str]
    variants: list[str]
    kernels: list[str] = Field([], description="Each guest has each of these kernels, as --kernel takes them.")
    remedies: bool = Field(True, description="Whether remedies are tried on the cells that fail.")

    @model_validator(mode="after")
    def _names_a_cell(self) -> "Set":
        if empty := [key for key in ("guests", "variants") if not getattr(self, key)]:
            raise ValueError(f"a set names at least one guest and one variant; {empty[0]} is empty")
        return self


@cache
def load_subjects() -> dict[str, str]:
    """Return what tests may be about, and for each what a test of it shows where it passes."""
    table = tomllib.loads((PACKAGE / "suites/subjects.toml").read_text("utf-8"))
    return {name: row["covers"] for name, row in table.items()}


def describe_subjects(covered: Collection[str], where: str, failed: Collection[str] = ()) -> str:
    """Say what passed tests of these subjects show, and which subjects had no test; `where`: in which cells."""
    subjects = load_subjects()
    titles = [title for name, title in subjects.items() if name in covered]
    untested = [name for name in subjects if name not in {*covered, *failed}]
    if not titles:
        return "nothing that the lab can name: the record does not say what these tests are about"
    return f"{'; '.join(titles)}. Not tested {where}: {', '.join(untested)}"


class Suite(Definition):
    """The tests that run inside the guest. `tests` names all of them, so that a missing result is noticed.

    Of a suite that nextest runs, the archive names them: see `others`.
    """

    name: str
    title: str
    control: str = Field(
        default="", description="The test that passes even if the jailer is blocked; empty: there is none."
    )
    witness: str = Field(
        default="",
        description="The single most telling test: a box starts in the sandbox, and the sandbox isolates it. "
        "Empty: no test tells more than the others.",
    )
    boxes: bool = Field(
        default=True,
        description="Whether its tests start boxes. If not, the lab leaves out what only boxes need.",
    )
    filter: str = Field(
        default="", description="nextest's expression for its tests; empty: nextest does not run them."
    )
    cargo: tuple[str, ...] = Field(default=(), description="Cargo's options that build its tests.")
    expect: Expectation = Field(
        default=Expectation(),
        description="A known bug of boxlite's that its tests meet on every host; a variant may change that.",
    )
    because: str = Field(default="", description="The bug, and where boxlite's project keeps it.")
    boots_again: bool = Field(
        default=False, description="Whether the tests run once more, with LAB_BOOTED_AGAIN, after another boot."
    )
    test_seconds: int = Field(description="Limit of one test, on a host with hardware acceleration.")
    suite_seconds: int = Field(description="Limit of the whole suite, on such a host.")
    length: float = Field(
        default=1.0, description="How many times as long as the suite jailer it takes, for estimates."
    )
    shared: list[Annotated[str, Field(max_length=100)]] = Field(
        default=[], description="Files of `lab/suites/_shared` that stand beside the suite's own in the guest."
    )
    others: Needs | None = Field(
        default=None,
        description="What each test needs that nextest lists and `tests` does not name. Without it the lab "
        "warns of such a test, and assumes that it needs a box.",
    )
    tests: dict[str, Needs] = Field(min_length=1)
    subject: str = Field(description="What its tests are about: a word of `lab/suites/subjects.toml`.")
    subjects: dict[str, str] = Field(default={}, description="The tests that are about something else.")

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for key, word in {"subject": self.subject, **self.subjects}.items():
            if word not in load_subjects():
                raise ValueError(f"{key}: expected one of {', '.join(load_subjects())}, found {word!r}")
        if unknown := self.subjects.keys() - self.tests.keys():
            raise ValueError(f"subjects: expected the suite's tests, found {min(unknown)!r}")
        check_expectation(self.expect)
        if self.expect.cause and not self.because:
            raise ValueError("`because` must be given with an expected cause")
        for key in ("control", "witness"):
            if (name := getattr(self, key)) and name not in self.tests:
                raise ValueError(f"{key}: expected one of the suite's tests, found {name!r}")
        for name, file in self.shared_files.items():
            if not file.is_file():
                raise ValueError(f"shared: expected the name of a file in {file.parent}, found {name!r}")
            if (self.folder / name).exists():
                raise ValueError(f"shared: the suite's folder has a file {name!r} of its own")
        return self

    @property
    def folder(self) -> Path:
        return PACKAGE / "suites" / self.name

    @property
    def shared_files(self) -> dict[str, Path]:
        """The files that it shares with other suites, by their names beside its own."""
        return {name: PACKAGE / "suites" / "_shared" / name for name in self.shared}

    @property
    def files(self) -> dict[str, Path]:
        """Its own files and the shared ones, by the names that they have side by side in a guest."""
        files = {file.name: file for file in self.folder.glob("*") if file.is_file()}
        return dict(sorted({**files, **self.shared_files}.items()))

    def texts(self) -> list[str]:
        """Return the names and texts of the suite's files, which determine what its tests do."""
        return [part for name, file in self.files.items() for part in (name, file.read_text())]

    def only(self, tests: Collection[str]) -> "Suite":
        """Return the suite reduced to these tests."""
        needs_by_test = {name: needs for name, needs in self.tests.items() if name in tests}
        return self.model_copy(update={"tests": needs_by_test})

    @property
    def telling(self) -> list[str]:
        """The witness; all tests if there is none."""
        return [self.witness] if self.witness else list(self.tests)

    def get_subject(self, test: str) -> str:
        """Return what a test is about."""
        return self.subjects.get(test, self.subject)

    def needing(self, needs: Needs) -> set[str]:
        """Return the tests that cannot pass on a host without this need."""
        if not self.boxes and needs is not Needs.SANDBOX:
            # Without a box, the sandbox needs neither boxlite's runtime nor /dev/kvm.
            return set()
        return {name for name, test_needs in self.tests.items() if test_needs.includes(needs)}
