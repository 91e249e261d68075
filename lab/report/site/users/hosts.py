"""What is published about each distribution: its guests, and the answers for every setting of theirs."""

from dataclasses import dataclass
from functools import cached_property

from lab.catalog.remedies import Remedy
from lab.check.published import Kind
from lab.probes import Facts
from lab.record import CellResult
from lab.report.site.model import Site
from lab.report.site.page import slug
from lab.report.site.users import answer
from lab.report.site.users.answer import STOCK, Answer, Cure


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


def group(site: Site) -> list[Distribution]:
    """Return all distributions with results or in the catalog, sorted by name and release."""
    guests: dict[str, list[str]] = {}
    for guest in [*site.guests, *(name for name in site.catalog.guests if name not in site.guests)]:
        guests.setdefault(_name(guest, facts_of(site, guest)), []).append(guest)
    made = [_distribution(site, name, theirs) for name, theirs in guests.items()]
    return sorted(made, key=lambda each: _natural(each.name))


def facts_of(site: Site, guest: str) -> Facts | None:
    """Return the facts of a guest in its plainest cell that has any; None if none of its cells was ever up."""
    cells = sorted((each.cell for each in site.of_guest(guest)), key=_plainness)
    return next((cell.facts for cell in cells if cell.facts), None)


def _distribution(site: Site, name: str, guests: list[str]) -> Distribution:
    ordered = sorted(guests, key=lambda guest: (guest != name, guest not in site.guests, len(guest), guest))
    defined = site.catalog.guests.get(ordered[0])
    facts = facts_of(site, ordered[0])
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

    site: Site
    guest: str

    @property
    def title(self) -> str:
        defined = self.site.catalog.guests.get(self.guest)
        return defined.title if defined else self.guest

    @cached_property
    def as_installed(self) -> Answer:
        """The answer for the guest without any change."""
        return answer.ask(self.site, self.guest)

    @cached_property
    def settings(self) -> list[Answer]:
        """The answers for all variants that change something."""
        variants = {each.cell.variant for each in self.site.of_guest(self.guest)} - {STOCK}
        return [answer.ask(self.site, self.guest, variant) for variant in sorted(variants)]

    @property
    def answers(self) -> list[Answer]:
        """All its answers, as installed first."""
        return [self.as_installed, *self.settings]

    @property
    def never_tried(self) -> list[str]:
        """The titles of the catalog's variants that no published run has for this guest."""
        seen = {each.variant for each in self.answers}
        return [each.title for name, each in sorted(self.site.catalog.variants.items()) if name not in seen]


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
            (each, theirs)
            for each in self.answers
            for theirs in each.cures
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
        return next((each for each in self.answers if each.guest == guest), None)

    @cached_property
    def trouble(self) -> list[Group]:
        """The systems on which boxlite does not work with this setting, in groups."""
        groups: dict[tuple[object, ...], list[Answer]] = {}
        for each in self.answers:
            if each.kind in (Kind.BLOCKED, Kind.TROUBLE):
                groups.setdefault(_sameness(each), []).append(each)
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
        return [each for each in self.systems if each.as_installed.result or each.settings]

    @property
    def ran(self) -> list[System]:
        """The guests that were tested as installed."""
        return [each for each in self.tested if each.as_installed.kind is not Kind.UNTESTED]

    @cached_property
    def as_installed(self) -> Setting:
        """The systems without any change."""
        return Setting(STOCK, tuple(each.as_installed for each in self.tested))

    @cached_property
    def settings(self) -> list[Setting]:
        """All variants that change something, those that block boxlite first."""
        found: dict[str, list[Answer]] = {}
        for each in (each for system in self.tested for each in system.settings):
            found.setdefault(each.variant, []).append(each)
        made = [Setting(variant, tuple(answers)) for variant, answers in sorted(found.items())]
        return sorted(made, key=lambda each: not each.trouble)

    @property
    def untested(self) -> dict[str, list[Answer]]:
        """The answers without a result, by the reason."""
        found: dict[str, list[Answer]] = {}
        for each in (each for system in self.tested for each in system.answers if each.kind is Kind.UNTESTED):
            found.setdefault(each.reason, []).append(each)
        return found

    @property
    def blocking(self) -> list[Answer]:
        """The answers of the plainest guest that say what blocks boxlite."""
        return [each for each in self.main.answers if each.kind is Kind.BLOCKED]

    def count(self, kind: Kind) -> int:
        """Return how many settings of the plainest guest have this kind of answer."""
        return sum(each.kind is kind for each in self.main.settings)

    @property
    def cured(self) -> int:
        """How many blocking settings of the plainest guest have a verified remedy."""
        return sum(bool(each.cures) for each in self.main.settings)

    @cached_property
    def cures(self) -> dict[str, Remedy]:
        """All remedies with a script that the page offers, by name."""
        answers = [each for system in self.systems for each in system.answers]
        return {remedy.name: remedy for each in answers for cure in each.cures for remedy in cure.scripts}


def load(site: Site) -> list[Host]:
    """Return every distribution with what is published about it."""
    return [Host(each, tuple(System(site, guest) for guest in each.guests)) for each in group(site)]


def setting_id(variant: str) -> str:
    """Return the id of a variant's section in a distribution's page."""
    return f"setting-{slug(variant)}"


def _sameness(each: Answer) -> tuple[object, ...]:
    """What the answers of one group have in common: all that a user is told, but for versions."""
    return (
        each.kind,
        each.build,
        tuple(why.name for why in each.whys),
        tuple(cure.tried.name for cure in each.cures),
        tuple(cure.tried.name for cure in each.outdated),
        tuple(tried.name for tried in each.did_not_help),
        tuple(tried.name for tried in each.not_judged),
    )
