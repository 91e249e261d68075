"""The answer about a host: what its probe shows, what was published about tested hosts, what helps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from packaging.version import Version

from lab.base.files import clean_text
from lab.catalog import describe_subjects, remedies
from lab.catalog.remedies import Remedy
from lab.check import settings
from lab.check.published import (
    Published,
    PublishedCell,
    PublishedDistribution,
    SystemName,
    list_comparable_cells,
)
from lab.check.results import AnswerKind
from lab.check.settings import SettingsComparison
from lab.probes import Facts, Probes
from lab.probes.facts import parse_version
from lab.probes.report import HostReport
from lab.record import Foreseen, FoundCause
from lab.verdict import prediction
from lab.verdict.prediction import ProbedHost

# The platform tag of boxlite's wheels for Linux is manylinux_2_28. On 1 December 2026 the package index had 253
# files of its 16 releases: each for this glibc or for macOS, none for musl, and none to compile.
OLDEST_GLIBC = Version("2.28")
# The probe without which a box starts all the same: only the end of a box needs its control group.
GROUP_PROBE = "own_cgroup"


class HostOutlook(StrEnum):
    """What to expect of boxlite on a host. A host that was not tested is never called one that works."""

    WORKS = "expected to work"
    BLOCKED = "blocked"
    UNKNOWN = "not known"
    NOT_APPLICABLE = "n/a"

    @property
    def exit_status(self) -> int:
        return {HostOutlook.WORKS: 0, HostOutlook.BLOCKED: 1}.get(self, 3)


@dataclass(frozen=True)
class RefusedProbe:
    """A probe that failed, or that could not be tried: what it tries, and the error.

    `about_start`: whether a box starts only where the probe works.
    """

    probe: str
    tries: str
    error: str
    tried: bool
    about_start: bool


@dataclass(frozen=True)
class Advice:
    """A remedy. `verified_on`: the published cell on which all tests passed with it; None: there is none.

    `script_changed`: the lab's script is another one than the one that was tried. `commands` is what a user
    types.
    """

    remedy: str
    title: str
    does: str
    price: str
    commands: str
    verified_on: PublishedCell | None = None
    script_changed: bool = False


@dataclass(frozen=True)
class ClosestCell:
    """A tested cell, and how the host compares with it."""

    cell: PublishedCell
    comparison: SettingsComparison


@dataclass(frozen=True)
class BeyondStart:
    """Subjects of which tests failed on the tested host that is like this one, though its boxes start.

    `remedy`: the name of one that was verified there; None if there is none.
    """

    subjects: tuple[str, ...]
    causes: tuple[str, ...]
    reasons: tuple[str, ...]
    remedy: str | None


@dataclass(frozen=True)
class HostAnswer:
    """What to expect of boxlite on a host, why, and what to do.

    `reasons` are sentences that lead to the outcome. If boxlite is expected to work, `covers` says what that
    covers, and `fails` what it does not. `refused` are probes that failed or could not be tried.
    `otherwise` are remedies that change how boxlite or its tests are run, not the host or boxlite's service.
    `cells` are the tested cells of the host's own release and architecture, the closest first, or else those of
    `related` systems: other releases, architectures or distributions with results.
    """

    system: str
    outcome: HostOutlook
    reasons: tuple[str, ...]
    covers: str
    fails: tuple[BeyondStart, ...]
    findings: tuple[FoundCause, ...]
    refused: tuple[RefusedProbe, ...]
    advice: tuple[Advice, ...]
    otherwise: tuple[str, ...]
    same_system: bool
    cells: tuple[ClosestCell, ...]
    related: tuple[PublishedDistribution, ...]
    unreadable: tuple[str, ...]
    as_root: bool

    @property
    def nearest(self) -> ClosestCell | None:
        return self.cells[0] if self.cells else None

    @property
    def others(self) -> list[PublishedCell]:
        """The cells that are as close as the nearest, and had another outcome."""
        return [
            close.cell
            for close in self.cells[1:]
            if close.comparison.distance == self.cells[0].comparison.distance
            and close.cell.kind is not self.cells[0].cell.kind
        ]


def judge_host(report: HostReport, published: Published) -> HostAnswer:
    """Say what to expect of boxlite on a host."""
    all_remedies = remedies.load_remedies()
    without_wheel = explain_missing_wheel(report.facts)
    findings = [] if without_wheel else diagnose(report)
    names = [finding.name for finding in findings]
    own_system, related = _alike(report, published)
    near = _closest_first(report, list_comparable_cells(own_system or related))
    outcome, reasons = _decide(report, findings, near[0] if near else None, same_system=bool(own_system))
    if without_wheel:
        outcome, reasons = HostOutlook.NOT_APPLICABLE, [without_wheel]
    covers, fails = "", list[BeyondStart]()
    if outcome is HostOutlook.WORKS:
        covers, fails = _describe_coverage(report, near[0].cell, own_system)
    # Cells that these causes block and a verified remedy cures, those of the own system first.
    guests = {close.cell.guest for close in near}
    cells = _closest_first(report, list_comparable_cells(published.distributions))
    cured = [close.cell for close in cells if close.cell.remedy and set(close.cell.causes) == set(names)]
    cured.sort(key=lambda cell: cell.guest not in guests)
    system = report.facts.os
    name = system.pretty_name or " ".join(filter(None, [system.id, system.version_id])) or "no name"
    return HostAnswer(
        system=f"{name} on {report.facts.arch}",
        outcome=outcome,
        reasons=tuple(reasons),
        covers=covers,
        fails=tuple(fails),
        findings=tuple(findings),
        refused=tuple(
            RefusedProbe(
                probe=name,
                tries=Probes.model_fields[name].description or name,
                error=clean_text(probe.stderr) or f"exit status {probe.status}",
                tried=probe.failed,
                about_start=name != GROUP_PROBE,
            )
            for name, probe in report.probes.by_name().items()
            if not probe.worked
        ),
        advice=tuple(_advise(names, report, cured, all_remedies)),
        otherwise=tuple(
            remedy.name
            for remedy in remedies.choose_candidates(all_remedies, names[:1])
            if remedy.run and not remedy.changes_service
        ),
        same_system=bool(own_system),
        cells=tuple(near),
        related=tuple(related),
        unreadable=report.unreadable,
        as_root=report.who.uid == 0,
    )


def explain_missing_wheel(facts: Facts) -> str | None:
    """Why pip finds no wheel of boxlite for a host's C library; None if it finds one."""
    glibc = parse_version(facts.glibc)
    if glibc is None:
        return f"boxlite's wheels are for glibc {OLDEST_GLIBC} or newer, and this host has another C library"
    if glibc < OLDEST_GLIBC:
        return f"boxlite's wheels are for glibc {OLDEST_GLIBC} or newer, not for {facts.glibc}"
    return None


