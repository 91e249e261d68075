"""What an image consists of: by this, a host and its coordinator know the same image."""

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

DISK = "disk.qcow2"
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Neither a path nor a hidden file.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
GuestName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
# The largest file of an image, in bytes.
MOST_BYTES = 64 << 30
MOST_FILES = 16


class _Checked(BaseModel):
    """It may come from another host, so all of it has limits."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileContent(_Checked):
    """One file of an image: its SHA-256, and its size in bytes."""

    sha256: Digest
    size: int = Field(ge=0, le=MOST_BYTES)


class Content(_Checked):
    """The files of an image. `inputs` is the digest of all that it was made from for `guest`.

    `base` is the SHA-256 of the disk that a prepared image was prepared from; empty for any other image.
    """

    guest: GuestName
    inputs: Digest
    source: str = Field(default="", max_length=500)
    files: dict[Name, FileContent] = Field(max_length=MOST_FILES)
    base: Digest | Literal[""] = ""

    @field_validator("files")
    @classmethod
    def _has_a_disk(cls, files: dict[str, FileContent]) -> dict[str, FileContent]:
        if DISK not in files:
            raise ValueError(f"an image without {DISK}")
        return files

    @property
    def digest(self) -> str:
        """SHA-256 over all of its files: two images with the same are one."""
        lines = [f"{file.sha256} {name}\n" for name, file in sorted(self.files.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def size(self) -> int:
        """The size of all files, in bytes."""
        return sum(file.size for file in self.files.values())
