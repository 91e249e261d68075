"""Contradictions in a report, and warnings against wrong conclusions."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from lab.repro import systems
from lab.repro.report import (
    BUBBLEWRAP,
    AuditLine,
    Finding,
    Kernel,
    Mood,
    Place,
    Probed,
    Quote,
    Remark,
    Report,
    Setting,
    System,
)

# More than any report deserves.
MOST = 20
# WSL2's kernel is one of Windows.
WSL = "windows"
RESTRICTION = "kernel.apparmor_restrict_unprivileged_userns"
PROFILE = "unprivileged_userns"


def made(report: Report, findings: Sequence[Finding], notes: Sequence[Remark]) -> tuple[Remark, ...]:
    """Return the remarks on a report, in the order of their first lines. `notes` are those on its messages."""
    quotes: dict[str, tuple[Quote, ...]] = {}
    for remark in (*notes, *_contradictions(report), *_on_findings(report, findings), *_on_kernels(report)):
        # The same remark on several lines is one.
        quotes[remark.text] = tuple(dict.fromkeys([*quotes.get(remark.text, ()), *remark.quotes]))
    remarks = [Remark(text, lines) for text, lines in quotes.items()]
    return tuple(sorted(remarks, key=lambda remark: remark.quotes[0].number if remark.quotes else 0)[:MOST])


def _contradictions(report: Report) -> Iterator[Remark]:
    """Statements that cannot both be true of one host, and what is damaged."""
    for probed in report.of(Probed):
        if probed.host is None:
            text = f"Of the probe's output nothing is used: {probed.damaged}. Ask for it again."
            yield Remark(text, (probed.quote,))
    settings = [one for one in report.of(Setting) if one.mood is Mood.HOLDS and one.place is Place.HOST]
    for name in dict.fromkeys(setting.name for setting in settings):
        for one, other in pairwise([setting for setting in settings if setting.name == name]):
            text = f"The report gives {name} two values, {one.value} and {other.value}."
            yield Remark(text, (one.quote, other.quote))
    for first, second in pairwise(system for system in report.of(System) if system.place is Place.HOST):
        text = (
            f"The report names two systems, {first.name} and {second.name}, and does not say which is the host."
        )
        yield Remark(text, (first.quote, second.quote))


def _on_findings(report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
    """What a finding does not mean, and what contradicts it."""
    for finding in findings:
        if finding.program != BUBBLEWRAP:
            yield Remark(
                f"The audit line is about {finding.program}, not about bubblewrap. A profile for bubblewrap "
                f"(bwrap-userns-restrict, bwrap-profile) does not cure {finding.program}.",
                finding.quotes,
            )
    audit = {line.quote: line.fields for line in report.of(AuditLine)}
    in_vain = [
        one for one in report.of(Setting) if (one.name, one.value, one.helped) == (RESTRICTION, "0", False)
    ]
    moved = [
        quote for quote, fields in audit.items() if PROFILE in (fields.get("profile"), fields.get("target"))
    ]
    if in_vain and moved:
        yield Remark(
            f"The reporter says that {RESTRICTION}=0 does not help, but Ubuntu's kernel moves a program into "
            f"the profile {PROFILE} only while that sysctl is 1. Either the audit line is older than the "
            "change, or the change did not take effect, or the program was started inside a namespace that "
            "was made before the change, where it stays in the profile, or the rest of the failure has "
            "another cause. Ask for the value and the audit lines at the time of one failure.",
            (in_vain[0].quote, moved[0]),
        )
    not_run = [finding for finding in findings if finding.name == "bwrap-exec-denied"]
    ran = [finding for finding in findings if finding not in not_run and audit.keys() & {*finding.quotes}]
    if not_run and ran:
        yield Remark(
            "The report shows two failures: by boxlite's words the host refuses to execute bubblewrap; by "
            "the audit line bubblewrap ran and was denied. One start of bubblewrap cannot show both.",
            (*not_run[0].quotes, *ran[0].quotes[:1]),
        )


def _on_kernels(report: Report) -> Iterator[Remark]:
    """A kernel that is another distribution's: a container shows its host's."""
    for kernel in report.of(Kernel):
        owner = systems.of_kernel(kernel)
        for system in report.of(System):
            family = systems.family(system.id)
            is_host = system.place is Place.HOST and not system.inferred
            if owner is None or family is None or not is_host or owner.id in (system.id, family):
                continue
            name, release = system.name, kernel.release
            text = f"{release} is a kernel of {owner.name}, not of {name}: {name} runs in a container, or the "
            text += "kernel is another host's."
            if owner.id == WSL:
                text = f"{release} is the kernel of WSL2, in which {name} runs. The lab has no WSL2: a guest "
                text += f"of {name} has another kernel and another policy."
            yield Remark(text, (system.quote, kernel.quote))
