"""Builds: which boxlite is tested, and the files that its tests need in a guest."""

import hashlib
import json
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from lab.base import process
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.record import BuildRecord

PROJECT = "boxlite"
# What a record says of a build that is a release.
INDEX = "PyPI"
# The oldest glibc that boxlite's wheels ask for; every guest has a newer one.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(41, 16, -1)] + ["manylinux2014_x86_64"]
# What runs the suite in the guest, beside boxlite.
RUNNER = ("pytest", "pytest-timeout", "pytest-reportlog")
PIP_SECONDS = 600.0
# A Python that every release has wheels for.
EVERY = "3.12"
SEE = "see the releases with: pip index versions boxlite"


@dataclass(frozen=True)
class Build:
    """The boxlite under test: a release on PyPI, or one local wheel."""

    name: str
    version: str
    wheel: Path | None = None

    def record(self, files: Iterable[Path] = ()) -> BuildRecord:
        return BuildRecord(
            name=self.name,
            version=self.version,
            source=str(self.wheel) if self.wheel else INDEX,
            files={file.name: sha256(file) for file in files},
        )


# Where it does not matter which: a plan that is only shown.
ANY = Build("newest", "newest")


def resolve(wanted: str | None) -> Build:
    """A build from what `--build` says: a version, the path of a wheel, or None for the newest release.

    Raises UsageError for what is neither, LabError where the newest release cannot be asked for.
    """
    if wanted is None:
        version = _newest()
        return Build(version, version)
    path = Path(wanted)
    if path.suffix == ".whl" or path.exists():
        return _local(path)
    try:
        version = str(Version(wanted))
    except InvalidVersion:
        raise UsageError(
            f"--build {wanted}: neither a version nor the path of a wheel",
            hint="for example --build 0.10.8, or --build dist/boxlite-0.10.8-cp313-….whl",
        ) from None
    return Build(version, version)


def resolve_all(wanted: Sequence[str]) -> list[Build]:
    """The builds of a command line, each once; without any, the newest release. Raises as `resolve` does."""
    return list({build.name: build for build in map(resolve, wanted)}.values()) or [resolve(None)]


def wheels(paths: Paths, build: Build, python: str, say: Callable[[str], None]) -> list[Path]:
    """Boxlite's wheel and the runner's for a guest's Python ("3.13"), from the cache or through pip.

    Raises NotApplicable where this build has no wheel for that Python, LabError where pip fails otherwise.
    """
    if build.wheel is not None:
        _check_tags(build.wheel, python)
        runner = _download(paths, list(RUNNER), python, f"runner-{_digest(RUNNER)}", say)
        return [build.wheel, *runner]
    requirement = f"{PROJECT}=={build.version}"
    names = [requirement, *RUNNER]
    return _download(paths, names, python, f"{PROJECT}-{build.version}-{_digest(names)}", say)


def check(paths: Paths, build: Build) -> None:
    """Look whether there is such a release, before a guest is booted for it; one with stored wheels is known.

    Raises UsageError where there is none, LabError where nobody could be asked.
    """
    if build.wheel is None and not any(paths.wheels.glob(f"{PROJECT}-{build.version}-*")):
        _asked(f"{PROJECT}=={build.version}")


def _newest() -> str:
    return _asked(PROJECT)


def _asked(requirement: str) -> str:
    """The release that pip resolves it to, for a Python that every release has wheels for."""
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


def _local(path: Path) -> Build:
    if not path.is_file():
        raise UsageError(f"--build {path}: no such file")
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise UsageError(f"--build {path}: {error}", hint="a wheel keeps its name") from error
    if name != PROJECT:
        raise UsageError(f"--build {path}: a wheel of {name}, not of {PROJECT}")
    if not zipfile.is_zipfile(path):
        raise UsageError(f"--build {path}: not a whole wheel: it cannot be read as a zip file")
    return Build(f"{version}@{sha256(path)[:8]}", str(version), path.resolve())


def _check_tags(wheel: Path, python: str) -> None:
    _, _, _, tags = parse_wheel_filename(wheel.name)
    if not tags & _tags(python):
        raise NotApplicable(f"{wheel.name} is not for Python {python}")


def _tags(python: str) -> set[Tag]:
    major, minor = map(int, python.split("."))
    return {
        *cpython_tags((major, minor), platforms=PLATFORMS),
        *compatible_tags((major, minor), platforms=PLATFORMS),
    }


def _download(
    paths: Paths, names: list[str], python: str, folder_name: str, say: Callable[[str], None]
) -> list[Path]:
    """The wheels of these requirements and all they need; a folder in the cache is whole or not there."""
    folder = paths.make(paths.wheels) / f"{folder_name}-cp{python.replace('.', '')}"
    with FileLock(paths.wheels / f"{folder.name}.lock"):
        if not folder.is_dir():
            say(f"fetching {names[0]} for Python {python}")
            partial = folder.with_name(f".partial-{folder.name}")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                process.run(
                    _pip("download", "--quiet", "--dest", str(partial), *_for_python(python), *names),
                    timeout=PIP_SECONDS,
                )
            except process.CommandFailed as error:
                raise _explain(names[0], python, error) from error
            partial.rename(folder)
    return sorted(folder.glob("*.whl"))


def _pip(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]


def _for_python(python: str) -> list[str]:
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    return ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms]


def _explain(name: str, python: str, error: process.CommandFailed) -> Exception:
    if _is_not_there(error):
        if "from versions: none" in error.output:
            return NotApplicable(f"{PROJECT} has no wheels for Python {python}")
        last = error.output.strip().splitlines()[-1]
        return UsageError(f"{name} is not to be had for Python {python}: {last}", hint=SEE)
    return LabError(
        f"pip could not fetch {name} for Python {python}: {error.output.strip()}",
        hint="is the package index reachable? a local wheel needs none: --build PATH",
    )


def _is_not_there(error: process.CommandFailed) -> bool:
    """Whether the index was asked, and has none."""
    text = error.output
    unreachable = "Retrying" in text or "connection" in text.lower()
    return f"No matching distribution found for {PROJECT}" in text and not unreachable


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:8]


def pack(files: dict[str, Path], to: Path) -> None:
    """Put files and folders into one plain tar under the names given; wheels are compressed already."""
    with tarfile.open(to, "w") as tar:
        for name, path in files.items():
            tar.add(path, arcname=name, filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "__pycache__" in entry.name:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
