"""What the text of a report alone shows, before anything boots: causes that are proved, likely or possible.

The rules of the causes judge audit lines and the output of the probe script, as they judge a cell's evidence:
only these prove a cause. Everything else in a report is weighed by the table `judging.toml`, and makes a cause
likely at most: how likely a message is under each cause, and how likely each cause is on the named system.
"""

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion
from pydantic import BaseModel, ConfigDict

from lab import causes
from lab.causes.evidence import Evidence
from lab.causes.rules import RESTRICTED
from lab.probes import NONE_RUN, Probe
from lab.probes.facts import STACKED, read_label
from lab.probes.report import HostReport
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
# The chance of a message under a cause that the table does not name for it: people quote unrelated messages.
FLOOR = 0.003
# The least chance of a message under a cause under which it was measured.
SEEN = 0.5
# Most causes that are listed as possible, and most programs that a report is judged for.
MOST_POSSIBLE = 5
MOST_PROGRAMS = 10


def judge(report: Report, least: float = LIKELY) -> Judged:
    """Judge what a report's text shows. `least` is the share of the odds from which a cause is likely."""
    findings = list(_by_evidence(report))
    likely, possible, notes = _by_odds(report, findings, least)
    for finding in likely:
        shown = (one for one in findings if (one.name, one.program) == (finding.name, BUBBLEWRAP))
        same = next(shown, None)
        if same is None:
            findings.append(finding)
        else:
            quotes = sorted({*same.quotes, *finding.quotes}, key=lambda quote: quote.number)
            findings[findings.index(same)] = replace(same, quotes=tuple(quotes))
    order = list(causes.known())
    findings.sort(key=lambda finding: (finding.program != BUBBLEWRAP, order.index(finding.name)))
    return Judged(tuple(findings), remarks.made(report, findings, notes), possible)


# -- audit lines and the probe script's output, by the rules of the causes

# boxlite's own threads and processes, which make namespaces before and after bubblewrap.
BOXLITE = re.compile(r"boxlite.*|tokio-rt-worker")
# systemd, and the processes in which it sets up a service: containers deny them mounts, and they go on.
SERVICES = re.compile(r"systemd(?:-\w+)?|\(.*\)")


def _by_evidence(report: Report) -> Iterator[Finding]:
    """What the rules of the causes find for each program that is blocked, bubblewrap first."""
    probed = next((probed for probed in report.of(Probed) if probed.host), None)
    lines = list(report.of(AuditLine))
    names = dict.fromkeys([BUBBLEWRAP, *map(_program_of, lines)])
    for program in [name for name in names if name != "unshare"][:MOST_PROGRAMS]:
        own = [line for line in lines if _program_of(line) in (program, "unshare")]
        host = probed.host if probed and program == BUBBLEWRAP else None
        for name, cause in causes.known().items():
            shown = cause.rule(_evidence(own, program, host))
            if shown is None:
                continue
            telling = [line for line in own if cause.rule(_evidence([line], program, None))]
            if program != BUBBLEWRAP and not any(_is_about_namespaces(name, line.fields) for line in telling):
                continue
            by_probe = host is not None and cause.rule(_evidence([], program, host)) is not None
            # Lines of boxlite's thread and of `unshare` are logged where bubblewrap works, too.
            proved = any(_is_denial(line) and line.fields.get("comm") == program for line in telling)
            proved = proved or (by_probe and shown.confidence is Confidence.PROVED)
            named = not telling or any("comm" in line.fields for line in telling)
            why = shown.why if named else f"{shown.why}; the audit line, as it is quoted, names no program"
            quotes = [line.quote for line in telling] + ([probed.quote] if probed and by_probe else [])
            confidence = Confidence.PROVED if proved else Confidence.LIKELY
            yield Finding(name, confidence, why, tuple(dict.fromkeys(quotes)), program)


def _program_of(line: AuditLine) -> str:
    """Return the program that an audit line is about: bubblewrap if it names boxlite's own or none."""
    name = line.fields.get("comm", BUBBLEWRAP)
    return BUBBLEWRAP if BOXLITE.fullmatch(name) else name


