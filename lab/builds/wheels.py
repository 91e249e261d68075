"""Releases on the package index, and the wheels that a guest's Python needs, kept in the cache.

uv resolves, because it judges environment markers for a guest's Python and platform; pip goes by its own for
them. pip fetches exactly those files, because uv has no command that gives wheels. pip's configuration of
this host says to both where the index is.
"""

import ast
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from lab.base import archives, process, scratch
from lab.base.activity import Progress, Task
from lab.base.architecture import X86_64
from lab.base.data import parse_json
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.files import hash_file, make_folder, put_in_place
from lab.base.locks import hold_lock
from lab.base.paths import ANOTHER_HOME, Paths

PROJECT = "boxlite"
# A Python that every release has a wheel for: 0.9.7 has none for 3.13, 0.10.6 none for 3.12.
EVERY = "3.11"
# The newest glibc 2.x whose wheels are taken. lab/builds/elf.py compares what is in them with the guest's own.
NEWEST_GLIBC = 40
# The limit of each call of uv or pip.
SECONDS = 600.0
# Longer than whoever fills a folder of the cache can take: two commands that build a checkout take 8 h.
WAIT_SECONDS = 9 * 3600.0
# The newest release, and the newest before that one.
NEWEST, PREVIOUS = "newest", "previous"
# 0.10.x, and 0.10.* as packaging tools write it.
SERIES = re.compile(r"v?(\d+(?:\.\d+)*)\.[xX*]", re.ASCII)
NAME_ONE = "name a stored release with --build VERSION, or a wheel, or check the network"
# Bytes. A wheel may hold a bomb; METADATA holds at most a long README.
METADATA_BYTES = 4 << 20
# What uv prints where no wheel of boxlite fits.
NO_WHEEL = re.compile(rf"\b{PROJECT}==[^\s=]+ has no (?:usable )?wheels|no version of {PROJECT}==")
# Options of pip about package indexes, and the variables by which uv takes the same.
OF_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_OFFLINE",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
# Beside the files of a folder: their digests when they were fetched, as `sha256sum` writes them.
SUMS = "SHA256SUMS"


def get_wheel_store(paths: Paths) -> Path:
    """The folder of the cache that holds what was fetched for builds."""
    return paths.cache / "wheels"


def fetch_once(folder: Path, doing: str, fill: Callable[[Path], None], task: Task) -> Path:
    """A folder of the cache that `fill` has filled with files, now or before; what fails leaves none.

    One with other files than `fill` left is filled again. `doing` says what filling it is: "fetching boxlite".
    `task` may be ended while another lab or thread does that. Raises what `fill` raises.
    """
    make_folder(folder.parent, ANOTHER_HOME)
    # Whoever removes what dead labs left half-made goes by both names.
    lock, partial = folder.with_name(f"{folder.name}.lock"), folder.with_name(f".partial-{folder.name}")
    with hold_lock(lock, WAIT_SECONDS, f"another lab that is {doing}", task):
        sums = folder / SUMS
        if not (sums.is_file() and sums.read_text(errors="replace") == _sums(folder)):
            task.show(Progress(doing))
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
    return "".join(f"{hash_file(file)}  {file.name}\n" for file in files)


# --- which releases there are -------------------------------------------------------------------------


@cache
def read_versions(python: str = EVERY, arch: str = X86_64.name) -> tuple[Version, ...]:
    """Every version with a wheel for a Python, oldest first. The package index is asked once for each.

    Raises LabError if pip cannot tell.
    """
    words = ["index", "versions", PROJECT, "--json", "--pre", *_platforms(python, arch)]
    try:
        printed = process.run_command(_pip(*words), timeout=SECONDS).splitlines()
    except process.CommandFailed as error:
        raise LabError(
            f"could not list the releases of {PROJECT}: {error.output.strip()}", hint=NAME_ONE
        ) from error
    # Warnings are among the lines.
    answer = next(line for line in printed if line.startswith("{"))
    return tuple(sorted(map(Version, parse_json(answer)["versions"])))


def list_releases(python: str = EVERY, arch: str = X86_64.name) -> list[Version]:
    """The releases on the package index with a wheel for a Python, without pre-releases, oldest first.

    By default these are all: cells of a release that has none for a guest's own Python are not applicable.
    Raises LabError if pip cannot tell which releases there are.
    """
    return [version for version in read_versions(python, arch) if not version.is_prerelease]


def check_version(version: str) -> None:
    """Raise UsageError if the package index has no such version, LabError if pip cannot tell."""
    if Version(version) not in read_versions():
        available = ", ".join(map(str, read_versions()))
        raise UsageError(f"there is no release {version} of {PROJECT}", hint=f"there are {available}")


def list_stored_releases(paths: Paths) -> list[Version]:
    """The releases that have a wheel in the cache, without pre-releases, oldest first."""
    files = get_wheel_store(paths).glob(f"{PROJECT}-*/{PROJECT}-*.whl")
    versions = sorted({parse_wheel_filename(file.name)[1] for file in files})
    return [version for version in versions if not version.is_prerelease]


def is_word(text: str) -> bool:
    """Whether a text stands for a release that has to be looked up."""
    return text in (NEWEST, PREVIOUS) or SERIES.fullmatch(text) is not None


