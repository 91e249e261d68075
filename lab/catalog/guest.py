"""The definition of a guest: a file in `images/`."""

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from lab.catalog.toml import Definition
from lab.catalog.variant import check_expectation
from lab.record import Expectation


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

    @property
    def origin(self) -> str:
        """Where the image comes from, as text for users."""
        return f"built from Debian {self.suite} packages"


class Firmware(StrEnum):
    """The firmware that starts the disk's own boot loader."""

    BIOS = "bios"
    UEFI = "uefi"


class PackageManager(StrEnum):
    """The program that installs packages in the guest."""

    APT = "apt"
    DNF = "dnf"


class SignatureForm(StrEnum):
    """How a checksum file is signed: by a separate file with the suffix `.gpg`, or inside its own text."""

    DETACHED = "detached"
    CLEAR = "clear"


class SignedChecksums(Definition):
    """The checksum file beside a disk, signed by the distribution."""

    file: str = Field(pattern=r"^[^/]+$")
    form: SignatureForm
    key: str = Field(pattern=r"^[^/]+\.asc$", description="File in `images/keys/` with the only trusted key.")


class UnsignedChecksums(Definition):
    """A checksum file that nobody signs: a digest of it is pinned if all mirrors have the same."""

    file: str = Field(pattern=r"^[^/]+$")
    mirrors: list[str] = Field(
        min_length=1, description="Folders with that file on other servers than `url`; with `{build}`."
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
        None, description="What the names of dated builds match, as a regular expression."
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
    memory_mib: int = Field(2048, ge=512)
    cpus: int = Field(2, ge=1, le=16, description="Processors under KVM; emulated guests have one.")
    expect: Expectation = Field(
        Expectation(),
        description="What boxlite does on it as installed; a variant may change that.",
    )
    because: str = Field("", description="The guest's own setting that is the expected cause, and the source.")

    # Not a field: no definition sets it, and it does not make another definition of the guest.
    _only_image: str = PrivateAttr("")

    @model_validator(mode="after")
    def _expectation_is_whole(self) -> "Guest":
        check_expectation(self.expect)
        if self.expect.cause and not self.because:
            raise ValueError("`because` must be given with an expected cause")
        return self

    @property
    def only_image(self) -> str:
        """The digest of the one image that the guest may run from; empty if any of its definition will do."""
        return self._only_image

    def from_image(self, digest: str) -> "Guest":
        """The guest that runs from the image with this digest and from no other."""
        made = self.model_copy()
        made._only_image = digest
        return made

    def pinned(self, pin: Pin) -> "Guest":
        """The guest with this build of its disk. Raises ValueError if the pin does not suit it."""
        if not isinstance(self.image, CloudImage):
            raise ValueError("its image is built locally")
        fields = {**self.image.model_dump(), "build": pin.build, "digest": pin.digest}
        fields["packages"] = self.image.packages
        return self.model_copy(update={"image": CloudImage.model_validate(fields)})

    def with_packages(self, *names: str) -> "Guest":
        """The guest with further packages: another image, beside the one without them."""
        wanted = [*self.image.packages, *names]
        return self.model_copy(update={"image": self.image.model_copy(update={"packages": wanted})})

    @property
    def kernel_arguments(self) -> str:
        """Additional kernel arguments; none for a cloud image, whose own boot loader passes them."""
        return self.image.kernel_arguments if isinstance(self.image, DebianImage) else ""
