"""Guests that their distribution publishes as a disk: finds out which disk to use, and downloads it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.base.errors import ImageNotAvailable, NotPublished
from lab.base.files import digest
from lab.catalog import CloudImage, Guest, SignatureForm, SignedChecksums, key_file
from lab.images import disk, download, signature
from lab.images.download import Say

# A line of a checksum file in coreutils' format (Ubuntu) and in BSD's format (Fedora).
FORMS = (
    re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<name>.+)"),
    re.compile(r"SHA256 \((?P<name>.+)\) = (?P<digest>[0-9a-f]{64})"),
)

# coreutils' format, with SHA-512 (Debian).
SHA512_FORMS = (re.compile(r"(?P<digest>[0-9a-f]{128}) [ *](?P<name>.+)"),)
UNPINNED = "no digest is pinned yet, and the distribution does not sign one"


@dataclass(frozen=True)
class Wanted:
    """The disk that a guest should use: its address and its expected digest."""

    url: str
    algorithm: str
    digest: str

    @property
    def name(self) -> str:
        return f"{self.algorithm}-{self.digest}"


def inputs(image: CloudImage) -> bytes:
    """Return everything that selects the disk and verifies it, as bytes to be hashed."""
    fields = {"url", "build", "checksums", "digest"}
    key = key_file(image.checksums.key).read_bytes() if image.checksums else b""
    return image.model_dump_json(include=fields).encode() + key


def why_unpinned(image: CloudImage) -> str:
    """Say why nothing vouches for a download; empty if something does."""
    if image.checksums is None and image.digest is None:
        return UNPINNED
    return "no build is pinned yet" if image.address is None else ""


def resolve_disk(guest: Guest, image: CloudImage, say: Say) -> Wanted:
    """Return the disk to use: the pinned one, or the one whose digest the distribution signs today.

    It is looked for in the archive if it is no longer published at its first address. Raises ImageNotAvailable.
    """
    if unpinned := why_unpinned(image):
        raise ImageNotAvailable(
            unpinned,
            hint=f"lab images pull --update {guest.name}, or: lab images import FILE --as {guest.name}",
        )
    assert image.address is not None
    if image.checksums is None:
        algorithm, _, pinned = str(image.digest).partition(":")
        return Wanted(image.address, algorithm, pinned)
    try:
        text = _signed_text(str(image.checksums_address), image.checksums, say)
    except NotPublished:
        if image.archived is None:
            raise
        return resolve_disk(guest, image.archived, say)
    disk_name = image.address.rpartition("/")[2]
    return Wanted(image.address, "sha256", find_digest(text, disk_name, str(image.checksums_address)))


def _signed_text(url: str, checksums: SignedChecksums, say: Say) -> str:
    say("fetching checksums")
    text = download.read(url, say)
    detached = download.read(f"{url}.gpg", say) if checksums.form is SignatureForm.DETACHED else None
    return signature.verify(text, detached, key_file(checksums.key), download.short(url))


def find_digest(text: str, name: str, url: str, forms: Sequence[re.Pattern[str]] = FORMS) -> str:
    """Return the digest, by default SHA-256, of the disk `name` in a checksum file's text; `url` is for errors.

    Raises ImageNotAvailable unless the text lists exactly one.
    """
    lines = [line.rstrip() for line in text.splitlines()]
    matches = [match for line in lines for form in forms if (match := form.fullmatch(line))]
    found = {match["digest"] for match in matches if match["name"] == name}
    if len(found) != 1:
        raise ImageNotAvailable(
            f"{download.short(url)} lists {'several digests' if found else 'no digest'} for {name}",
            hint=f"was the build withdrawn? look at {url}; lab images pull --update pins a newer one",
        )
    return found.pop()


def fetch(want: Wanted, folder: Path, say: Say) -> Path:
    """Download a disk into `folder` and verify it.

    The next call resumes an interrupted download. A disk that fails verification is deleted.
    Raises ImageNotAvailable, LabError.
    """
    file = folder / want.name
    download.fetch(want.url, file, say)
    say("verifying")
    try:
        _verify(want, file)
    except ImageNotAvailable:
        download.forget(file)
        raise
    return file


def _verify(want: Wanted, file: Path) -> None:
    found = digest(file, want.algorithm)
    if found != want.digest:
        raise ImageNotAvailable(
            f"{download.short(want.url)} does not have the expected digest",
            hint=f"its {want.algorithm} is {found}, expected {want.digest}; the download was deleted: "
            "try again later or from another network",
        )
    try:
        disk.check_qcow2(file)
    except disk.NotADisk as error:
        raise ImageNotAvailable(f"{download.short(want.url)}: {error.args[0]}") from error
