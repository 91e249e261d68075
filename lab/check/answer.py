"""The answer about a host: what its probe shows, what was published about tested hosts, what helps."""

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lab import causes
from lab.base.files import plain
from lab.catalog import remedies
from lab.catalog.remedies import Remedy
from lab.causes.evidence import Evidence, confining_profile
from lab.check import settings
from lab.check.published import Cell, Distribution, Kind, Published, SystemName, cells_of
from lab.check.settings import Comparison
from lab.probes import Probes
from lab.probes.report import HostReport
from lab.record import Confidence, Finding

PERMISSION_DENIED = os.strerror(errno.EACCES)


class Outcome(StrEnum):
    """What to expect of boxlite on a host. A host that was not tested is never called one that works."""

    WORKS = "expected to work"
    BLOCKED = "blocked"
    UNKNOWN = "not known"

    @property
    def exit_status(self) -> int:
        """The exit status of `lab check`."""
        return {Outcome.WORKS: 0, Outcome.BLOCKED: 1, Outcome.UNKNOWN: 3}[self]


@dataclass(frozen=True)
class Refused:
    """A probe that failed, or that could not be tried: what it tries, and the error."""

    probe: str
    tries: str
    error: str
    tried: bool


@dataclass(frozen=True)
class Advice:
    """A remedy. `verified_on`: the published cell on which all tests passed with it; None: there is none.

    `changed`: the lab's script is another one than the one that was tried. `commands` is what a user types.
    """

    name: str
    title: str
    does: str
    price: str
    commands: str
    verified_on: Cell | None = None
    changed: bool = False


@dataclass(frozen=True)
class Close:
    """A tested cell, and how the host compares with it."""

    cell: Cell
    comparison: Comparison


@dataclass(frozen=True)
class Ranked:
    """The tested cells of a host's own release, or else of related systems, the closest first.

    `related` are other releases or distributions with results, if the host's own has none.
    """

    same_system: bool
    cells: tuple[Close, ...]
    related: tuple[Distribution, ...]

    @property
    def nearest(self) -> Close | None:
        return self.cells[0] if self.cells else None

    @property
    def others(self) -> list[Cell]:
        """The cells that are as close as the nearest, and had another outcome."""
        return [
            close.cell
            for close in self.cells[1:]
            if close.comparison.distance == self.cells[0].comparison.distance
            and close.cell.kind is not self.cells[0].cell.kind
        ]


@dataclass(frozen=True)
class Answer(Ranked):
    """What to expect of boxlite on a host, why, and what to do.

    `reasons` are sentences that lead to the outcome. `refused` are probes that failed or could not be tried.
    `otherwise` are remedies that change how boxlite or its tests are run, not the host.
    """

    system: str
    outcome: Outcome
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...]
    refused: tuple[Refused, ...]
    advice: tuple[Advice, ...]
    otherwise: tuple[str, ...]
    unreadable: tuple[str, ...]
    as_root: bool


def judge(report: HostReport, published: Published) -> Answer:
    """Say what to expect of boxlite on a host."""
    all_remedies = remedies.load()
    findings = diagnose(report)
    ranked = rank(report, published)
    outcome, reasons = _decide(report, findings, ranked)
    names = [finding.name for finding in findings]
    system = report.facts.os
    return Answer(
        **vars(ranked),
        system=system.pretty_name or " ".join(filter(None, [system.id, system.version_id])) or "no name",
        outcome=outcome,
        reasons=tuple(reasons),
        findings=tuple(findings),
        refused=tuple(
            Refused(
                probe=name,
                tries=Probes.model_fields[name].description or name,
                error=plain(probe.stderr) or f"exit status {probe.status}",
                tried=probe.failed,
            )
            for name, probe in report.probes.by_name().items()
            if not probe.worked
        ),
        advice=tuple(advise(names, report, published, ranked, all_remedies)),
        otherwise=tuple(remedy.name for remedy in remedies.candidates(all_remedies, names[:1]) if remedy.run),
        unreadable=report.unreadable,
        as_root=report.who.uid == 0,
    )


def diagnose(report: HostReport) -> list[Finding]:
    """Return the causes that the probe itself shows, the one that blocks first at the front.

    The rules read a host's probes and sysctls as those of a cell. There is no log, and no suite ran: the
    control is neither passed nor failed, so what either would rule out stays.
    """
    sysctls = {name: value for name, value in report.facts.sysctls.items() if value is not None}
    profile = confining_profile(report.who.context.apparmor)
    evidence = Evidence(probes=report.probes, sysctls=sysctls, profile=profile)
    findings = {
        finding.name: finding
        for failed in (True, False)
        for finding in causes.diagnose(replace(evidence, control_failed=failed))
    }
    if _mode_allows_kvm(report):
        findings.pop("kvm-denied", None)
    return [findings[name] for name in causes.known() if name in findings]


def _mode_allows_kvm(report: HostReport) -> bool:
    """Whether the mode of /dev/kvm lets the user open it: what denies it then is a security module."""
    kvm, who = report.facts.kvm, report.who
    if kvm is None or not report.knows("kvm.mode"):
        return False
    shift = 6 if kvm.uid == who.uid else 3 if kvm.gid in who.groups else 0
    return int(kvm.mode, 8) >> shift & 0o6 == 0o6


