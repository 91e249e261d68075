"""Guests that their distribution publishes as a disk: which disk to use, whether it is theirs, what is pinned.

gpgv's status lines: https://github.com/gpg/gnupg/blob/master/doc/DETAILS
"""

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import tomlkit
from filelock import FileLock

from lab.base import process, scratch
from lab.base.activity import Progress, Task
from lab.base.errors import ImageNotAvailable, LabError, NotPublished
from lab.base.files import compute_digest, write_atomically
from lab.catalog import (
    CloudImage,
    Guest,
    Pin,
    UnsignedChecksums,
    find_key_file,
    find_pins_file,
    load_pins,
)
from lab.images import disk, download

# The forms of a line of a checksum file: coreutils' (Ubuntu, Debian) and BSD's (Fedora).
FORMS = {
    "sha256": (
        re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<name>.+)"),
        re.compile(r"SHA256 \((?P<name>[^()]+)\) = (?P<digest>[0-9a-f]{64})"),
    ),
    "sha512": (re.compile(r"(?P<digest>[0-9a-f]{128}) [ *](?P<name>.+)"),),
}
UNPINNED = "no digest is pinned yet, and the distribution does not sign one"

GPGV_SECONDS = 60.0
STATUS = "[GNUPG:] "
# gpgv's status codes that mean refusal. For an expired key gpgv exits with 0 and reports a valid signature.
REFUSED = {
    "NODATA": "it contains no signature",
    "BADSIG": "the signature does not match the text",
    "EXPKEYSIG": "the key has expired",
    "EXPSIG": "the signature has expired",
    "REVKEYSIG": "the key was revoked",
    "NO_PUBKEY": "it was signed by another key",
}

HREF = re.compile(r"""href=["']([^"'?#]+)["']""", re.IGNORECASE)
BUILD = "{build}"
PINS_HEADER = """\
# Which build of each published disk the lab boots, so that two maintainers test the same disks.
# `lab images pins --renew` moves these pins. A signed disk needs no digest; an unsigned one has the digest on
# which all of its mirrors agreed.
"""


@dataclass(frozen=True)
class PublishedDisk:
    """The disk that a guest should use: its address and its expected digest."""

    url: str
    algorithm: str
    digest: str

    @property
    def name(self) -> str:
        return f"{self.algorithm}-{self.digest}"


def collect_cloud_inputs(image: CloudImage) -> bytes:
    """Return everything that selects the disk and verifies it, as bytes to be hashed."""
    fields = {"url", "build", "checksums", "digest"}
    key = find_key_file(image.checksums.key).read_bytes() if image.checksums else b""
    return image.model_dump_json(include=fields).encode() + key


def explain_unpinned(image: CloudImage) -> str:
    """Say why nothing vouches for a download; empty if something does."""
    if image.checksums is None and image.digest is None:
        return UNPINNED
    return "no build is pinned yet" if image.address is None else ""


def resolve_disk(guest: Guest, image: CloudImage, task: Task) -> PublishedDisk:
    """Return the disk to use: the pinned one, or the one whose digest the distribution signs today.

    It is looked for in the archive if it is no longer published at its first address. Raises ImageNotAvailable.
    """
    if unpinned := explain_unpinned(image):
        raise ImageNotAvailable(
            unpinned,
            hint=f"lab images pull --update {guest.name}, or: lab images import FILE --as {guest.name}",
        )
    assert image.address is not None
    if image.checksums is None:
        algorithm, _, pinned = str(image.digest).partition(":")
        return PublishedDisk(image.address, algorithm, pinned)
    address, checksums = str(image.checksums_address), image.checksums
    try:
        task.show(Progress("fetching checksums"))
        content = download.download_text(address, task)
        suffix = checksums.form.suffix
        detached = download.download_text(f"{address}{suffix}", task) if suffix else None
        text = verify_signature(content, detached, find_key_file(checksums.key), download.shorten_url(address))
    except NotPublished:
        if image.archived is None:
            raise
        return resolve_disk(guest, image.archived, task)
    disk_name = image.address.rpartition("/")[2]
    return PublishedDisk(image.address, "sha256", find_digest(text, disk_name, address))


