"""The plan for a report: which guest is run for its host, in which variants, and with which build."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.version import Version

from lab import builds
from lab.base.errors import LabError
from lab.builds import Build
from lab.catalog import AND, Catalog, DebianImage, Guest, Variant
from lab.plan import Cell
from lab.record import ExperimentPolicy, RunOptions
from lab.repro import systems, variants
from lab.repro.report import Judged, Kernel, Place, Report, System
from lab.repro.variants import TRAITS, Check, Question
from lab.run.request import Group, flag, option

PROBE = "ask the reporter for the output of the script that lab probe prints"
# The guest that most of the lab's results are from.
USUAL = "debian-13"
# What the families of `systems.toml` derive from in turn.
ORIGINS = {"ubuntu": "debian", "rhel": "fedora"}
# What speaks for a guest by how near its distribution is to the host's, the nearest first.
NEAR = (
    "it is another release of the same distribution",
    "the host's distribution derives from its own",
    "its distribution is of the same family",
    "most of the lab's results are from it",
)


@dataclass(frozen=True)
class Wishes:
    """What the user of the lab wants for a report: which guest and build are run, and what beside the suite."""

    nearest: bool = flag(
        "If the report's host is no guest that can be run here, run the guest that comes nearest to it.",
        group=Group.WHAT,
    )
    guest: str | None = option(
        "Run this guest. Default: the one of the distribution and release that the report names.", "GUEST"
    )
    build: str | None = option(
        f"Test this {builds.forms()}. Default: the version that the report names, or else the newest release.",
        "BUILD",
    )
    bisection: bool = flag(
        "Find out by running other releases which one first failed, and which one first passed again.",
        flags="--bisect",
        group=Group.HOW,
    )
    remedies: bool = option("Try remedies on the cells that fail. Default: yes.", default=True)

    @property
    def options(self) -> RunOptions:
        """The options of the run.

        Where no cause is proved, an experiment looks for the setting that turns the cell. A bisection looks for
        the release instead.
        """
        policy = ExperimentPolicy.NEVER if self.bisection else ExperimentPolicy.UNCLEAR
        return RunOptions(remedies=self.remedies, experiments=policy)

    @property
    def command(self) -> str:
        """The command that answers the report again. It holds no path of this machine."""
        words = ["lab", "repro", "REPORT"]
        words += ["--nearest"] if self.nearest else []
        words += ["--guest", self.guest] if self.guest else []
        words += ["--build", Path(self.build).name] if self.build else []
        words += ["--bisect"] if self.bisection else []
        words += [] if self.remedies else ["--no-remedies"]
        return shlex.join(words)


@dataclass(frozen=True)
class Host:
    """What this machine can run.

    `is_stored` tells whether a guest's image is here, and `has_image` builds or fetches it if it is not.
    `releases` asks the package index; None: nobody is asked, and the plan leaves the build open.
    """

    is_stored: Callable[[Guest], bool]
    has_image: Callable[[Guest], bool]
    releases: Callable[[], Sequence[Version]] | None


@dataclass(frozen=True)
class Plan:
    """What is run for a report. Nothing is run if `why_not` says why.

    `guest` is run: the report's host, or the `nearest` guest among those that can be run here, which is named
    with the reason `why_nearest` whether it is run or not. `stated` are the settings that the report states.
    `steps` say in words what is done, and what is left out. `again` is the command that makes the plan again.
    """

    report: Report
    judged: Judged
    guest: Guest | None
    nearest: Guest | None
    why_nearest: str
    build: Build | None
    questions: tuple[Question, ...]
    checks: tuple[Check, ...]
    stated: Variant | None
    steps: tuple[str, ...]
    why_not: tuple[str, ...]
    again: str

    @property
    def is_host(self) -> bool:
        """Whether the guest that is run is the report's host, and not the nearest one."""
        return self.guest is not None and self.guest != self.nearest

    @property
    def hint(self) -> str:
        """Which guest could be run instead of the one that could not; empty if there is none."""
        if self.nearest is None or self.nearest == self.guest:
            return ""
        build = "" if self.build else " --build BUILD"
        return f"{self.nearest.name} comes nearest: {self.why_nearest}; --nearest{build} runs it"

    @property
    def variants(self) -> dict[str, Variant]:
        """Every variant that is run, by its name, the questions' first."""
        made = [question.variant for question in self.questions] + [check.variant for check in self.checks]
        return {variant.name: variant for variant in made if variant}

    @property
    def made_variants(self) -> dict[str, Variant]:
        """The variants that have no file: those that were made for this report, and of which others consist."""
        stated = {self.stated.name: self.stated} if self.stated else {}
        made = {name: variant for name, variant in self.variants.items() if variants.is_made(name)}
        return stated | {name: variant for name, variant in made.items() if AND not in name}

    @property
    def cells(self) -> list[Cell]:
        """The cells to run. Remedies are tried on those of questions."""
        if self.why_not or self.guest is None or self.build is None:
            return []
        questioned = {question.variant.name for question in self.questions if question.variant}
        return [
            Cell(
                self.guest,
                variant,
                self.build,
                trials=name in questioned,
                again=self.again if variants.is_made(name) else "",
            )
            for name, variant in self.variants.items()
        ]


