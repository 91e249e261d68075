"""Wheels of boxlite on this host: one file, or a folder that has one for each Python."""

import hashlib
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from lab.base.errors import NotApplicable, UsageError
from lab.base.files import sha256
from lab.builds import archives, elf, pip
from lab.probes import Facts


def wheels(path: Path) -> list[Path]:
    """The wheel at a path, or all wheels directly in the folder there."""
    return sorted(path.glob("*.whl")) if path.is_dir() else [path]


def read_version(path: Path) -> Version:
    """The version of the wheel or wheels at a path, each of which is looked into.

    Raises UsageError if there is none, or if they are not all of boxlite and of one version.
    """
    found = wheels(path)
    if not found:
        raise UsageError(
            f"--build {path}: a folder without wheels",
            hint=f"it must hold wheels of {pip.PROJECT}, one per Python",
        )
    versions = {wheel.name: _version(path, wheel) for wheel in found}
    if len(set(versions.values())) > 1:
        listed = ", ".join(f"{version} ({name})" for name, version in versions.items())
        raise UsageError(
            f"--build {path}: wheels of several versions: {listed}",
            hint="leave one version in the folder, or name each wheel with its own --build",
        )
    return next(iter(versions.values()))


def digest(path: Path) -> str:
    """A short digest of the wheels at a path. That of a folder also depends on the wheels' names."""
    if not path.is_dir():
        return sha256(path)[:8]
    lines = [f"{sha256(wheel)} {wheel.name}\n" for wheel in wheels(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:8]


def choose(path: Path, facts: Facts) -> Path:
    """The wheel for a guest's Python; of several, the one that pip prefers among those that can run there.

    Raises NotApplicable if there is none for that Python.
    """
    python = facts.python
    found = wheels(path)
    ranks = {tag: rank for rank, tag in enumerate(pip.tags(python))}
    fitting = [
        (min(ranks[tag] for tag in fits), wheel)
        for wheel in found
        if (fits := parse_wheel_filename(wheel.name)[3] & ranks.keys()) and pip.allows(wheel, python)
    ]
    if not fitting:
        if path.is_dir():
            names = ", ".join(wheel.name for wheel in found)
            raise NotApplicable(f"{path} has no wheel for Python {python}, only {names}")
        raise NotApplicable(f"{path.name} is not for Python {python}")
    best, *others = (wheel for _, wheel in sorted(fitting))
    if not others:
        return best
    return next((wheel for wheel in (best, *others) if elf.why_not(wheel, facts) is None), best)


def _version(asked: Path, wheel: Path) -> Version:
    where = f"--build {asked}" if asked == wheel else f"--build {asked}: {wheel.name}"
    if not wheel.is_file():
        raise UsageError(f"{where}: no such file")
    try:
        name, version, _, _ = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename as error:
        raise UsageError(f"{where}: {error}", hint="a wheel must keep its name") from error
    if name != pip.PROJECT:
        raise UsageError(f"{where}: a wheel of {name}, not of {pip.PROJECT}")
    try:
        pip.needs(wheel, pip.EVERY)
        archives.check_wheel(wheel)
    except archives.Damaged as error:
        raise UsageError(
            f"{where}: its files are not those of its RECORD: {error}",
            hint="copy or build the wheel again; `wheel pack` writes a RECORD for files that were changed",
        ) from error
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
    return version