def find_digest(text: str, name: str, url: str, algorithm: str = "sha256") -> str:
    """Return the digest of the disk `name` in a checksum file's text; `url` is for errors.

    Raises ImageNotAvailable unless the text lists exactly one.
    """
    lines = [line.rstrip() for line in text.splitlines()]
    matches = [match for line in lines for form in FORMS[algorithm] if (match := form.fullmatch(line))]
    digests = {match["digest"] for match in matches if match["name"] == name}
    if len(digests) != 1:
        raise ImageNotAvailable(
            f"{download.shorten_url(url)} lists {'several digests' if digests else 'no digest'} for {name}",
            hint=f"was the build withdrawn? look at {url}; lab images pull --update pins a newer one",
        )
    return digests.pop()


def fetch_disk(published: PublishedDisk, folder: Path, task: Task) -> Path:
    """Download a disk into `folder` and verify it.

    The next call resumes an interrupted download. A disk that fails verification is deleted.
    Raises ImageNotAvailable, LabError.
    """
    file = folder / published.name
    download.download_file(published.url, file, task)
    task.show(Progress("verifying"))
    actual = compute_digest(file, published.algorithm)
    if actual != published.digest:
        file.unlink()
        raise ImageNotAvailable(
            f"{download.shorten_url(published.url)} does not have the expected digest",
            hint=f"its {published.algorithm} is {actual}, expected {published.digest}; the download was "
            "deleted: try again later or from another network",
        )
    if wrong := disk.explain_unusable(file):
        file.unlink()
        raise ImageNotAvailable(f"{download.shorten_url(published.url)}: {wrong}")
    return file


# -- signatures


def verify_signature(text: bytes, signature: bytes | None, key: Path, name: str) -> str:
    """Verify a checksum file and return the part of its text that is signed.

    `signature` is the detached signature, or None if the text contains it. `key` is the file of an
    ASCII-armoured key; `name` names the checksum file in errors. Raises ImageNotAvailable.
    """
    with scratch.make_temporary_folder() as home:
        ring, signed, plain = home / "key.gpg", home / "signed", home / "plain"
        # gpgv does not read armoured keys.
        ring.write_bytes(dearmour(key))
        signed.write_bytes(text)
        command: list[str | Path] = ["gpgv", "--homedir", home, "--keyring", ring, "--status-fd", "1"]
        if signature is None:
            # Anybody can add text around the signed part, so only gpgv's output counts.
            command += ["--output", plain, signed]
        else:
            (home / "signature").write_bytes(signature)
            command += [home / "signature", signed]
            plain = signed
        failure: process.CommandFailed | None = None
        try:
            printed = process.run_command(command, timeout=GPGV_SECONDS)
        except process.CommandFailed as error:
            printed, failure = error.output, error
        verified = plain.read_bytes() if plain.exists() else b""
    lines = [line.removeprefix(STATUS) for line in printed.splitlines() if line.startswith(STATUS)]
    codes = {line.split()[0] for line in lines if line}
    if failure is not None and not codes:
        raise LabError(
            f"gpgv could not be run: {failure}", hint="run ./setup.sh, which installs it"
        ) from failure
    reason = next((refusal for code, refusal in REFUSED.items() if code in codes), None)
    if reason is None and failure is None and {"GOODSIG", "VALIDSIG"} <= codes:
        return verified.decode(errors="replace")
    raise ImageNotAvailable(
        f"the signature of {name} is not valid: {reason or 'gpgv refused it'}",
        hint=f"the expected key is {key}; gpgv printed:\n{printed.rstrip()}",
    ) from failure


def dearmour(key: Path) -> bytes:
    """Decode an ASCII-armoured key: https://www.rfc-editor.org/rfc/rfc9580#section-6.2.

    Raises LabError if the file is not such a key.
    """
    try:
        # The headers end at the first empty line; the line that begins with "=" is a checksum.
        body = key.read_text().partition("\n\n")[2].partition("\n=")[0].partition("\n-----END")[0]
        data = base64.b64decode(body.replace("\n", ""), validate=True)
    except (OSError, ValueError) as error:
        raise LabError(f"{key} cannot be read: {error}") from error
    if not data:
        raise LabError(f"{key} is not an ASCII-armoured key")
    return data


# -- pins


