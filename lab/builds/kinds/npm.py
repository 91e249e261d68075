"""boxlite's package for Node: a release in npm's registry or a tarball of `npm pack`; Node of a Debian release.

Its suite has Node run a program. npm answers with this host's own configuration; mmdebstrap fetches Node.
"""

import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

from packaging.version import Version
from pydantic import AliasPath, BeforeValidator, Field

from lab.base import archives, process
from lab.base.activity import Task
from lab.base.architecture import AARCH64, ARCHITECTURES, X86_64
from lab.base.data import FailFastModel, parse_json
from lab.base.errors import LabError, NotApplicable, UsageError, format_error
from lab.base.files import hash_file
from lab.base.notices import ANNOUNCED_TASK
from lab.base.paths import Paths
from lab.builds import wheels
from lab.builds._base import FILES, FOLDER, DeployStep
from lab.builds.pytest_tests import RUNNER, PytestTests
from lab.catalog import DebianImage, Suite, load_catalog, load_suite
from lab.probes import Facts

PROJECT = "@boxlite-ai/boxlite"
# What has boxlite itself for the processor of a guest and its C library.
NATIVE = {X86_64.name: f"{PROJECT}-linux-x64-gnu", AARCH64.name: f"{PROJECT}-linux-arm64-gnu"}
VERSION = r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}(?:[+-][0-9A-Za-z.+-]{1,100})?"
# The limit of each call of npm, or of mmdebstrap.
SECONDS = 600.0
# Bytes. A tarball may hold a bomb.
LARGEST_MANIFEST = 1 << 20
# What npm prints where its registry has no such version, or no such package.
NO_RELEASE = re.compile(r"\bcode (?:ETARGET|E404)\b", re.ASCII)
NAME_ONE = (
    "check that npm is installed and reaches its registry, or name a tarball of `npm pack`: "
    "--build npm:FILE.tgz, with that of the native package beside it"
)

# Where Node looks for packages that a program in the suite's folder imports.
MODULES = f"{FOLDER}/node_modules"
# What `fetch` calls the tarballs, and where each is unpacked. A guest has one of the native packages.
MAIN = "main.tgz"
TARBALLS = {MAIN: PROJECT, **{f"native-{arch}.tgz": name for arch, name in NATIVE.items()}}
UNPACK = "set -e" + "".join(
    f"\nif test -e {FILES}/{tarball}; then\n"
    f"    mkdir -p {MODULES}/{name}\n"
    f"    tar -xzf {FILES}/{tarball} -C {MODULES}/{name} --strip-components=1 --no-same-owner\n"
    f"    rm {FILES}/{tarball}\n"
    "fi"
    for tarball, name in TARBALLS.items()
)
# Packages that the guest has already stay as they are.
INSTALL = f"""
set -e
cd {FILES}/node
lacking=
for file in *.deb; do
    name=$(dpkg-deb --field "$file" Package)
    dpkg-query -W -f '${{Status}}' "$name" 2>/dev/null | grep -q ' installed$' || lacking="$lacking $file"
done
test -z "$lacking" || sudo -n dpkg --force-unsafe-io --install $lacking
rm *.deb
node --version
"""
NODE = "nodejs"
# nodejs_18.20.4+dfsg-1~deb12u3_amd64.deb
NODE_PACKAGE = re.compile(rf"{NODE}_(?:\d+%3a)?(\d++(?:\.\d++)*+)[^_]*_\w+\.deb", re.ASCII)
DEBS = "var/cache/apt/archives"


def _natives(dependencies: object) -> object:
    """Those of the optional dependencies that are native packages for guests."""
    if not isinstance(dependencies, dict):
        return dependencies
    return {name: dependencies[name] for name in NATIVE.values() if name in dependencies}


