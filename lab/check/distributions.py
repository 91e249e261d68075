"""What is known about each distribution: for each setting of its guests, whether boxlite works, and why not."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from lab.base.errors import UsageError
from lab.base.files import slug
from lab.catalog import remedies
from lab.catalog.knobs.security_modules import AppArmor
from lab.catalog.remedies import Remedy
from lab.check.published import Kind
from lab.check.results import Result, Results, Source
from lab.check.settings import compare, settings
from lab.probes import Facts
from lab.record import UNKNOWN, CellResult, Confidence, RemedyOutcome, RemedyResult

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

    results: Results
    guest: str
    variant: str
    result: Result | None

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
            return self.results.catalog.variant(self.variant).title
        except UsageError:  # it may have been made for that run alone
            return self.variant

    @property
    def confined_by(self) -> str | None:
        """The AppArmor profile by which the variant confined the suite."""
        try:
            apparmor = self.results.catalog.variant(self.variant).knobs.get("apparmor")
        except UsageError:
            return None
        return apparmor.confine_suite_by if isinstance(apparmor, AppArmor) else None

    @cached_property
    def whys(self) -> list[Why]:
        """The causes in the order in which they block, each in two sentences."""
        return [
            Why(finding.name, self._explanation(finding.name), finding.confidence is Confidence.LIKELY)
            for finding in (self.result.findings if self.result else [])
            if finding.name != UNKNOWN
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
        tried = {name for _, _, trial in self._trials() for name in trial.name.split(remedies.AND)}
        claimed = remedies.candidates(self.results.remedies, [why.name for why in self.whys])
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
        return [trial for trial in self._no_cures() if trial.result is RemedyOutcome.NOT_JUDGED]

    @cached_property
    def did_not_help(self) -> list[RemedyResult]:
        """Remedies that were tried on this cell and did not cure it."""
        return [trial for trial in self._no_cures() if trial.result is not RemedyOutcome.NOT_JUDGED]

    def _no_cures(self) -> list[RemedyResult]:
        verified = {cure.tried.name for cure in self._verified()}
        trials = {trial.name: trial for _, _, trial in self._trials() if trial.name not in verified}
        return list(trials.values())

    def _verified(self) -> Iterator[Cure]:
        seen = set()
        for cell, source, tried in self._trials():
            names = tried.name.split(remedies.AND)
            remedies_of_today = [self.results.remedies[name] for name in names if name in self.results.remedies]
            is_cure = tried.result is RemedyOutcome.VERIFIED and len(remedies_of_today) == len(names)
            if is_cure and tried.name not in seen:
                seen.add(tried.name)
                yield Cure(tried, tuple(remedies_of_today), source, cell)

    def _trials(self) -> Iterator[tuple[CellResult, Source, RemedyResult]]:
        """Yield what was tried on this cell by the published run, and by older ones with the same cause."""
        if self.result is None or self.kind is not Kind.BLOCKED:
            return
        for cell, source in [(self.result.cell, self.result.source), *self.result.older]:
            if cell.cause == self.result.cell.cause and Kind.of(cell.status) is Kind.BLOCKED:
                yield from ((cell, source, tried) for tried in cell.remedies)

    def _explanation(self, cause: str) -> str:
        entry = self.results.causes.get(cause)
        return entry.explanation if entry else f"The cause is {cause}, which this lab no longer knows."


def ask(results: Results, guest: str, variant: str = STOCK) -> Answer:
    """Answer for a guest in a variant: from the newest build that ran, or else from the newest at all."""
    every = [results.cells.get((guest, variant, build)) for build in results.builds]
    there = [result for result in every if result]
    ran = [result for result in there if Kind.of(result.cell.status) is not Kind.UNTESTED]
    return Answer(results, guest, variant, next(iter([*ran, *there]), None))


def _is_current(cure: Cure) -> bool:
    """Whether the scripts of today are those that were verified. A way to run boxlite has no script."""
    return all(cure.tried.scripts.get(remedy.name) == remedy.digest for remedy in cure.scripts)


@dataclass(frozen=True)
class Distribution:
    """One release of a distribution, with all guests that have it; the plainest guest comes first."""

    name: str
    title: str
    guests: tuple[str, ...]

    @property
    def page(self) -> str:
        return f"hosts/{slug(self.name)}.html"

    @property
    def badge(self) -> str:
        return f"badges/{slug(self.name)}.json"

    @cached_property
    def words(self) -> tuple[str, str]:
        """The system and its release as a name writes them: debian and 13."""
        system, _, release = self.name.partition("-")
        return system, release


def group(results: Results) -> list[Distribution]:
    """Return all distributions with results or in the catalog, sorted by name and release."""
    guests: dict[str, list[str]] = {}
    for guest in [*results.guests, *(name for name in results.catalog.guests if name not in results.guests)]:
        guests.setdefault(_name(guest, facts_of(results, guest)), []).append(guest)
    made = [_distribution(results, name, theirs) for name, theirs in guests.items()]
    return sorted(made, key=lambda distribution: _natural(distribution.name))


def facts_of(results: Results, guest: str) -> Facts | None:
    """Return the facts of a guest in its plainest cell that has any; None if none of its cells was ever up."""
    cells = sorted((result.cell for result in results.of_guest(guest)), key=_plainness)
    return next((cell.facts for cell in cells if cell.facts), None)


def _distribution(results: Results, name: str, guests: list[str]) -> Distribution:
    ordered = sorted(guests, key=lambda guest: (guest != name, guest not in results.guests, len(guest), guest))
    defined = results.catalog.guests.get(ordered[0])
    facts = facts_of(results, ordered[0])
    title = defined.title if defined else facts and facts.os.pretty_name
    return Distribution(name, title or name, tuple(ordered))


def _name(guest: str, facts: Facts | None) -> str:
    """Return ID and VERSION_ID of the guest's system, or else the first two words of the guest's name.

    Debian testing and unstable have no VERSION_ID, and the same os-release; their guests' names differ.
    """
    if facts and facts.os.id and facts.os.version_id:
        return f"{facts.os.id}-{facts.os.version_id}"
    return "-".join(guest.split("-")[:2])


def _plainness(cell: CellResult) -> tuple[bool, str]:
    return cell.variant != "stock", cell.variant


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sort numbers in a name by value, before words: debian-9, debian-12, debian-sid."""
    return [_natural_word(word) for word in name.replace(".", "-").split("-")]


