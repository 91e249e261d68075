"""Node of a Debian release, fetched as packages by mmdebstrap, and boxlite's packages in npm's registry."""

import base64
import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packaging.version import Version
from pydantic import BaseModel, Field, ValidationError

from lab.base import process
from lab.base.errors import LabError, NotApplicable, UsageError, one_line
from lab.base.paths import Paths
from lab.builds import archives, fetched, pip
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


PROJECT = "@boxlite-ai/boxlite"
# What has boxlite itself for the guests' processor and C library.
NATIVE = "@boxlite-ai/boxlite-linux-x64-gnu"
NPM_SECONDS = 600.0
NAME_ONE = "name a tarball of `npm pack`: --build npm:FILE.tgz, with that of the native package beside it"
# Bytes. A tarball may hold a bomb.
LARGEST_MANIFEST = 1 << 20
NPM_VERSION = r"^\d{1,9}\.\d{1,9}\.\d{1,9}[0-9A-Za-z.+-]{0,100}$"
ENGINE = re.compile(r">=\s*(\d+(?:\.\d+){0,2})", re.ASCII)


class Manifest(BaseModel):
    """What is read of a package's package.json."""

    name: str
    version: str = Field(pattern=NPM_VERSION)
    engines: dict[str, str] = {}
    optional: dict[str, str] = Field({}, alias="optionalDependencies")

    @property
    def oldest_node(self) -> Version:
        """The oldest Node that it runs on. Raises ValueError if it says that in a way that is not read here."""
        said = self.engines.get("node", ">=0")
        if not (match := ENGINE.fullmatch(said.strip())):
            raise ValueError(f"engines.node: expected >=VERSION, found {said!r}")
        return Version(match[1])


@dataclass(frozen=True)
class Package:
    """The tarballs of boxlite's package and of its native one, and the manifest of the first."""

    main: Path
    native: Path
    manifest: Manifest


def read_package(tarball: Path, name: str = PROJECT) -> Manifest:
    """What a tarball says of itself. Raises UsageError if it is none of the package with this name."""
    what = f"a tarball of {name}, as `npm pack` makes it"
    try:
        with archives.open_tar(tarball) as tar:
            files = {member.name: member for member in archives.members(tar)}
            file = tar.extractfile(files["package/package.json"])
            text = file.read(LARGEST_MANIFEST) if file else b""
        found = Manifest.model_validate_json(text)
    except KeyError as error:
        raise UsageError(f"{tarball}: expected {what}; it has no package/package.json") from error
    except ValidationError as error:
        raise UsageError(f"{tarball}: expected {what}; its package.json is wrong: {one_line(error)}") from error
    except (OSError, archives.Damaged) as error:
        raise UsageError(f"{tarball}: expected {what}; it cannot be read: {error}") from error
    if found.name != name:
        raise UsageError(f"{tarball}: expected {what}; it is of {found.name}")
    return found


def native_of(tarball: Path, manifest: Manifest) -> str:
    """The version of the native package that a package asks for. Raises UsageError if it asks for none."""
    wanted = manifest.optional.get(NATIVE)
    if wanted is None:
        raise UsageError(f"{tarball}: expected {NATIVE} among its optionalDependencies; there is none")
    if not re.fullmatch(NPM_VERSION, wanted):
        raise UsageError(f"{tarball}: expected a version of {NATIVE}; it asks for {wanted[:80]!r}")
    return wanted


def file_name(name: str, version: str) -> str:
    """The name that `npm pack` gives to a package's tarball."""
    return f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


def check_version(version: str, name: str = PROJECT) -> None:
    """Raise UsageError if the registry has no such version of a package, LabError if npm cannot tell."""
    known = _versions(name)
    if version not in known:
        raise UsageError(f"there is no release {version} of {name}", hint=f"there are {', '.join(known)}")


def fetch_package(paths: Paths, version: str, say: Callable[[str], None]) -> Package:
    """A release, from the cache or the registry. Raises UsageError if there is none, LabError if npm fails."""
    return complete(paths, _fetch_tarball(paths, PROJECT, version, say), say, look_beside=False)


def complete(paths: Paths, main: Path, say: Callable[[str], None], *, look_beside: bool = True) -> Package:
    """A tarball with the native package: the one beside it, or the release that it asks for.

    Raises as `fetch` does.
    """
    manifest = read_package(main)
    native = native_beside(main, manifest) if look_beside else None
    if native is None:
        wanted = native_of(main, manifest)
        try:
            native = _fetch_tarball(paths, NATIVE, wanted, say)
        except UsageError as error:
            needs = f"{PROJECT} {manifest.version} needs {NATIVE} {wanted}"
            raise UsageError(f"{needs}: {error.args[0]}", hint=error.hint) from error
    return Package(main, native, manifest)


def native_beside(main: Path, manifest: Manifest) -> Path | None:
    """The native package's tarball in the same folder. Raises UsageError if it is another package's."""
    version = native_of(main, manifest)
    beside = main.with_name(file_name(NATIVE, version))
    if not beside.exists():
        return None
    found = read_package(beside, NATIVE)
    if found.version != version:
        raise UsageError(f"{beside}: expected version {version} of {NATIVE}; it is {found.version}")
    return beside


def _fetch_tarball(paths: Paths, name: str, version: str, say: Callable[[str], None]) -> Path:
    """The tarball of one package in the cache."""
    tarball = file_name(name, version)

    def fill(folder: Path) -> None:
        check_version(version, name)
        _npm("pack", f"{name}@{version}", "--ignore-scripts", f"--pack-destination={folder}")
        _verify(folder / tarball, _npm("view", f"{name}@{version}", "dist.integrity"))

    folder = paths.make(pip.store(paths)) / f"npm-{tarball.removesuffix('.tgz')}"
    # npm is asked three times, by whichever lab is the first.
    return fetched.once(folder, f"{name} {version}", fill, seconds=3 * NPM_SECONDS + 60, say=say) / tarball


def _verify(file: Path, integrity: Any) -> None:
    """Compare a file with a digest of the registry's. https://www.w3.org/TR/SRI/"""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha512").digest()
    found = f"sha512-{base64.b64encode(digest).decode()}"
    if found != integrity:
        raise LabError(
            f"{file.name}: npm's registry says {integrity}, and what it sent has {found}",
            hint="run the same command again; if it stays so, whoever runs that registry should know",
        )


@cache
def _versions(name: str) -> tuple[str, ...]:
    """Every version in the registry, oldest first. npm is asked once."""
    found = _npm("view", name, "versions")
    return tuple([found] if isinstance(found, str) else found)


def _npm(*words: str) -> Any:
    """What npm, with this host's own configuration, answers. Raises LabError."""
    if shutil.which("npm") is None:
        raise LabError(
            f"this host has no npm, which fetches {PROJECT}", hint=f"install it (Debian: npm), or {NAME_ONE}"
        )
    command = ["npm", *words, "--json", "--loglevel=error", "--no-update-notifier"]
    try:
        return json.loads(process.run(command, timeout=NPM_SECONDS))
    except process.CommandFailed as error:
        raise LabError(f"npm could not {words[0]} {words[1]}: {error}", hint=NAME_ONE) from error
    except ValueError as error:
        raise LabError(f"npm {words[0]} {words[1]} did not answer in JSON: {error}", hint=NAME_ONE) from error
