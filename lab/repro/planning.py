"""The plan for a report: which guest is run for its host, with which build, and in which variants.

The variants are made for its causes, for what it states, and for what its reporter tried.

What has to do with builds takes long to import, and a plan that is only shown needs none of it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from lab import causes
from lab.base.architecture import X86_64
from lab.base.errors import LabError
from lab.base.files import group_values
from lab.catalog import AND, Catalog, Change, DebianImage, Guest, Variant
from lab.catalog.abilities import OWN_SYSCTLS, TRAITS, can_have, get_distribution, has_sysctl
from lab.catalog.knob import Conflict, Knob
from lab.catalog.knobs import FOLDER, KINDS, AppArmor, Selinux, Sysctl
from lab.record import Expectation
from lab.repro import comment, subjects, systems
from lab.repro.judging import measured_in
from lab.repro.report import (
    Assertion,
    ErrorMessage,
    JudgedReport,
    KernelStatement,
    Mood,
    Place,
    Quote,
    Report,
    Setting,
    Speaker,
    System,
    cite_lines,
)
from lab.repro.wishes import Wishes

if TYPE_CHECKING:
    from packaging.version import Version

    from lab.builds import Build
    from lab.plan import Cell

PROBE = "ask the reporter for the output of the script that lab probe prints"
# The guest that most of the lab's results are from.
USUAL = "debian-13"
# The guest that stands for WSL2.
WSL_TWIN = "twin-wsl2"
# What the families of `systems.toml` derive from in turn.
ORIGINS = {"ubuntu": "debian", "rhel": "fedora"}
# What speaks for a guest by how near it is to the host, the nearest first.
NEAR = (
    "it has the security modules of WSL2, but another kernel",
    "it is another release of the same distribution",
    "the host's distribution derives from its own",
    "its distribution is of the same family",
    "most of the lab's results are from it",
)
# The variant that changes nothing, and the names of those that are made for one report.
STOCK, REPORT, TRIED = "stock", "report", "tried"
# Most settings that are tried for one report, each on its own cell, and most that are set.
MOST_TRIED, MOST_STATED = 8, 40


@dataclass(frozen=True)
class Question:
    """What a guest is to answer: do the report's words come from this cause?

    `cause` is None if the text shows none. `quotes` are the lines of the report that show it, and `program` is
    the one that they are about. `variant` makes a guest have the cause; if no variant of the lab does, it is
    None, with the reason in `why_not`.
    """

    cause: str | None
    quotes: tuple[Quote, ...] = ()
    program: str = ""
    variant: Variant | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Check:
    """Settings that the reporter tried, put on the guest that is to answer a question.

    `variant` is None, with the reason in `why_not`, if they cannot be put on that guest.
    """

    settings: tuple[Setting, ...]
    question: Question
    variant: Variant | None = None
    why_not: str = ""

    @property
    def written(self) -> str:
        """The settings as their reporter would write them."""
        return " and ".join(setting.written for setting in self.settings)


@dataclass(frozen=True)
class HostAbilities:
    """What this host can run.

    `is_stored` tells whether a guest's image is here, and `has_image` builds or fetches it if it is not.
    `releases` asks the package index; None: nobody is asked, and the plan leaves the build open.
    """

    is_stored: Callable[[Guest], bool]
    has_image: Callable[[Guest], bool]
    releases: "Callable[[], Sequence[Version]] | None"


@dataclass(frozen=True)
class Plan:
    """What is run for a report. Nothing is run if `why_not` says why.

    `guest` is run: the report's host, or the `nearest` guest among those that can be run here, which is named
    with the reason `why_nearest` whether it is run or not. `asserted` are the variants whose cells show what
    the report asserts. `stated` are the settings that it states. `choice` is the suite, and what none of its
    tests is about. `steps` say in words what is done, and what is left out. `again` is the command that makes
    the plan again.
    """

    report: Report
    judged: JudgedReport
    guest: Guest | None
    nearest: Guest | None
    why_nearest: str
    build: "Build | None"
    questions: tuple[Question, ...]
    checks: tuple[Check, ...]
    asserted: tuple[Variant, ...]
    stated: Variant | None
    choice: subjects.SuiteChoice
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
        return f"{self.nearest.name} comes nearest: {self.why_nearest}; --nearest runs it"

    @property
    def variants(self) -> dict[str, Variant]:
        """Every variant that is run, by its name, the questions' first."""
        variants = [question.variant for question in self.questions] + [check.variant for check in self.checks]
        variants += self.asserted
        return {variant.name: variant for variant in variants if variant}

    @property
    def made_variants(self) -> dict[str, Variant]:
        """The variants that have no file: those that were made for this report, and of which others consist."""
        stated = {self.stated.name: self.stated} if self.stated else {}
        variants = {name: variant for name, variant in self.variants.items() if is_made_variant(name)}
        return stated | {name: variant for name, variant in variants.items() if AND not in name}

    @property
    def cells(self) -> "list[Cell]":
        """The cells to run. Remedies are tried on those of questions."""
        if self.why_not or self.guest is None or self.build is None:
            return []
        from lab.plan import Cell

        questioned = {question.variant.name for question in self.questions if question.variant}
        return [
            Cell(
                self.guest,
                variant,
                self.build,
                trials=name in questioned,
                again=self.again if is_made_variant(name) else "",
            )
            for name, variant in self.variants.items()
        ]


