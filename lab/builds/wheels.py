"""Releases on the package index, and the wheels that a guest's Python needs, through pip.

pip resolves for another Python, but judges environment markers by its own, whatever `--python-version` says: on
a newer host it leaves out what only the guest's older Python needs. So requirements are followed here.
"""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import NormalizedName, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from lab.base import process
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.files import put_in_place, sha256
from lab.base.locks import locked
from lab.base.paths import Paths
from lab.builds import archives

PROJECT = "boxlite"
# A Python that every release has a wheel for: 0.9.7 has none for 3.13, 0.10.6 none for 3.12.
EVERY = "3.11"
# The newest glibc 2.x whose wheels are taken. lab/builds/elf.py compares what is in them with the guest's own.
NEWEST_GLIBC = 41
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(NEWEST_GLIBC, 16, -1)] + ["manylinux2014_x86_64"]
# The limit of each call of pip.
SECONDS = 600.0
# pip is asked once for each link in a chain of requirements; those of a test runner have four.
ROUNDS = 20
# The newest release before the newest one.
PREVIOUS = "previous"
# 0.10.x, and 0.10.* as packaging tools write it.
SERIES = re.compile(r"v?(\d+(?:\.\d+)*)\.[xX*]", re.ASCII)
SEE = "see the releases with: pip index versions boxlite"
NAME_ONE = "name one that is stored with --build VERSION, or a wheel, or check the network"
# Bytes. A wheel may hold a bomb; METADATA holds at most a long README.
METADATA_BYTES = 4 << 20
# Beside the files of a folder: their digests when they were fetched, as `sha256sum` writes them.
SUMS = "SHA256SUMS"


def store(paths: Paths) -> Path:
    """The folder of the cache that holds what was fetched for builds."""
    return paths.cache / "wheels"


