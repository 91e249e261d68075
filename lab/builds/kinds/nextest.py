"""An archive that `cargo nextest archive` made: upstream's own tests, run by nextest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.builds import elf, nextest, sandbox
from lab.builds._base import FILES
from lab.builds.arguments import Words, place
from lab.builds.nextest import MANIFEST, Unpacked
from lab.builds.rust import ARCHIVE, RustTests, below, suite_of


@dataclass(frozen=True)
class Nextest(RustTests):
    """The archive `words.file`. It is unpacked to where the workspace was when it was built."""

    form = "nextest:FILE[,suite=NAME][,runtime=DIR][,cache=DIR][,at=DIR]"

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(**read(Words.parse("nextest", text)))

    @property
    def argument(self) -> str:
        return self.words.argument("nextest")

    @property
    def unpacking(self) -> str:
        program = f"{FILES}/cargo-nextest nextest list --user-config-file=none --list-type=binaries-only"
        where = "--extract-to=. --extract-overwrite --workspace-remap=."
        return f"cp -r {FILES}/manifests/. . && {program} --archive-file={FILES}/{ARCHIVE} {where} >/dev/null"


def read(words: Words) -> dict[str, Any]:
    """What these words and the archive say of a build: the arguments of `Nextest`. Raises UsageError."""
    program = words.program(Paths.default())
    with sandbox.folder() as folder:
        unpacked = nextest.unpack(words.file, folder)
        manifests = _manifests(words, unpacked)
        listing = nextest.list_tests(program, unpacked, words.choice(words.expression))
        names = listing.names()
        where = place(words, unpacked.workspace)
        needs = [need for name in listing.tests for need in elf.read(unpacked.binaries[name])]
    files = {ARCHIVE: words.file, **{f"manifests/{name}": file for name, file in manifests.items()}}
    more = {**files, **below(words.runtime, "runtime"), **below(words.cache, "cache")}
    return {
        "name": f"nextest{words.series}-{listing.version}@{words.digest(more, where)}",
        "version": listing.version,
        "suite": suite_of(words, names),
        "words": words,
        "place": where,
        "filter": words.expression,
        "expressions": names,
        "files": files,
        "needs": tuple(needs),
    }


def _manifests(words: Words, unpacked: Unpacked) -> dict[str, Path]:
    """The manifests of the workspace, by their paths in it. Raises UsageError if one is missing."""
    places = [words.manifests] if words.manifests else [unpacked.workspace, words.file.parent]
    folder = next((each for each in places if (each / MANIFEST).is_file()), None)
    if folder is None:
        tried = " and no ".join(str(each / MANIFEST) for each in places)
        raise UsageError(
            f"{words.file}: its workspace's manifest is missing: there is no {tried}",
            hint="name the folder that has it, and the folders of its packages, with manifests=DIR",
        )
    names = [MANIFEST, *(name for name in unpacked.manifests if name != MANIFEST)]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UsageError(
            f"{folder}: expected the manifests of the workspace; there is no {', '.join(missing)}",
            hint="copy them from the checkout that the archive was made in",
        )
    return {name: folder / name for name in names}