def plan_report(
    report: Report, judged: JudgedReport, catalog: Catalog, host: HostAbilities, wishes: Wishes
) -> Plan:
    """Plan what is run for a report. Raises UsageError if a wish names a guest or build that nobody has."""
    suspected: dict[str | None, Question] = {}
    for finding in judged.findings:
        earlier = suspected.get(finding.name, Question(finding.name, program=finding.program))
        quotes = tuple(dict.fromkeys((*earlier.quotes, *finding.quotes)))
        suspected[finding.name] = replace(earlier, quotes=quotes)
    suspected = suspected or {None: Question(None)}
    exact = catalog.guests.get(comment.find_guest(report) or "")
    nearest, why_nearest = _nearest(report, exact, list(suspected), catalog, host, wishes)
    guest = catalog.guest(wishes.guest) if wishes.guest else exact
    if wishes.nearest and nearest and guest == exact and (exact is None or not host.has_image(exact)):
        guest = nearest
    of_guest = _of_guest(report, guest, why_nearest if guest == nearest else "", catalog)
    build, of_build = _choose_build(report, host, wishes.build)
    is_open = build is None and host.releases is None  # A plan that asks nobody leaves the build open.
    why_not = [] if guest else [of_guest]
    why_not += [] if build or is_open else [of_build]
    steps = [of_guest, *_left_out(report, guest)] if guest else []
    steps += [of_build] if build or is_open else []
    # A plan that cannot be run is shown all the same: what would be done on the guest that comes nearest.
    place = guest or nearest
    stated, of_settings = stated_by(report, catalog, place)
    steps += of_settings
    suites = (build.suite.name, *build.more_suites) if build else subjects.WHEEL_SUITES
    choice = subjects.choose_suite(report, judged, suites)
    questions = [
        answering(question, report, stated, catalog, place, choice.name) for question in suspected.values()
    ]
    if choice.is_untested:
        # Tests of something else would pass, and say nothing.
        questions = [replace(question, variant=None, why_not=choice.reason) for question in questions]
    for question in questions if place else [question for question in questions if question.cause]:
        aim = f"whether it is {question.cause}{cite_lines(question.quotes)}"
        steps.append(_say(aim if question.cause else "whether boxlite fails with the report's words", question))
    steps += choice.steps
    checks = checks_of(report, questions, place)
    for check in checks:
        against = f" against {check.question.cause}" if check.question.cause else ""
        lines = cite_lines([setting.quote for setting in check.settings])
        steps.append(_say(f"what {check.written} does{against}{lines}", check))
    is_host = exact is not None and guest == exact
    asserted, of_assertions = assertion_variants(report, catalog, place, is_host=is_host)
    steps += of_assertions
    if not any(question.variant for question in questions) and not (
        asserted if choice.is_untested else why_not
    ):
        why_not = [*(question.why_not for question in questions), *why_not]
    return Plan(
        report=report,
        judged=judged,
        guest=guest,
        nearest=nearest,
        why_nearest=why_nearest,
        build=build.with_suite(choice.name) if build else None,
        questions=tuple(questions),
        checks=checks,
        asserted=asserted,
        stated=stated,
        choice=choice,
        steps=tuple(steps),
        why_not=tuple(why_not),
        again=wishes.command,
    )