def move_pin(guest: Guest, image: CloudImage, task: Task) -> Guest:
    """Pin the newest build that the guest's server lists, and return the guest with it.

    The pin is written only if the build can be verified: its checksums are signed and list the disk, or all
    mirrors have the same digest. A guest whose definition does not say what dated builds are called is returned
    as it is. Raises ImageNotAvailable, and LabError if the file cannot be written.
    """
    if image.builds is None or BUILD not in image.url:
        return guest
    try:
        build = newest_build(image.url, image.builds, task)
    except NotPublished:  # The release may have moved to the archive.
        if image.archive is None:
            raise
        build = newest_build(image.archive, image.builds, task)
    servers = [image.url, *image.unsigned.mirrors] if image.unsigned else []
    pin = Pin(
        build=build,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        digest=_agreed_digest(image.url, image.unsigned, build, task) if image.unsigned else None,
        mirrors=[urlsplit(server).netloc for server in servers],
    )
    pinned = guest.pinned(pin)
    assert isinstance(pinned.image, CloudImage)
    resolve_disk(pinned, pinned.image, task)
    _write_pin(find_pins_file(), guest.name, pin)
    return pinned


def newest_build(url: str, builds: str, task: Task) -> str:
    """Return the newest build in the listing of the folder that holds them.

    Raises NotPublished if there is no such folder or no build in it, and ImageNotAvailable.
    """
    head, _, tail = url.partition(BUILD)
    folder, _, prefix = head.rpartition("/")
    name = re.compile(f"{re.escape(prefix)}(?P<build>{builds}){re.escape(tail.partition('/')[0])}")
    task.show(Progress("looking for newer builds"))
    listing = download.download_text(f"{folder}/", task, only_https=True).decode(errors="replace")
    links = [unquote(link).rstrip("/").rpartition("/")[2] for link in HREF.findall(listing)]
    names = [match["build"] for link in links if (match := name.fullmatch(link))]
    if not names:
        raise NotPublished(
            f"{folder}/ lists no build",
            hint="did the folder move? correct `url` and `builds` in the definition",
        )
    return max(names, key=order_build)


def order_build(build: str) -> list[tuple[int, str]]:
    """Return the key by which names of builds are sorted: by their numbers, however long these are."""
    return [(len(digits), digits) for digits in re.findall(r"0*(\d+)", build)]


def _agreed_digest(url: str, unsigned: UnsignedChecksums, build: str, task: Task) -> str:
    """Return the digest of the disk on which all mirrors agree. Raises ImageNotAvailable."""
    address = url.replace(BUILD, build)
    folder, _, disk = address.rpartition("/")
    digests: dict[str, str] = {}
    for mirror in (folder, *unsigned.mirrors):
        file = f"{mirror}/{unsigned.file}".replace(BUILD, build)
        text = download.download_text(file, task, only_https=True).decode(errors="replace")
        algorithm = "sha512" if re.search(rf"{FORMS['sha512'][0].pattern}", text) else "sha256"
        digests[file] = f"{algorithm}:{find_digest(text, disk, file, algorithm)}"
    if len(set(digests.values())) != 1:
        digests_in_words = ", ".join(f"{file}: {digest[:23]}" for file, digest in digests.items())
        raise ImageNotAvailable(
            f"the mirrors do not have the same digest of {disk}: {digests_in_words}",
            hint="one of them may not be up to date: try again later; nothing was pinned",
        )
    return digests.popitem()[1]


def _write_pin(file: Path, guest: str, pin: Pin) -> None:
    try:
        file.parent.mkdir(exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            pins = load_pins(file)
            old_pin = pins.get(guest)
            if old_pin and old_pin.model_copy(update={"date": pin.date}) == pin:
                return
            document = tomlkit.parse(file.read_text() if file.exists() else PINS_HEADER)
            if old_pin is None:
                document.add(tomlkit.nl())
                document[guest] = pin.model_dump(exclude_defaults=True)
            else:
                # Comments stay, and so do the lines of everything that did not change.
                section, values = document[guest], pin.model_dump(exclude_defaults=True)
                for key in [key for key in section if key not in values]:
                    del section[key]
                for key, value in values.items():
                    if section.get(key) != value:
                        section[key] = value
            write_atomically(file, tomlkit.dumps(document))
    except OSError as error:
        raise LabError(
            f"{file} cannot be written: {error.strerror}", hint="update the pins in a checkout that is yours"
        ) from error