def rank(report: HostReport, published: Published) -> Ranked:
    """Compare a host with the cells of its own release, or else with those of related systems."""
    host = report.facts.os

    def is_own(system: SystemName) -> bool:
        if not host.id or host.id != system.id:
            return False
        if host.version_id or system.version:
            return host.version_id == system.version
        return not host.version_codename or not system.codename or host.version_codename == system.codename

    def related_to(*ids: str | None) -> list[Distribution]:
        """Return the distributions with results that have one of these names."""
        return [
            distribution
            for distribution in published.distributions
            if cells_of([distribution])
            and any(system.id is not None and system.id in ids for system in distribution.systems)
        ]

    own = [distribution for distribution in published.distributions if any(map(is_own, distribution.systems))]
    # Other releases of the distribution, or else those that it derives from.
    related = [] if own else related_to(host.id) or related_to(*report.id_like)
    cells = [Close(cell, settings.compare_report(report, cell.settings)) for cell in cells_of(own or related)]
    cells.sort(key=lambda close: (close.comparison.distance, close.cell.changed, close.cell.guest))
    return Ranked(bool(own), tuple(cells), tuple(related))


def advise(
    causes: Sequence[str],
    report: HostReport,
    published: Published,
    ranked: Ranked,
    all_remedies: Mapping[str, Remedy],
) -> list[Advice]:
    """Return the verified remedy for these causes, or else the changes of the host that claim to cure."""
    if not causes:
        return []
    own = {close.cell.guest for close in ranked.cells}
    cured = [
        Close(cell, settings.compare_report(report, cell.settings))
        for cell in cells_of(published.distributions)
        if cell.remedy and set(cell.causes) == set(causes)
    ]
    # The nearest cell that these causes block and a verified remedy cures; the own system first.
    cured.sort(key=lambda close: (close.cell.guest not in own, close.comparison.distance, close.cell.changed))
    advice = []
    if cured and (verified := cured[0].cell.remedy):
        for name in verified.name.split(remedies.AND):
            if remedy := all_remedies.get(name):
                changed = verified.digests.get(name) != remedy.digest
                advice.append(_advice(remedy, cured[0].cell, changed=changed))
    yours = settings.of(report)
    return advice or [
        _advice(remedy)
        for remedy in remedies.candidates(all_remedies, causes[:1])
        if remedy.host and not settings.compare(yours, remedy.helps_with).differing
    ]


def _advice(remedy: Remedy, verified_on: Cell | None = None, *, changed: bool = False) -> Advice:
    if remedy.run is not None:
        commands = remedy.run.example.strip()
    else:
        commands = (
            f"lab remedies show {remedy.name} --script >{remedy.name}.sh\n"
            f"sudo sh {remedy.name}.sh      # explains itself and asks first; --undo takes it back"
        )
    return Advice(remedy.name, remedy.title, remedy.does, remedy.price, commands, verified_on, changed)


def _decide(report: HostReport, findings: list[Finding], ranked: Ranked) -> tuple[Outcome, list[str]]:
    """Return the outcome, and the sentences that lead to it."""
    probes, near = report.probes, ranked.nearest
    # Without the system's bubblewrap boxlite uses its own, which was not tried.
    sandbox = probes.bwrap_all if probes.bwrap_all.status is not None else probes.unshare_user_root
    decisive = [probes.open_kvm, probes.exec_home, sandbox]
    is_proved = any(finding.confidence is Confidence.PROVED for finding in findings)
    if findings and (is_proved or any(probe.failed for probe in decisive)):
        return Outcome.BLOCKED, []
    if any(probe.failed for probe in decisive):
        reasons = ["the probe is refused what boxlite needs, and no rule names the cause from the probe alone"]
        if probes.open_kvm.failed and _mode_allows_kvm(report):
            reasons.append("the mode of /dev/kvm allows this user to open it: a security module denies it")
        if probes.unshare_user.worked and probes.unshare_user_root.failed:
            reasons.append(
                "the kernel makes a user namespace and denies its capabilities: a security module does that"
            )
        if near and ranked.same_system and not near.comparison.deciding and near.cell.kind is Kind.BLOCKED:
            by = ", ".join(near.cell.causes) or "a cause nobody knows"
            reasons.append(f"the nearest tested host is blocked by {by}")
        reasons.append("the kernel's log may name it: sudo journalctl -k | grep -E 'apparmor=|avc:'")
        return Outcome.BLOCKED, reasons
    if findings:
        return Outcome.UNKNOWN, [f"{findings[0].name} is suspected, yet the probe was refused nothing"]
    bubblewrap = report.facts.bubblewrap
    is_executable = bubblewrap is not None and bool(int(bubblewrap.mode, 8) & 0o111)
    if is_executable and probes.bwrap_all.status is None and PERMISSION_DENIED in probes.bwrap_all.stderr:
        return Outcome.UNKNOWN, [
            "something denies executing bubblewrap, and may deny boxlite's own bubblewrap too"
        ]
    if any(probe.status is None for probe in decisive):
        return Outcome.UNKNOWN, ["not everything that boxlite needs could be tried on this host"]
    # The probe was refused nothing: what was published decides.
    if near is None or not near.comparison.compared:
        why = "no published result is about this system or its relatives"
    elif not ranked.same_system:
        why = "this system was never tested; the nearest that was is another one"
    elif near.comparison.deciding:
        why = "no tested host has all the settings of this one"
    elif near.cell.kind is not Kind.WORKS:
        why = f"yet the tested host with these settings: {near.cell.headline}"
    elif report.who.uid == 0:
        why = "it ran as root, whom the kernel allows what it denies other users"
    else:
        why = "a tested host with these settings passed boxlite's tests"
        return Outcome.WORKS, ["the probe was refused nothing that boxlite needs", why]
    return Outcome.UNKNOWN, ["the probe was refused nothing that boxlite needs", why]
