"""boxlite's package for Node: a release, or a tarball of `npm pack`. Its suite has Node run a program."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from packaging.version import Version

from lab.base.errors import NotApplicable, UsageError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.builds import node
from lab.builds._base import FILES, FOLDER, Step
from lab.builds.node import NATIVE, PROJECT, Package
from lab.builds.pytest_tests import PytestTests, runner
from lab.catalog import Suite, load_suite
from lab.probes import Facts

VERSION = re.compile(r"\d+\.\d+\.\d+(?:-[\w.-]+)?", re.ASCII)
# Where Node looks for packages that a program in the suite's folder imports.
MODULES = f"{FOLDER}/node_modules"
# What `fetch` calls the tarballs, and where each is unpacked.
TARBALLS = {"main.tgz": PROJECT, "native.tgz": NATIVE}

UNPACK = " && ".join(
    f"mkdir -p {MODULES}/{name} && "
    f"tar -xzf {FILES}/{tarball} -C {MODULES}/{name} --strip-components=1 --no-same-owner && "
    f"rm {FILES}/{tarball}"
    for tarball, name in TARBALLS.items()
)
FIRST_USE = 'node box.mjs open "{\\"home\\": \\"$(mktemp -d)\\"}"'
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


def _npm() -> Suite:
    return load_suite("npm")


@dataclass(frozen=True)
class Npm(PytestTests):
    """A release in npm's registry, or the tarball at the local `path`."""

    form = "npm:VERSION or npm:FILE.tgz"

    path: Path | None = None
    suite: Suite = field(kw_only=True, hash=False, default_factory=_npm)

    @classmethod
    def parse(cls, text: str) -> Self:
        if VERSION.fullmatch(text):
            return cls(f"npm-{text}", text)
        path = Path(text)
        if not path.is_file():
            raise UsageError(
                f"--build npm:{text}: neither a version nor the path of a tarball",
                hint="for example --build npm:0.10.0, or --build npm:packages/boxlite-ai-boxlite-0.10.0.tgz",
            )
        manifest = node.read_package(path)
        beside = node.native_beside(path, manifest)
        digest = "".join(sha256(file)[:8] for file in (path, beside) if file)
        return cls(f"npm-{manifest.version}@{digest}", manifest.version, path.resolve())

    @classmethod
    def is_data(cls, text: str) -> bool:
        """Whether it is a release: npm itself reads a tarball, whose manifest may say what it likes."""
        return VERSION.fullmatch(text) is not None

    @property
    def argument(self) -> str:
        return f"npm:{self.path or self.version}"

    def check(self, paths: Paths) -> None:
        _oldest_node(self._package(paths, lambda _text: None))

    def fetch(self, paths: Paths, facts: Facts, say: Callable[[str], None]) -> dict[str, Path]:
        """Both tarballs, Node's packages and the wheels of pytest."""
        package = self._package(paths, say)
        oldest, debs = _oldest_node(package), node.packages(paths, facts, say)
        if (found := node.version(debs)) and Version(found) < oldest:
            raise NotApplicable(
                f"{PROJECT} {self.version} needs Node {oldest} or newer; {facts.os.pretty_name} has {found}"
            )
        return {
            **dict(zip(TARBALLS, (package.main, package.native), strict=True)),
            **{f"node/{file.name}": file for file in debs},
            **{wheel.name: wheel for wheel in runner(paths, facts.python, say)},
        }

    def unpacking(self) -> Sequence[Step]:
        return [Step(UNPACK, seconds=30), Step(INSTALL, seconds=60)]

    @property
    def first_use(self) -> str:
        return FIRST_USE

    def _package(self, paths: Paths, say: Callable[[str], None]) -> Package:
        if self.path:
            return node.complete(paths, self.path, say)
        return node.fetch_package(paths, self.version, say)


def _oldest_node(package: Package) -> Version:
    try:
        return package.manifest.oldest_node
    except ValueError as error:
        raise UsageError(f"{package.main}: {error}") from error
