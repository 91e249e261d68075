"""The plan for a report: which guest is run for its host, with which settings and build, and what is asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from packaging.version import InvalidVersion, Version

from lab import builds
from lab.base.errors import LabError
from lab.builds import Build
from lab.catalog import AND, Catalog, Guest, Variant
from lab.plan import Cell
from lab.repro import guests, questions
from lab.repro.guests import Nearest
from lab.repro.judging import Judged
from lab.repro.questions import Check, Question
from lab.repro.report import AuditLine, Boxlite, Kernel, Place, Report, System, Words
from lab.run.request import Group, Option

PROBE = "ask the reporter for the output of the script that lab probe prints"


@dataclass(frozen=True)
class Plan:
    """What is run for a report. Nothing is run if `why_not` says why.

    `guest` is run: the report's host, or the guest that comes nearest to it among those that can be run here.
    That one is `nearest`, whether it is run or not. `stated` are the settings that the report states. `steps`
    say in words what is done, and what is left out.
    """

    report: Report
    judged: Judged
    guest: Guest | None
    nearest: Nearest | None
    build: Build | None
    questions: tuple[Question, ...]
    checks: tuple[Check, ...]
    stated: Variant | None
    steps: tuple[str, ...]
    why_not: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def variant(self) -> Variant | None:
        """The variant of the first question."""
        return next((each.variant for each in self.questions if each.variant), None)

    @property
    def is_host(self) -> bool:
        """Whether the guest that is run is the report's host, and not the nearest one."""
        return self.guest is not None and (self.nearest is None or self.nearest.guest != self.guest)

    @property
    def hint(self) -> str:
        """Which guest could be run instead of the one that could not; empty if there is none."""
        if self.nearest is None or self.nearest.guest == self.guest:
            return ""
        build = "" if self.build else " --build BUILD"
        return f"{self.nearest.guest.name} comes nearest: {self.nearest.why}; --nearest{build} runs it"

    @property
    def variants(self) -> list[Variant]:
        """Every variant that is run, each once, the questions' first."""
        asked: list[Question | Check] = [*self.questions, *self.checks]
        return list({each.variant.name: each.variant for each in asked if each.variant}.values())

    @property
    def made_variants(self) -> list[Variant]:
        """The variants that were made for this report, and of which others are combined; none has a file."""
        alone = [each for each in self.variants if AND not in each.name and questions.is_made(each)]
        found = {each.name: each for each in alone}
        if self.stated:
            found.setdefault(self.stated.name, self.stated)
        return list(found.values())

    def cells(self, again: str) -> list[Cell]:
        """Return the cells to run; `again` is the command that runs them again. Remedies are for questions."""
        if self.why_not or self.guest is None or self.build is None:
            return []
        asked = {each.variant.name for each in self.questions if each.variant}
        return [
            Cell(
                self.guest,
                each,
                self.build,
                trials=each.name in asked,
                again=again if questions.is_made(each) else "",
            )
            for each in self.variants
        ]


@dataclass(frozen=True)
class Wishes:
    """What the user of the lab asks for: the nearest guest, a guest or a build by name."""

    nearest: Annotated[
        bool,
        Option(
            Group.WHAT,
            "--nearest",
            "If the report's host is no guest that can be run here, run the guest that comes nearest to it.",
        ),
    ] = False
    guest: Annotated[
        str | None,
        Option(
            Group.WHAT,
            "--guest",
            "Run this guest. Default: the one of the distribution and release that the report names.",
            "GUEST",
        ),
    ] = None
    build: Annotated[
        str | None,
        Option(
            Group.WHAT,
            "--build",
            f"Test this {builds.forms()}. Default: the version that the report names, or else the newest "
            "release.",
            "BUILD",
        ),
    ] = None


@dataclass(frozen=True)
class Host:
    """What this host can do. `why_no_image` says why a guest's image cannot be had, None if it can.

    `releases` asks the package index; None: nobody is asked, and the plan leaves the build open.
    """

    is_stored: Callable[[Guest], bool]
    why_no_image: Callable[[Guest], str | None]
    releases: Callable[[], Sequence[Version]] | None


def plan(report: Report, judged: Judged, catalog: Catalog, host: Host, wishes: Wishes = Wishes()) -> Plan:
    """Plan what is run for a report. Raises UsageError if a wish names a guest or build that nobody has."""
    system = guests.host_of(report)
    suspected = questions.suspected(judged)
    guest, nearest, why_not = _choose_guest(report, suspected, catalog, host, wishes)
    build, why_no_build = _choose_build(report, host, wishes.build)
    # A plan that cannot be run is shown all the same: what would be done on the guest that comes nearest.
    shown = guest or (nearest.guest if nearest else None)
    stated, steps = questions.stated_by(report, catalog, shown)
    asked, more = questions.ask(suspected, stated, catalog, shown)
    checks = questions.checks(report, asked, shown)
    own = [*_of_guest(system, guest, nearest), *_left_out(report, guest)]
    of_build = [] if why_no_build else _of_build(report, build, wishes.build)
    steps = [*own, *of_build, *steps, *more]
    steps += [each.step for each in checks]
    reasons = [*why_not, *why_no_build]
    if not reasons and not any(each.variant for each in asked):
        reasons += [each.why_not for each in asked]
    return Plan(
        report=report,
        judged=judged,
        guest=guest,
        nearest=nearest,
        build=build,
        questions=asked,
        checks=checks,
        stated=stated,
        steps=tuple(steps),
        why_not=tuple(reasons),
        missing=_missing(report),
    )


