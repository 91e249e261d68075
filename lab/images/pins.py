"""Pins the newest dated build of a published disk in `images/pins/pins.toml`, for review."""

import re
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import tomlkit
from filelock import FileLock

from lab.base.errors import ImageNotAvailable, LabError, NotPublished
from lab.base.files import write_atomically
from lab.catalog import CloudImage, Guest, Pin, UnsignedChecksums, load_pins, pins_file
from lab.images import cloud, download
from lab.images.download import Say

HREF = re.compile(r"""href=["']([^"'?#]+)["']""", re.IGNORECASE)
BUILD = "{build}"
HEADER = """\
Which build of each published disk the lab boots, so that two maintainers test the same disks.
`lab images pull --update` moves these pins. A signed disk needs no digest; an unsigned one has the digest on
which all of its mirrors agreed."""


def move(guest: Guest, image: CloudImage, say: Say) -> Guest:
    """Pin the newest build that the guest's server lists, and return the guest with it.

    The pin is written only if the build can be verified: its checksums are signed and list the disk, or all
    mirrors have the same digest. A guest whose definition does not say what dated builds are called is returned
    as it is. Raises ImageNotAvailable, and LabError if the file cannot be written.
    """
    if image.builds is None or BUILD not in image.url:
        return guest
    build = _newest_published(image, image.builds, say)
    digest = _agreed_digest(image.url, image.unsigned, build, say) if image.unsigned else None
    servers = [image.url, *image.unsigned.mirrors] if image.unsigned else []
    pin = Pin(
        build=build,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        digest=digest,
        mirrors=[urlsplit(server).netloc for server in servers],
    )
    pinned = guest.pinned(pin)
    assert isinstance(pinned.image, CloudImage)
    cloud.resolve_disk(pinned, pinned.image, say)
    _write(pins_file(), guest.name, pin)
    return pinned


def _newest_published(image: CloudImage, builds: str, say: Say) -> str:
    """Return the newest build that the guest's server lists; its archive is asked after a release has moved."""
    try:
        return newest_build(image.url, builds, say)
    except NotPublished:
        if image.archive is None:
            raise
        return newest_build(image.archive, builds, say)


def newest_build(url: str, builds: str, say: Say) -> str:
    """Return the newest build in the listing of the folder that holds them.

    Raises NotPublished if there is no such folder or no build in it, and ImageNotAvailable.
    """
    before, _, after = url.partition(BUILD)
    folder, _, prefix = before.rpartition("/")
    name = re.compile(f"{re.escape(prefix)}(?P<build>{builds}){re.escape(after.partition('/')[0])}")
    say("looking for newer builds")
    listing = download.read(f"{folder}/", say, only_https=True).decode(errors="replace")
    links = [unquote(link).rstrip("/").rpartition("/")[2] for link in HREF.findall(listing)]
    found = [match["build"] for link in links if (match := name.fullmatch(link))]
    if not found:
        raise NotPublished(
            f"{folder}/ lists no build",
            hint="did the folder move? correct `url` and `builds` in the definition",
        )
    return max(found, key=lambda build: [(len(digits), digits) for digits in re.findall(r"0*(\d+)", build)])


def _agreed_digest(url: str, unsigned: UnsignedChecksums, build: str, say: Say) -> str:
    """Return the digest of the disk on which all mirrors agree. Raises ImageNotAvailable."""
    address = url.replace(BUILD, build)
    folder, _, disk = address.rpartition("/")
    found: dict[str, str] = {}
    for each in (folder, *unsigned.mirrors):
        file = f"{each.replace(BUILD, build)}/{unsigned.file}"
        text = download.read(file, say, only_https=True).decode(errors="replace")
        found[file] = cloud.find_digest(text, disk, file, cloud.SHA512_FORMS)
    if len(set(found.values())) != 1:
        told = ", ".join(f"{file}: {digest[:16]}" for file, digest in found.items())
        raise ImageNotAvailable(
            f"the mirrors do not have the same digest of {disk}: {told}",
            hint="one of them may not be up to date: try again later; nothing was pinned",
        )
    return f"sha512:{found.popitem()[1]}"


def _write(file: Path, guest: str, pin: Pin) -> None:
    try:
        file.parent.mkdir(exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            pins = load_pins(file)
            before = pins.get(guest)
            if before and before.model_copy(update={"date": pin.date}) == pin:
                return
            document = tomlkit.document()
            for line in HEADER.splitlines():
                document.add(tomlkit.comment(line))
            for name, each in sorted({**pins, guest: pin}.items()):
                document.add(tomlkit.nl())
                document[name] = each.model_dump(exclude_defaults=True)
            write_atomically(file, tomlkit.dumps(document))
    except OSError as error:
        raise LabError(
            f"{file} cannot be written: {error.strerror}", hint="update the pins in a checkout that is yours"
        ) from error
