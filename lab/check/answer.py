"""The answer about a host: what its probe shows, what was published about tested hosts, what helps."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lab import causes
from lab.base.files import plain
from lab.catalog import remedies
from lab.catalog.remedies import Remedy
from lab.causes.evidence import Evidence, confining_profile
from lab.check import settings
from lab.check.published import Cell, Distribution, Kind, Published, SystemName
from lab.check.settings import Comparison
from lab.probes import Probe, Probes
from lab.probes.report import HostReport
from lab.record import Confidence, Finding


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
class Answer:
    """What to expect of boxlite on a host, why, and what to do.

    `reasons` are sentences that lead to the outcome. `nearest` is the tested cell that is closest, and
    `same_system` says whether it is of the host's own release. `others` are cells that are as close and had
    another outcome. `related` are other releases or distributions with results, if the host's own has none.
    `otherwise` are remedies that change how boxlite or its tests are run.
    """

    system: str
    outcome: Outcome
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...]
    refused: tuple[Refused, ...]  # and what could not be tried
    advice: tuple[Advice, ...]
    otherwise: tuple[str, ...]
    same_system: bool
    nearest: Close | None
    others: tuple[Cell, ...]
    related: tuple[Distribution, ...]
    unreadable: tuple[str, ...]
    as_root: bool


@dataclass(frozen=True)
class Ranked:
    """The tested cells of a host's system, or else of related ones, the closest first."""

    same_system: bool
    cells: tuple[Close, ...]
    related: tuple[Distribution, ...]

    @property
    def nearest(self) -> Close | None:
        return self.cells[0] if self.cells else None

    @property
    def others(self) -> tuple[Cell, ...]:
        """The cells that are as close as the nearest, and had another outcome."""
        if not self.cells:
            return ()
        first = self.cells[0]
        return tuple(
            close.cell
            for close in self.cells[1:]
            if close.comparison.distance == first.comparison.distance and close.cell.kind is not first.cell.kind
        )


def rank(report: HostReport, published: Published) -> Ranked:
    """Compare a host with the cells of its own release, or else with those of related systems."""
    own = [
        distribution
        for distribution in published.distributions
        if any(_same(report, system) for system in distribution.systems)
    ]
    related = [] if own else _related(report, published)
    cells = [
        Close(cell, settings.compare_report(report, cell.settings)) for cell in published.of(own or related)
    ]
    cells.sort(key=lambda close: (close.comparison.distance, close.cell.changed, close.cell.guest))
    return Ranked(bool(own), tuple(cells), tuple(related))


def _same(report: HostReport, system: SystemName) -> bool:
    os = report.facts.os
    if not os.id or os.id != system.id:
        return False
    if os.version_id or system.version:
        return os.version_id == system.version
    return not os.version_codename or not system.codename or os.version_codename == system.codename


def _related(report: HostReport, published: Published) -> Sequence[Distribution]:
    """Return the other releases of a distribution, or else the distributions that it derives from."""
    tested = [distribution for distribution in published.distributions if published.of([distribution])]
    releases = [distribution for distribution in tested if _has(distribution, [report.facts.os.id])]
    return releases or [distribution for distribution in tested if _has(distribution, report.id_like)]


def _has(distribution: Distribution, names: Sequence[str | None]) -> bool:
    return any(system.id is not None and system.id in names for system in distribution.systems)


def advise(
    causes: Sequence[str],
    report: HostReport,
    published: Published,
    ranked: Ranked,
    known: Mapping[str, Remedy],
) -> tuple[Advice, ...]:
    """Return the verified remedy for these causes, or else the changes of the host that claim to cure."""
    if not causes:
        return ()
    cell = _cured(causes, report, published, ranked)
    if cell and cell.remedy:
        made = list(_verified(cell, known))
        if made:
            return tuple(made)
    yours = settings.of(report)
    claiming = [
        remedy
        for remedy in remedies.candidates(known, causes[:1])
        if remedy.host and not settings.compare(yours, remedy.helps_with).differing
    ]
    return tuple(
        Advice(remedy.name, remedy.title, remedy.does, remedy.price, commands(remedy)) for remedy in claiming
    )


def otherwise(causes: Sequence[str], known: Mapping[str, Remedy]) -> tuple[str, ...]:
    """Return the names of remedies that change how boxlite or its tests are run, not the host."""
    return tuple(remedy.name for remedy in remedies.candidates(known, causes[:1]) if remedy.run)


def commands(remedy: Remedy) -> str:
    """Return what a user types: a change of how boxlite is run, or the script that changes the host."""
    if remedy.run is not None:
        return remedy.run.example.strip()
    assert remedy.host is not None
    return (
        f"lab remedies show {remedy.name} --script >{remedy.name}.sh\n"
        f"sudo sh {remedy.name}.sh      # explains itself and asks first; --undo takes it back"
    )


def _cured(causes: Sequence[str], report: HostReport, published: Published, ranked: Ranked) -> Cell | None:
    """Return the nearest cell that these causes block and a verified remedy cures; the own system first."""
    own = {close.cell.guest for close in ranked.cells}
    cured = [
        Close(cell, settings.compare_report(report, cell.settings))
        for cell in published.cells
        if cell.remedy and cell.settings and cell.causes and set(cell.causes) == set(causes)
    ]
    cured.sort(key=lambda close: (close.cell.guest not in own, close.comparison.distance, close.cell.changed))
    return cured[0].cell if cured else None


def _verified(cell: Cell, known: Mapping[str, Remedy]) -> Iterator[Advice]:
    assert cell.remedy is not None
    for name in cell.remedy.name.split(remedies.AND):
        if remedy := known.get(name):
            changed = cell.remedy.digests.get(name) != remedy.digest
            yield Advice(name, remedy.title, remedy.does, remedy.price, commands(remedy), cell, changed)


PERMISSION_DENIED = os.strerror(errno.EACCES)


def judge(report: HostReport, published: Published) -> Answer:
    """Say what to expect of boxlite on a host."""
    known = remedies.load()
    findings = diagnose(report)
    ranked = rank(report, published)
    outcome, reasons = _decide(report, findings, ranked)
    names = [finding.name for finding in findings]
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
    evidence = as_evidence(report)
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


def as_evidence(report: HostReport) -> Evidence:
    """Return a host's probes and sysctls as the rules of the causes read them. There is no log."""
    values = {name: value for name, value in report.facts.sysctls.items() if value is not None}
    profile = confining_profile(report.who.context.apparmor)
    return Evidence(probes=report.probes, sysctls=values, profile=profile)


def _decisive(probes: Probes) -> list[Probe]:
    """Return the probes of what boxlite cannot do without."""
    # Without the system's bubblewrap boxlite uses its own, which was not tried.
    sandbox = probes.bwrap_all if probes.bwrap_all.status is not None else probes.unshare_user_root
    return [probes.open_kvm, probes.exec_home, sandbox]


def _may_not_run_bubblewrap(report: HostReport) -> bool:
    """Whether the user may not execute a bubblewrap whose mode allows it."""
    bubblewrap, tried = report.facts.bubblewrap, report.probes.bwrap_all
    executable = bubblewrap is not None and int(bubblewrap.mode, 8) & 0o111
    return bool(executable) and tried.status is None and PERMISSION_DENIED in tried.stderr


def _decide(report: HostReport, findings: list[Finding], ranked: Ranked) -> tuple[Outcome, list[str]]:
    decisive = _decisive(report.probes)
    if any(probe.failed for probe in decisive) or any(
        finding.confidence is Confidence.PROVED for finding in findings
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
