"""The variants that a report leads to: for its causes, for what it states, and for what its reporter tried."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count

from lab import causes
from lab.catalog import AND, Catalog, Change, DebianImage, Guest, Variant
from lab.catalog.knob import Conflict, Knob
from lab.catalog.knobs import FOLDER, KINDS, AppArmor, Selinux, Sysctl
from lab.record import Expectation
from lab.repro.report import Mood, Place, Quote, Report, Setting, Words

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


# -- what a guest can have, as far as its definition tells; the guest itself is asked before a cell is run

# Debian's releases whose AppArmor does not mediate user namespaces.
WITHOUT_MEDIATION = ("bullseye", "bookworm")
# Distributions whose kernels have a sysctl that others lack, by the beginning of its name.
OWN_SYSCTLS = {
    "kernel.apparmor_restrict_unprivileged_userns": ("ubuntu",),
    "kernel.unprivileged_userns_clone": ("debian", "ubuntu"),
}


def _mediates_namespaces(guest: Guest) -> bool:
    if guest.image.selinux is not None:
        return False
    return not isinstance(guest.image, DebianImage) or guest.image.suite not in WITHOUT_MEDIATION


# The kinds of setting that not every guest can have: whether a guest can, and what to say of one that can.
TRAITS: Mapping[str, tuple[Callable[[Guest], bool], str]] = {
    "apparmor": (_mediates_namespaces, "its AppArmor mediates user namespaces"),
    "selinux": (lambda guest: guest.image.selinux is not None, "it enforces an SELinux policy"),
    "container": (
        lambda guest: isinstance(guest.image, DebianImage) and "podman" in guest.image.packages,
        "it has podman",
    ),
    # A distribution's own loader decides what its kernel is booted with.
    "kernel": (lambda guest: isinstance(guest.image, DebianImage), ""),
}


def distribution(guest: Guest) -> str:
    """Return the ID of a guest's distribution."""
    return (guest.system or guest.name).partition("-")[0]


def has_sysctl(guest: Guest, name: str) -> bool:
    """Whether a guest's kernel may have a sysctl that only some distributions' kernels have."""
    return all(distribution(guest) in ids for begins, ids in OWN_SYSCTLS.items() if name.startswith(begins))


def can_have(guest: Guest, variant: Variant) -> bool:
    """Whether a guest may be able to have a variant."""
    traits = [TRAITS[kind][0] for kind in variant.knobs if kind in TRAITS]
    return all(has_sysctl(guest, name) for name in variant.sysctls) and all(has(guest) for has in traits)


# -- what makes a guest have a cause, and what the report states


def leading_to(cause: str | None, catalog: Catalog, guest: Guest | None) -> list[Variant]:
    """The variants of the catalog that lead to a cause, and that a guest can have; the best first."""
    own = [name for name, ids in OWN_SYSCTLS.items() if guest and distribution(guest) in ids]

    def rank(variant: Variant) -> tuple[object, ...]:
        # The switch of a distribution's own kernel comes before what imitates it elsewhere.
        has_switch = any(name.startswith(begins) for name in variant.sysctls for begins in own)
        return (not has_switch, variant.name != cause, len(variant.knobs), variant.name)

    leading = [variant for variant in catalog.variants.values() if cause and variant.leads_to == cause]
    return sorted((v for v in leading if guest is None or can_have(guest, v)), key=rank)


def answering(question: Question, stated: Variant | None, catalog: Catalog, guest: Guest | None) -> Question:
    """The question with the variant that gives a guest its cause and the stated settings, or why none does."""
    cause = question.cause
    if cause is None or cause not in causes.known():
        return replace(question, variant=stated or catalog.variant(STOCK))
    variants = leading_to(cause, catalog, guest)
    if not variants:
        where = f" on {guest.name}" if guest else ""
        return replace(question, why_not=f"no variant of the lab leads to {cause}{where}")
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
    made = catalog.variant(STOCK).model_copy(update={**update, "sysctl": Sysctl.model_validate(sysctls)})
    return made, steps


# -- what the reporter tried


def checks_of(report: Report, questions: Sequence[Question], guest: Guest | None) -> tuple[Check, ...]:
    """A check for each setting that was tried, on each question that has a variant."""
    # A program's message may name a setting, too: that is not what its reporter tried.
    messages = {words.quote for words in report.of(Words)}
    tried: dict[str, Setting] = {}
    for setting in report.of(Setting):
        if setting.mood is Mood.TRIED and setting.place is Place.HOST and setting.quote not in messages:
            tried.setdefault(setting.written, setting)
    checks: list[Check] = []
    numbers = count(1)
    for question in (question for question in questions if question.variant):
        alone = [_check((setting,), question, guest, numbers) for setting in list(tried.values())[:MOST_TRIED]]
        checks += alone
        together = tuple(c.settings[0] for c in alone if c.variant not in (None, question.variant))
        if len(together) > 1 and len({setting.helped for setting in together}) == 1:
            # A reporter who tried one after another usually left them in place.
            checks.append(_check(together, question, guest, numbers))
    return tuple(checks)


def _check(
    tried: tuple[Setting, ...], question: Question, guest: Guest | None, numbers: Iterator[int]
) -> Check:
    """A check of settings on the variant of a question; a new variant is named by the next number."""
    base = changed = question.variant
    assert base is not None and changed is not None
    check = Check(tried, question)
    for setting in tried:
        knob = _knob(setting, guest)
        if isinstance(knob, str):
            return replace(check, why_not=knob)
        kind = next(kind for kind, model in KINDS.items() if isinstance(knob, model))
        profiles = {profile.name for profile in getattr(base.knobs.get(kind), "profiles", ())}
        if own := profiles.intersection(getattr(knob, "removed", ())):
            why = f"the variant {base.name} loads {min(own)} itself, to stand for the policy of the host"
            return replace(check, why_not=why)
        changed = Change(setting.written, {kind: knob}).on(changed)
    if changed.knobs == base.knobs:
        return replace(check, variant=base)
    update = {
        "name": f"{TRIED}-{next(numbers)}",
        "title": f"{base.name}; then, as the reporter tried: {check.written}",
        "expect": Expectation() if tried[0].helped else base.expect,
    }
    return replace(check, variant=changed.model_copy(update=update))


def is_made(name: str) -> bool:
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
