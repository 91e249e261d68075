"""The judgement: first what the probe itself shows, then what was published about the nearest tested host."""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace

from lab import causes, evidence, remedies
from lab.base.files import plain
from lab.check.advice import advise, otherwise
from lab.check.answer import Answer, Outcome, Refused
from lab.check.nearest import Ranked, rank
from lab.check.published import Published
from lab.evidence import Evidence
from lab.probes import Probe, Probes
from lab.probes.report import HostReport
from lab.record import Confidence, Finding
from lab.site.users.answer import Kind

PERMISSION_DENIED = os.strerror(errno.EACCES)


def judge(report: HostReport, published: Published) -> Answer:
    """Say what to expect of boxlite on a host."""
    known = remedies.load()
    findings = diagnose(report)
    ranked = rank(report, published)
    outcome, reasons = _decide(report, findings, ranked)
    names = [each.name for each in findings]
    system = report.facts.os
    return Answer(
        system=system.pretty_name or " ".join(filter(None, [system.id, system.version_id])) or "no name",
        outcome=outcome,
        reasons=tuple(reasons),
        findings=tuple(findings),
        refused=tuple(_refused(report.probes)),
        advice=advise(names, report, published, ranked, known),
        otherwise=otherwise(names, known),
        same_system=ranked.same_system,
        nearest=ranked.nearest,
        others=ranked.others,
        related=ranked.related,
        unreadable=report.unreadable,
        as_root=report.who.uid == 0,
    )


def diagnose(report: HostReport) -> list[Finding]:
    """Return the causes that the probe itself shows, the one that blocks first at the front.

    No suite ran, so the control is neither passed nor failed: what either would rule out stays.
    """
    shown = as_evidence(report)
    found = {
        finding.name: finding
        for failed in (True, False)
        for finding in causes.diagnose(replace(shown, control_failed=failed))
    }
    if _mode_allows_kvm(report):
        found.pop("kvm-denied", None)
    return [found[name] for name in causes.known() if name in found]


def _mode_allows_kvm(report: HostReport) -> bool:
    """Whether the mode of /dev/kvm lets the user open it: what denies it then is a security module."""
    kvm, who = report.facts.kvm, report.who
    if kvm is None or not report.knows("kvm.mode"):
        return False
    shift = 6 if kvm.uid == who.uid else 3 if kvm.gid in who.groups else 0
    return int(kvm.mode, 8) >> shift & 0o6 == 0o6


def as_evidence(report: HostReport) -> Evidence:
    """Return a host's probes and sysctls as the rules of the causes read them. There is no log."""
    values = {name: value for name, value in report.facts.sysctls.items() if value is not None}
    return Evidence(
        probes=report.probes, sysctls=values, profile=evidence.confining_profile(report.who.context.apparmor)
    )


def _decisive(probes: Probes) -> list[Probe]:
    """Return the probes of what boxlite cannot do without."""
    # Without the system's bubblewrap boxlite uses its own, which was not tried.
    sandbox = probes.bwrap_all if probes.bwrap_all.status is not None else probes.unshare_user_root
    return [probes.open_kvm, probes.exec_home, sandbox]


def _may_not_run_bubblewrap(report: HostReport) -> bool:
    """Whether the user may not execute a bubblewrap whose mode allows it."""
    found, tried = report.facts.bubblewrap, report.probes.bwrap_all
    executable = found is not None and int(found.mode, 8) & 0o111
    return bool(executable) and tried.status is None and PERMISSION_DENIED in tried.stderr


def _decide(report: HostReport, findings: list[Finding], ranked: Ranked) -> tuple[Outcome, list[str]]:
    decisive = _decisive(report.probes)
    if any(probe.failed for probe in decisive) or any(
        each.confidence is Confidence.PROVED for each in findings
    ):
        return Outcome.BLOCKED, [] if findings else list(_without_cause(report, ranked))
    if findings:
        return Outcome.UNKNOWN, [f"{findings[0].name} is suspected, yet the probe was refused nothing"]
    if _may_not_run_bubblewrap(report):
        return Outcome.UNKNOWN, [
            "something denies executing bubblewrap, and may deny boxlite's own bubblewrap too"
        ]
    if any(probe.status is None for probe in decisive):
        return Outcome.UNKNOWN, ["not everything that boxlite needs could be tried on this host"]
    return _by_published(report, ranked)


def _without_cause(report: HostReport, ranked: Ranked) -> Iterator[str]:
    yield "the probe is refused what boxlite needs, and no rule names the cause from the probe alone"
    probes = report.probes
    if probes.open_kvm.failed and _mode_allows_kvm(report):
        yield "the mode of /dev/kvm allows this user to open it: a security module denies it"
    if probes.unshare_user.worked and probes.unshare_user_root.failed:
        yield "the kernel makes a user namespace and denies its capabilities: a security module does that"
    near = ranked.nearest
    if near and ranked.same_system and not near.comparison.deciding and near.cell.kind is Kind.BLOCKED:
        yield f"the nearest tested host is blocked by {', '.join(near.cell.causes) or 'a cause nobody knows'}"
    yield "the kernel's log may name it: sudo journalctl -k | grep -E 'apparmor=|avc:'"


def _by_published(report: HostReport, ranked: Ranked) -> tuple[Outcome, list[str]]:
    """Decide about a host whose probe was refused nothing."""
    reasons = ["the probe was refused nothing that boxlite needs"]
    near = ranked.nearest
    if near is None or not near.comparison.compared:
        return Outcome.UNKNOWN, [*reasons, "no published result is about this system or its relatives"]
    if not ranked.same_system:
        return Outcome.UNKNOWN, [*reasons, "this system was never tested; the nearest that was is another one"]
    if near.comparison.deciding:
        return Outcome.UNKNOWN, [*reasons, "no tested host has all the settings of this one"]
    if near.cell.kind is not Kind.WORKS:
        return Outcome.UNKNOWN, [*reasons, f"yet the tested host with these settings: {near.cell.headline}"]
    if report.who.uid == 0:
        return Outcome.UNKNOWN, [*reasons, "it ran as root, whom the kernel allows what it denies other users"]
    return Outcome.WORKS, [*reasons, "a tested host with these settings passed boxlite's tests"]


def _refused(probes: Probes) -> Iterator[Refused]:
    for name, probe in probes.by_name().items():
        if not probe.worked:
            tries = Probes.model_fields[name].description or name
            error = plain(probe.stderr) or f"exit status {probe.status}"
            yield Refused(name, tries, error, tried=probe.failed)