def diagnose(report: HostReport) -> list[FoundCause]:
    """Return the causes that the probe itself shows, the one that blocks first at the front."""
    return prediction.diagnose_probes(_probed(report), kvm_mode_allows=_mode_allows_kvm(report))


def _probed(report: HostReport) -> ProbedHost:
    return ProbedHost(report.facts, report.who, report.probes)


def _mode_allows_kvm(report: HostReport) -> bool:
    """Whether the mode of /dev/kvm lets the user open it: what denies it then is a security module."""
    return report.knows("kvm.mode") and _probed(report).kvm_mode_allows


def _alike(
    report: HostReport, published: Published
) -> tuple[list[PublishedDistribution], list[PublishedDistribution]]:
    """Return the host's own release on its architecture.

    If there is none: its distribution's other releases and architectures, or else what that derives from.
    """
    host = report.facts.os

    def is_own(system: SystemName) -> bool:
        if not host.id or host.id != system.id or report.facts.arch != system.arch:
            return False
        if host.version_id or system.version:
            return host.version_id == system.version
        return not host.version_codename or not system.codename or host.version_codename == system.codename

    systems = [
        distribution for distribution in published.distributions if any(map(is_own, distribution.systems))
    ]
    if systems:
        return systems, []
    for ids in ([host.id], report.id_like):
        related = [
            distribution
            for distribution in published.distributions
            if list_comparable_cells([distribution])
            and any(system.id is not None and system.id in ids for system in distribution.systems)
        ]
        if related:
            return [], related
    return [], []


def _closest_first(report: HostReport, cells: Iterable[PublishedCell]) -> list[ClosestCell]:
    closest = [ClosestCell(cell, settings.compare_report(report, cell.settings)) for cell in cells]
    return sorted(closest, key=lambda close: (close.comparison.distance, close.cell.changed, close.cell.guest))


def _describe_coverage(
    report: HostReport, near: PublishedCell, distributions: Iterable[PublishedDistribution]
) -> tuple[str, list[BeyondStart]]:
    """Say what tests showed on the nearest host, and on those like this one where suites beyond a start ran."""
    beyond_start = [cell for distribution in distributions for cell in distribution.beyond_start]
    nearest: dict[str, PublishedCell] = {}
    for close in _closest_first(report, beyond_start):
        if not close.comparison.deciding:
            nearest.setdefault(close.cell.suite, close.cell)
    failed = {subject for cell in nearest.values() for subject in cell.failed}
    passed = {subject for cell in (near, *nearest.values()) for subject in cell.passed} - failed
    fails = [
        BeyondStart(cell.failed, cell.causes, cell.reasons, cell.remedy.name if cell.remedy else None)
        for cell in nearest.values()
        if cell.failed
    ]
    return describe_subjects(passed, "there", failed), fails


