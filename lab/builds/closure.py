"""Which wheels a guest's Python needs: requirements followed from wheel to wheel, with the guest's markers.

pip resolves for another Python, but judges environment markers by its own, whatever `--python-version` says: on
a newer host it leaves out what only the guest's older Python needs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name, parse_wheel_filename

from lab.builds import archives

# Bytes. A wheel may hold a bomb; METADATA holds at most a long README.
METADATA_BYTES = 4 << 20


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
            names = [name for name in archive.namelist() if _is_metadata(name)]
            if len(names) != 1:
                raise archives.Damaged("it holds no METADATA")
            with archive.open(names[0]) as file:
                text = file.read(METADATA_BYTES)
    except archives.Damaged as error:
        raise ValueError(f"not a complete wheel: {error}") from error
    try:
        # Only what is read here is checked: old wheels have fields that are no longer valid.
        metadata = Metadata.from_email(text, validate=False)
        _ = metadata.requires_dist, metadata.requires_python
    except ValueError as error:
        raise ValueError(f"its METADATA is not valid: {error}") from error
    for each in metadata.requires_dist or []:
        # pip would build what is there, on this host, whatever `--only-binary` says.
        if each.url:
            raise ValueError(f"it requires {each.name} from {each.url}, and not from a package index")
    return metadata


def _is_metadata(name: str) -> bool:
    folder, _, rest = name.partition("/")
    return folder.endswith(".dist-info") and rest == "METADATA"
