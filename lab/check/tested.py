"""What runs say about hosts, as the model that the front page and `lab check` compare a host with."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lab.catalog.knobs import AppArmor
from lab.check import distributions, results
from lab.check.distributions import Answer, setting_id
from lab.check.published import FILE, Cell, Distribution, Kind, Published, Remedy, SystemName, read
from lab.check.results import STOCK, Results, Source
from lab.check.settings import CONFINED, NOT_LOADED, PROFILE, UNCONFINED, Value, is_named, settings
from lab.record import RunResult
from lab.run import journal, past


@dataclass(frozen=True)
class Loaded:
    """Published results, where they come from, and why others of the lab's own were left out."""

    published: Published
    sources: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def load(names: Sequence[str], runs: Path) -> Loaded:
    """Read the named runs and sites; without a name, all of the lab's own runs, which are in the folder `runs`.

    Raises UsageError for a name that is neither, and for a run or site that cannot be read.
    """
    sites = [Path(name) for name in names if (Path(name) / FILE).is_file()]
    folders = [journal.find_folder(runs, name) for name in names if Path(name) not in sites]
    left_out: list[str] = []
    sources = list(names)
    if not names:
        for run in [past.read(folder) for folder in past.folders(runs)]:
            if run.record and run.record.cells:
                folders.append(run.folder)
                sources.append(run.name)
            else:
                left_out.append(f"{run.name}: {run.fault or 'it has no cells yet'}")
    parts = [read(site) for site in sites] + ([of_runs(folders)] if folders else [])
    joined = Published(distributions=tuple(chain.from_iterable(part.distributions for part in parts)))
    return Loaded(joined, tuple(sources), tuple(left_out))


def of_runs(folders: Sequence[Path]) -> Published:
    """Return what a site of these runs would hold."""
    newest = results.of([Source(RunResult.read(folder), folder) for folder in folders])
    return of_distributions(distributions.load(newest))


def of_distributions(loaded: Sequence[distributions.Distribution]) -> Published:
    """Return the answers for all of these distributions and their tested cells."""
    return Published(distributions=tuple(map(_distribution, loaded)))


def sysctls(newest: Results) -> list[str]:
    """Return the sysctls that were read in any published cell."""
    cells = [result.cell for result in newest.cells.values()]
    return sorted({name for cell in cells if cell.facts for name in cell.facts.sysctls})


def _distribution(distribution: distributions.Distribution) -> Distribution:
    answers = [answer for guest in distribution.guests for answer in distribution.of(guest)]
    facts = [answer.result.cell.facts for answer in answers if answer.result]
    names = {(of.os.id, of.os.version_id, of.os.version_codename) for of in facts if of}
    if not names:  # None of its guests was ever up: what the distribution's own name says.
        system, _, release = distribution.name.partition("-")
        names = {(system, release, None)}
    cells = [
        _cell(distribution.guests[answer.guest], answer)
        for answer in answers
        if answer.kind is not Kind.UNTESTED
    ]
    answer = distribution.answer
    return Distribution(
        name=distribution.name,
        title=distribution.title,
        page=distribution.page,
        kind=answer.kind,
        headline=answer.headline,
        reason=answer.reason,
        systems=tuple(
            SystemName(id=name, version=version, codename=codename)
            for name, version, codename in sorted(names, key=str)
        ),
        cells=tuple(_comparable(cells)),
    )


def _cell(system: str, answer: Answer) -> Cell:
    assert answer.result is not None
    facts = answer.result.cell.facts
    values = settings(facts) if facts else {}
    if facts and facts.apparmor:
        apparmor = answer.definition and answer.definition.knobs.get("apparmor")
        profile = apparmor.confine_suite_by if isinstance(apparmor, AppArmor) else None
        values[CONFINED] = profile or UNCONFINED
    remedy = None
    if cure := next(iter(answer.cures), None):
        remedy = Remedy(
            name=cure.tried.name,
            title=cure.title,
            price=" ".join(part.price for part in cure.remedies),
            digests={part.name: part.digest for part in cure.remedies},
        )
    return Cell(
        guest=answer.guest,
        system=system,
        variant=answer.variant,
        title=answer.title,
        build=answer.build,
        kind=answer.kind,
        headline=answer.headline,
        causes=tuple(cause.name for cause in answer.findings),
        why=tuple(answer.results.explanation(cause.name) for cause in answer.findings),
        remedy=remedy,
        part=setting_id(answer.variant) if answer.kind in (Kind.BLOCKED, Kind.TROUBLE) else "",
        settings=values,
    )


def _comparable(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of a distribution with what tells them apart.

    AppArmor profiles are settings if every host names them, or if they differ between cells of a guest. All
    others tell no two cells apart, and no host from a cell. `changed` counts the settings that differ from
    those of the same guest as installed.
    """
    names = {name for cell in cells for name in cell.settings if is_named(name)}
    for guest in {cell.guest for cell in cells}:
        profiles = [
            {(name, mode) for name, mode in cell.settings.items() if name.startswith(PROFILE)}
            for cell in cells
            if cell.guest == guest and cell.settings
        ]
        if profiles:
            first, *others = profiles
            names |= {name for name, _ in first.union(*others) - first.intersection(*others)}
    settings_of: list[dict[str, Value]] = []
    for cell in cells:
        kept = {name: value for name, value in cell.settings.items() if not name.startswith(PROFILE)}
        loaded = {name: cell.settings.get(name, NOT_LOADED) for name in sorted(names)} if cell.settings else {}
        settings_of.append(kept | loaded)
    stock = {cell.guest: now for cell, now in zip(cells, settings_of, strict=True) if cell.variant == STOCK}
    comparable = []
    for cell, now in zip(cells, settings_of, strict=True):
        before = stock.get(cell.guest, {})
        differing = sum(before.get(name) != now.get(name) for name in before.keys() | now.keys())
        # A variant may change what no fact shows.
        changed = differing + (cell.variant != STOCK)
        comparable.append(cell.model_copy(update={"settings": now, "changed": changed}))
    return comparable
