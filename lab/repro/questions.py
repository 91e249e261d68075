"""What is asked of a guest: a question for each suspected cause, a check for each setting that was tried."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import tomlkit
from pydantic import ValidationError

from lab import causes
from lab.catalog import AND, Catalog, Guest, Variant
from lab.catalog.knobs import Conflict, Knob
from lab.catalog.knobs.kernel import Sysctl
from lab.catalog.knobs.security_modules import FOLDER, AppArmor, Selinux
from lab.record import Expectation
from lab.repro import guests
from lab.repro.judging import Judged
from lab.repro.report import Mood, Place, Quote, Report, Setting, Words
from lab.trials.changes import Change

# The variant that changes nothing, and the names of those that are made for one report.
STOCK, REPORT, TRIED = "stock", "report", "tried"
# Most settings that are tried for one report, each on its own cell, and most that are set.
MOST, MOST_STATED = 8, 40


@dataclass(frozen=True)
class Question:
    """What is asked of a guest: do the report's words come from this cause?

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
    """Settings that the reporter tried, put on the guest that a question is asked of.

    `variant` is None, with the reason in `why_not`, if they cannot be put on that guest.
    """

    settings: tuple[Setting, ...]
    question: Question
    variant: Variant | None = None
    why_not: str = ""

    @property
    def said(self) -> str:
        """The settings as their reporter would write them."""
        return " and ".join(written(each) for each in self.settings)

    @property
    def step(self) -> str:
        """What is done, in words."""
        what = f"variant {self.variant.name}" if self.variant else f"not tested: {self.why_not}"
        return f"tried: {self.said}, on {self.question.cause or REPORT}: {what}"


def suspected(judged: Judged) -> list[Question]:
    """One question for each cause that the text shows; one without a cause if it shows none."""
    found: dict[str, Question] = {}
    for each in judged.findings:
        before = found.get(each.name, Question(each.name, program=each.program))
        found[each.name] = replace(before, quotes=tuple(dict.fromkeys((*before.quotes, *each.quotes))))
    return list(found.values()) or [Question(None)]


def ask(
    suspected: Sequence[Question], stated: Variant | None, catalog: Catalog, guest: Guest | None
) -> tuple[tuple[Question, ...], list[str]]:
    """The questions with the variants that ask them on a guest, and the same in words."""
    asked, steps = [], []
    for each in suspected:
        variant, why_not = _variant(each, stated, catalog, guest)
        asked.append(replace(each, variant=variant, why_not=why_not))
        what = each.cause or "the text shows no cause"
        steps.append(f"asked: {what}: {f'variant {variant.name} ({variant.title})' if variant else why_not}")
    return tuple(asked), steps


def stated_by(report: Report, catalog: Catalog, guest: Guest | None) -> tuple[Variant | None, list[str]]:
    """The settings that hold on the host as one variant, None if there are none; and what is left out."""
    knobs, steps, seen = [], [], dict[str, str | None]()
    stated = [each for each in report.of(Setting) if each.mood is Mood.HOLDS and each.place is Place.HOST]
    for each in stated[:MOST_STATED]:
        if each.name in seen:
            if seen[each.name] != each.value:
                steps.append(f"not set: {written(each)}: another line contradicts line {each.quote.number}")
            continue
        seen[each.name] = each.value
        found = knob_of(each)
        if found is None:
            steps.append(f"not set: {written(each)}: the lab has no such setting")
        elif guest is not None and not guests.has_sysctl(guest, each.name):
            steps.append(f"not set: {written(each)}: the kernel of {guest.name} has no such sysctl")
        else:
            knobs.append(found)
            steps.append(f"set: {written(each)}, as line {each.quote.number} says")
    if not knobs:
        return None, steps
    return made_variant(REPORT, "The settings that the report states", knobs, _stock(catalog)), steps


def _variant(
    question: Question, stated: Variant | None, catalog: Catalog, guest: Guest | None
) -> tuple[Variant | None, str]:
    """The variant that asks a question on a guest, or why there is none."""
    plain = stated or _stock(catalog)
    if question.cause is None or question.cause not in causes.known():
        return plain, ""
    found = making(catalog, question.cause, guest)
    if not found:
        return None, f"no variant of the lab leads to {question.cause}" + (f" on {guest.name}" if guest else "")
    expect = Expectation(status="xfail", cause=question.cause)
    if stated is None:
        return found[0], ""
    try:
        together = stated.combined(found[0])
    except Conflict as why:
        return None, f"what the report states contradicts {question.cause}: {why}"
    if together.knobs == stated.knobs:
        return stated.model_copy(update={"expect": expect}), ""
    return together, ""


def making(catalog: Catalog, cause: str | None, guest: Guest | None) -> list[Variant]:
    """The variants of the catalog that lead to a cause, and that a guest can have; the best first."""
    found = [
        each
        for each in catalog.variants.values()
        if each.leads_to == cause
        and cause is not None
        and (guest is None or guests.why_not(guest, each) is None)
    ]
    own = [name for name, ids in guests.OWN_SYSCTLS.items() if guest and guests.distribution(guest) in ids]

    def rank(variant: Variant) -> tuple[object, ...]:
        # The switch of a distribution's own kernel comes before what imitates it elsewhere.
        has_switch = any(name.startswith(begins) for name in variant.sysctls for begins in own)
        return (not has_switch, variant.name != cause, len(variant.knobs), variant.name)

    return sorted(found, key=rank)


