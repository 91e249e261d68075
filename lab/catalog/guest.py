"""A guest's definition: one file of `images/`."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lab.catalog.toml import Definition


class DebianImage(Definition):
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


class SignedChecksums(Definition):
    """The file beside a disk that holds its digest, signed by its distribution."""

    file: str = Field(pattern=r"^[^/]+$")
    form: SignatureForm
    key: str = Field(
        pattern=r"^[^/]+\.asc$", description="File in `images/keys/` with the one key that counts."
    )


class CloudImage(Definition):
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


class Guest(Definition):
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
