"""A checkout of upstream's repository: its tests are built on this host, archived, and run by nextest."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from lab.base.errors import UsageError
from lab.base.notices import progress
from lab.base.paths import Paths
from lab.builds import checkout, sandbox
from lab.builds.arguments import WORDS, Words, place, split
from lab.builds.checkout import ARCHIVE, Recipe, Tree
from lab.builds.kinds import nextest
from lab.builds.nextest import MANIFEST

KIND = "checkout"
OWN_WORDS = ("package", "features")
# The archive has its manifests beside it.
KNOWN = (*(word for word in WORDS if word != "manifests"), *OWN_WORDS)


@dataclass(frozen=True)
class Checkout(nextest.Nextest):
    """The checkout in the folder `asked.file`, whose archive is a build like any other."""

    form = "checkout:DIR[,suite=NAME][,package=NAME][,features=NAMES]"

    asked: Words = field(kw_only=True)
    recipe: Recipe = field(kw_only=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        paths, (asked, recipe) = Paths.default(), _read(text)
        sandbox.check()  # That its tests cannot be listed is told now, and not after hours.
        folder = checkout.built(paths, recipe, asked.program(paths), progress)
        archive = nextest.read(replace(asked, file=folder / ARCHIVE, manifests=folder))
        name = f"{_name(asked, recipe)}@{archive['name'].rpartition('@')[2]}"
        known: dict[str, Any] = {**archive, "name": name, "version": recipe.tree.version}
        return cls(**known, asked=asked, recipe=recipe)

    @classmethod
    def shown(cls, text: str) -> Self:
        asked, recipe = _read(text)
        if checkout.stored(Paths.default(), recipe):
            return cls.parse(text)
        return cls(
            _name(asked, recipe),
            recipe.tree.version,
            suite=asked.suite,
            words=asked,
            place=asked.at or str(asked.file),
            filter=asked.expression,
            expressions={},
            files={},
            asked=asked,
            recipe=recipe,
        )

    @classmethod
    def must_be_made(cls, text: str) -> str:
        _, recipe = _read(text)
        is_there = checkout.stored(Paths.default(), recipe) is not None
        return "" if is_there else f"{recipe.tree.folder}: {recipe.tree.version} was not built for this suite"

    @property
    def argument(self) -> str:
        given = {"package": self.recipe.package, "features": self.recipe.features}
        own = [f"{name}={value}" for name, value in given.items() if value is not None]
        return self.asked.argument(KIND, *own)


def _read(text: str) -> tuple[Words, Recipe]:
    """The words, and what is to be built for them. Raises UsageError before anything is built."""
    name, given = split(KIND, text, KNOWN)
    folder = Path(name).resolve()
    if not folder.is_dir():
        raise UsageError(
            f"--build {KIND}:{text}: {name}: no such folder",
            hint=f"{KIND}:DIR, then words such as ,suite=detach; there are {', '.join(KNOWN)}",
        )
    tree = Tree.read(folder)
    if not (folder / MANIFEST).is_file():
        raise UsageError(
            f"{folder / MANIFEST}: expected the manifest of a workspace; there is none",
            hint="name the folder of the checkout that has it",
        )
    package, features = (given.pop(word, None) for word in OWN_WORDS)
    asked = Words.read(KIND, folder, given)
    place(asked, folder)  # That it fits no guest is told now, and not after hours.
    # A filter may choose any test.
    which = ["--tests"] if asked.filter else list(asked.suite.cargo)
    return asked, Recipe(tree, tuple(which), package, features)


def _name(asked: Words, recipe: Recipe) -> str:
    return f"{KIND}{asked.series}-{recipe.tree.version}"