def plan(report: Report, judged: Judged, catalog: Catalog, host: Host, wishes: Wishes = Wishes()) -> Plan:
    """Plan what is run for a report. Raises UsageError if a wish names a guest or build that nobody has."""
    suspected: dict[str | None, Question] = {}
    for finding in judged.findings:
        before = suspected.get(finding.name, Question(finding.name, program=finding.program))
        quotes = tuple(dict.fromkeys((*before.quotes, *finding.quotes)))
        suspected[finding.name] = replace(before, quotes=quotes)
    suspected = suspected or {None: Question(None)}
    own = _exact(catalog, report.host)
    nearest, why_nearest = _nearest(report.host, own, list(suspected), catalog, host, wishes)
    guest = catalog.guest(wishes.guest) if wishes.guest else own
    if wishes.nearest and nearest and guest == own and (own is None or not host.has_image(own)):
        guest = nearest
    of_guest = _of_guest(report.host, guest, why_nearest if guest == nearest else "", catalog)
    build, of_build = _choose_build(report, host, wishes.build)
    # Only a plan that asks nobody leaves the build open.
    is_open = build is None and host.releases is None
    why_not = [] if guest else [of_guest]
    why_not += [] if build or is_open else [of_build]
    steps = [of_guest, *_left_out(report, guest)] if guest else []
    steps += [of_build] if build or is_open else []
    # A plan that cannot be run is shown all the same: what would be done on the guest that comes nearest.
    there = guest or nearest
    stated, of_settings = variants.stated_by(report, catalog, there)
    steps += of_settings
    questions = [variants.answering(question, stated, catalog, there) for question in suspected.values()]
    for question in questions:
        variant = question.variant
        what = f"variant {variant.name} ({variant.title})" if variant else question.why_not
        steps.append(f"asked: {question.cause or 'the text shows no cause'}: {what}")
    checks = variants.checks_of(report, questions, there)
    for check in checks:
        what = f"variant {check.variant.name}" if check.variant else f"not tested: {check.why_not}"
        steps.append(f"tried: {check.written}, on {check.question.cause or variants.REPORT}: {what}")
    if not why_not and not any(question.variant for question in questions):
        why_not = [question.why_not for question in questions]
    return Plan(
        report=report,
        judged=judged,
        guest=guest,
        nearest=nearest,
        why_nearest=why_nearest,
        build=build,
        questions=tuple(questions),
        checks=checks,
        stated=stated,
        steps=tuple(steps),
        why_not=tuple(why_not),
        again=wishes.command,
    )


def _left_out(report: Report, guest: Guest) -> list[str]:
    """What of the report's host the guest does not have."""
    kernels = [f"kernel: that of {guest.name}, not {kernel.release}" for kernel in report.of(Kernel)]
    containers = [
        f"not set up: the container of {system.title} that line {system.quote.number} tells of"
        for system in report.of(System)
        if system.place is Place.CONTAINER
    ]
    return [*kernels[:1], *containers[:1]]


# -- the guest


def _exact(catalog: Catalog, system: System | None) -> Guest | None:
    """The catalog's guest of this distribution and release."""
    guests = {guest.system or name: guest for name, guest in catalog.guests.items()}
    if system and system.id in guests:  # A rolling distribution has no releases.
        return guests[system.id]
    version = system.version if system and not system.inferred else None
    while system and version:
        if guest := guests.get(f"{system.id}-{version}"):
            return guest
        # A point release, for example 24.04.3 or 13.2, has the VERSION_ID of its release.
        version = version.rpartition(".")[0]
    return None


