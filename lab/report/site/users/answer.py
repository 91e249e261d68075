"""The answer to a user's question about one guest in one variant: does boxlite work, why not, what cures it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from lab.base.errors import UsageError
from lab.catalog import remedies
from lab.catalog.knobs.security_modules import AppArmor
from lab.catalog.remedies import Remedy
from lab.check.published import Kind
from lab.check.settings import compare, settings
from lab.record import UNKNOWN, CellResult, Confidence, RemedyOutcome, RemedyResult
from lab.report.site.model import Published, Site, Source

# The variant that changes nothing.
STOCK = "stock"


@dataclass(frozen=True)
class Cure:
    """A remedy, or several together, with which the whole suite passed on this very cell."""

    tried: RemedyResult
    remedies: tuple[Remedy, ...]
    source: Source
    cell: CellResult

    @property
    def scripts(self) -> list[Remedy]:
        """Its remedies that change the host, each with a script."""
        return [remedy for remedy in self.remedies if remedy.host]

    @property
    def title(self) -> str:
        return "; ".join(remedy.title for remedy in self.remedies)


@dataclass(frozen=True)
class Why:
    """A cause that the cell's evidence shows, for a user."""

    name: str
    explanation: str
    likely: bool


@dataclass(frozen=True)
class Answer:
    """The answer for one guest in one variant, from the newest build that ran there."""

    site: Site
    guest: str
    variant: str
    result: Published | None

    @property
    def kind(self) -> Kind:
        return Kind.of(self.result.cell.status if self.result else None)

    @property
    def headline(self) -> str:
        """The answer in a few words."""
        match self.kind:
            case Kind.WORKS:
                return "works as installed" if self.variant == STOCK else "works"
            case Kind.TROUBLE:
                return "works sometimes"
            case Kind.UNTESTED:
                return "not tested"
        if self.cures:
            return f"blocked; cured by {self.cures[0].tried.name}"
        return "blocked; no cure is verified"

    @property
    def reason(self) -> str:
        """Why it was not tested, or what the record says about a failure."""
        if self.result is None:
            return "no published run has it"
        return self.result.cell.reason

    @property
    def build(self) -> str:
        """The version of boxlite that was tested, with the build's name where that differs."""
        if self.result is None:
            return ""
        name = self.result.cell.build
        version = self.result.source.build(name).version
        return name if version == name else f"{version} ({name})"

    @property
    def title(self) -> str:
        """What the variant changes on the host, in a sentence."""
        try:
            return self.site.catalog.variant(self.variant).title
        except UsageError:  # it may have been made for that run alone
            return self.variant

    @property
    def confined_by(self) -> str | None:
        """The AppArmor profile by which the variant confined the suite."""
        try:
            apparmor = self.site.catalog.variant(self.variant).knobs.get("apparmor")
        except UsageError:
            return None
        return apparmor.confine_suite_by if isinstance(apparmor, AppArmor) else None

    @cached_property
    def whys(self) -> list[Why]:
        """The causes in the order in which they block, each in two sentences."""
        return [
            Why(found.name, self._explanation(found.name), found.confidence is Confidence.LIKELY)
            for found in (self.result.findings if self.result else [])
            if found.name != UNKNOWN
        ]

    @cached_property
    def cures(self) -> list[Cure]:
        """The verified remedies whose scripts are still those that were tried; the least price first."""
        return [cure for cure in self._verified() if _is_current(cure)]

    @cached_property
    def outdated(self) -> list[Cure]:
        """The remedies that were verified with a script that is another one today."""
        return [cure for cure in self._verified() if not _is_current(cure)]

    @cached_property
    def untried(self) -> list[Remedy]:
        """Remedies that claim to cure one of the causes, and were not tried on this cell."""
        if self.kind is not Kind.BLOCKED:
            return []
        tried = {name for _, _, each in self._trials() for name in each.name.split(remedies.AND)}
        claimed = remedies.candidates(self.site.remedies, [why.name for why in self.whys])
        facts = self.result.cell.facts if self.result else None
        yours = settings(facts) if facts else {}
        return [
            remedy
            for remedy in claimed
            if remedy.name not in tried and not compare(yours, remedy.helps_with).differing
        ]

    @cached_property
    def not_judged(self) -> list[RemedyResult]:
        """Remedies of which this cell cannot tell what they do on a real host."""
        return [each for each in self._no_cures() if each.result is RemedyOutcome.NOT_JUDGED]

    @cached_property
    def did_not_help(self) -> list[RemedyResult]:
        """Remedies that were tried on this cell and did not cure it."""
        return [each for each in self._no_cures() if each.result is not RemedyOutcome.NOT_JUDGED]

    def _no_cures(self) -> list[RemedyResult]:
        verified = {cure.tried.name for cure in self._verified()}
        found = {each.name: each for _, _, each in self._trials() if each.name not in verified}
        return list(found.values())

    def _verified(self) -> Iterator[Cure]:
        seen = set()
        for cell, source, tried in self._trials():
            names = tried.name.split(remedies.AND)
            known = [self.site.remedies[name] for name in names if name in self.site.remedies]
            is_cure = tried.result is RemedyOutcome.VERIFIED and len(known) == len(names)
            if is_cure and tried.name not in seen:
                seen.add(tried.name)
                yield Cure(tried, tuple(known), source, cell)

    def _trials(self) -> Iterator[tuple[CellResult, Source, RemedyResult]]:
        """Yield what was tried on this cell by the published run, and by older ones with the same cause."""
        if self.result is None or self.kind is not Kind.BLOCKED:
            return
        for cell, source in [(self.result.cell, self.result.source), *self.result.older]:
            if cell.cause == self.result.cell.cause and Kind.of(cell.status) is Kind.BLOCKED:
                yield from ((cell, source, tried) for tried in cell.remedies)

    def _explanation(self, cause: str) -> str:
        known = self.site.causes.get(cause)
        return known.explanation if known else f"The cause is {cause}, which this lab no longer knows."


def ask(site: Site, guest: str, variant: str = STOCK) -> Answer:
    """Answer for a guest in a variant: from the newest build that ran, or else from the newest at all."""
    results = [site.cells.get((guest, variant, build)) for build in site.builds]
    known = [result for result in results if result]
    ran = [result for result in known if Kind.of(result.cell.status) is not Kind.UNTESTED]
    return Answer(site, guest, variant, next(iter([*ran, *known]), None))


def _is_current(cure: Cure) -> bool:
    """Whether the scripts of today are those that were verified. A way to run boxlite has no script."""
    return all(cure.tried.scripts.get(remedy.name) == remedy.digest for remedy in cure.scripts)
