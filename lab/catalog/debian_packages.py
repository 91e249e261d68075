"""What guests built from Debian's packages have of a fresh Debian, and what they lack.

The knowledge is in `images/recipes/debian-packages.toml`, with its sources.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from pydantic import Field

from lab.base.paths import find_definitions
from lab.catalog.definitions import CloudImage, DebianImage
from lab.catalog.toml import Definition, read_table, validate_table
from lab.record import Omission


class PackageGroup(Definition):
    """Packages that a guest has, or lacks, for the same reason."""

    packages: list[str] = Field(min_length=1)
    reason: str


class UnitGroup(Definition):
    """Units or generators that the guest has and never starts, for the same reason."""

    units: list[str] = Field(min_length=1)
    reason: str


class DebianPackages(Definition):
    """The whole table. `suites` has the packages that not every suite has, or gives a fresh Debian."""

    installed: list[PackageGroup]
    omitted: list[PackageGroup]
    masked: list[UnitGroup]
    generators: list[UnitGroup]
    suites: dict[str, list[str]]

    def list_installed(self, suite: str) -> list[str]:
        """List the packages that every guest of this suite has besides its kernel, sorted."""
        return sorted(name for group in self.installed for name in self._of_suite(group.packages, suite))

    def list_masked(self) -> list[str]:
        """List the units that never run, in the order of the table."""
        return [unit for group in self.masked for unit in group.units]

    def list_omissions(self, suite: str, packages: Iterable[str] = ()) -> Iterator[Omission]:
        """List what a guest of this suite lacks beside a fresh Debian, if it has these `packages` as well."""
        for group in self.omitted:
            if names := sorted(set(self._of_suite(group.packages, suite)).difference(packages)):
                yield Omission(packages=names, reason=group.reason)
        for units in (*self.masked, *self.generators):
            yield Omission(units=units.units, reason=units.reason)

    def _of_suite(self, packages: Iterable[str], suite: str) -> Iterator[str]:
        return (name for name in packages if suite in self.suites.get(name, [suite]))


def find_packages_file() -> Path:
    """Return the path of the table."""
    return find_definitions() / "images" / "recipes" / "debian-packages.toml"


@cache
def load_debian_packages() -> DebianPackages:
    """Read the table. Raises UsageError if it is wrong."""
    file = find_packages_file()
    return validate_table(file, read_table(file), DebianPackages)


def list_image_omissions(image: DebianImage | CloudImage) -> list[Omission]:
    """List what a guest lacks beside a fresh installation: nothing if the image is the distribution's own."""
    if not isinstance(image, DebianImage):
        return []
    return list(load_debian_packages().list_omissions(image.suite, image.packages))
