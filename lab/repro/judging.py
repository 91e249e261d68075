"""What the text of a report alone shows, before anything boots: causes that are proved, likely or possible.

The rules of the causes judge audit lines and the output of the probe script, as they judge a cell's evidence:
only these prove a cause. Everything else in a report is weighed by the table `judging.toml`, and makes a cause
likely at most: how likely a message is under each cause, and how likely each cause is on the named system.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from math import prod
from pathlib import Path
from typing import Any

from lab.base.files import group_values
from lab.repro import instead, messages, systems
from lab.repro.report import (
    ANY,
    BUBBLEWRAP,
    AuditLine,
    ErrorMessage,
    Finding,
    JudgedReport,
    KernelStatement,
    Mood,
    Place,
    PossibleCause,
    ProbeOutput,
    ProgramEnd,
    Quote,
    Remark,
    Report,
    Setting,
    Speaker,
    System,
)
from lab.repro.source import load_table

TABLE = load_table(__file__)
# What programs said in the lab's guests under each cause: see benchmarks/witnesses.py.
MEASURED = Path(__file__).with_name("measured.json")
OTHER = "other"
# The fields in which a host's settings decide.
OF_HOST = ("sandbox", "kvm")
# The least share of a field's odds with which a cause is called likely: learned by benchmarks/reports.py, so
# that of those that are called likely at least nine in ten are right. And the least one with which a cause is
# listed at all.
LIKELY, POSSIBLE = 0.5, 0.08
# The chance of a message under a cause that the table does not name for it: people quote unrelated messages.
FLOOR = 0.003
# Most causes that are listed as possible.
MOST_POSSIBLE = 5
# So many times better a system has to fit a report's messages than another that it names as its host.
FIT = 2.0
# The operation of words that say only that something fails, and the least factor of what explains it.
WORDS, STRONG = "words", 3.0
SOMETHING_FAILS = "something fails, as the report says"
# More remarks than any report deserves.
MOST_REMARKS = 20
# Ubuntu's sysctl, and the profile that it moves programs into.
RESTRICTION, RESTRICTED = "kernel.apparmor_restrict_unprivileged_userns", "unprivileged_userns"
# WSL2's kernel is one of Windows.
WSL = "windows"


def judge_report(report: Report, least: float = LIKELY) -> JudgedReport:
    """Judge what a report's text shows. `least` is the share of the odds from which a cause is likely."""
    by_evidence = _by_evidence(report)
    likely, possible, notes = _by_odds(report, by_evidence, least)
    findings = {(finding.name, finding.program): finding for finding in by_evidence}
    for finding in likely:
        same = findings.setdefault((finding.name, finding.program), finding)
        quotes = sorted({*same.quotes, *finding.quotes}, key=lambda quote: quote.number)
        findings[finding.name, finding.program] = replace(same, quotes=tuple(quotes))
    ordered = list(findings.values())
    if len(ordered) > 1:
        from lab import causes

        order = list(causes.list_causes())
        ordered.sort(key=lambda finding: (finding.program != BUBBLEWRAP, order.index(finding.name)))
    fields = (field for field in TABLE["field"] if field["name"] in OF_HOST)
    operations = {name for field in fields for name in field["operations"]}
    explanations = () if ordered else instead.find_explanations(report, operations)
    return JudgedReport(tuple(ordered), _remarks(report, ordered, notes), possible, explanations)


def _by_evidence(report: Report) -> list[Finding]:
    """What the rules of the causes find in audit lines and in the output of the probe script."""
    if not any(isinstance(statement, AuditLine | ProbeOutput) for statement in report.statements):
        return []
    # The rules take longer to import than most reports to read, and most reports have neither.
    from lab.repro import rules

    return list(rules.find_findings(report, TABLE["other-programs"]))


# How likely something is under each cause, or the factor by which it changes the odds of each.
Odds = Mapping[str, float]


def measured_in(variant: str) -> set[tuple[str | None, str | None]]:
    """What bubblewrap was measured to say in a variant, by the operation and the error of its message."""
    said = (
        messages.find_message(Quote(0, line), line)
        for row in json.loads(MEASURED.read_text("utf-8"))
        for line in row["words"]
        if row["variant"] == variant
    )
    by_bubblewrap = (one for one in said if one and one.speaker is Speaker.BUBBLEWRAP)
    return {(one.operation, one.means) for one in by_bubblewrap if one.operation}


@dataclass(frozen=True)
class Weight:
    """What something in the report does to the odds: a factor for each cause, in words, and its line.

    The factors of a message are its chances under each cause. `decides`: it is reason enough to judge its
    field, as a message is, or what cured. `remark` warns against a wrong conclusion from it.
    """

    factors: Odds
    reason: str
    quote: Quote | None = None
    is_message: bool = False
    decides: bool = False
    remark: Remark | None = None

    def of(self, cause: str) -> float:
        return self.factors.get(cause, 1.0)


