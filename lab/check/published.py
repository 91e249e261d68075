"""What is published about tested hosts: a site holds this model, `lab check` and the front page read it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from lab import __version__
from lab.base.data import FailFastModel, read_model
from lab.base.errors import UsageError, format_error
from lab.base.files import clean_text, group_values
from lab.catalog.knobs import AppArmor
from lab.check import distributions, results, settings
from lab.check.distributions import CellAnswer, make_setting_id
from lab.check.results import STOCK, AnswerKind, Source
from lab.record import Outcome, RunResult
from lab.record.folders import find_folder, list_folders, read_past_run

FILE = "published.json"
LONGEST = 2000  # characters of one text
MOST_BYTES = 16 << 20

# A text without characters that control a terminal or hide others: guests and sites are not trusted.
Text = Annotated[str, AfterValidator(lambda text: clean_text(text)[:LONGEST])]


class _Data(FailFastModel):
    model_config = ConfigDict(frozen=True)


class SystemName(_Data):
    """How a system names itself in /etc/os-release, and its architecture as `uname -m` prints it."""

    id: Text | None
    version: Text | None
    codename: Text | None
    arch: Text


class PublishedRemedy(_Data):
    """A remedy that was verified on a cell, or several together; the digests are those of what was tried."""

    name: Text
    title: Text
    price: Text
    digests: dict[Text, Text]


class PublishedCell(_Data):
    """A tested cell: its settings, and the answer for a user.

    `passed` and `failed` are what its tests are about: the subjects of which each test passed, or one failed.
    `changed` is the number of settings in which the cell differs from the same guest as installed. `part` is
    the id of its section in the distribution's page.
    """

    guest: Text
    system: Text
    variant: Text
    title: Text
    build: Text
    suite: Text
    kind: AnswerKind
    headline: Text
    causes: tuple[Text, ...]
    reasons: tuple[Text, ...]
    passed: tuple[Text, ...]
    failed: tuple[Text, ...]
    remedy: PublishedRemedy | None
    settings: dict[Text, Text | None]
    changed: int
    part: Text


class PublishedDistribution(_Data):
    """A release of a distribution on one architecture: the answer for it as installed, and its tested cells.

    `beyond_start` are the cells of suites that have no test of a box's start. `page` is its page in the site.
    """

    name: Text
    title: Text
    page: Text
    kind: AnswerKind
    headline: Text
    reason: Text
    systems: tuple[SystemName, ...]
    cells: tuple[PublishedCell, ...]
    beyond_start: tuple[PublishedCell, ...]


class Rules(_Data):
    """How settings are compared, for the front page: see `settings`."""

    profile: str = settings.PROFILE
    confined: str = settings.CONFINED
    unconfined: str = settings.UNCONFINED
    session: str = settings.SESSION
    manager: str = settings.MANAGER
    root: str = settings.ROOT
    versions: tuple[str, ...] = settings.VERSIONS
    limits: str = settings.LIMITS
    user_limit: str = settings.USER_LIMIT
    unlimited: str = settings.UNLIMITED
    or_less: str = settings.OR_LESS


class Published(_Data):
    """All that is published."""

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=True)

    format: Literal[1] = Field(default=1, alias="schema")
    lab: Text = Field(default="", description="The release of the lab that wrote it.")
    distributions: tuple[PublishedDistribution, ...]
    rules: Rules = Rules()


def list_comparable_cells(distributions: Iterable[PublishedDistribution]) -> list[PublishedCell]:
    """Return the cells of distributions that have settings to compare with."""
    return [cell for distribution in distributions for cell in distribution.cells if cell.settings]


@dataclass(frozen=True)
class LoadedResults:
    """Published results, where they come from, and why others of the lab's own were left out."""

    published: Published
    sources: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def load_published(names: Sequence[str], runs: Path) -> LoadedResults:
    """Read the named runs and sites; without a name, all of the lab's own runs, which are in the folder `runs`.

    Raises UsageError for a name that is neither, and for a run or site that cannot be read.
    """
    sites = [Path(name) for name in names if (Path(name) / FILE).exists()]
    folders = [find_folder(runs, name) for name in names if Path(name) not in sites]
    sources = [Source(RunResult.read(folder), folder) for folder in folders]
    read = list(names)
    left_out: list[str] = []
    for run in [] if names else map(read_past_run, list_folders(runs)):
        if run.record:
            sources.append(Source(run.record, run.folder))
            read.append(run.name)
        else:
            left_out.append(f"{run.name}: {run.fault}")
    parts = [_read(site) for site in sites]
    if sources:
        parts.append(
            publish_distributions(distributions.load_distributions(results.choose_newest_results(sources)))
        )
    joined = Published(distributions=tuple(chain.from_iterable(part.distributions for part in parts)))
    return LoadedResults(joined, tuple(read), tuple(left_out))


