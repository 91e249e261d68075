"""Asking the package index about releases, and downloading wheels from it, through pip."""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.version import Version

from lab.base import process
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.paths import Paths

PROJECT = "boxlite"
# The oldest glibc that boxlite's wheels ask for; every guest has a newer one.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(41, 16, -1)] + ["manylinux2014_x86_64"]
PIP_SECONDS = 600.0
# A Python that every release has wheels for.
EVERY = "3.12"
SEE = "see the releases with: pip index versions boxlite"


def store(paths: Paths) -> Path:
    """The folder of the cache that holds downloaded wheels."""
    return paths.cache / "wheels"


def newest() -> str:
    """The version of the newest release. Raises LabError if pip cannot tell."""
    return find_release(PROJECT)


def newest_before(version: str) -> str:
    """The version of the newest release that is older than a version.

    Raises UsageError if there is none, LabError if pip cannot tell.
    """
    this = Version(version)
    # 0.10.8+mine comes after 0.10.8, and no specifier may hold the local part.
    older = f"{PROJECT}{'<=' if this.local else '<'}{this.public}"
    try:
        return find_release(older)
    except UsageError as error:
        raise UsageError(f"there is no release of {PROJECT} older than {version}", hint=SEE) from error


def find_release(requirement: str) -> str:
    """The version that pip resolves a requirement to, for a Python that every release has wheels for.

    Raises UsageError if there is no such release, LabError if pip cannot tell.
    """
    with tempfile.TemporaryDirectory(prefix="boxlite-lab-") as folder:
        report = Path(folder) / "report.json"
        command = ["install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet"]
        target = ["--target", folder, "--report", str(report), requirement]
        try:
            process.run(_pip(*command, *_for_python(EVERY), *target), timeout=PIP_SECONDS)
        except process.CommandFailed as error:
            if _is_not_there(error):
                raise UsageError(
                    f"there is no release {requirement}: {error.output.strip()}", hint=SEE
                ) from error
            raise LabError(
                f"could not ask for the release {requirement}: {error.output.strip()}",
                hint="name one that is stored with --build VERSION, or a wheel, or check the network",
            ) from error
        [chosen] = json.loads(report.read_text())["install"]
        return str(chosen["metadata"]["version"])


def download(
    paths: Paths, requirements: Sequence[str], python: str, folder_name: str, say: Callable[[str], None]
) -> list[Path]:
    """The wheels of these requirements, with all they depend on, for a Python such as "3.13".

    They are kept in a folder of the cache, which is complete or does not exist.

    Raises NotApplicable if the first requirement has no wheel for that Python, LabError if pip fails otherwise.
    """
    folder = paths.make(store(paths)) / f"{folder_name}-cp{python.replace('.', '')}"
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            say(f"fetching {requirements[0]} for Python {python}")
            partial = folder.with_name(f".partial-{folder.name}")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                process.run(
                    _pip("download", "--quiet", "--dest", str(partial), *_for_python(python), *requirements),
                    timeout=PIP_SECONDS,
                )
            except process.CommandFailed as error:
                raise _explain(requirements[0], python, error) from error
            partial.rename(folder)
    return sorted(folder.glob("*.whl"))


def digest(requirements: Sequence[str]) -> str:
    """A short digest of requirements, for the name of the folder that holds their wheels."""
    return hashlib.sha256(" ".join(requirements).encode()).hexdigest()[:8]


def tags(python: str) -> set[Tag]:
    """The tags of the wheels that run on a guest's Python."""
    major, minor = map(int, python.split("."))
    return {
        *cpython_tags((major, minor), platforms=PLATFORMS),
        *compatible_tags((major, minor), platforms=PLATFORMS),
    }


def _pip(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]


def _for_python(python: str) -> list[str]:
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    return ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms]


def _explain(requirement: str, python: str, error: process.CommandFailed) -> Exception:
    if _is_not_there(error):
        if "from versions: none" in error.output:
            return NotApplicable(f"{PROJECT} has no wheels for Python {python}")
        last = error.output.strip().splitlines()[-1]
        return UsageError(f"{requirement} has no wheel for Python {python}: {last}", hint=SEE)
    return LabError(
        f"pip could not fetch {requirement} for Python {python}: {error.output.strip()}",
        hint="check that the package index can be reached; a local wheel needs no index: --build PATH",
    )


def _is_not_there(error: process.CommandFailed) -> bool:
    """Whether the index answered that it has no such release."""
    text = error.output
    unreachable = "Retrying" in text or "connection" in text.lower()
    return f"No matching distribution found for {PROJECT}" in text and not unreachable