def _say(aim: str, one: Question | Check) -> str:
    """What is run to see something, or why nothing is."""
    runs = f"the lab runs variant {one.variant.name} ({one.variant.title})" if one.variant else ""
    return f"to see {aim}: {runs or f'nothing is run, because {one.why_not}'}"


def _left_out(report: Report, guest: Guest) -> list[str]:
    """What of the report's host the guest does not have."""
    arch = report.arch or guest.arch
    other_arch = [f"architecture: {guest.arch}, not {arch}"] if guest.arch != arch else []
    kernels = [f"kernel: that of {guest.name}, not {kernel.release}" for kernel in report.of(KernelStatement)]
    containers = [
        f"not set up: the container of {system.title} that line {system.quote.number} mentions"
        for system in report.of(System)
        if system.place is Place.CONTAINER
    ]
    return [*other_arch, *kernels[:1], *containers[:1]]


# -- the guest


def _nearest(
    report: Report,
    exact: Guest | None,
    suspected: Sequence[str | None],
    catalog: Catalog,
    host: HostAbilities,
    wishes: Wishes,
) -> tuple[Guest | None, str]:
    """The guest that stands for a system in place of its own one, and why; None if none does.

    It is the nearest of those that can be run here and can have what leads to the suspected causes. Only a
    guest that is built from packages can be run if its image is not stored.
    """
    system = report.host
    if wishes.guest is not None:
        guest = catalog.guest(wishes.guest)
        return (None, "") if guest == exact else (guest, "it was asked for")
    if exact and not wishes.nearest and host.releases is None:
        return None, ""  # A plan that is only shown names no other guest beside the host's own.

    def origin(name: str) -> str:
        """The distribution that one derives from in the end."""
        family = systems.find_family(name) or name
        return ORIGINS.get(family, family)

    def distance(guest: Guest) -> int:
        name = get_distribution(guest)
        if report.is_in_wsl and guest.name == WSL_TWIN:
            return 0
        if system is None:
            return 4
        if name in (system.id, system.like):
            return 1 if name == system.id else 2
        return 3 if origin(name) in (origin(system.id), origin(system.like or "")) else 4

    # If there is no variant for a cause, any guest is as near.
    needed = [variants[0] for cause in suspected if (variants := leading_to(cause, catalog, None))]
    nearest_first = sorted(
        catalog.guests.values(),
        key=lambda guest: (
            distance(guest),
            guest.arch != (report.arch or X86_64.name),
            guest.name != USUAL,
            guest.name,
        ),
    )
    for guest in nearest_first:
        is_able = all(can_have(guest, variant) for variant in needed)
        if is_able and (isinstance(guest.image, DebianImage) or host.is_stored(guest)):
            traits = [TRAITS[kind][1] for variant in needed for kind in variant.knobs if kind in TRAITS]
            reasons = dict.fromkeys([*filter(None, traits), NEAR[distance(guest)]])
            return (None, "") if guest == exact else (guest, "; ".join(reasons))
    return None, ""