def _natural_word(word: str) -> tuple[bool, int, str]:
    number = word.isdecimal() and len(word) < 10
    return not number, int(word) if number else 0, word


@dataclass(frozen=True)
class System:
    """One guest of a distribution, with an answer for each variant that was published for it."""

    results: Results
    guest: str

    @property
    def title(self) -> str:
        defined = self.results.catalog.guests.get(self.guest)
        return defined.title if defined else self.guest

    @cached_property
    def as_installed(self) -> Answer:
        """The answer for the guest without any change."""
        return ask(self.results, self.guest)

    @cached_property
    def settings(self) -> list[Answer]:
        """The answers for all variants that change something."""
        variants = {result.cell.variant for result in self.results.of_guest(self.guest)} - {STOCK}
        return [ask(self.results, self.guest, variant) for variant in sorted(variants)]

    @property
    def answers(self) -> list[Answer]:
        """All its answers, as installed first."""
        return [self.as_installed, *self.settings]

    @property
    def never_tried(self) -> list[str]:
        """The titles of the catalog's variants that no published run has for this guest."""
        seen = {answer.variant for answer in self.answers}
        return [
            variant.title for name, variant in sorted(self.results.catalog.variants.items()) if name not in seen
        ]


@dataclass(frozen=True)
class Group:
    """Systems that one setting affects in the same way, with the same remedies."""

    answers: tuple[Answer, ...]

    @property
    def first(self) -> Answer:
        """The answer that speaks for all."""
        return self.answers[0]

    def verified(self, cure: Cure) -> list[tuple[Answer, Cure]]:
        """Return on which systems a remedy of the first answer was verified, and with what."""
        return [
            (answer, theirs)
            for answer in self.answers
            for theirs in answer.cures
            if theirs.tried.name == cure.tried.name
        ]


