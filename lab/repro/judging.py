"""What the text of a report alone shows, before anything boots: causes that are proved, likely or possible.

Two ways lead to a cause. The rules of the causes judge a report as they judge a cell: what it says is made into
the evidence of a cell, as far as it goes. And `judging.toml` ranks the causes of what a message refuses, by how
likely the message is under each and how likely the cause is on the named system. Only an audit line that names
the program and the output of the probe script prove a cause; all else makes it likely at most.
"""

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field

from lab import causes
from lab.causes.evidence import Evidence
from lab.causes.rules import RESTRICTED
from lab.probes import NONE_RUN, Probe
from lab.probes.facts import STACKED, read_label
from lab.record import Confidence
from lab.repro import messages, remarks
from lab.repro.report import (
    BUBBLEWRAP,
    AuditLine,
    Ended,
    Finding,
    Judged,
    Kernel,
    Mood,
    Place,
    Possible,
    Probed,
    Quote,
    Remark,
    Report,
    Setting,
    Speaker,
    Statement,
    System,
    Words,
)

__all__ = ["Finding", "Judged", "Possible", "Remark", "judge"]

TABLE = Path(__file__).with_suffix(".toml")
# What programs said in the lab's guests under each cause: see benchmarks/witnesses.py.
MEASURED = Path(__file__).with_name("measured.json")
OTHER = "other"
# The least share of a field's odds with which a cause is called likely: learned by benchmarks/reports.py, so
# that of those that are called likely at least nine in ten are right. And the least one with which a cause is
# listed at all.
LIKELY, POSSIBLE = 0.55, 0.08
# What is refused, in words, by the steps of `messages.toml`.
STEPS = {
    "namespace": "a user namespace",
    "disabled": "user namespaces altogether",
    "uid-map": "the uid map of its user namespace",
    "capability": "the set-up of its own network",
    "mount": "a mount in its namespace",
    "proc": "a mount of /proc",
    "chromium": "a usable sandbox",
    "sandbox": "a usable sandbox",
    "kvm": "/dev/kvm",
    "kvm-unusable": "the use of KVM",
    "process": "a process or a thread",
    "exec": "the execution of a file",
    "path": "a file",
    "symlink-file": "a file to mount on",
    "symlink": "a file to mount on",
}
# The chance of a message under a cause that the table does not name for it: people quote unrelated messages.
FLOOR = 0.003
# The least chance of a message under a cause under which it was measured.
SEEN = 0.5
# Most causes that are listed as possible, and most programs that a report is judged for.
MOST_POSSIBLE = 5
MOST_PROGRAMS = 10


def judge(report: Report, least: float = LIKELY) -> Judged:
    """Judge what a report's text shows. `least` is the share of the odds from which a cause is likely."""
    findings = _by_rules(report)
    likely, possible = _by_odds(report, findings, least)
    together = _together(findings, likely)
    return Judged(together, remarks.made(report, together), possible)


def _together(by_rules: Sequence[Finding], by_odds: Sequence[Finding]) -> tuple[Finding, ...]:
    """Both kinds of finding, each cause of a program once, in the order in which the causes block."""
    kept = {(finding.name, finding.program): finding for finding in by_rules}
    for finding in by_odds:
        before = kept.get((finding.name, finding.program))
        quotes = finding.quotes if before is None else (*before.quotes, *finding.quotes)
        unique = tuple(sorted(set(quotes), key=lambda quote: quote.number))
        kept[finding.name, finding.program] = replace(before or finding, quotes=unique)
    order = list(causes.known())

    def rank(finding: Finding) -> tuple[bool, int]:
        return finding.program != BUBBLEWRAP, order.index(finding.name)

    return tuple(sorted(kept.values(), key=rank))


# -- by the rules of the causes

# The statements that the evidence is made of.
EVIDENCE = (AuditLine, Ended, Probed, Setting, Words)
# How messages begin that tell of a refused user namespace, and of what is refused in one.
REFUSED = ("unshare: unshare failed", "clone(CLONE_NEWUSER) errno")
UID_MAP = "unshare: write failed"
# boxlite's own threads and processes, which make namespaces before and after bubblewrap.
BOXLITE = re.compile(r"boxlite.*|tokio-rt-worker")
# systemd, and the processes in which it sets up a service: containers deny them mounts, and they go on.
SERVICES = re.compile(r"systemd(?:-\w+)?|\(.*\)")
# Causes that are boxlite's own fault.
OF_BOXLITE = ("shim-seccomp", "shim-not-executable")