def _of_guest(report: Report, guest: Guest | None, why_nearest: str, catalog: Catalog) -> str:
    """What is to be said of the guest that is run, the nearest one if there is a reason; or why none is."""
    system, is_in_wsl = report.host, report.is_in_wsl
    name = system.title if system else ""
    system_named = report.named_host
    no_host = "the report names no host" + (f", its words only point to {name}" if system else "")
    if guest and why_nearest:
        reason = f"which is not {name}: {why_nearest}" if system_named else f"because {why_nearest}; {no_host}"
        return f"guest: {guest.name}, {reason}"
    if guest:
        more = "; the report leaves open whether it is a derivative" if system and system.or_derivative else ""
        return f"guest: {guest.name}, for {name}{more}"
    if system_named is None:
        return f"{no_host}; {PROBE}" if not is_in_wsl else "the lab has no guest for WSL"
    if system_named.version is None and system_named.id in map(get_distribution, catalog.guests.values()):
        return f"the report names no release of {system_named.name}; {PROBE}"
    where = f"{name} in WSL2" if is_in_wsl else name
    return f"the lab has no guest for {where}, and another distribution does not replace it"


# -- the build


def _choose_build(report: Report, host: HostAbilities, name: str | None) -> "tuple[Build | None, str]":
    """The build to test, and what is to be said of it, or why there is none."""
    stated = report.versions
    if name is None and host.releases is None:
        if stated:
            return None, f"build: boxlite {stated[0]}, as the report says, if the package index has it"
        return None, "build: the newest release on the package index; the report names no version"
    from lab import builds

    if name is not None:
        build = builds.resolve_build(name)
        if build.version in map(str, stated):
            return build, f"build: boxlite {build.version}, as the report says"
        about = f"is about {', '.join(map(str, stated))}" if stated else "names no version"
        return build, f"build: boxlite {build.name}, as asked for; the report {about}"
    try:
        releases = host.releases() if host.releases else []
    except LabError as error:
        return None, f"the releases of boxlite could not be listed: {error.args[0]}"
    if not releases:
        return None, "the package index has no release of boxlite"
    if version := next((version for version in stated or releases[-1:] if version in releases), None):
        reason = "as the report says" if stated else "the newest release; the report names no version"
        return builds.resolve_build(str(version)), f"build: boxlite {version}, {reason}"
    reason = f"is not a release on the package index; the newest is {releases[-1]}"
    if stated[0] < releases[0]:
        reason = f"is older than every release on the package index; the oldest is {releases[0]}"
    return None, f"boxlite {stated[0]} {reason}; --build names another build"


# -- what makes a guest have a cause, and what the report states


def leading_to(cause: str | None, catalog: Catalog, guest: Guest | None) -> list[Variant]:
    """The variants of the catalog that lead to a cause, and that a guest can have; the best first."""
    sysctls = [name for name, ids in OWN_SYSCTLS.items() if guest and get_distribution(guest) in ids]

    def rank(variant: Variant) -> tuple[object, ...]:
        # The switch of a distribution's own kernel comes before what imitates it elsewhere.
        has_switch = any(name.startswith(begins) for name in variant.sysctls for begins in sysctls)
        return (not has_switch, variant.name != cause, len(variant.knobs), variant.name)

    leading = [variant for variant in catalog.variants.values() if cause and variant.leads_to == cause]
    return sorted((v for v in leading if guest is None or can_have(guest, v)), key=rank)


def _find_message(variant: Variant, question: Question, report: Report) -> bool | None:
    """Whether bubblewrap was measured to say in a variant what the report quotes; None if nothing tells."""
    of_question = (message for message in report.of(ErrorMessage) if message.quote in question.quotes)
    said = (one for one in of_question if one.speaker is Speaker.BUBBLEWRAP)
    quoted = {(one.operation, one.means) for one in said if one.operation}
    measured = measured_in(variant.name) if quoted else set()
    return not quoted.isdisjoint(measured) if measured else None