def _nearest(
    system: System | None,
    own: Guest | None,
    suspected: Sequence[str | None],
    catalog: Catalog,
    host: Host,
    wishes: Wishes,
) -> tuple[Guest | None, str]:
    """The guest that stands for a system in place of its own one, and why; None if none does.

    It is the nearest of those that can be run here and can have what leads to the suspected causes. Only a
    guest that is built from packages can be run if its image is not stored.
    """
    if wishes.guest is not None:
        guest = catalog.guest(wishes.guest)
        return (None, "") if guest == own else (guest, "it was asked for")
    if own and not wishes.nearest and host.releases is None:
        return None, ""  # A plan that is only shown names no other guest beside the host's own.

    def origin(name: str) -> str:
        """The distribution that one derives from in the end."""
        family = systems.family(name) or name
        return ORIGINS.get(family, family)

    def distance(guest: Guest) -> int:
        name = variants.distribution(guest)
        if system is None:
            return 3
        if name in (system.id, system.like):
            return 0 if name == system.id else 1
        return 2 if origin(name) in (origin(system.id), origin(system.like or "")) else 3

    # If there is no variant for a cause, any guest is as near.
    needed = [made[0] for cause in suspected if (made := variants.leading_to(cause, catalog, None))]
    nearest_first = sorted(
        catalog.guests.values(), key=lambda guest: (distance(guest), guest.name != USUAL, guest.name)
    )
    for guest in nearest_first:
        is_able = all(variants.can_have(guest, variant) for variant in needed)
        if is_able and (isinstance(guest.image, DebianImage) or host.is_stored(guest)):
            traits = [TRAITS[kind][1] for variant in needed for kind in variant.knobs if kind in TRAITS]
            reasons = dict.fromkeys([*filter(None, traits), NEAR[distance(guest)]])
            return (None, "") if guest == own else (guest, "; ".join(reasons))
    return None, ""


def _of_guest(system: System | None, guest: Guest | None, why_nearest: str, catalog: Catalog) -> str:
    """What is to be said of the guest that is run, the nearest one if there is a reason; or why none is."""
    name = system.title if system else ""
    named = system if system and not system.inferred else None
    no_host = "the report names no host" + (f", only its words tell of {name}" if system else "")
    if guest and why_nearest:
        why = f"which is not {name}: {why_nearest}" if named else f"because {why_nearest}; {no_host}"
        return f"guest: {guest.name}, {why}"
    if guest:
        more = "; the report leaves open whether it is a derivative" if system and system.or_derivative else ""
        return f"guest: {guest.name}, for {name}{more}"
    if named is None:
        return f"{no_host}; {PROBE}"
    if named.version is None and named.id in map(variants.distribution, catalog.guests.values()):
        return f"the report names no release of {named.name}; {PROBE}"
    return f"the lab has no guest for {name}, which another distribution does not replace"


# -- the build


def _choose_build(report: Report, host: Host, name: str | None) -> tuple[Build | None, str]:
    """The build to test, and what is to be said of it, or why there is none."""
    stated = report.versions
    if name is not None:
        build = builds.resolve(name)
        if build.version in map(str, stated):
            return build, f"build: boxlite {build.version}, as the report says"
        about = f"is about {', '.join(map(str, stated))}" if stated else "names no version"
        return build, f"build: boxlite {build.name}, as asked for; the report {about}"
    if host.releases is None:
        if stated:
            return None, f"build: boxlite {stated[0]}, as the report says, if the package index has it"
        return None, "build: the newest release on the package index; the report names no version"
    try:
        releases = host.releases()
    except LabError as error:
        return None, f"which releases of boxlite there are could not be found out: {error.args[0]}"
    if not releases:
        return None, "the package index has no release of boxlite"
    if not stated:
        step = f"build: boxlite {releases[-1]}, the newest release; the report names no version"
        return builds.resolve(str(releases[-1])), step
    if version := next((version for version in stated if version in releases), None):
        return builds.resolve(str(version)), f"build: boxlite {version}, as the report says"
    if stated[0] < releases[0]:
        why = f"is older than every release on the package index; the oldest is {releases[0]}"
    else:
        why = f"is no release on the package index; the newest is {releases[-1]}"
    return None, f"boxlite {stated[0]} {why}; --build names another build"