def programs(report: Report) -> list[str]:
    """Return the programs that audit lines name, bubblewrap first: each may be blocked for its own reason."""
    names = [program_of(line) for line in report.of(AuditLine)]
    return list(dict.fromkeys([BUBBLEWRAP, *(name for name in names if name != "unshare")]))[:MOST_PROGRAMS]


def program_of(line: AuditLine) -> str:
    """Return the program that an audit line is about: bubblewrap if it names boxlite's own or none."""
    name = line.fields.get("comm", BUBBLEWRAP)
    return BUBBLEWRAP if BOXLITE.fullmatch(name) else name


def evidence_of(statements: Iterable[Statement], program: str = BUBBLEWRAP) -> Evidence:
    """Return the evidence of statements about a program, which stands for bubblewrap in it.

    What was tried as a cure does not hold. What the probe script found out is a cell's own evidence.
    """
    known: Sequence[Statement] = tuple(statements)
    words = [each for each in known if isinstance(each, Words)] if program == BUBBLEWRAP else []
    settings = [each for each in known if isinstance(each, Setting)] if program == BUBBLEWRAP else []
    lines = [each for each in known if isinstance(each, AuditLine) and program_of(each) in (program, "unshare")]
    failed = _failure([each for each in words if each.speaker is Speaker.BUBBLEWRAP])
    if program != BUBBLEWRAP:
        failed = Probe(status=1, stderr="", command=())
    probes = {
        "bwrap_user": failed,
        "unshare_user": _failure([each for each in words if each.text.startswith(REFUSED)]),
        "unshare_user_root": _failure([each for each in words if each.text.startswith((*REFUSED, UID_MAP))]),
    }
    # boxlite tells how the shim ended in a line of its message.
    ended = tuple(
        f"exit status {each.status}" for each in known if isinstance(each, Ended) and program == BUBBLEWRAP
    )
    quoted = NONE_RUN.model_copy(update={name: probe for name, probe in probes.items() if probe is not None})
    probed = [each.host for each in known if isinstance(each, Probed) and each.host and program == BUBBLEWRAP]
    label = read_label(probed[0].who.context.apparmor) if probed else None
    holding = {each.name: each.value for each in settings if each.value is not None and _holds(each)}
    found_out = {
        name: value for host in probed for name, value in host.facts.sysctls.items() if value is not None
    }
    return Evidence(
        probes=probed[0].probes if probed else quoted,
        profile=STACKED.join(label.profiles) if label and label.confines else None,
        sysctls={**holding, **found_out},
        audit=[{"comm": program, **line.fields} for line in lines],
        messages=tuple(each.text for each in words if each.speaker is Speaker.BOXLITE) + ended,
        programs=tuple(dict.fromkeys([program, *(line.fields.get("comm", program) for line in lines)])),
    )


def _holds(setting: Setting) -> bool:
    return setting.mood is Mood.HOLDS and setting.place is Place.HOST


def _failure(words: Sequence[Words]) -> Probe | None:
    """A probe that failed with these messages; None if there are none."""
    return Probe(status=1, stderr="\n".join(each.text for each in words), command=()) if words else None


def _by_rules(report: Report) -> list[Finding]:
    """What the rules of the causes find for each program that is blocked."""
    findings = [finding for program in programs(report) for finding in _of_program(report, program)]
    if "boxlite" in report.topics:
        return findings
    return [finding for finding in findings if finding.name not in OF_BOXLITE]


def _of_program(report: Report, program: str) -> Iterator[Finding]:
    whole = evidence_of(report.statements, program)
    # Nobody said whether a box starts without the jailer, which the rules ask.
    shown = {
        cause.name: cause
        for control_failed in (False, True)
        for cause in causes.diagnose(replace(whole, control_failed=control_failed))
    }
    for name, cause in shown.items():
        telling = _telling(report, program, name)
        lines = [one for one in telling if isinstance(one, AuditLine)]
        if program != BUBBLEWRAP and not any(_is_about_namespaces(name, line.fields) for line in lines):
            continue
        by_probe = cause.confidence is Confidence.PROVED and any(isinstance(one, Probed) for one in telling)
        # Lines of boxlite's thread and of `unshare` are logged where bubblewrap works, too.
        proved = by_probe or any(_is_denial(line) and line.fields.get("comm") == program for line in lines)
        named = not lines or any("comm" in line.fields for line in lines)
        unnamed = "" if named else "; the audit line, as it is quoted, names no program"
        yield Finding(
            name,
            Confidence.PROVED if proved else Confidence.LIKELY,
            f"{cause.why}{unnamed}",
            tuple(dict.fromkeys(one.quote for one in telling)),
            program,
        )


