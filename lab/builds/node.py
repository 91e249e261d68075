"""Node of a Debian release, as Debian's packages: fetched by mmdebstrap, which knows each release's mirror."""

import os
import re
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.base import process
from lab.base.errors import LabError, NotApplicable
from lab.base.paths import Paths
from lab.builds import fetched, pip
from lab.catalog import DebianImage, load
from lab.probes import Facts

PACKAGE = "nodejs"
SECONDS = 600.0
ARCHIVES = "var/cache/apt/archives"
# nodejs_18.20.4+dfsg-1~deb12u3_amd64.deb
VERSION = re.compile(rf"{PACKAGE}_(?:\d+%3a)?(\d+(?:\.\d+)*)[^_]*_\w+\.deb", re.ASCII)


def packages(paths: Paths, facts: Facts, say: Callable[[str], None]) -> list[Path]:
    """The packages of the guest's own release that Node consists of, with all that they depend on.

    They are kept in the cache. Raises NotApplicable if the guest is none of the Debian releases that the lab
    builds guests of, LabError if they cannot be fetched.
    """
    image = _image(facts)
    folder = fetched.once(
        paths.make(pip.store(paths)) / f"node-{image.suite}",
        f"Node of {image.suite}",
        lambda partial: _fetch(image, partial),
        # Longer than another lab can take for its own download.
        seconds=SECONDS + 60,
        say=say,
    )
    return sorted(folder.glob("*.deb"))


def version(found: Sequence[Path]) -> str:
    """Node's version, such as "18.20.4", by its package's name. Raises LabError if it is not among them."""
    versions = [match[1] for file in found if (match := VERSION.fullmatch(file.name))]
    if not versions:
        names = ", ".join(file.name for file in found)
        raise LabError(f"expected the package {PACKAGE} among Debian's packages, found {names or 'none'}")
    return versions[0]


def _image(facts: Facts) -> DebianImage:
    """How the lab builds guests of the release that a guest is. Raises NotApplicable if it does not."""
    images = [guest.image for guest in load().guests.values() if isinstance(guest.image, DebianImage)]
    of_release = [image for image in images if image.suite == facts.os.version_codename]
    if facts.os.id != "debian" or not of_release:
        raise NotApplicable(
            "the package needs Node of the guest's distribution, which the lab fetches for Debian's releases "
            f"only; the guest is {facts.os.pretty_name}"
        )
    return of_release[0]


def _fetch(image: DebianImage, folder: Path) -> None:
    """Put the packages into a folder. Raises LabError."""
    archive = folder / "packages.tar"
    command = [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--format=null",
        # It unpacks the packages and runs nothing of them.
        "--variant=extract",
        f"--include={PACKAGE}",
        f"--extract-hook=tar-out /{ARCHIVES} {archive}",
    ]
    if not image.security:
        command.append(f"--setup-hook=sed -i '/ {image.suite}-security /d' \"$1/etc/apt/sources.list\"")
    if image.expired:
        command.append("--aptopt=Acquire::Check-Valid-Until false")
    try:
        process.run([*command, image.suite, "/dev/null"], timeout=SECONDS)
    except process.CommandFailed as error:
        raise LabError(
            f"Node of {image.suite} could not be fetched: {error}",
            hint="check that the package mirror can be reached, from which guests of Debian are built, too",
        ) from error
    with tarfile.open(archive) as tar:
        for entry in tar:
            content = tar.extractfile(entry) if entry.name.endswith(".deb") else None
            if content:
                (folder / Path(entry.name).name).write_bytes(content.read())
    archive.unlink()
