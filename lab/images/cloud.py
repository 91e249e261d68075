"""Guests that their distribution publishes as a disk: which disk that is, and having it."""

import re
from dataclasses import dataclass
from pathlib import Path

from lab.base.errors import ImageNotAvailable
from lab.base.files import digest
from lab.catalog import CloudImage, Guest, SignatureForm, SignedChecksums, key_file
from lab.images import disk, download, signature
from lab.images.download import Say

# A line of a checksum file, as coreutils writes it (Ubuntu) and in BSD's way (Fedora).
FORMS = (
    re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<name>.+)"),
    re.compile(r"SHA256 \((?P<name>.+)\) = (?P<digest>[0-9a-f]{64})"),
)


@dataclass(frozen=True)
class Wanted:
    """The disk that a guest is to have: where it is, and what its digest must be."""

    url: str
    algorithm: str
    digest: str

    @property
    def name(self) -> str:
        return f"{self.algorithm}-{self.digest}"


def inputs(image: CloudImage) -> bytes:
    """All that decides which disk it is, and who vouches for it, as bytes to take a digest of."""
    decides = {"url", "build", "checksums", "digest"}
    key = key_file(image.checksums.key).read_bytes() if image.checksums else b""
    return image.model_dump_json(include=decides).encode() + key


def wanted(guest: Guest, image: CloudImage, say: Say) -> Wanted:
    """Which disk it is to be: by what the distribution signs now, or as pinned. Raises ImageNotAvailable."""
    if image.address is None or (image.checksums is None and image.digest is None):
        raise ImageNotAvailable(
            "no digest is pinned yet, and its distribution signs none",
            hint=f"pin one as images/{guest.name}.toml says, or: lab images import FILE --as {guest.name}",
        )
    if image.checksums is None:
        algorithm, _, pinned = str(image.digest).partition(":")
        return Wanted(image.address, algorithm, pinned)
    text = _signed_text(str(image.checksums_address), image.checksums, say)
    disk_name = image.address.rpartition("/")[2]
    return Wanted(image.address, "sha256", listed(text, disk_name, str(image.checksums_address)))


def _signed_text(url: str, checksums: SignedChecksums, say: Say) -> str:
    say("fetching checksums")
    text = download.read(url, say)
    detached = download.read(f"{url}.gpg", say) if checksums.form is SignatureForm.DETACHED else None
    return signature.verified(text, detached, key_file(checksums.key), download.short(url))


def listed(text: str, name: str, url: str) -> str:
    """The SHA-256 that a signed text, had from `url`, gives for a disk. Raises ImageNotAvailable."""
    lines = [line.rstrip() for line in text.splitlines()]
    matches = [match for line in lines for form in FORMS if (match := form.fullmatch(line))]
    found = {match["digest"] for match in matches if match["name"] == name}
    if len(found) != 1:
        raise ImageNotAvailable(
            f"{download.short(url)} lists {'two digests' if found else 'no digest'} of {name}",
            hint=f"was the build withdrawn? see {url}, and correct `build` in the guest's definition",
        )
    return found.pop()


def fetch(want: Wanted, folder: Path, say: Say) -> Path:
    """Download a disk into `folder` and verify it. Raises ImageNotAvailable, LabError.

    What could not be downloaded to its end is gone on with the next time; what proves wrong is removed.
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
            f"{download.short(want.url)} is not the disk that was vouched for",
            hint=f"its {want.algorithm} is {found} and should be {want.digest}; nothing was kept: "
            "try again later, or from another network",
        )
    try:
        form = disk.form(file)
    except disk.NotADisk as error:
        raise ImageNotAvailable(f"{download.short(want.url)}: {error.args[0]}") from error
    if form != "qcow2":
        raise ImageNotAvailable(f"{download.short(want.url)} is a disk of the form {form}, not qcow2")