def _is_about_namespaces(name: str, fields: Mapping[str, str]) -> bool:
    """Whether a line of another program than bubblewrap is about what the cause denies bubblewrap.

    Profiles of services and snaps deny capabilities and disconnected paths all the time, and nothing fails.
    """
    if name == "apparmor-userns-nocaps":
        return RESTRICTED in (fields.get("profile"), fields.get("target"))
    if name == "apparmor-disconnected":
        return re.search(r"(?:uid_map|gid_map|setgroups)$|/ns/", fields.get("name", "")) is not None
    if name in ("apparmor-mount-deny", "selinux-mount-deny"):
        return SERVICES.fullmatch(fields.get("comm", "")) is None
    return True


def _is_denial(line: AuditLine) -> bool:
    """Whether the kernel refused something with this line, rather than only told of it."""
    fields = line.fields
    return fields.get("apparmor") == "DENIED" or ("avc" in fields and fields.get("permissive") != "1")


def _telling(report: Report, program: str, name: str) -> list[Statement]:
    """Return the statements by which a cause is found, each alone or together with nothing but messages."""
    cause = causes.known()[name]
    words = tuple(report.of(Words))
    by_words = cause.rule(evidence_of(words, program)) is not None

    def tells(statement: Statement) -> bool:
        if cause.rule(evidence_of([statement], program)) is not None:
            return True
        beside = () if by_words or isinstance(statement, Words) else words
        return bool(beside) and cause.rule(evidence_of([statement, *beside], program)) is not None

    return [each for each in report.statements if isinstance(each, EVIDENCE) and tells(each)]


# -- by odds

Odds = dict[str, float]


