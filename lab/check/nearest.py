"""Which tested hosts are like this one: its system, and then the cell whose settings are closest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.check.answer import Close
from lab.check.published import Cell, Distribution, Published, System
from lab.evidence import confining_profile
from lab.probes.report import HostReport
from lab.site.users.answer import (
    CONFINED,
    UNCONFINED,
    Comparison,
    Value,
    compare,
    settings,
    with_profiles_not_loaded,
)


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
            each.cell
            for each in self.cells[1:]
            if each.comparison.distance == first.comparison.distance and each.cell.kind is not first.cell.kind
        )


def rank(report: HostReport, published: Published) -> Ranked:
    """Compare a host with the cells of its own release, or else with those of related systems."""
    own = [each for each in published.distributions if any(_same(report, system) for system in each.systems)]
    related = [] if own else _related(report, published)
    yours = settings_of(report)
    cells = [Close(cell, compared(report, yours, cell.settings)) for cell in published.of(own or related)]
    cells.sort(key=lambda each: (each.comparison.distance, each.cell.changed, each.cell.guest))
    return Ranked(bool(own), tuple(cells), tuple(related))


def settings_of(report: HostReport) -> dict[str, Value]:
    """Return a host's settings, and what confines the user who ran the probe."""
    known = settings(report.facts, report.knows)
    if report.facts.apparmor is None or not report.knows("who.context.apparmor"):
        return known
    return known | {CONFINED: confining_profile(report.who.context.apparmor) or UNCONFINED}


def compared(report: HostReport, yours: dict[str, Value], theirs: Mapping[str, Value]) -> Comparison:
    """Compare a host's settings with others: a profile that one of both names is not loaded on the other."""
    if report.facts.apparmor is None or not report.knows("apparmor.profiles"):
        return compare(yours, theirs)
    return compare(with_profiles_not_loaded(yours, theirs), with_profiles_not_loaded(theirs, yours))


def _same(report: HostReport, system: System) -> bool:
    os = report.facts.os
    if not os.id or os.id != system.id:
        return False
    if os.version_id or system.version:
        return os.version_id == system.version
    return not os.version_codename or not system.codename or os.version_codename == system.codename


def _related(report: HostReport, published: Published) -> Sequence[Distribution]:
    """Return the other releases of a distribution, or else the distributions that it derives from."""
    tested = [each for each in published.distributions if published.of([each])]
    releases = [each for each in tested if _has(each, report.facts.os.id)]
    return releases or [each for each in tested if any(_has(each, name) for name in report.id_like)]


def _has(distribution: Distribution, name: str | None) -> bool:
    return name is not None and any(system.id == name for system in distribution.systems)