# -- the guest


def _choose_guest(
    report: Report, suspected: Sequence[Question], catalog: Catalog, host: Host, wishes: Wishes
) -> tuple[Guest | None, Nearest | None, list[str]]:
    """The guest to run, the nearest one if that is not the report's host, and why none is run."""
    system = guests.host_of(report)
    own = guests.exact(catalog, system) if system else None
    if wishes.guest is not None:
        named = catalog.guest(wishes.guest)
        return named, None if named == own else Nearest(named, "it was asked for"), []
    # If there is no variant for a cause, any guest is as near.
    needed = [found[0] for each in suspected if (found := questions.making(catalog, each.cause, None))]
    near = guests.nearest(catalog, system, needed, host.is_stored)
    if near is not None and near.guest == own:
        near = None
    if own is not None and not (wishes.nearest and near is not None and host.why_no_image(own)):
        return own, near, []
    if wishes.nearest and near is not None:
        return near.guest, near, []
    return None, near, [_why_no_guest(system, catalog)]


def _why_no_guest(system: System | None, catalog: Catalog) -> str:
    if system is None:
        return f"the report names no host; {PROBE}"
    if system.inferred:
        return f"the report names no host, only its words tell of {named(system)}; {PROBE}"
    if system.version is None and any(
        guests.distribution(each) == system.id for each in catalog.guests.values()
    ):
        return f"the report names no release of {system.name}; {PROBE}"
    return f"the lab has no guest for {named(system)}, which another distribution does not replace"


def named(system: System) -> str:
    """Return a distribution as the report names it, with what the report leaves open."""
    version = f" {system.version}" if system.version and system.version not in system.name else ""
    return f"{system.name}{version}{' or a derivative' if system.or_derivative else ''}"


def _of_guest(system: System | None, guest: Guest | None, nearest: Nearest | None) -> list[str]:
    if guest is None:
        return []
    if system is None or system.inferred:
        told = f", only its words tell of {named(system)}" if system else ""
        why = nearest.why if nearest else "it was asked for"
        return [f"guest: {guest.name}, because {why}; the report names no host{told}"]
    host = named(system)
    if nearest is None or nearest.guest != guest:
        more = "; the report leaves open whether it is a derivative" if system.or_derivative else ""
        return [f"guest: {guest.name}, for {host}{more}"]
    return [f"guest: {guest.name}, which is not {host}: {nearest.why}"]


def _left_out(report: Report, guest: Guest | None) -> list[str]:
    """What of the report's host the guest does not have."""
    if guest is None:
        return []
    kernels = [f"kernel: that of {guest.name}, not {each.release}" for each in report.of(Kernel)]
    inside = [each for each in report.of(System) if each.place is Place.CONTAINER]
    containers = [
        f"not set up: the container of {named(each)} that line {each.quote.number} tells of" for each in inside
    ]
    return [*kernels[:1], *containers[:1]]


# -- the build


def _choose_build(report: Report, host: Host, wanted: str | None) -> tuple[Build | None, list[str]]:
    """The build to test, or why there is none."""
    if wanted is not None:
        return builds.resolve(wanted), []
    if host.releases is None:
        return None, []
    stated = _versions(report)
    try:
        known = host.releases()
    except LabError as error:
        return None, [f"which releases of boxlite there are could not be found out: {error.args[0]}"]
    if not known:
        return None, ["the package index has no release of boxlite"]
    for version in stated:
        if version in known:
            return builds.resolve(str(version)), []
    if not stated:
        return builds.resolve(str(known[-1])), []
    version = stated[0]
    if version < known[0]:
        why = f"boxlite {version} is older than every release on the package index; the oldest is {known[0]}"
    else:
        why = f"boxlite {version} is no release on the package index; the newest is {known[-1]}"
    return None, [f"{why}; --build names another build"]


def _versions(report: Report) -> list[Version]:
    found = []
    for each in report.of(Boxlite):
        try:
            found.append(Version(each.version or ""))
        except InvalidVersion:
            continue
    return list(dict.fromkeys(found))


def _of_build(report: Report, build: Build | None, wanted: str | None) -> list[str]:
    stated = [str(each) for each in _versions(report)]
    if build is None:
        if stated:
            return [f"build: boxlite {stated[0]}, as the report says, if the package index has it"]
        return ["build: the newest release on the package index; the report names no version"]
    if build.version in stated:
        return [f"build: boxlite {build.version}, as the report says"]
    if stated:
        return [f"build: boxlite {build.name}, as asked for; the report is about {', '.join(stated)}"]
    why = "as asked for" if wanted else "the newest release"
    return [f"build: boxlite {build.name}, {why}; the report names no version"]


# -- what is missing


def _missing(report: Report) -> tuple[str, ...]:
    """What a report does not say and a verdict needs."""
    system = guests.host_of(report)
    has_words = any(report.of(Words)) or any(report.of(AuditLine))
    is_named = system is not None and not system.inferred
    release = f"the release of {system.name}" if system and is_named else "the distribution and its release"
    wanted = {
        release: is_named and system is not None and system.version is not None,
        "an error message, or a line of the kernel's audit log": has_words,
        "the version of boxlite": bool(_versions(report)),
    }
    return tuple(what for what, is_there in wanted.items() if not is_there)