class Row(BaseModel):
    """A row of `judging.toml`, which explains its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldRow(Row):
    """What can be refused, and the priors of what can be behind it."""

    name: str
    steps: list[str]
    prior: Odds


class Chance(Row):
    """How likely a message is under each cause. `topic`: only in a report of that topic."""

    step: str
    errno: str | None = None
    program: list[str] = Field(default_factory=list)
    topic: str | None = None
    of: Odds
    source: str


class Shipped(Row):
    """What a system ships: the priors of causes on it."""

    ids: list[str]
    begin: str | None = Field(default=None, alias="from")
    end: str | None = Field(default=None, alias="to")
    kernel_from: str | None = None
    kernel_to: str | None = None
    of: Odds
    why: str
    source: str


class Fact(Row):
    """A topic that speaks for or against causes. `engine`: only for the words of engines, or of others."""

    topic: str
    engine: bool | None = None
    of: Odds
    why: str
    source: str


class SettingRow(Row):
    """A setting that speaks for or against causes, by what the report says of it."""

    name: str
    value: str | None = None
    beside: bool = False
    holds: Odds = Field(default_factory=dict)
    helped: Odds = Field(default_factory=dict)
    tried: Odds = Field(default_factory=dict)
    in_vain: Odds = Field(default_factory=dict)
    default: Odds = Field(default_factory=dict)
    hypothetical: Odds = Field(default_factory=dict)


class Check(Row):
    """A command that tells a cause from others, and what it shows."""

    cause: str
    command: str
    shows: str


class Knowledge(BaseModel):
    """The whole of `judging.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: list[dict[str, str]]
    field: list[FieldRow]
    chance: list[Chance]
    shipped: list[Shipped]
    fact: list[Fact]
    setting: list[SettingRow]
    check: list[Check]


@cache
def knowledge() -> Knowledge:
    """The table."""
    return Knowledge.model_validate(tomllib.loads(TABLE.read_text()))


@cache
def measured() -> Mapping[tuple[str | None, ...], frozenset[str]]:
    """The causes under which a program's message was measured, by its step, its error and the program."""
    under = defaultdict(set)
    for row in json.loads(MEASURED.read_text()):
        for line in row["words"]:
            words = messages.message_of(Quote(0, line), line)
            if words is not None and words.step is not None:
                under[words.step, words.means, words.program].add(row["cause"])
    return {message: frozenset(names) for message, names in under.items()}


@dataclass(frozen=True)
class Weight:
    """What something in the report does to the odds: a factor for each cause, in words, and its line."""

    factors: Mapping[str, float]
    why: str
    quote: Quote | None = None
    # A message and a cure are each reason enough to judge their field.
    is_message: bool = False
    is_cure: bool = False

    @property
    def decides(self) -> bool:
        return self.is_message or self.is_cure

    def of(self, cause: str) -> float:
        return self.factors.get(cause, 1.0)


def _by_odds(
    report: Report, by_rules: Sequence[Finding], least: float
) -> tuple[list[Finding], tuple[Possible, ...]]:
    """The likely causes, at most one in each field, and those that are possible where none is likely."""
    likely: list[Finding] = []
    possible: list[Possible] = []
    explained = {finding.name for finding in by_rules if finding.program == BUBBLEWRAP}
    others = any(finding.program != BUBBLEWRAP for finding in by_rules)
    for field in knowledge().field:
        priors, weights = _weights(report, field)
        if not any(weight.decides for weight in weights):
            continue
        shares = _shares(priors, weights)
        best = max(shares, key=lambda name: shares[name])
        of_rules = explained & field.prior.keys()
        if best != OTHER and shares[best] >= least and (not of_rules or best in of_rules) and not others:
            likely.append(_finding(best, weights, priors, field.prior))
        elif not of_rules and not others:
            possible += _possible(shares, weights, priors, field.prior)
    possible.sort(key=lambda each: -each.share)
    return likely, tuple(possible[:MOST_POSSIBLE])


def _weights(report: Report, field: FieldRow) -> tuple[list[Weight], list[Weight]]:
    """What speaks for and against a field's causes: the priors of the named systems, and all else."""
    since = _since(report, field)
    words = [each for each in report.of(Words) if each.step in field.steps and each.quote.number >= since]
    names = field.prior.keys()
    weights = []
    for step, means, program in dict.fromkeys((each.step, each.means, each.program) for each in words):
        chance = _chance(report, step, means, program)
        if chance is None:
            continue
        same = (each for each in words if (each.step, each.means, each.program) == (step, means, program))
        quote = next(same).quote
        who = "a program" if program == messages.ANY else program
        what = f"{who} is refused {STEPS[step or '']}{f' ({means})' if means else ''}"
        seen = measured().get((step, means, program), frozenset())
        factors = {name: max(chance.of.get(name, FLOOR), SEEN if name in seen else 0) for name in names}
        weights.append(Weight(factors, what, quote, is_message=True))
    engine = bool(words) and all(each.engine for each in words)
    for fact in knowledge().fact:
        quote_ = report.topics.get(fact.topic)
        if quote_ is not None and fact.engine in (None, engine) and names & fact.of.keys():
            weights.append(Weight(fact.of, fact.why, quote_))
    weights += [weight for weight in _of_settings(report, since) if weight.factors.keys() & names - {OTHER}]
    return _priors(report, field), weights


def _since(report: Report, field: FieldRow) -> int:
    """The first line that counts: failures of a field that were told before another one are cured."""
    line = report.topics.get("next-failure")
    words = [each for each in report.of(Words) if each.step in field.steps]
    if line is None or not any(each.quote.number >= line.number for each in words):
        return 0
    before = {each.step for each in words if each.quote.number < line.number}
    return line.number if before - {each.step for each in words if each.quote.number >= line.number} else 0


def _chance(report: Report, step: str | None, means: str | None, program: str | None) -> Chance | None:
    rows = [
        row
        for row in knowledge().chance
        if row.step == step and row.errno in (None, means) and row.topic in (None, *report.topics)
    ]
    own = [row for row in rows if program in row.program]
    return next(iter([*own, *(row for row in rows if not row.program)]), None)


def _of_settings(report: Report, since: int) -> Iterator[Weight]:
    for setting in report.of(Setting):
        if setting.mood is Mood.TRIED and setting.quote.number < since:
            continue  # It cured the failure before.
        if setting.place is not Place.HOST and not setting.name.startswith("-"):
            continue
        for row in knowledge().setting:
            if not re.fullmatch(row.name, setting.name) or (row.value is None) != (setting.value is None):
                continue
            if row.value is not None and not re.fullmatch(row.value, setting.value or ""):
                continue
            factors, what = _mood_of(row, setting)
            name = setting.name if setting.value is None else f"{setting.name}={setting.value}"
            if factors:
                is_cure = bool(setting.helped) and not row.beside
                yield Weight(factors, f"{name} {what}", setting.quote, is_cure=is_cure)


def _mood_of(row: SettingRow, setting: Setting) -> tuple[Odds, str]:
    match setting.mood, setting.helped:
        case Mood.HOLDS, _:
            return row.holds, "holds"
        case Mood.TRIED, True:
            return row.helped, "cures it, as the reporter says"
        case Mood.TRIED, False:
            return row.in_vain, "does not help, as the reporter says"
        case Mood.TRIED, None:
            return row.tried, "was tried"
        case Mood.DEFAULT, _:
            return row.default, "is said to be the default"
        case Mood.HYPOTHETICAL, _:
            return row.hypothetical, "is named as what it takes"
    return {}, ""


def _priors(report: Report, field: FieldRow) -> list[Weight]:
    """The priors of a field: its own, and one for each host that the report names, in their place."""
    hosts = [each for each in report.of(System) if each.place is Place.HOST]
    kernel = next((each.release for each in report.of(Kernel)), None)
    priors = []
    for system in hosts:
        row = next((row for row in knowledge().shipped if _is_of(row, system, kernel)), None)
        if row is not None and field.prior.keys() & row.of.keys():
            own = {name: share for name, share in row.of.items() if name in field.prior}
            priors.append(Weight(field.prior | own, row.why, system.quote))
    return priors or [Weight(field.prior, "")]


def _is_of(row: Shipped, system: System, kernel: str | None) -> bool:
    """Whether a row is about a system. A range excludes what names no version, or one that is no number."""
    if system.id not in row.ids:
        return False
    if row.kernel_from or row.kernel_to:
        # A release may run newer kernels, so the kernel only tells where no release is named.
        series = re.match(r"\d+\.\d+", kernel or "")
        return system.version is None and _is_between(
            series[0] if series else None, row.kernel_from, row.kernel_to
        )
    return _is_between(system.version, row.begin, row.end)


def _is_between(version: str | None, begin: str | None, end: str | None) -> bool:
    if begin is None and end is None:
        return True
    try:
        number = Version(version or "")
        return (begin is None or number >= Version(begin)) and (end is None or number <= Version(end))
    except InvalidVersion:
        return False


def _shares(priors: Sequence[Weight], weights: Sequence[Weight]) -> Odds:
    """The share of each cause in a field's odds. Hosts that fail alike have the mean of their priors."""
    names = priors[0].factors.keys()
    odds = {
        name: prod(prior.of(name) for prior in priors) ** (1 / len(priors))
        * prod(weight.of(name) for weight in weights)
        for name in names
    }
    total = sum(odds.values()) or 1.0
    return {name: share / total for name, share in odds.items()}


def _finding(name: str, weights: Sequence[Weight], priors: Sequence[Weight], usual: Odds) -> Finding:
    """A likely cause. `usual`: the priors where no system is named."""
    speaking = [weight for weight in weights if weight.of(name) > (FLOOR if weight.is_message else 1)]
    said = [weight for weight in weights if weight.is_message and weight.of(name) > FLOOR]
    several = len({weight.why for weight in said}) > 1
    why = "; ".join(dict.fromkeys(weight.why for weight in speaking))
    if several:
        why += ": its different messages come from that one cause"
    shipped = [prior.why for prior in priors if prior.of(name) > 1.5 * usual[name]]
    why = "; ".join([why, *dict.fromkeys(shipped)])
    quotes = [weight.quote for weight in speaking if weight.quote is not None]
    unique = sorted(set(quotes), key=lambda quote: quote.number)
    return Finding(name, Confidence.LIKELY, why, tuple(unique))


def _possible(
    shares: Odds, weights: Sequence[Weight], priors: Sequence[Weight], usual: Odds
) -> Iterator[Possible]:
    """The causes with a share worth telling. `usual`: the priors where no system is named."""
    checks = {check.cause: check for check in knowledge().check}
    messages = [weight for weight in weights if weight.decides]
    quotes = tuple(dict.fromkeys(weight.quote for weight in messages if weight.quote is not None))
    for name, share in shares.items():
        if share < POSSIBLE or name == OTHER or name not in checks:
            continue
        # How much more likely each makes it: a system against the usual one, a message against the best cause.
        ratios = [(prior.why, prior.of(name) / usual[name]) for prior in priors if prior.why]
        ratios += [
            (weight.why, 2 * weight.of(name) if weight.is_message else weight.of(name)) for weight in weights
        ]
        speaks_for = tuple(why for why, ratio in ratios if ratio > 1.5)
        speaks_against = tuple(why for why, ratio in ratios if ratio < 0.5)
        check = checks[name]
        yield Possible(name, round(share, 2), speaks_for, speaks_against, check.command, check.shows, quotes)