def _read(site: Path) -> Published:
    try:
        return read_model(Published, site / FILE, MOST_BYTES, "published results")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else format_error(error)
        raise UsageError(
            f"--results {site}: {FILE}: {reason}", hint="publish the site again with this lab"
        ) from error


def publish_distributions(loaded: Iterable[distributions.TestedDistribution]) -> Published:
    models = []
    for distribution in loaded:
        answers = [answer for guest in distribution.guests for answer in distribution.of(guest)]
        facts = [answer.result.cell.facts for answer in answers if answer.result]
        systems = {
            SystemName(
                id=of.os.id,
                version=of.os.version_id,
                codename=of.os.version_codename,
                arch=distribution.arch,
            )
            for of in facts
            if of
        }
        if not systems:  # None of its guests was ever up: what the distribution's own name says.
            system, _, release = distribution.release.partition("-")
            systems = {SystemName(id=system, version=release, codename=None, arch=distribution.arch)}
        stock = {answer.guest: _settings(answer) for answer in answers if answer.variant == STOCK}
        cells, beyond_start = (
            [
                _cell(distribution.guests[answer.guest], answer, stock[answer.guest])
                for answer in of_suites
                if answer.kind is not AnswerKind.UNTESTED
            ]
            for of_suites in (answers, list(chain.from_iterable(answer.beyond_start for answer in answers)))
        )
        models.append(
            PublishedDistribution(
                name=distribution.name,
                title=distribution.title,
                page=distribution.page,
                kind=distribution.answer.kind,
                headline=distribution.answer.headline,
                reason=distribution.answer.reason,
                systems=tuple(sorted(systems, key=str)),
                cells=tuple(cells),
                beyond_start=tuple(beyond_start),
            )
        )
    return Published(lab=__version__, distributions=tuple(models))


def _settings(answer: CellAnswer) -> dict[str, settings.Value]:
    cell = answer.result.cell if answer.result else None
    if cell is None or cell.facts is None:
        return {}
    facts, context = cell.facts, cell.suite.context
    values = settings.read_fact_settings(facts)
    if context:
        values |= settings.read_session_settings(context.session)
        values |= settings.read_limit_settings(context.limits)
    if answer.definition:
        values |= settings.read_root_setting("user" in answer.definition.knobs)
    if facts.apparmor:
        apparmor = answer.definition and answer.definition.knobs.get("apparmor")
        profile = apparmor.confine_suite_by if isinstance(apparmor, AppArmor) else None
        values[settings.CONFINED] = profile or settings.UNCONFINED
    return values


def _cell(system: str, answer: CellAnswer, stock: Mapping[str, settings.Value]) -> PublishedCell:
    values = _settings(answer)
    differing = sum(stock.get(name) != values.get(name) for name in stock.keys() | values.keys())
    remedy = None
    if cure := next(iter(answer.cures), None):
        remedy = PublishedRemedy(
            name=cure.remedy_result.name,
            title=cure.title,
            price=" ".join(part.price for part in cure.remedies),
            digests={part.name: part.digest for part in cure.remedies},
        )
    tests = answer.result.cell.tests if answer.result else []
    subjects = group_values((test.subject, test.outcome) for test in tests if test.subject)
    return PublishedCell(
        guest=answer.guest,
        system=system,
        variant=answer.variant,
        title=answer.title,
        build=answer.build,
        suite=answer.suite,
        kind=answer.kind,
        headline=answer.headline,
        causes=tuple(cause.name for cause in answer.findings),
        reasons=tuple(answer.results.explanation(cause.name) for cause in answer.findings),
        passed=tuple(name for name, outcomes in subjects.items() if {*outcomes} == {Outcome.PASS}),
        failed=tuple(name for name, outcomes in subjects.items() if any(each.is_failure for each in outcomes)),
        remedy=remedy,
        part=make_setting_id(answer.variant) if answer.kind in (AnswerKind.BLOCKED, AnswerKind.TROUBLE) else "",
        settings=values if answer.kind is AnswerKind.WORKS else settings.mark_lowered_limits(values, stock),
        # A variant may change what no fact shows.
        changed=differing + (answer.variant != STOCK),
    )
