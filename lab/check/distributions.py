"""What is known about each distribution: for each setting of its guests, whether boxlite works, and why not."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from lab.base.architecture import ARCHITECTURES, X86_64, get_guest_architecture
from lab.base.errors import UsageError
from lab.base.files import group_values, make_slug
from lab.catalog import TWIN, Guest, Variant, remedies
from lab.catalog.remedies import Remedy
from lab.check import settings
from lab.check.results import STOCK, AnswerKind, NewestResult, Results, Source
from lab.probes import Facts
from lab.record import AT, UNKNOWN, CellResult, FoundCause, RemedyOutcome, RemedyResult, strip_kernel


@dataclass(frozen=True)
class CellTrial:
    """A remedy, or several together, tried on a cell."""

    remedy_result: RemedyResult
    source: Source
    cell: CellResult
    remedies: tuple[Remedy, ...]

    @property
    def cures(self) -> bool:
        return self.remedy_result.result is RemedyOutcome.VERIFIED

    @property
    def scripts(self) -> list[Remedy]:
        return [remedy for remedy in self.remedies if remedy.host]

    @property
    def title(self) -> str:
        return "; ".join(remedy.title for remedy in self.remedies)

    @property
    def is_current(self) -> bool:
        """Whether the scripts of today are those that were verified. A way to run boxlite has no script."""
        return all(self.remedy_result.scripts.get(remedy.name) == remedy.digest for remedy in self.scripts)


@dataclass(frozen=True)
class CellAnswer:
    """The answer for one guest in one variant, from the newest build that ran there."""

    results: Results
    guest: str
    variant: str
    result: NewestResult | None

    @property
    def kind(self) -> AnswerKind:
        return AnswerKind.of(self.result.cell.status if self.result else None)

    @property
    def headline(self) -> str:
        match self.kind:
            case AnswerKind.WORKS:
                return "works as installed" if self.variant == STOCK else "works"
            case AnswerKind.TROUBLE:
                return "works sometimes"
            case AnswerKind.UNTESTED:
                return "not tested"
        if self.cures:
            return f"blocked; cured by {self.cures[0].remedy_result.name}"
        return f"blocked; no cure {'is verified' if self.trials else 'was tried'}"

    @property
    def reason(self) -> str:
        """Why it was not tested, or what the record says about a failure."""
        return self.result.cell.reason if self.result else "no published run has it"

    @property
    def build(self) -> str:
        """The version of boxlite that was tested, with the build's name where that differs."""
        if self.result is None:
            return ""
        name = self.result.cell.build
        version = self.result.source.build(name).version
        return name if version == name else f"{version} ({name})"

    @property
    def suite(self) -> str:
        """The suite that ran, or the build's name if nobody recorded it."""
        name = self.result.cell.build if self.result else ""
        return (self.result.source.build(name).suite or name) if self.result else ""

    @property
    def definition(self) -> Variant | None:
        """The variant's definition; None if it was made for that run alone."""
        try:
            return self.results.catalog.variant(self.variant)
        except UsageError:
            return None

    @property
    def title(self) -> str:
        return self.definition.title if self.definition else self.variant

    @property
    def findings(self) -> list[FoundCause]:
        """The causes in the order in which they block."""
        return [cause for cause in (self.result.cell.causes if self.result else []) if cause.name != UNKNOWN]

    @cached_property
    def trials(self) -> list[CellTrial]:
        """What was tried on this cell by the published run, or by older ones with the same cause.

        Of each remedy that the lab still has: the newest trial that cured, or else the newest.
        """
        if self.result is None or self.kind is not AnswerKind.BLOCKED:
            return []
        trials: dict[str, CellTrial] = {}
        for cell, source in [(self.result.cell, self.result.source), *self.result.older]:
            if cell.cause != self.result.cell.cause or AnswerKind.of(cell.status) is not AnswerKind.BLOCKED:
                continue
            for remedy in cell.remedies:
                names = remedy.name.split(remedies.AND)
                if not self.results.remedies.keys() >= set(names):
                    continue
                of_today = tuple(self.results.remedies[name] for name in names)
                trial = CellTrial(remedy, source, cell, of_today)
                if remedy.name not in trials or (trial.cures and not trials[remedy.name].cures):
                    trials[remedy.name] = trial
        return list(trials.values())

    @property
    def cures(self) -> list[CellTrial]:
        """The verified remedies whose scripts are still those that were tried."""
        return [trial for trial in self.trials if trial.cures and trial.is_current]

    @property
    def outdated(self) -> list[CellTrial]:
        """The remedies that were verified with a script that is another one today."""
        return [trial for trial in self.trials if trial.cures and not trial.is_current]

    @property
    def no_cures(self) -> list[RemedyResult]:
        """Remedies that were tried and did not cure the cell, or of which it cannot tell what they do."""
        return [trial.remedy_result for trial in self.trials if not trial.cures]

    @property
    def untried(self) -> list[Remedy]:
        """Remedies that claim to cure one of the causes, and were not tried on this cell."""
        if self.result is None or self.kind is not AnswerKind.BLOCKED:
            return []
        names = {remedy.name for trial in self.trials for remedy in trial.remedies}
        facts = settings.read_fact_settings(self.result.cell.facts) if self.result.cell.facts else {}
        return [
            remedy
            for remedy in remedies.choose_candidates(
                self.results.remedies, [cause.name for cause in self.findings]
            )
            if remedy.name not in names and not settings.compare_settings(facts, remedy.helps_with).differing
        ]

    @property
    def beyond_start(self) -> "list[CellAnswer]":
        """The answers of the suites without a test of a box's start, each from the newest build that ran."""
        answers: dict[str, CellAnswer] = {}
        for build in self.results.builds:
            result = self.results.cells.get((self.guest, self.variant, build))
            if result and not _is_about_start(result.cell) and not result.cell.status.could_not_run:
                answer = CellAnswer(self.results, self.guest, self.variant, result)
                answers.setdefault(answer.suite, answer)
        return list(answers.values())

    @property
    def sameness(self) -> tuple[object, ...]:
        """All that a user is told, but for versions."""
        trials = frozenset(
            (trial.remedy_result.name, trial.cures, trial.cures and trial.is_current) for trial in self.trials
        )
        return self.kind, self.build, tuple(cause.name for cause in self.findings), trials