def answering(
    question: Question,
    report: Report,
    stated: Variant | None,
    catalog: Catalog,
    guest: Guest | None,
    suite: str = subjects.WHEEL_SUITES[0],
) -> Question:
    """The question with the variant that gives a guest its cause and the stated settings, or why none does.

    A cause that the suite meets needs no setting.
    """
    cause = question.cause
    if cause is None or cause not in causes.list_causes() or cause in subjects.list_met_causes([suite]):
        return replace(question, variant=stated or catalog.variant(STOCK))
    leading = leading_to(cause, catalog, guest)
    # The best one counts if nothing speaks against it; of the others, those that were measured come first.
    says = {variant.name: _find_message(variant, question, report) for variant in leading}
    fitting = [variant for variant in leading if says[variant.name] is not False]
    variants = sorted(fitting, key=lambda variant: variant is not leading[0] and not says[variant.name])
    if not variants:
        where = f" on {guest.name}" if guest else ""
        reason = "gives the report's message" if leading else f"leads to {cause}{where}"
        return replace(question, why_not=f"no variant of the lab {reason}")
    if stated is None:
        return replace(question, variant=variants[0])
    try:
        together = stated.combined(variants[0])
    except Conflict as why:
        return replace(question, why_not=f"what the report states contradicts {cause}: {why}")
    if together.knobs == stated.knobs:
        together = stated.model_copy(update={"expect": Expectation(status="xfail", cause=cause)})
    return replace(question, variant=together)


def stated_by(report: Report, catalog: Catalog, guest: Guest | None) -> tuple[Variant | None, list[str]]:
    """The sysctls that hold on the host as one variant, None if there are none; and in words what is set."""
    steps: list[str] = []
    values: dict[str, str | None] = {}
    sysctls: dict[str, int | str] = {}
    stated = [s for s in report.of(Setting) if s.mood is Mood.HOLDS and s.place is Place.HOST]
    for setting in stated[:MOST_STATED]:
        line = setting.quote.number
        if setting.name in values:
            if values[setting.name] != setting.value:
                steps.append(f"not set: {setting.written}: another line contradicts line {line}")
            continue
        values[setting.name] = setting.value
        match _knob(setting, guest):
            case Sysctl() as sysctl:
                sysctls |= sysctl.root
                steps.append(f"set: {setting.written}, as line {line} says")
            case why_not:
                steps.append(f"not set: {setting.written}: {why_not}")
    if not sysctls:
        return None, steps
    update = {"name": REPORT, "title": "The settings that the report states", "expect": Expectation()}
    variant = catalog.variant(STOCK).model_copy(update={**update, "sysctl": Sysctl.model_validate(sysctls)})
    return variant, steps


# -- what the reporter asserts, and what the reporter tried


def assertion_variants(
    report: Report, catalog: Catalog, guest: Guest | None, *, is_host: bool
) -> tuple[tuple[Variant, ...], list[str]]:
    """The variants whose cells show what a report asserts, and in words what each of them is run for.

    `is_host`: whether the guest is the report's host.
    """
    asserted = (one for one in report.of(Assertion) if one.variant and (is_host or not one.is_of_host))
    texts = group_values((assertion.variant, assertion.text) for assertion in asserted)
    variants = [catalog.variant(name) for name in texts]
    able = tuple(variant for variant in variants if guest is None or can_have(guest, variant))
    steps: list[str] = []
    for variant in variants:
        aim = f"to see whether {' and whether '.join(texts[variant.name])}"
        text = "the lab runs" if variant in able else "not tested: the guest cannot have"
        steps.append(f"{aim}: {text} variant {variant.name}")
    return able, steps