def _advise(
    causes: Sequence[str],
    report: HostReport,
    cured: Sequence[PublishedCell],
    all_remedies: Mapping[str, Remedy],
) -> list[Advice]:
    """Return the remedies that cure the first of these cells, or else those that claim to cure."""
    advice = []
    if causes and cured and (verified := cured[0].remedy):
        for name in verified.name.split(remedies.AND):
            if remedy := all_remedies.get(name):
                changed = verified.digests.get(name) != remedy.digest
                advice.append(_advice(remedy, cured[0], changed=changed))
    values = settings.read_host_settings(report)
    return advice or [
        _advice(remedy)
        for remedy in remedies.choose_candidates(all_remedies, causes[:1])
        if (remedy.host or remedy.changes_service)
        and not settings.compare_settings(values, remedy.helps_with).differing
    ]


def _advice(remedy: Remedy, verified_on: PublishedCell | None = None, *, changed: bool = False) -> Advice:
    if remedy.run is not None:
        commands = remedy.run.example.strip()
    else:
        commands = (
            f"lab remedies show {remedy.name} --script >{remedy.name}.sh\n"
            f"sudo sh {remedy.name}.sh      # explains itself and asks first; --undo takes it back"
        )
    return Advice(remedy.name, remedy.title, remedy.does, remedy.price, commands, verified_on, changed)


def _decide(
    report: HostReport, findings: list[FoundCause], near: ClosestCell | None, *, same_system: bool
) -> tuple[HostOutlook, list[str]]:
    """Return the outcome, and the sentences that lead to it."""
    probes, foreseen = report.probes, prediction.foresee(_probed(report), findings)
    reasons = [foreseen.reason]
    if foreseen.says is Foreseen.BLOCKED and foreseen.cause:
        return HostOutlook.BLOCKED, []
    if foreseen.says is Foreseen.BLOCKED:
        if any(probe.failed for probe in _probed(report).decisive):
            reasons += _explain_refusal(report, near, same_system=same_system)
        return HostOutlook.BLOCKED, reasons
    if foreseen.says is Foreseen.UNKNOWN:
        return HostOutlook.UNKNOWN, reasons
    # The probe was refused nothing: what was published decides.
    if near is None or not near.comparison.compared:
        reason = "no published result is about this system or its relatives"
    elif not same_system:
        reason = "this system was never tested; the nearest that was is another one"
    elif near.comparison.deciding:
        reason = "no tested host has all the settings of this one"
    elif near.cell.kind is not AnswerKind.WORKS:
        reason = f"yet the tested host with these settings: {near.cell.headline}"
    elif probes.service_unrestricted.failed:
        reason = f"the settings of its service are not compared: {probes.service_unrestricted.stderr}"
    elif report.who.uid == 0:
        reason = "it ran as root, whom the kernel allows what it denies other users"
    else:
        reason = "a tested host with these settings passed boxlite's tests"
        return HostOutlook.WORKS, ["the probe was refused nothing that boxlite needs", reason]
    return HostOutlook.UNKNOWN, ["the probe was refused nothing that boxlite needs", reason]


def _explain_refusal(report: HostReport, near: ClosestCell | None, *, same_system: bool) -> list[str]:
    """Say what is known of a refusal whose cause the probe alone does not show."""
    probes, reasons = report.probes, list[str]()
    if probes.open_kvm.failed and _mode_allows_kvm(report):
        reasons.append("the mode of /dev/kvm allows this user to open it: a security module denies it")
    if report.facts.unset_options:
        reasons.append(f"the kernel was built without {', '.join(report.facts.unset_options)}")
    if probes.unshare_user.worked and probes.unshare_user_root.failed:
        reasons.append(
            "the kernel makes a user namespace and denies its capabilities: a security module does that"
        )
    if near and same_system and not near.comparison.deciding and near.cell.kind is AnswerKind.BLOCKED:
        by = ", ".join(near.cell.causes) or "an unknown cause"
        reasons.append(f"the nearest tested host is blocked by {by}")
    return [*reasons, "the kernel's log may name it: sudo journalctl -k | grep -E 'apparmor=|avc:'"]