def choose_release(word: str | None, released: Sequence[Version], where: str) -> str:
    """The version that a word stands for, among releases, oldest first; None stands for the newest.

    `where` says where the releases are from. Raises UsageError if the word stands for none of them.
    """
    fitting, problem = list(released), f"{where} has no release of {PROJECT}"
    if word == PREVIOUS:
        fitting, problem = fitting[:-1], f"{where} has no release before the newest"
    elif word and (series := SERIES.fullmatch(word)):
        fitting = list(SpecifierSet(f"=={series[1]}.*").filter(released))
        problem = f"{where} has no release of the series {series[1]}"
    if not fitting:
        available = ", ".join(map(str, released))
        hint = f"there are {available}" if available else "name a wheel with --build FILE.whl"
        raise UsageError(f"--build {word}: {problem}" if word else problem, hint=hint)
    return str(fitting[-1])


# --- which wheels a Python needs ----------------------------------------------------------------------


def read_requirements(wheel: Path) -> tuple[list[str], SpecifierSet]:
    """What a wheel requires, with environment markers, and the Pythons that it is for.

    Raises ValueError or DamagedArchive if nobody can read that, or if it requires what no package index has.
    """
    from packaging.metadata import Metadata  # It takes long, and few commands read a wheel.

    distribution = "-".join(wheel.name.split("-")[:2])
    text = archives.read_member(wheel, f"{distribution}.dist-info/METADATA", METADATA_BYTES)
    # Only what is read here is checked: old wheels have fields that are no longer valid.
    metadata = Metadata.from_email(text, validate=False)
    required = metadata.requires_dist or []
    for requirement in required:
        # What is there would be built on this host, or is no package that anybody published.
        if requirement.url:
            raise ValueError(
                f"it requires {requirement.name} from {requirement.url}, and not from a package index"
            )
    return list(map(str, required)), metadata.requires_python or SpecifierSet()


def platforms(arch: str) -> list[str]:
    """The platforms whose wheels run on this architecture, those that pip prefers first."""
    return [f"manylinux_2_{minor}_{arch}" for minor in range(NEWEST_GLIBC, 16, -1)] + [f"manylinux2014_{arch}"]


def list_tags(python: str, arch: str) -> list[Tag]:
    """The tags of the wheels that run on a guest's Python, those that pip prefers first."""
    major, minor = map(int, python.split("."))
    return [
        *cpython_tags((major, minor), platforms=platforms(arch)),
        *compatible_tags((major, minor), platforms=platforms(arch)),
    ]


def download_wheels(
    paths: Paths, required: Sequence[str], python: str, arch: str, task: Task
) -> dict[str, Path]:
    """The wheels of these requirements, with all they depend on, by their names, for a Python such as "3.13".

    They are kept in a folder of the cache. `task` may be ended while another lab or thread fetches them.
    Raises NotApplicable if boxlite is required and has no wheel for that Python, LabError if uv or pip fails
    otherwise.
    """

    def fill(folder: Path) -> None:
        with scratch.make_temporary_folder() as workspace:
            names, pins = workspace / "requirements.in", workspace / "requirements.txt"
            names.write_text("".join(f"{requirement}\n" for requirement in required))
            try:
                process.run_command(_uv(names, pins, python, arch), timeout=SECONDS, env=read_index_settings())
                words = ["download", "--quiet", "--no-deps", "--require-hashes", *_platforms(python, arch)]
                process.run_command(_pip(*words, f"--dest={folder}", f"--requirement={pins}"), timeout=SECONDS)
            except process.CommandFailed as error:
                if NO_WHEEL.search(" ".join(error.output.split())):
                    raise NotApplicable(f"{required[0]} has no wheel for Python {python} on {arch}") from error
                raise LabError(
                    f"{required[0]} could not be fetched for Python {python}: {error.output.strip()}",
                    hint="check that this host reaches the package index, or name a local wheel: --build PATH",
                ) from error

    digest = hashlib.sha256(" ".join(required).encode()).hexdigest()[:8]
    # A release is found by this name.
    name = f"{required[0].replace('==', '-')}-{digest}-cp{python.replace('.', '')}-{arch}"
    folder = fetch_once(
        get_wheel_store(paths) / name, f"fetching {required[0]} for Python {python}", fill, task
    )
    return {wheel.name: wheel for wheel in sorted(folder.glob("*.whl"))}


def _uv(required: Path, pins: Path, python: str, arch: str) -> list[str]:
    """The command that writes which versions meet requirements on a Python, with the digests of their files."""
    return [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "--no-cache"),
        *("--only-binary=:all:", "--no-python-downloads", f"--python={sys.executable}"),
        f"--python-platform={arch}-manylinux_2_{NEWEST_GLIBC}",
        f"--python-version={python}",
        *("--index-strategy=unsafe-best-match", "--system-certs"),
        *("--generate-hashes", "--no-header", "--no-annotate", f"--output-file={pins}", str(required)),
    ]


def _pip(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]


def _platforms(python: str, arch: str) -> list[str]:
    words = [f"--platform={platform}" for platform in platforms(arch)]
    return ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *words]


def read_index_settings() -> dict[str, str]:
    """Uv's variables for the package index that pip is configured for; those that are set already stay."""
    printed = process.run_command(_pip("config", "list"), timeout=SECONDS).splitlines()
    options = dict(line.split("=", 1) for line in printed if "=" in line)
    variables: dict[str, str] = {}
    # As pip has it, the environment counts most.
    for section in ("global", "download", ":env:"):
        for option, variable in OF_PIP.items():
            if (value := options.get(f"{section}.{option}")) and variable not in os.environ:
                variables[variable] = " ".join(str(ast.literal_eval(value)).split())
    return variables