def _by_odds(
    report: Report, by_evidence: Sequence[Finding], least: float
) -> tuple[list[Finding], tuple[PossibleCause, ...], list[Remark]]:
    """The likely causes, at most one in each field; those that are possible where none is likely; remarks."""
    likely: list[Finding] = []
    possible: list[PossibleCause] = []
    notes: list[Remark] = []
    spoken = list(report.of(ErrorMessage))
    # A signal says what was refused, too.
    spoken += [
        ErrorMessage(ended.quote, "", Speaker.OTHER, operation="signal", program=ANY, means=ended.signal)
        for ended in report.of(ProgramEnd)
        if ended.signal
    ]
    for field in TABLE["field"]:
        prior: Odds = field["prior"]
        messages_of_field = [message for message in spoken if message.operation in field["operations"]]
        first_line = _since(report, messages_of_field)
        messages_of_field = [message for message in messages_of_field if message.quote.number >= first_line]
        weights = [
            *_of_messages(report, field, messages_of_field),
            *_of_topics(report, prior, messages_of_field),
            *_of_settings(report, prior, first_line),
        ]
        if WORDS in field["operations"] and not any(weight.decides for weight in weights):
            weights += _of_words(report, field, weights)
        notes += [weight.remark for weight in weights if weight.remark]
        blocked = {finding.name: finding.program for finding in by_evidence if finding.name in prior}
        if (
            not report.tells_failure
            or not any(weight.decides for weight in weights)
            or set(blocked.values()) - {BUBBLEWRAP}
        ):
            continue
        priors = _priors(report, prior)
        odds = {
            # Hosts that fail alike have the mean of their priors.
            name: prod(weight.of(name) for weight in priors) ** (1 / len(priors))
            * prod(weight.of(name) for weight in weights)
            for name in prior
        }
        total = sum(odds.values()) or 1.0
        shares = {name: share / total for name, share in odds.items()}
        best = max(shares, key=lambda name: shares[name])
        if best != OTHER and shares[best] >= least and (not blocked or best in blocked):
            others = [name for name in shares if name not in (best, OTHER) and shares[name] >= POSSIBLE]
            next_best = max(others, key=lambda name: shares[name], default="")
            likely.append(replace(_finding(best, prior, priors, weights), next_best=next_best))
        elif not blocked:
            possible += _possible(shares, prior, priors, weights)
    possible.sort(key=lambda candidate: -candidate.share)
    return likely, tuple(possible[:MOST_POSSIBLE]), notes


def _since(report: Report, words: Sequence[ErrorMessage]) -> int:
    """The first line that counts of a field's messages: what was told before another failure is cured."""
    line = report.topics.get("next-failure")
    if line is None:
        return 0
    earlier = {message.operation for message in words if message.quote.number < line.number}
    later = {message.operation for message in words if message.quote.number >= line.number}
    return line.number if later and earlier - later else 0


def _of_messages(report: Report, field: Mapping[str, Any], spoken: Sequence[ErrorMessage]) -> Iterator[Weight]:
    """What messages of a field say, each once."""
    said = group_values(((one.operation, one.means, one.program), one) for one in spoken)
    read = {(one.operation, one.means, one.program) for one in spoken if one.errno == one.means}
    for (operation, means, program), alike in said.items():
        lines, text = [message.quote for message in alike], alike[0].text
        rows = [
            row
            for row in TABLE["chance"]
            if row["operation"] == operation
            and row.get("errno") in (None, means)
            and row.get("topic") in (None, *report.topics)
            and program in row.get("program", [program])
            and re.search(row.get("text", ""), text)
        ]
        if not rows:
            continue
        row = next((row for row in rows if "program" in row), rows[0])
        remark = Remark(row["remark"], tuple(lines)) if "remark" in row else None
        chances = {name: row["of"].get(name, FLOOR) for name in field["prior"]}
        speaker = "a program" if program == ANY else program
        # Words that name no error stand for one all the same.
        meaning = means if (operation, means, program) in read else f"its words mean {means}"
        refusal = f"{speaker} is refused " if field.get("refused", True) else ""
        refusal += f"{field['operations'][operation]}{f' ({meaning})' if means else ''}"
        yield Weight(chances, refusal, lines[0], is_message=True, decides=True, remark=remark)


def _of_words(report: Report, field: Mapping[str, Any], weights: Sequence[Weight]) -> Iterator[Weight]:
    """What words of a failure say of a report without a message: only what a circumstance explains."""
    quote = report.topics.get("failure")
    if quote is None or any(message.operation for message in report.of(ErrorMessage)):
        return
    words = ErrorMessage(quote, "", Speaker.OTHER, operation=WORDS, program=ANY)
    for weight in _of_messages(report, field, [words]):
        strong = {OTHER} | {name for each in weights for name in each.factors if each.of(name) >= STRONG}
        chances = {name: chance if name in strong else 0.0 for name, chance in weight.factors.items()}
        yield replace(weight, factors=chances, reason=SOMETHING_FAILS)