def _is_about_start(cell: CellResult) -> bool:
    """Whether a test of a cell is about the start of a box, as far as its tests say what they are about."""
    subjects = {test.subject for test in cell.tests} - {""}
    return not subjects or "start" in subjects


def ask(results: Results, guest: str, variant: str = STOCK) -> CellAnswer:
    """Answer for a guest in a variant: from the newest build that ran, or else from the newest at all.

    A suite without a test about the start of a box says nothing here: a box may start, and not stop.
    """
    every = [results.cells.get((guest, variant, build)) for build in results.builds]
    present = [result for result in every if result and _is_about_start(result.cell)]
    ran = [result for result in present if AnswerKind.of(result.cell.status) is not AnswerKind.UNTESTED]
    return CellAnswer(results, guest, variant, next(iter([*ran, *present]), None))


@dataclass(frozen=True)
class TestedDistribution:
    """One release of a distribution on one architecture: its guests with their titles, and the answers.

    What works on one architecture may not work on another, so they are two. `arch` is the architecture, as
    `uname -m` prints it; titles name it. The plainest guest comes first. `answers` has those for each variant,
    by guest: all guests as installed, and of the other variants those that a published run has.
    """

    release: str
    arch: str
    title: str
    guests: Mapping[str, str]
    answers: Mapping[str, Mapping[str, CellAnswer]]

    @property
    def name(self) -> str:
        """Its release, and as in the names of guests the architecture, unless that is x86_64."""
        return "-".join(filter(None, [self.release, _word(self.arch)]))

    @property
    def page(self) -> str:
        return f"hosts/{make_slug(self.name)}.html"

    @property
    def badge(self) -> str:
        return f"badges/{make_slug(self.name)}.json"

    @property
    def answer(self) -> CellAnswer:
        """The answer for the plainest guest as installed, by which the distribution is judged."""
        return next(iter(self.answers[STOCK].values()))

    def of(self, guest: str) -> list[CellAnswer]:
        """Return all answers for a guest, as installed first."""
        return [by_guest[guest] for by_guest in self.answers.values() if guest in by_guest]

    @cached_property
    def tested(self) -> list[str]:
        return [guest for guest in self.guests if any(answer.result for answer in self.of(guest))]

    @property
    def ran(self) -> list[CellAnswer]:
        """The answers for the guests that were tested as installed."""
        return [answer for answer in self.answers[STOCK].values() if answer.kind is not AnswerKind.UNTESTED]

    @cached_property
    def settings(self) -> list[str]:
        """The variants that change something, those that block boxlite first."""
        return sorted(self.answers.keys() - {STOCK}, key=lambda variant: (not self.trouble(variant), variant))

    def title_of(self, variant: str) -> str:
        return next(iter(self.answers[variant].values())).title

    def trouble(self, variant: str) -> list[list[CellAnswer]]:
        """Return the answers of guests on which boxlite does not work; those that are alike are a group."""
        kinds = (AnswerKind.BLOCKED, AnswerKind.TROUBLE)
        answers = [answer for answer in self.answers[variant].values() if answer.kind in kinds]
        return list(group_values((answer.sameness, answer) for answer in answers).values())

    @property
    def untested(self) -> dict[str, list[CellAnswer]]:
        answers = [answer for guest in self.tested for answer in self.of(guest)]
        return group_values((answer.reason, answer) for answer in answers if answer.kind is AnswerKind.UNTESTED)

    @property
    def blocking(self) -> list[CellAnswer]:
        """The answers for the plainest guest that say what blocks boxlite."""
        return [answer for answer in self.of(self.answer.guest) if answer.kind is AnswerKind.BLOCKED]

    @property
    def counts(self) -> Counter[AnswerKind]:
        """How many settings of the plainest guest have each kind of answer."""
        return Counter(answer.kind for answer in self.of(self.answer.guest) if answer.variant != STOCK)

    @property
    def cured(self) -> int:
        """How many settings that block the plainest guest have a verified remedy."""
        return sum(answer.variant != STOCK and bool(answer.cures) for answer in self.blocking)

    @property
    def has_trials(self) -> bool:
        """Whether a remedy was tried in any setting that blocks the plainest guest."""
        return any(answer.variant != STOCK and answer.trials for answer in self.blocking)

    @property
    def never_tried(self) -> list[str]:
        """The titles of the catalog's variants that no published run has for the plainest guest."""
        variants = sorted(self.answer.results.catalog.variants.items())
        names = {answer.variant for answer in self.of(self.answer.guest)}
        return [variant.title for name, variant in variants if name not in names]

    @cached_property
    def cures(self) -> dict[str, Remedy]:
        """All remedies with a script that the page offers, by name."""
        answers = [answer for guest in self.guests for answer in self.of(guest)]
        return {remedy.name: remedy for answer in answers for cure in answer.cures for remedy in cure.scripts}


