"""Asking the package index about releases, and downloading wheels from it, through pip."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from lab.base import process
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.files import put_in_place
from lab.base.locks import locked
from lab.base.paths import Paths
from lab.builds import archives, closure

PROJECT = "boxlite"
# The oldest glibc that boxlite's wheels ask for; every guest has a newer one.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(41, 16, -1)] + ["manylinux2014_x86_64"]
PIP_SECONDS = 600.0
# pip is asked once for each link in a chain of requirements; those of a test runner have four.
ROUNDS = 20
# Longer than another lab can take for its own download.
LOCK_SECONDS = PIP_SECONDS + 60.0
# A Python that every release has a wheel for: 0.9.7 has none for 3.13, 0.10.6 none for 3.12.
EVERY = "3.11"
SEE = "see the releases with: pip index versions boxlite"
NAME_ONE = "name one that is stored with --build VERSION, or a wheel, or check the network"


def store(paths: Paths) -> Path:
    """The folder of the cache that holds downloaded wheels."""
    return paths.cache / "wheels"


def newest() -> str:
    """The version of the newest release. Raises LabError if there is none, or if pip cannot tell."""
    known = releases()
    if not known:
        raise LabError(f"the package index has no release of {PROJECT}", hint=NAME_ONE)
    return str(known[-1])


def stored(paths: Paths) -> list[Version]:
    """The releases that have a wheel in the cache, oldest first. Raises UsageError if there is none."""
    wheels = store(paths).glob(f"{PROJECT}-*/{PROJECT}-*.whl")
    versions = {parse_wheel_filename(wheel.name)[1] for wheel in wheels}
    found = sorted(version for version in versions if not version.is_prerelease)
    if not found:
        raise UsageError(
            f"no release of {PROJECT} is stored: {store(paths)} has no wheel of one",
            hint="name a wheel with --build FILE.whl, or have a release fetched by a run without --offline",
        )
    return found


def newest_before(version: str) -> str:
    """The version of the newest release that is older than a version.

    Raises UsageError if there is none, LabError if pip cannot tell.
    """
    # 0.10.8+mine is newer than 0.10.8, and 0.11.0rc1 is older than 0.11.0.
    older = [release for release in releases() if release < Version(version)]
    if not older:
        raise UsageError(f"there is no release of {PROJECT} older than {version}", hint=SEE)
    return str(older[-1])


def check_version(version: str) -> None:
    """Raise UsageError if the package index has no such version, LabError if pip cannot tell."""
    known = _versions()
    if Version(version) not in known:
        raise UsageError(
            f"there is no release {version} of {PROJECT}", hint=f"there are {', '.join(map(str, known))}"
        )


def releases() -> list[Version]:
    """The releases, without pre-releases, oldest first. Raises LabError if pip cannot tell."""
    return [version for version in _versions() if not version.is_prerelease]


@cache
def _versions() -> tuple[Version, ...]:
    """Every version, oldest first. The package index is asked once."""
    try:
        asked = _pip("index", "versions", PROJECT, "--json", "--pre", *_for_python(EVERY))
        printed = process.run(asked, timeout=PIP_SECONDS).splitlines()
    except process.CommandFailed as error:
        raise LabError(
            f"could not ask which releases of {PROJECT} there are: {error.output.strip()}", hint=NAME_ONE
        ) from error
    # Warnings are among the lines.
    answer = next(line for line in printed if line.startswith("{"))
    return tuple(sorted(map(Version, json.loads(answer)["versions"])))


def download(
    paths: Paths, requirements: Sequence[str], python: str, folder_name: str, say: Callable[[str], None]
) -> list[Path]:
    """The wheels of these requirements, with all they depend on, for a Python such as "3.13".

    They are kept in a folder of the cache, which is fetched again if it lacks what that Python needs. While
    another lab or thread fetches them, `say` may raise to end the wait.

    Raises NotApplicable if the first requirement has no wheel for that Python, LabError if pip fails otherwise.
    """
    folder = paths.make(store(paths)) / f"{folder_name}-cp{python.replace('.', '')}"
    lock = folder.with_name(f"{folder.name}.lock")
    with locked(lock, LOCK_SECONDS, f"{requirements[0]} for Python {python} to be fetched", say):
        wheels = _stored(requirements, python, folder)
        if wheels is not None:
            return wheels
        say(f"fetching {requirements[0]} for Python {python}")
        partial = folder.with_name(f".partial-{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            found = _fetch(requirements, python, partial)
            shutil.rmtree(folder, ignore_errors=True)
            put_in_place(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return [folder / wheel.name for wheel in found]


def _stored(requirements: Sequence[str], python: str, folder: Path) -> list[Path] | None:
    """The wheels of a folder of the cache; None if they are not all that is needed, or one is damaged."""
    try:
        found = closure.follow(requirements, python, folder)
        for wheel in found.wheels:
            archives.check_wheel(wheel)
    except ValueError:
        return None
    return None if found.missing else found.wheels


def _fetch(requirements: Sequence[str], python: str, folder: Path) -> list[Path]:
    """Put the wheels of requirements, and of all they lead to on that Python, into a new folder.

    Each project's version is chosen by pip from all requirements on it that are known by then.
    """
    command = _pip("download", "--quiet", "--no-deps", "--dest", str(folder), *_for_python(python))
    for _ in range(ROUNDS):
        try:
            found = closure.follow(requirements, python, folder)
            if not found.missing:
                for wheel in found.wheels:
                    archives.check_wheel(wheel)
                return found.wheels
        except ValueError as error:
            raise LabError(f"the package index has a damaged wheel: {error}") from error
        for wheel in found.misfits:
            wheel.unlink()
        try:
            process.run([*command, *found.missing], timeout=PIP_SECONDS)
        except process.CommandFailed as error:
            raise _explain(requirements[0], python, error) from error
    raise LabError(f"pip found no wheels that together meet {', '.join(requirements)} on Python {python}")


def digest(requirements: Sequence[str]) -> str:
    """A short digest of requirements, for the name of the folder that holds their wheels."""
    return hashlib.sha256(" ".join(requirements).encode()).hexdigest()[:8]


def tags(python: str) -> list[Tag]:
    """The tags of the wheels that run on a guest's Python, those that pip prefers first."""
    major, minor = map(int, python.split("."))
    return [
        *cpython_tags((major, minor), platforms=PLATFORMS),
        *compatible_tags((major, minor), platforms=PLATFORMS),
    ]


def _pip(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]


def _for_python(python: str) -> list[str]:
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    return ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms]


def _explain(requirement: str, python: str, error: process.CommandFailed) -> Exception:
    if _is_not_there(error):
        if "from versions: none" in error.output:
            return NotApplicable(f"{PROJECT} has no wheels for Python {python}")
        return NotApplicable(f"{requirement} has no wheel for Python {python}")
    return LabError(
        f"pip could not fetch {requirement} for Python {python}: {error.output.strip()}",
        hint="check that the package index can be reached; a local wheel needs no index: --build PATH",
    )


def _is_not_there(error: process.CommandFailed) -> bool:
    """Whether the index answered that it has no such release."""
    text = error.output
    unreachable = "Retrying" in text or "connection" in text.lower()
    return f"No matching distribution found for {PROJECT}" in text and not unreachable