def fetch_once(
    folder: Path,
    what: str,
    fill: Callable[[Path], None],
    *,
    seconds: float,
    say: Callable[[str], None],
    verbs: tuple[str, str] = ("fetching", "fetched"),
) -> Path:
    """A folder of the cache that `fill` has filled with files, now or before; what fails leaves none.

    One with other files than `fill` left is filled again. `what` says what is in it. While another lab or
    thread fills it, `say` may raise to end the wait. Raises LabError after `seconds`, and what `fill` raises.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Whoever removes what dead labs left half-made goes by both names.
    lock, partial = folder.with_name(f"{folder.name}.lock"), folder.with_name(f".partial-{folder.name}")
    with locked(lock, seconds, f"{what} to be {verbs[1]}", say):
        sums = folder / SUMS
        if not (sums.is_file() and sums.read_text(errors="replace") == _sums(folder)):
            say(f"{verbs[0]} {what}")
            for old in (folder, partial):
                shutil.rmtree(old, ignore_errors=True)
            partial.mkdir()
            try:
                fill(partial)
                (partial / SUMS).write_text(_sums(partial))
                put_in_place(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _sums(folder: Path) -> str:
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    return "".join(f"{sha256(file)}  {file.name}\n" for file in files)


def releases() -> list[Version]:
    """The releases, without pre-releases, oldest first. Raises LabError if pip cannot tell."""
    return [version for version in _versions() if not version.is_prerelease]


def newest() -> str:
    """The version of the newest release. Raises LabError if there is none, or if pip cannot tell."""
    if not (known := releases()):
        raise LabError(f"the package index has no release of {PROJECT}", hint=NAME_ONE)
    return str(known[-1])


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
    if Version(version) not in _versions():
        listed = ", ".join(map(str, _versions()))
        raise UsageError(f"there is no release {version} of {PROJECT}", hint=f"there are {listed}")


def stored(paths: Paths) -> list[Version]:
    """The releases that have a wheel in the cache, oldest first. Raises UsageError if there is none."""
    files = store(paths).glob(f"{PROJECT}-*/{PROJECT}-*.whl")
    versions = sorted({parse_wheel_filename(file.name)[1] for file in files})
    if not (released := [version for version in versions if not version.is_prerelease]):
        raise UsageError(
            f"no release of {PROJECT} is stored: {store(paths)} has no wheel of one",
            hint="name a wheel with --build FILE.whl, or have a release fetched by a run without --offline",
        )
    return released


def is_word(text: str) -> bool:
    """Whether a text stands for a release that has to be looked up."""
    return text == PREVIOUS or SERIES.fullmatch(text) is not None


def choose_release(word: str, known: Sequence[Version], where: str) -> str:
    """The version that a word stands for, among known releases, oldest first; `where` says where they are from.

    Raises UsageError if it stands for none of them.
    """
    if series := SERIES.fullmatch(word):
        fitting = list(SpecifierSet(f"=={series[1]}.*").filter(known))
        problem = f"{where} has no release of the series {series[1]}"
    else:
        fitting, problem = list(known[:-1]), f"{where} has no release before the newest"
    if not fitting:
        hint = f"there are {', '.join(map(str, known))}" if known else "name a wheel instead"
        raise UsageError(f"--build {word}: {problem}", hint=hint)
    return str(fitting[-1])


@cache
def _versions() -> tuple[Version, ...]:
    """Every version, oldest first. The package index is asked once."""
    words = ["index", "versions", PROJECT, "--json", "--pre", *_platforms(EVERY)]
    try:
        printed = process.run(_pip(*words), timeout=SECONDS).splitlines()
    except process.CommandFailed as error:
        raise LabError(
            f"could not ask which releases of {PROJECT} there are: {error.output.strip()}", hint=NAME_ONE
        ) from error
    # Warnings are among the lines.
    answer = next(line for line in printed if line.startswith("{"))
    return tuple(sorted(map(Version, json.loads(answer)["versions"])))


def environment(python: str) -> dict[str, str]:
    """The environment markers of a guest with a Python such as "3.10".

    The patch release is 0, as pip takes it from `--python-version`: wheels that only early patch releases need
    are fetched too. The fields about the kernel are empty: a folder of wheels serves guests of any kernel.
    """
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


def needs(wheel: Path, python: str, extras: Iterable[str] = ()) -> list[Requirement]:
    """What a wheel, with these extras, requires on a guest's Python.

    Raises ValueError if the wheel is damaged.
    """
    markers = environment(python)
    chosen = ["", *extras]
    return [
        requirement
        for requirement in _metadata(wheel).requires_dist or []
        if _applies(requirement, markers, chosen)
    ]


def allows(wheel: Path, python: str) -> bool:
    """Whether a wheel's own `Requires-Python` allows a guest's Python.

    Raises ValueError if the wheel is damaged.
    """
    allowed = _metadata(wheel).requires_python
    return allowed is None or allowed.contains(environment(python)["python_full_version"])


@dataclass(frozen=True)
class Closure:
    """How far the wheels of a folder meet requirements.

    `wheels` are those that are needed. `missing` holds, for pip, all requirements on each project for which the
    folder has no wheel that meets them; `misfits` are the wheels of such projects.
    """

    wheels: list[Path]
    missing: list[str]
    misfits: list[Path]


def follow(requirements: Sequence[str], python: str, folder: Path) -> Closure:
    """What the wheels of a folder lack of requirements, and of all that those lead to, on a guest's Python.

    Raises ValueError if a wheel is damaged.
    """
    wheels = {parse_wheel_filename(path.name)[0]: path for path in folder.glob("*.whl")}
    wanted = _wanted([Requirement(text) for text in requirements], wheels, python)
    unmet = {name for name, asked in wanted.items() if not _meets(wheels.get(name), asked)}
    return Closure(
        wheels=sorted(wheels[name] for name in wanted.keys() - unmet),
        missing=sorted({_plain(each) for name in unmet for each in wanted[name]}),
        misfits=[wheels[name] for name in unmet & wheels.keys()],
    )


def _wanted(
    roots: Sequence[Requirement], wheels: Mapping[NormalizedName, Path], python: str
) -> dict[NormalizedName, list[Requirement]]:
    """The requirements on each project, as far as wheels that are there tell."""
    wanted: dict[NormalizedName, list[Requirement]] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    markers = environment(python)
    pending = [each for each in roots if _applies(each, markers, [""])]
    while pending:
        requirement = pending.pop(0)
        name = canonicalize_name(requirement.name)
        wanted.setdefault(name, []).append(requirement)
        step = (name, frozenset(requirement.extras))
        if name in wheels and step not in seen:
            seen.add(step)
            try:
                pending.extend(needs(wheels[name], python, requirement.extras))
            except ValueError as error:
                raise ValueError(f"{wheels[name].name}: {error}") from error
    return wanted


def _applies(requirement: Requirement, markers: Mapping[str, str], extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**markers, "extra": extra}) for extra in extras)


def _meets(wheel: Path | None, requirements: Iterable[Requirement]) -> bool:
    if wheel is None:
        return False
    version = parse_wheel_filename(wheel.name)[1]
    # Whether a pre-release is wanted was decided when it was fetched.
    return all(each.specifier.contains(version, prereleases=True) for each in requirements)


def _plain(requirement: Requirement) -> str:
    """A requirement without marker and extras, which were judged here, as pip takes it."""
    return f"{requirement.name}{requirement.specifier}"


def _metadata(wheel: Path) -> Metadata:
    """What a wheel says of itself. Raises ValueError if it does not, or if nobody can read it."""
    try:
        with archives.open_zip(wheel) as archive:
            names = [name for name in archive.namelist() if re.fullmatch(r"[^/]*\.dist-info/METADATA", name)]
            if len(names) != 1:
                raise archives.Damaged("it holds no METADATA")
            with archive.open(names[0]) as file:
                text = file.read(METADATA_BYTES)
    except archives.Damaged as error:
        raise ValueError(f"not a complete wheel: {error}") from error
    try:
        # Only what is read here is checked: old wheels have fields that are no longer valid.
        metadata = Metadata.from_email(text, validate=False)
        requirements = metadata.requires_dist or []
        _ = metadata.requires_python
    except ValueError as error:
        raise ValueError(f"its METADATA is not valid: {error}") from error
    for requirement in requirements:
        # pip would build what is there, on this host, whatever `--only-binary` says.
        if requirement.url:
            raise ValueError(
                f"it requires {requirement.name} from {requirement.url}, and not from a package index"
            )
    return metadata


def download(
    paths: Paths, requirements: Sequence[str], python: str, folder_name: str, say: Callable[[str], None]
) -> list[Path]:
    """The wheels of these requirements, with all they depend on, for a Python such as "3.13".

    They are kept in a folder of the cache. While another lab or thread fetches them, `say` may raise to end the
    wait. Raises NotApplicable if the first requirement has no wheel for that Python, LabError if pip fails
    otherwise.
    """
    folder = paths.make(store(paths)) / f"{folder_name}-cp{python.replace('.', '')}"
    fetch_once(
        folder,
        f"{requirements[0]} for Python {python}",
        lambda partial: _fetch(requirements, python, partial),
        seconds=SECONDS + 60,  # Longer than another lab can take.
        say=say,
    )
    return sorted(folder.glob("*.whl"))


def _fetch(requirements: Sequence[str], python: str, folder: Path) -> None:
    """Put the wheels of requirements, and of all they lead to on that Python, into a new folder.

    Each project's version is chosen by pip from all requirements on it that are known by then.
    """
    command = _pip("download", "--quiet", "--no-deps", f"--dest={folder}", *_platforms(python))
    for _ in range(ROUNDS):
        try:
            found = follow(requirements, python, folder)
            if not found.missing:
                for wheel in found.wheels:
                    archives.check_wheel(wheel)
                # What only a version that was given up had needed.
                for wheel in set(folder.glob("*.whl")).difference(found.wheels):
                    wheel.unlink()
                return
        except ValueError as error:
            raise LabError(f"the package index has a damaged wheel: {error}") from error
        for wheel in found.misfits:
            wheel.unlink()
        try:
            process.run([*command, *found.missing], timeout=SECONDS)
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


def _platforms(python: str) -> list[str]:
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
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
