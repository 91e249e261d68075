"""Builds: which boxlite is tested. Each kind of build is a module of `lab.builds.kinds` and is found there."""

import importlib
import pkgutil
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress

from packaging.version import InvalidVersion, Version

from lab.base.errors import UsageError, make_unknown_name_error
from lab.base.files import clean_text
from lab.base.paths import Paths
from lab.builds import kinds, wheels
from lab.builds._base import (
    FILES,
    FOLDER,
    HIGHEST_SEED,
    ROOTFS,
    UNDER_STRESS,
    WHOLE_SUITE,
    Build,
    DeployStep,
    SuiteOptions,
    shuffle_tests,
)
from lab.builds.kinds.wheel import INDEX, SUITE_WORD, Wheel
from lab.builds.wheels import list_releases
from lab.catalog import load_suites
from lab.record import BuildRecord

# For a plan that is only shown: the newest release, without asking which that is.
ANY: Build = Wheel.release(wheels.NEWEST)


def known_kinds() -> dict[str, type[Build]]:
    """Every kind of build, by its prefix in `--build KIND:...`: the one class of each module."""
    by_prefix = {}
    for info in pkgutil.iter_modules(kinds.__path__):
        module = importlib.import_module(f"{kinds.__name__}.{info.name}")
        [kind] = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Build) and value.__module__ == module.__name__
        ]
        by_prefix[info.name.replace("_", "-")] = kind
    return by_prefix


def describe_forms() -> str:
    """What `--build` takes, in a few words for each kind; the kind that needs no prefix comes first."""
    return ", or ".join(
        kind.form for kind in sorted(known_kinds().values(), key=lambda kind: kind is not Wheel)
    )


def _kind(text: str) -> tuple[type[Build], str]:
    """The kind of build that a text of `--build` names, and what is behind its prefix. Raises UsageError."""
    prefix, colon, place = text.partition(":")
    if not colon or text.partition(SUITE_WORD)[0].endswith(".whl"):
        return Wheel, text
    by_prefix = known_kinds()
    if prefix not in by_prefix:
        raise make_unknown_name_error("kind of build", prefix, by_prefix)
    return by_prefix[prefix], place


def resolve_build(text: str | None, *, only_shown: bool = False) -> Build:
    """The build that `--build` names: KIND:..., what `Wheel.parse` takes, or None for the newest release.

    `only_shown`: for a plan that is only shown, for which nothing is made. Raises UsageError for anything else,
    LabError if nobody can tell which releases there are.
    """
    if text is None:
        return ANY if only_shown else Wheel.release(wheels.choose_release(None, wheels.list_releases(), INDEX))
    kind, place = _kind(text)
    return kind.preview(place) if only_shown else kind.parse(place)


def resolve_builds(texts: Sequence[str], *, only_shown: bool = False) -> list[Build]:
    """The builds of a command line, each once; the newest release if it names none. Raises as
    `resolve_build`.
    """
    builds = [resolve_build(text, only_shown=only_shown) for text in texts] or [
        resolve_build(None, only_shown=only_shown)
    ]
    return list({build.name: build for build in builds}.values())


# What --suite takes for every suite that can be run against a build.
EVERY_SUITE = "all"


def choose_suites(build: Build, name: str | None) -> list[Build]:
    """The build with the suite that `--suite` names, or once with each of its suites; None: as it is.

    Raises UsageError if there is no such suite, or if it cannot be run against the build.
    """
    if name is None:
        return [build]
    if name == EVERY_SUITE:
        return [build, *(build.with_suite(other) for other in build.more_suites if other != build.suite.name)]
    names = [suite.name for suite in load_suites()]
    if name not in names:
        raise make_unknown_name_error("suite", name, [*names, EVERY_SUITE])
    return [build.with_suite(name)]


def find_stored_build(paths: Paths, text: str | None = None) -> Build | None:
    """The release in the cache that None, for the newest, or a word of `--build` stands for.

    None if no index has to be asked for what `text` names. Raises UsageError if the cache has no such release.
    """
    kind, word = _kind(text) if text is not None else (Wheel, None)
    word, _, suite = (word or wheels.NEWEST).partition(SUITE_WORD)
    if kind is not Wheel or not wheels.is_word(word):
        return None
    release = wheels.choose_release(
        word, wheels.list_stored_releases(paths), f"the cache {wheels.get_wheel_store(paths)}"
    )
    build = Wheel.release(release)
    return build.with_suite(suite) if suite else build


def find_previous_release(build: Build) -> Build:
    """The newest release that is older than a build.

    Raises UsageError if there is none, LabError if that could not be found out.
    """
    try:
        version = Version(build.version)
    except InvalidVersion:
        raise UsageError(
            f"the build {build.name} has no version that a release could be older than",
            hint="name the release to compare with",
        ) from None
    # 0.10.8+mine is newer than 0.10.8, and 0.11.0rc1 is older than 0.11.0.
    older = [release for release in wheels.list_releases() if release < version]
    if not older:
        raise UsageError(
            f"there is no release of {wheels.PROJECT} older than {version}",
            hint="see the releases with: pip index versions boxlite",
        )
    return Wheel.release(str(older[-1]))


# --- builds of a record -------------------------------------------------------------------------------


def format_argument(record: BuildRecord) -> str:
    """What `--build` takes to name the build of a record again."""
    text = record.version if record.source == INDEX else record.source
    return f"{text}{SUITE_WORD}{record.suite}" if record.suite in Wheel.more_suites else text


def format_build_options(records: Iterable[BuildRecord]) -> str:
    """The options that name those builds of a record which a record must not choose by itself."""
    words = []
    for text in map(format_argument, records):
        with suppress(UsageError):  # Of no kind, so that nothing is executed: `resolve_build` refuses it.
            kind, place = _kind(text)
            words += [] if kind.is_data(place) else [f"--build={clean_text(text)}"]
    return shlex.join(words)


def resolve_recorded_builds(
    records: Sequence[BuildRecord], arguments: Sequence[str] = (), again: str = "lab matrix --resume RUN"
) -> dict[str, Build]:
    """The builds of a run's record, by name, as they are now. `arguments` is what its user says with `--build`.

    A record may be anybody's, so of itself it names only what is data on this host. A build for which programs
    of this host are executed has to be named; `again` is the command to which the hint adds that.

    Raises UsageError for a build that has to be named, one whose content has changed since, and one that the
    run does not have.
    """
    resolved = {build.name: build for build in map(resolve_build, arguments)}
    names = [record.name for record in records]
    if other := next((build for name, build in resolved.items() if name not in names), None):
        raise UsageError(
            f"--build {other.source} is {other.name}, and the run has {', '.join(names)}",
            hint="name the build with which the run was started",
        )
    if words := format_build_options(record for record in records if record.name not in resolved):
        raise UsageError(
            f"the record names a build that runs programs of this host ({words}); a record may not decide that",
            hint=f"if you want to test that build, name it: {again} {words}",
        )
    for record in records:
        build = resolved.get(record.name) or resolve_build(format_argument(record))
        if build.name != record.name:
            raise UsageError(
                f"the build {record.source} changed since: it was {record.name} and is {build.name}",
                hint="start a new run, or bring back the build that it was started with",
            )
        resolved[record.name] = build
    return resolved