class NpmPackage(FailFastModel):
    """What is read of package.json: the package itself, its native packages, and the Node that it needs."""

    name: str = Field(pattern=f"^{PROJECT}$")
    version: str = Field(pattern=f"^{VERSION}$")
    natives: Annotated[dict[str, Annotated[str, Field(pattern=f"^{VERSION}$")]], BeforeValidator(_natives)] = (
        Field(validation_alias="optionalDependencies", min_length=1)
    )
    node: str = Field(
        default=">=0",
        validation_alias=AliasPath("engines", "node"),
        pattern=r"^ *>= *[0-9]+(\.[0-9]+){0,2} *$",
    )

    @property
    def oldest_node(self) -> Version:
        return Version(self.node.replace(">=", ""))


@dataclass(frozen=True)
class Npm(PytestTests):
    """A release in npm's registry, or the tarball at the local `path`."""

    form = "npm:VERSION or npm:FILE.tgz"
    first_use = 'node box.mjs open "{\\"home\\": \\"$(mktemp -d)\\"}"'

    path: Path | None = None
    suite: Suite = field(kw_only=True, hash=False, default_factory=lambda: load_suite("npm"))

    @classmethod
    def parse(cls, text: str) -> Self:
        if re.fullmatch(VERSION, text):
            return cls(f"npm-{text}", text)
        path = Path(text).resolve()
        if not path.is_file():
            raise UsageError(
                f"--build npm:{text}: neither a version nor the path of a tarball",
                hint="for example --build npm:0.10.0, or --build npm:packages/boxlite-ai-boxlite-0.10.0.tgz",
            )
        manifest = read_manifest(path)
        files = [path, *(_beside(path, manifest, name) for name in manifest.natives)]
        digest = "".join(hash_file(file)[:8] for file in files if file.is_file())
        return cls(f"npm-{manifest.version}@{digest}", manifest.version, path)

    @classmethod
    def is_data(cls, text: str) -> bool:
        """Whether it is a release: npm itself reads a tarball, whose manifest may say what it likes."""
        return re.fullmatch(VERSION, text) is not None

    @property
    def argument(self) -> str:
        return f"npm:{self.path or self.version}"

    def check(self, paths: Paths) -> None:
        # One native package is enough: guests with the other processor are not applicable.
        errors = []
        for arch in NATIVE:
            try:
                self.packages(paths, arch, ANNOUNCED_TASK)
            except UsageError as error:
                errors.append(error)
            else:
                return
        raise errors[0]

    def packages(self, paths: Paths, arch: str, task: Task) -> tuple[NpmPackage, Path, Path]:
        """What boxlite's package says of itself, its tarball, and that of its native package.

        Beside a local tarball may be that of the native package. Raises UsageError if there is no such release,
        LabError if npm fails.
        """
        main = self.path or _fetch_tarball(paths, PROJECT, self.version, task)
        manifest, name = read_manifest(main), NATIVE[arch]
        if name not in manifest.natives:
            raise UsageError(f"{PROJECT} {manifest.version} names no package {name}")
        beside = _beside(main, manifest, name)
        native = beside if beside.is_file() else _fetch_tarball(paths, name, manifest.natives[name], task)
        return manifest, main, native

    def fetch(self, paths: Paths, facts: Facts, task: Task) -> dict[str, Path]:
        """Both tarballs, Node's packages and the wheels of pytest."""
        try:
            manifest, main, native = self.packages(paths, facts.arch, task)
        except UsageError as error:
            raise NotApplicable(str(error.args[0])) from error
        debs = node_packages(paths, facts, task)
        versions = [match[1] for file in debs if (match := NODE_PACKAGE.fullmatch(file.name))]
        if Version(versions[0]) < (oldest := manifest.oldest_node):
            has = f"{facts.os.pretty_name} has {versions[0]}"
            raise NotApplicable(f"{PROJECT} {self.version} needs Node {oldest} or newer; {has}")
        return {
            MAIN: main,
            f"native-{facts.arch}.tgz": native,
            **{f"node/{file.name}": file for file in debs},
            **wheels.download_wheels(paths, RUNNER, facts.python, facts.arch, task),
        }

    def steps(self) -> Sequence[DeployStep]:
        return [DeployStep(UNPACK, seconds=30), DeployStep(INSTALL, seconds=60), *super().steps()]


# --- boxlite's packages --------------------------------------------------------------------------------