def _of_topics(report: Report, prior: Odds, spoken: Sequence[ErrorMessage]) -> Iterator[Weight]:
    is_engine = bool(spoken) and all(message.engine for message in spoken)
    for row in TABLE["fact"]:
        quote = report.topics.get(row["topic"])
        if quote is not None and row.get("engine") in (None, is_engine) and prior.keys() & row["of"].keys():
            yield Weight(row["of"], row["why"], quote)


def _of_settings(report: Report, prior: Odds, first_line: int) -> Iterator[Weight]:
    for setting in report.of(Setting):
        if setting.mood is Mood.TRIED and setting.quote.number < first_line:
            continue  # It cured the failure before.
        if setting.place is not Place.HOST and not setting.name.startswith("-"):
            continue
        effect = {True: "helped", False: "in_vain", None: "tried"}[setting.helped]
        mood = effect if setting.mood is Mood.TRIED else str(setting.mood)
        for row in TABLE["setting"]:
            factors = row["by_mood"].get(mood, {})
            if (
                factors.keys() & prior.keys() - {OTHER}
                and re.fullmatch(row["name"], setting.name, re.DOTALL)
                and re.fullmatch(row.get("value", ""), setting.value or "")
            ):
                is_cure = setting.helped is True and not row.get("beside")
                decides = is_cure or (row.get("alone", False) and setting.mood is Mood.HOLDS)
                reason = f"{setting.written} {TABLE['moods'][mood]}"
                yield Weight(factors, reason, setting.quote, decides=decides)


def _priors(report: Report, prior: Odds) -> list[Weight]:
    """The priors of a field: its own, and one for each host that the report names, in their place."""
    shipped = (_shipped(report, system, prior) for system in report.of(System) if system.place is Place.HOST)
    return list(filter(None, shipped)) or [Weight(prior, "")]


def _shipped(report: Report, system: System, prior: Odds) -> Weight | None:
    """The prior of a field on a system; None if nothing that it ships changes it."""
    row = next((row for row in TABLE["shipped"] if _is_of(row, system, report)), None)
    if row is None or not prior.keys() & row["of"].keys():
        return None
    shares = {name: share for name, share in row["of"].items() if name in prior}
    return Weight({**prior, **shares}, row["why"], system.quote)


def select_host(report: Report) -> Report:
    """Leave out the systems that the messages do not fit, if a report names several as its host."""
    hosts = [system for system in report.of(System) if system.place is Place.HOST]
    if len({system.id for system in hosts}) < 2:
        return report
    fits = dict.fromkeys(hosts, 1.0)
    for field in TABLE["field"]:
        spoken = [message for message in report.of(ErrorMessage) if message.operation in field["operations"]]
        weights = list(_of_messages(report, field, spoken))
        for system in hosts if weights else ():
            prior = (_shipped(report, system, field["prior"]) or Weight(field["prior"], "")).factors
            odds = sum(share * prod(weight.of(name) for weight in weights) for name, share in prior.items())
            fits[system] *= odds / sum(prior.values())
    unfit = {system for system in hosts if fits[system] * FIT < max(fits.values())}
    return replace(report, statements=tuple(one for one in report.statements if one not in unfit))


def _is_of(row: Mapping[str, Any], system: System, report: Report) -> bool:
    """Whether a row is about a system. A range excludes what names no version, or one that is no number."""
    if system.id not in row["ids"] or row.get("topic") not in (None, *report.topics):
        return False
    kernel = next((kernel.release for kernel in report.of(KernelStatement)), "")
    if "kernels" in row:
        # A release may run newer kernels: they only tell where no release is named.
        series = re.match(r"\d+\.\d+", kernel) if system.version is None else None
        version, versions = series[0] if series else None, row["kernels"]
    elif "versions" in row:
        version, versions = system.version, row["versions"]
    else:
        return True
    # Imported where it is used: reports without a release need neither.
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return version is not None and SpecifierSet(versions).contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _finding(name: str, prior: Odds, priors: Sequence[Weight], weights: Sequence[Weight]) -> Finding:
    speaking = [weight for weight in weights if weight.of(name) > (FLOOR if weight.is_message else 1)]
    reason = "; ".join(dict.fromkeys(weight.reason for weight in speaking))
    if len({weight.reason for weight in speaking if weight.is_message}) > 1:
        reason += ": its different messages come from that one cause"
    shipped = [weight.reason for weight in priors if weight.of(name) > 1.5 * prior[name]]
    reason = "; ".join([reason, *dict.fromkeys(shipped)])
    quotes = {weight.quote for weight in speaking if weight.quote is not None}
    return Finding(name, "likely", reason, tuple(sorted(quotes, key=lambda quote: quote.number)))