def checks_of(report: Report, questions: Sequence[Question], guest: Guest | None) -> tuple[Check, ...]:
    """A check for each setting that was tried, on each question that has a variant."""
    # A program's message may name a setting, too: that is not what its reporter tried.
    messages = {words.quote for words in report.of(ErrorMessage)}
    settings: dict[str, Setting] = {}
    for setting in report.of(Setting):
        if setting.mood is Mood.TRIED and setting.place is Place.HOST and setting.quote not in messages:
            settings.setdefault(setting.written, setting)
    checks: list[Check] = []
    numbers = count(1)
    for question in (question for question in questions if question.variant):
        alone = [
            _check((setting,), question, guest, numbers) for setting in list(settings.values())[:MOST_TRIED]
        ]
        checks += alone
        together = tuple(c.settings[0] for c in alone if c.variant not in (None, question.variant))
        if len(together) > 1 and len({setting.helped for setting in together}) == 1:
            # A reporter who tried one after another usually left them in place.
            checks.append(_check(together, question, guest, numbers))
    return tuple(checks)


def _check(
    settings: tuple[Setting, ...], question: Question, guest: Guest | None, numbers: Iterator[int]
) -> Check:
    """A check of settings on the variant of a question; a new variant is named by the next number."""
    base = changed = question.variant
    assert base is not None and changed is not None
    check = Check(settings, question)
    for setting in settings:
        knob = _knob(setting, guest)
        if isinstance(knob, str):
            return replace(check, why_not=knob)
        kind = next(kind for kind, model in KINDS.items() if isinstance(knob, model))
        profiles = {profile.name for profile in getattr(base.knobs.get(kind), "profiles", ())}
        if loaded := profiles.intersection(getattr(knob, "removed", ())):
            reason = f"the variant {base.name} loads {min(loaded)} itself, to stand for the policy of the host"
            return replace(check, why_not=reason)
        changed = Change(setting.written, {kind: knob}).on(changed)
    if changed.knobs == base.knobs:
        return replace(check, variant=base)
    update = {
        "name": f"{TRIED}-{next(numbers)}",
        "title": f"{base.name}; then, as the reporter tried: {check.written}",
        "expect": Expectation() if settings[0].helped else base.expect,
    }
    return replace(check, variant=changed.model_copy(update=update))


def is_made_variant(name: str) -> bool:
    """Whether a variant of this name, or a part of it, was made for a report and has no file."""
    return any(part == REPORT or part.startswith(f"{TRIED}-") for part in name.split(AND))


# -- settings of a report as settings that a variant can have

# A sysctl's name as the kernel has it, which becomes a part of a path in the guest, and its longest length.
SYSCTL = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_-]+)+")
LONGEST_NAME = 100
# A number or a list of numbers; a text such as `off` is no value that a kernel takes.
NUMBERS = re.compile(r"-?[0-9]{1,18}(?:[ \t]+-?[0-9]{1,18}){0,7}")
UNLOAD = re.compile(rf"(?:sudo )?apparmor_parser (?:-R|--remove) {FOLDER}/([A-Za-z0-9_.-]+)")
PERMISSIVE = re.compile(r"(?:sudo )?setenforce (?:0|[Pp]ermissive)")


def _knob(setting: Setting, guest: Guest | None) -> Knob | str:
    """The setting as a knob, or why a guest cannot have it."""
    name, value = setting.name.strip(), setting.value
    if value is None and (unloaded := UNLOAD.fullmatch(name)):
        return AppArmor(removed=[unloaded[1]])
    if value is None and PERMISSIVE.fullmatch(name):
        return Selinux.model_validate_json('{"mode": "permissive"}')
    if value is not None and len(name) <= LONGEST_NAME and SYSCTL.fullmatch(name) and NUMBERS.fullmatch(value):
        if guest is not None and not has_sysctl(guest, name):
            return f"the kernel of {guest.name} has no such sysctl"
        with suppress(ValueError):
            return Sysctl.model_validate({name: int(value) if value.lstrip("-").isdecimal() else value})
    return "the lab has no such setting"