def checks(report: Report, questions: Sequence[Question], guest: Guest | None) -> tuple[Check, ...]:
    """A check for each setting that was tried, on each question that has a variant."""
    # A program's message may name a setting, too: that is not what its reporter tried.
    messages = {each.quote for each in report.of(Words)}
    tried = [
        each
        for each in report.of(Setting)
        if each.mood is Mood.TRIED and each.place is Place.HOST and each.quote not in messages
    ]
    unique = list({written(each): each for each in reversed(tried)}.values())[::-1][:MOST]
    made: list[Check] = []
    for asked in (each for each in questions if each.variant):
        alone = [_check((each,), asked, guest) for each in unique]
        possible = tuple(each.settings[0] for each in alone if each.variant not in (None, asked.variant))
        made += alone
        if len(possible) > 1 and len({each.helped for each in possible}) == 1:
            # A reporter who tried one after another usually left them in place.
            made.append(_check(possible, asked, guest))
    return tuple(_numbered(made))


def _numbered(made: Sequence[Check]) -> Iterator[Check]:
    """Give the variants that were made for checks names of their own."""
    number = 0
    for each in made:
        if each.variant is None or each.variant == each.question.variant:
            yield each
            continue
        number += 1
        named = each.variant.model_copy(update={"name": f"{TRIED}-{number}"})
        yield replace(each, variant=named)


def _check(tried: tuple[Setting, ...], asked: Question, guest: Guest | None) -> Check:
    base = asked.variant
    assert base is not None
    changed = base
    for setting in tried:
        found = knob_of(setting)
        if found is None:
            return Check(tried, asked, why_not="the lab has no setting that does this")
        if guest is not None and not guests.has_sysctl(guest, setting.name):
            return Check(tried, asked, why_not=f"the kernel of {guest.name} has no such sysctl")
        kind, knob = found
        profiles = {each.name for each in getattr(base.knobs.get(kind), "profiles", ())}
        if own := profiles.intersection(getattr(knob, "removed", ())):
            stands = f"the variant {base.name} loads {min(own)} itself, to stand for the policy of the host"
            return Check(tried, asked, why_not=stands)
        changed = Change(written(setting), {kind: knob}).on(changed)
    if changed.knobs == base.knobs:
        return Check(tried, asked, base)
    check = Check(tried, asked)
    title = f"{base.name}; then, as the reporter tried: {check.said}"
    expect = Expectation() if tried[0].helped else base.expect
    return replace(check, variant=changed.model_copy(update={"title": title, "expect": expect}))


def _stock(catalog: Catalog) -> Variant:
    return catalog.variant(STOCK)


def is_made(variant: Variant) -> bool:
    """Whether a variant, or a part of it, was made for a report and has no file."""
    return any(each == REPORT or each.startswith(f"{TRIED}-") for each in variant.name.split(AND))


# -- settings of a report as settings that a variant can have

# A sysctl's name as the kernel has it. It becomes a part of a path in the guest.
SYSCTL = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_-]+)+")
NUMBERS = re.compile(r"-?[0-9]{1,18}(?:[ \t]+-?[0-9]{1,18}){0,7}")
# Longest name that is set, in characters.
LONGEST = 100
UNLOAD = re.compile(rf"(?:sudo )?apparmor_parser (?:-R|--remove) {FOLDER}/([A-Za-z0-9_.-]+)")
PERMISSIVE = re.compile(r"(?:sudo )?setenforce (?:0|[Pp]ermissive)")


def knob_of(setting: Setting) -> tuple[str, Knob] | None:
    """Return the setting as a knob, with the name of its kind; None if no knob does the same."""
    if setting.value is not None:
        made = _sysctl(setting.name, setting.value)
        return ("sysctl", made) if made else None
    if unloaded := UNLOAD.fullmatch(setting.name.strip()):
        return "apparmor", AppArmor(removed=[unloaded[1]])
    if PERMISSIVE.fullmatch(setting.name.strip()):
        return "selinux", Selinux.model_validate_json('{"mode": "permissive"}')
    return None


def written(setting: Setting) -> str:
    """Return the setting as its reporter would write it."""
    return setting.name if setting.value is None else f"{setting.name}={setting.value}"


def made_variant(name: str, title: str, knobs: Iterable[tuple[str, Knob]], like: Variant) -> Variant:
    """Return a variant of these settings that has no file. `like` is any variant of the catalog.

    Raises Conflict if two of them exclude each other.
    """
    found: dict[str, Knob] = {}
    for kind, each in knobs:
        found[kind] = reduce(type(each).combined, [found[kind], each]) if kind in found else each
    nothing = dict.fromkeys(like.knobs)
    expect = type(like).model_fields["expect"].default
    return like.model_copy(update={**nothing, "name": name, "title": title, "expect": expect, **found})


def to_toml(variant: Variant) -> str:
    """Return a variant's file, as `cloud-init/variants/` has them."""
    table = variant.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"name"})
    return tomlkit.dumps(table)


def _sysctl(name: str, value: str) -> Sysctl | None:
    """A sysctl with a number or a list of numbers; a text such as `off` is no value that a kernel takes."""
    if not SYSCTL.fullmatch(name) or len(name) > LONGEST or not NUMBERS.fullmatch(value):
        return None
    try:
        return Sysctl.model_validate({name: int(value) if value.lstrip("-").isdecimal() else value})
    except ValidationError:
        return None