def _evidence(lines: Sequence[AuditLine], program: str, host: HostReport | None) -> Evidence:
    """Audit lines about a program, which stands for bubblewrap in it, and the probe's output, as evidence.

    Without a probe's output the program failed, and nobody quotes its words.
    """
    label = read_label(host.who.context.apparmor) if host else None
    failed = NONE_RUN.model_copy(update={"bwrap_user": Probe(status=1, stderr="", command=())})
    sysctls = host.facts.sysctls.items() if host else ()
    return Evidence(
        probes=host.probes if host else failed,
        profile=STACKED.join(label.profiles) if label and label.confines else None,
        sysctls={name: value for name, value in sysctls if value is not None},
        audit=[{"comm": program, **line.fields} for line in lines],
        programs=tuple(dict.fromkeys([program, *(line.fields.get("comm", program) for line in lines)])),
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


# -- everything else, by the table

Odds = dict[str, float]


class Row(BaseModel):
    """A row of `judging.toml`, which explains its fields. `of`: what it says of each cause, and `why`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: Odds = {}
    why: str = ""
    source: str = ""


class Field(Row):
    """What can be refused, in words, and the priors of what can be behind it."""

    name: str
    steps: dict[str, str]
    prior: Odds


class Chance(Row):
    """How likely a message is under each cause. `topic`: only in a report of that topic."""

    step: str
    errno: str | None = None
    program: list[str] = []
    topic: str | None = None
    remark: str = ""


class Shipped(Row):
    """What a system ships: the priors of causes on it."""

    ids: list[str]
    versions: str | None = None
    kernels: str | None = None


class Fact(Row):
    """A topic that speaks for or against causes. `engine`: only for the words of engines, or of others."""

    topic: str
    engine: bool | None = None


class SettingRow(Row):
    """A setting that speaks for or against causes. `by_mood`: the factors by what is said of it (`moods`)."""

    name: str
    value: str | None = None
    beside: bool = False
    alone: bool = False
    by_mood: dict[str, Odds]


class Check(Row):
    """A command that tells a cause from others, and what it shows."""

    cause: str
    command: str
    shows: str


class Knowledge(Row):
    """The whole of `judging.toml`."""

    topic: list[dict[str, str]]
    field: list[Field]
    chance: list[Chance]
    shipped: list[Shipped]
    fact: list[Fact]
    moods: dict[str, str]
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
    """What something in the report does to the odds: a factor for each cause, in words, and its line.

    `decides`: it is reason enough to judge its field, as a message is, or what cured.
    """

    factors: Mapping[str, float]
    why: str
    quote: Quote | None = None
    is_message: bool = False
    decides: bool = False

    def of(self, cause: str) -> float:
        return self.factors.get(cause, 1.0)


def _by_odds(
    report: Report, by_evidence: Sequence[Finding], least: float
) -> tuple[list[Finding], tuple[Possible, ...], list[Remark]]:
    """The likely causes, at most one in each field; those that are possible where none is likely; remarks."""
    likely: list[Finding] = []
    possible: list[Possible] = []
    notes: list[Remark] = []
    spoken = list(report.of(Words))
    # A signal says what was refused, too.
    spoken += [
        Words(ended.quote, "", Speaker.OTHER, step="signal", program=messages.ANY, means=ended.signal)
        for ended in report.of(Ended)
        if ended.signal
    ]
    for field in knowledge().field:
        told = [message for message in spoken if message.step in field.steps]
        since = _since(report, told)
        told = [message for message in told if message.quote.number >= since]
        priors = _priors(report, field)
        weights = [
            *_of_messages(report, field, told, notes),
            *_of_topics(report, field, told),
            *_of_settings(report, field, since),
        ]
        if not any(weight.decides for weight in weights):
            continue
        odds = {
            # Hosts that fail alike have the mean of their priors.
            name: prod(prior.of(name) for prior in priors) ** (1 / len(priors))
            * prod(weight.of(name) for weight in weights)
            for name in field.prior
        }
        total = sum(odds.values()) or 1.0
        shares = {name: share / total for name, share in odds.items()}
        best = max(shares, key=lambda name: shares[name])
        blocked = {finding.name: finding.program for finding in by_evidence if finding.name in field.prior}
        if any(program != BUBBLEWRAP for program in blocked.values()):
            continue
        if best != OTHER and shares[best] >= least and (not blocked or best in blocked):
            likely.append(_finding(best, field, priors, weights))
        elif not blocked:
            possible += _possible(shares, field, priors, weights)
    possible.sort(key=lambda candidate: -candidate.share)
    return likely, tuple(possible[:MOST_POSSIBLE]), notes


def _since(report: Report, words: Sequence[Words]) -> int:
    """The first line that counts of a field's messages: what was told before another failure is cured."""
    line = report.topics.get("next-failure")
    if line is None:
        return 0
    before = {message.step for message in words if message.quote.number < line.number}
    after = {message.step for message in words if message.quote.number >= line.number}
    return line.number if after and before - after else 0


def _of_messages(report: Report, field: Field, told: Sequence[Words], notes: list[Remark]) -> Iterator[Weight]:
    """What messages of a field say, each once. Remarks on them are added to `notes`."""
    quotes: dict[tuple[str | None, ...], list[Quote]] = defaultdict(list)
    for message in told:
        quotes[message.step, message.means, message.program].append(message.quote)
    for (step, means, program), lines in quotes.items():
        rows = [
            row
            for row in knowledge().chance
            if row.step == step
            and row.errno in (None, means)
            and row.topic in (None, *report.topics)
            and (not row.program or program in row.program)
        ]
        if not rows:
            continue
        row = max(rows, key=lambda row: bool(row.program))  # The first of those for the program, or for all.
        if row.remark:
            notes.append(Remark(row.remark, tuple(lines)))
        seen = measured().get((step, means, program), frozenset())
        factors = {name: max(row.of.get(name, FLOOR), SEEN if name in seen else 0) for name in field.prior}
        who = "a program" if program == messages.ANY else program
        what = f"{who} is refused {field.steps[step or '']}{f' ({means})' if means else ''}"
        yield Weight(factors, what, lines[0], is_message=True, decides=True)


def _of_topics(report: Report, field: Field, told: Sequence[Words]) -> Iterator[Weight]:
    engine = bool(told) and all(message.engine for message in told)
    for fact in knowledge().fact:
        quote = report.topics.get(fact.topic)
        if quote is not None and fact.engine in (None, engine) and field.prior.keys() & fact.of.keys():
            yield Weight(fact.of, fact.why, quote)


def _of_settings(report: Report, field: Field, since: int) -> Iterator[Weight]:
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
            tried = {True: "helped", False: "in_vain", None: "tried"}[setting.helped]
            mood = tried if setting.mood is Mood.TRIED else str(setting.mood)
            factors = row.by_mood.get(mood, {})
            name = setting.name if setting.value is None else f"{setting.name}={setting.value}"
            decides = (setting.helped is True and not row.beside) or (row.alone and setting.mood is Mood.HOLDS)
            if factors.keys() & field.prior.keys() - {OTHER}:
                yield Weight(factors, f"{name} {knowledge().moods[mood]}", setting.quote, decides=decides)


def _priors(report: Report, field: Field) -> list[Weight]:
    """The priors of a field: its own, and one for each host that the report names, in their place."""
    kernel = next((kernel.release for kernel in report.of(Kernel)), "")
    priors = []
    for system in report.of(System):
        rows = (row for row in knowledge().shipped if _is_of(row, system, kernel))
        row = next(rows, None) if system.place is Place.HOST else None
        if row is not None and field.prior.keys() & row.of.keys():
            own = {name: share for name, share in row.of.items() if name in field.prior}
            priors.append(Weight(field.prior | own, row.why, system.quote))
    return priors or [Weight(field.prior, "")]


def _is_of(row: Shipped, system: System, kernel: str) -> bool:
    """Whether a row is about a system. A range excludes what names no version, or one that is no number."""
    if system.id not in row.ids:
        return False
    if row.kernels is None and row.versions is None:
        return True
    # A release may run newer kernels: they only tell where no release is named.
    if row.kernels and system.version is not None:
        return False
    series = re.match(r"\d+\.\d+", kernel)
    version = (series[0] if series else None) if row.kernels else system.version
    try:
        return version is not None and SpecifierSet(row.kernels or row.versions or "").contains(
            version, prereleases=True
        )
    except InvalidVersion:
        return False


def _finding(name: str, field: Field, priors: Sequence[Weight], weights: Sequence[Weight]) -> Finding:
    speaking = [weight for weight in weights if weight.of(name) > (FLOOR if weight.is_message else 1)]
    said = {weight.why for weight in speaking if weight.is_message}
    why = "; ".join(dict.fromkeys(weight.why for weight in speaking))
    if len(said) > 1:
        why += ": its different messages come from that one cause"
    shipped = [prior.why for prior in priors if prior.of(name) > 1.5 * field.prior[name]]
    why = "; ".join([why, *dict.fromkeys(shipped)])
    quotes = {weight.quote for weight in speaking if weight.quote is not None}
    return Finding(name, Confidence.LIKELY, why, tuple(sorted(quotes, key=lambda quote: quote.number)))


def _possible(
    shares: Odds, field: Field, priors: Sequence[Weight], weights: Sequence[Weight]
) -> Iterator[Possible]:
    """The causes with a share worth telling."""
    checks = {check.cause: check for check in knowledge().check}
    quotes = tuple(dict.fromkeys(weight.quote for weight in weights if weight.decides and weight.quote))
    for name, share in shares.items():
        if share < POSSIBLE or name == OTHER:
            continue
        # How much more likely each makes it: a system against the usual one, a message against the best cause.
        ratios = [(prior.why, prior.of(name) / field.prior[name]) for prior in priors if prior.why]
        ratios += [(weight.why, weight.of(name) * (2 if weight.is_message else 1)) for weight in weights]
        speaks_for = tuple(why for why, ratio in ratios if ratio > 1.5)
        speaks_against = tuple(why for why, ratio in ratios if ratio < 0.5)
        check = checks[name]
        yield Possible(name, round(share, 2), speaks_for, speaks_against, check.command, check.shows, quotes)