def load_distributions(results: Results) -> list[TestedDistribution]:
    """Return all distributions with results or in the catalog, sorted by name and release."""
    tested, defined = results.guests, results.catalog.guests
    guests: dict[tuple[str, str], list[str]] = {}
    for guest in [*tested, *(name for name in defined if name not in tested)]:
        facts, plain_name = _facts_of(results, guest), strip_kernel(guest)
        arch = facts.arch if facts else get_guest_architecture(guest).name
        # Debian testing and unstable have no VERSION_ID, and the same os-release; their guests' names differ.
        name = "-".join([part for part in plain_name.split("-") if part != _word(arch)][:2])
        # A twin has the os-release of its packages, and nothing that it shows is shown as that system's.
        if facts and facts.os.id and facts.os.version_id and not guest.startswith(TWIN):
            name = f"{facts.os.id}-{facts.os.version_id}"
        guests.setdefault((name, arch), []).append(guest)
    loaded = []
    for (name, arch), systems in guests.items():
        systems.sort(key=lambda guest: (guest not in tested, len(guest), guest))
        systems.sort(key=name.__ne__)  # The guest that has the distribution's own name comes first.
        titles = {guest: f"{_title(defined, guest)} on {arch}" for guest in systems}
        title, facts = titles[systems[0]], _facts_of(results, systems[0])
        if systems[0] not in defined:
            title = f"{(facts and facts.os.pretty_name) or name} on {arch}"
        answers = {STOCK: {guest: ask(results, guest) for guest in systems}}
        of_cells = {
            (variant, guest) for guest, variant, _ in results.cells if guest in systems and variant != STOCK
        }
        for variant, guest in sorted(of_cells, key=lambda key: (key[0], systems.index(key[1]))):
            answers.setdefault(variant, {})[guest] = ask(results, guest, variant)
        loaded.append(TestedDistribution(name, arch, title, titles, answers))
    return sorted(loaded, key=lambda distribution: list(_natural(distribution.name)))


def _word(arch: str) -> str:
    """Return an architecture as the names of guests have it; empty for x86_64, which they do not name."""
    if arch == X86_64.name:
        return ""
    return ARCHITECTURES[arch].debian if arch in ARCHITECTURES else arch


def _title(defined: Mapping[str, Guest], guest: str) -> str:
    plain_name, _, kernel = guest.partition(AT)
    title = defined[plain_name].title if plain_name in defined else plain_name
    return f"{title} with the kernel {kernel}" if kernel else title


def make_setting_id(variant: str) -> str:
    return f"setting-{make_slug(variant)}"


def _facts_of(results: Results, guest: str) -> Facts | None:
    """Return the facts of a guest in its plainest cell that has any; None if none of its cells was ever up."""
    cells = sorted(
        (result.cell for result in results.of_guest(guest)),
        key=lambda cell: (cell.variant != STOCK, cell.variant),
    )
    return next((cell.facts for cell in cells if cell.facts), None)


def _natural(name: str) -> Iterator[tuple[bool, int, str]]:
    """Sort numbers in a name by value, before words: debian-9, debian-12, debian-sid."""
    for word in name.replace(".", "-").split("-"):
        number = word.isdecimal() and len(word) < 10
        yield not number, int(word) if number else 0, word