def _possible(
    shares: Odds, prior: Odds, priors: Sequence[Weight], weights: Sequence[Weight]
) -> Iterator[PossibleCause]:
    """The causes with a share worth telling."""
    checks = {check["cause"]: check for check in TABLE["check"]}
    for name, share in shares.items():
        if share < POSSIBLE or name == OTHER:
            continue
        # How much more likely each makes it: a system against the usual one, a message against the best cause.
        ratios = [(weight.reason, weight.of(name) / prior[name]) for weight in priors if weight.reason]
        ratios += [(weight.reason, weight.of(name) * (2 if weight.is_message else 1)) for weight in weights]
        speaks_for = tuple(reason for reason, ratio in ratios if ratio > 1.5)
        speaks_against = tuple(r for r, ratio in ratios if ratio < 0.5 and r != SOMETHING_FAILS)
        said = {*speaks_for, *speaks_against}
        spoken = [weight for weight in (*priors, *weights) if weight.decides or weight.reason in said]
        quotes = dict.fromkeys(weight.quote for weight in spoken if weight.quote)
        command, shows = checks[name]["command"], checks[name]["shows"]
        yield PossibleCause(name, round(share, 2), speaks_for, speaks_against, command, shows, tuple(quotes))


# -- contradictions in a report, and warnings against wrong conclusions: their words are in the table


def _remark(name: str, /, *quotes: Quote, **values: object) -> Remark:
    return Remark(TABLE["remarks"][name].format(**values), quotes)


def _remarks(report: Report, findings: Sequence[Finding], notes: Sequence[Remark]) -> tuple[Remark, ...]:
    """Return the remarks on a report, in the order of their first lines. `notes` are those on its messages.

    The plan says of a setting that the report gives two values.
    """
    remarks = list(notes)
    if "boxlite" in report.topics:
        remarks += [Remark(one.remark, (one.quote,)) for one in report.of(ErrorMessage) if one.remark]
    # What is damaged, and statements that cannot both be true of one host.
    damaged = (probed for probed in report.of(ProbeOutput) if probed.host is None)
    remarks += [_remark("damaged", probed.quote, why=probed.damaged) for probed in damaged]
    hosts = [system for system in report.of(System) if system.place is Place.HOST]
    for first, second in pairwise(hosts):
        if first.id == second.like or second.id == first.like:
            continue  # A derivative is told of by what it derives from.
        remarks.append(_remark("two-systems", first.quote, second.quote, one=first.name, other=second.name))
    # What a finding does not mean, and what contradicts it.
    for finding in findings:
        if finding.program != BUBBLEWRAP:
            name = "child" if finding.program.startswith("(") else "another-program"
            name = "own-bubblewrap" if finding.program.endswith(BUBBLEWRAP) else name
            remarks.append(_remark(name, *finding.quotes, program=finding.program))
    audit = {line.quote: line.fields for line in report.of(AuditLine)}
    off = [s.quote for s in report.of(Setting) if (s.name, s.value, s.helped) == (RESTRICTION, "0", False)]
    moved = [
        quote for quote, fields in audit.items() if RESTRICTED in (fields.get("profile"), fields.get("target"))
    ]
    if off and moved:
        remarks.append(_remark("still-moved", off[0], moved[0], sysctl=RESTRICTION, profile=RESTRICTED))
    not_run = [finding for finding in findings if finding.name == "bwrap-exec-denied"]
    ran = [finding for finding in findings if finding not in not_run and audit.keys() & {*finding.quotes}]
    if not_run and ran:
        remarks.append(_remark("two-failures", *not_run[0].quotes, *ran[0].quotes[:1]))
    # A kernel that is another distribution's: a container shows its host's.
    for kernel in report.of(KernelStatement):
        owner = systems.find_system_of_kernel(kernel)
        for system in hosts:
            family = systems.find_family(system.id)
            if owner is None or family is None or system.inferred or owner.id in (system.id, family):
                continue
            if system.or_derivative and systems.find_family(owner.id) == family:
                continue
            name = "wsl-kernel" if owner.id == WSL else "foreign-kernel"
            words = {"release": kernel.release, "owner": owner.name, "system": system.name}
            remarks.append(_remark(name, system.quote, kernel.quote, **words))
    # The same remark on several lines is one.
    lines = group_values((remark.text, remark.quotes) for remark in remarks)
    each_once = [Remark(text, tuple(dict.fromkeys(chain(*quotes)))) for text, quotes in lines.items()]
    each_once.sort(key=lambda remark: remark.quotes[0].number if remark.quotes else 0)
    return tuple(each_once[:MOST_REMARKS])