@dataclass(frozen=True)
class Setting:
    """A variant, with its answers on all systems of a distribution that have it."""

    variant: str
    answers: tuple[Answer, ...]

    @property
    def id(self) -> str:
        """The id of its section in the distribution's page."""
        return setting_id(self.variant)

    @property
    def title(self) -> str:
        return self.answers[0].title

    def on(self, guest: str) -> Answer | None:
        """Return the answer for a guest; None if no published run has this variant on it."""
        return next((answer for answer in self.answers if answer.guest == guest), None)

    @cached_property
    def trouble(self) -> list[Group]:
        """The systems on which boxlite does not work with this setting, in groups."""
        groups: dict[tuple[object, ...], list[Answer]] = {}
        for answer in self.answers:
            if answer.kind in (Kind.BLOCKED, Kind.TROUBLE):
                groups.setdefault(_sameness(answer), []).append(answer)
        return [Group(tuple(theirs)) for theirs in groups.values()]


@dataclass(frozen=True)
class Host:
    """What is published about a distribution."""

    distribution: Distribution
    systems: tuple[System, ...]

    @property
    def main(self) -> System:
        """The plainest guest, by which the distribution is judged."""
        return self.systems[0]

    @property
    def answer(self) -> Answer:
        return self.main.as_installed

    @cached_property
    def tested(self) -> list[System]:
        """The guests that a published run has."""
        return [system for system in self.systems if system.as_installed.result or system.settings]

    @property
    def ran(self) -> list[System]:
        """The guests that were tested as installed."""
        return [system for system in self.tested if system.as_installed.kind is not Kind.UNTESTED]

    @cached_property
    def as_installed(self) -> Setting:
        """The systems without any change."""
        return Setting(STOCK, tuple(system.as_installed for system in self.tested))

    @cached_property
    def settings(self) -> list[Setting]:
        """All variants that change something, those that block boxlite first."""
        answers_of: dict[str, list[Answer]] = {}
        for answer in (answer for system in self.tested for answer in system.settings):
            answers_of.setdefault(answer.variant, []).append(answer)
        made = [Setting(variant, tuple(answers)) for variant, answers in sorted(answers_of.items())]
        return sorted(made, key=lambda setting: not setting.trouble)

    @property
    def untested(self) -> dict[str, list[Answer]]:
        """The answers without a result, by the reason."""
        by_reason: dict[str, list[Answer]] = {}
        for answer in (
            answer for system in self.tested for answer in system.answers if answer.kind is Kind.UNTESTED
        ):
            by_reason.setdefault(answer.reason, []).append(answer)
        return by_reason

    @property
    def blocking(self) -> list[Answer]:
        """The answers of the plainest guest that say what blocks boxlite."""
        return [answer for answer in self.main.answers if answer.kind is Kind.BLOCKED]

    def count(self, kind: Kind) -> int:
        """Return how many settings of the plainest guest have this kind of answer."""
        return sum(answer.kind is kind for answer in self.main.settings)

    @property
    def cured(self) -> int:
        """How many blocking settings of the plainest guest have a verified remedy."""
        return sum(bool(answer.cures) for answer in self.main.settings)

    @cached_property
    def cures(self) -> dict[str, Remedy]:
        """All remedies with a script that the page offers, by name."""
        answers = [answer for system in self.systems for answer in system.answers]
        return {remedy.name: remedy for answer in answers for cure in answer.cures for remedy in cure.scripts}


def load(results: Results) -> list[Host]:
    """Return every distribution with what is published about it."""
    return [
        Host(distribution, tuple(System(results, guest) for guest in distribution.guests))
        for distribution in group(results)
    ]


def setting_id(variant: str) -> str:
    """Return the id of a variant's section in a distribution's page."""
    return f"setting-{slug(variant)}"


def _sameness(answer: Answer) -> tuple[object, ...]:
    """What the answers of one group have in common: all that a user is told, but for versions."""
    return (
        answer.kind,
        answer.build,
        tuple(why.name for why in answer.whys),
        tuple(cure.tried.name for cure in answer.cures),
        tuple(cure.tried.name for cure in answer.outdated),
        tuple(tried.name for tried in answer.did_not_help),
        tuple(tried.name for tried in answer.not_judged),
    )