def read_manifest(tarball: Path) -> NpmPackage:
    """What a tarball of boxlite's package says of itself. Raises UsageError if it is none."""
    try:
        text = archives.read_member(tarball, "package/package.json", LARGEST_MANIFEST)
        return NpmPackage.model_validate(parse_json(text))
    except (archives.DamagedArchive, ValueError) as error:
        expected = f"a tarball of {PROJECT}, as `npm pack` makes it"
        raise UsageError(f"{tarball}: expected {expected}; it cannot be read: {format_error(error)}") from error


def file_name(name: str, version: str) -> str:
    """The name that `npm pack` gives to a package's tarball."""
    return f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


def _beside(main: Path, manifest: NpmPackage, native: str) -> Path:
    return main.with_name(file_name(native, manifest.natives[native]))


def _fetch_tarball(paths: Paths, name: str, version: str, task: Task) -> Path:
    """The tarball of one package in the cache. npm compares it with the digest that its registry has."""

    def fill(folder: Path) -> None:
        command = ["npm", "pack", f"{name}@{version}", "--ignore-scripts", f"--pack-destination={folder}"]
        try:
            process.run_command([*command, "--loglevel=error", "--no-update-notifier"], timeout=SECONDS)
        except process.CommandFailed as error:
            if NO_RELEASE.search(error.output):
                hint = f"see the releases with: npm view {name} versions"
                raise UsageError(f"npm's registry has no release {version} of {name}", hint=hint) from error
            raise LabError(f"npm could not fetch {name} {version}: {error}", hint=NAME_ONE) from error

    tarball = file_name(name, version)
    folder = wheels.get_wheel_store(paths) / f"npm-{tarball.removesuffix('.tgz')}"
    return wheels.fetch_once(folder, f"fetching {name} {version}", fill, task) / tarball


# --- Node -----------------------------------------------------------------------------------------------


def node_packages(paths: Paths, facts: Facts, task: Task) -> list[Path]:
    """The packages of the guest's own release that Node consists of, with all that they depend on.

    They are kept in the cache. Raises NotApplicable if the guest is none of the Debian releases that the lab
    builds guests of, LabError if they cannot be fetched.
    """
    images = [guest.image for guest in load_catalog().guests.values() if isinstance(guest.image, DebianImage)]
    of_release = [image for image in images if image.suite == facts.os.version_codename]
    if facts.os.id != "debian" or not of_release:
        raise NotApplicable(
            "the package needs Node of the guest's distribution, which the lab fetches for Debian's releases "
            f"only; the guest is {facts.os.pretty_name}"
        )
    image, architecture = of_release[0], ARCHITECTURES[facts.arch]

    def fill(folder: Path) -> None:
        archive = folder / "packages.tar"
        command = [
            "mmdebstrap",
            f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
            "--format=null",
            # It unpacks the packages and runs nothing of them.
            "--variant=extract",
            f"--architectures={architecture.debian}",
            f"--include={NODE}",
            f"--extract-hook=tar-out /{DEBS} {archive}",
        ]
        if not image.security:
            command.append(f"--setup-hook=sed -i '/ {image.suite}-security /d' \"$1/etc/apt/sources.list\"")
        if image.expired:
            command.append("--aptopt=Acquire::Check-Valid-Until false")
        try:
            process.run_command([*command, image.suite, "/dev/null"], timeout=SECONDS)
        except process.CommandFailed as error:
            raise LabError(
                f"Node of {image.suite} could not be fetched: {error}",
                hint="check that this host reaches the package mirror from which it builds Debian's guests",
            ) from error
        with tarfile.open(archive) as tar:
            for entry in tar:
                if entry.name.endswith(".deb") and (content := tar.extractfile(entry)):
                    (folder / Path(entry.name).name).write_bytes(content.read())
        archive.unlink()

    folder = wheels.get_wheel_store(paths) / f"node-{image.suite}-{architecture.name}"
    wheels.fetch_once(folder, f"fetching Node of {image.suite}", fill, task)
    return sorted(folder.glob("*.deb"))
