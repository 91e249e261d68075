"""What runs say about hosts, as the model that the front page and `lab check` compare a host with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.check import distributions, results
from lab.check.distributions import STOCK, Answer, Cure, Host, System, setting_id
from lab.check.published import FILE, Cell, Distribution, Kind, Published, Remedy, SystemName, join, read
from lab.check.results import Results, Source
from lab.check.settings import CONFINED, NOT_LOADED, PROFILE, UNCONFINED, Value, is_named, settings
from lab.probes import Facts
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
    if not names:
        return _own(runs)
    sites = [Path(name) for name in names if (Path(name) / FILE).is_file()]
    folders = [journal.find_folder(runs, name) for name in names if Path(name) not in sites]
    parts = [read(site) for site in sites]
    if folders:
        parts.append(of_runs(folders))
    return Loaded(join(parts), tuple(names))


def _own(runs: Path) -> Loaded:
    own = [past.read(folder) for folder in past.folders(runs)]
    whole = [run for run in own if run.record and run.record.cells]
    left_out = [f"{run.name}: {run.fault or 'it has no cells yet'}" for run in own if run not in whole]
    parts = [of_runs([run.folder for run in whole])] if whole else []
    return Loaded(join(parts), tuple(run.name for run in whole), tuple(left_out))


def of_runs(folders: Sequence[Path]) -> Published:
    """Return what a site of these runs would hold."""
    newest = results.of([Source(RunResult.read(folder), folder) for folder in folders])
    return of_hosts(distributions.load(newest))


def of_hosts(hosts: Sequence[Host]) -> Published:
    """Return the answers for all of these distributions and their tested cells."""
    return Published(
        distributions=tuple(_distribution(host) for host in hosts),
        cells=tuple(cell for number, host in enumerate(hosts) for cell in _cells(number, host)),
    )


def sysctls(newest: Results) -> list[str]:
    """Return the sysctls that were read in any published cell."""
    cells = [result.cell for result in newest.cells.values()]
    return sorted({name for cell in cells if cell.facts for name, _ in cell.facts.sysctls.items()})


def _distribution(host: Host) -> Distribution:
    distribution, answer = host.distribution, host.answer
    return Distribution(
        name=distribution.name,
        title=distribution.title,
        page=distribution.page,
        kind=answer.kind,
        headline=answer.headline,
        reason=answer.reason,
        systems=tuple(_systems(host)),
    )


def _systems(host: Host) -> Iterator[SystemName]:
    """Yield how a distribution's systems name themselves; from the guest's name if none was ever up."""
    answers = [answer for system in host.systems for answer in system.answers]
    facts = [answer.result.cell.facts for answer in answers if answer.result]
    names = {(each.os.id, each.os.version_id, each.os.version_codename) for each in facts if each}
    for name, version, codename in sorted(names or {(*host.distribution.words, None)}, key=str):
        yield SystemName(id=name, version=version, codename=codename)


def _cells(number: int, host: Host) -> list[Cell]:
    cells = [
        _cell(number, system, answer)
        for system in host.systems
        for answer in system.answers
        if answer.result and answer.kind is not Kind.UNTESTED
    ]
    return _with_changes(_with_profiles_that_differ(cells))


def _cell(number: int, system: System, answer: Answer) -> Cell:
    assert answer.result is not None
    facts = answer.result.cell.facts
    return Cell(
        distribution=number,
        guest=answer.guest,
        system=system.title,
        variant=answer.variant,
        title=answer.title,
        build=answer.build,
        kind=answer.kind,
        headline=answer.headline,
        causes=tuple(why.name for why in answer.whys),
        why=tuple(why.explanation for why in answer.whys),
        remedy=_remedy(answer.cures[0]) if answer.cures else None,
        part=setting_id(answer.variant) if answer.kind in (Kind.BLOCKED, Kind.TROUBLE) else "",
        settings=_settings(facts, answer) if facts else {},
    )


def _settings(facts: Facts, answer: Answer) -> dict[str, Value]:
    values = settings(facts)
    return values | {CONFINED: answer.confined_by or UNCONFINED} if facts.apparmor else values


def _remedy(cure: Cure) -> Remedy:
    return Remedy(
        name=cure.tried.name,
        title=cure.title,
        price=" ".join(remedy.price for remedy in cure.remedies),
        digests={remedy.name: remedy.digest for remedy in cure.remedies},
    )


def _with_profiles_that_differ(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with the AppArmor profiles that every host names, and those that a variant changes.

    All others tell no two cells apart, and no host from a cell.
    """
    names = {name for cell in cells for name in cell.settings if is_named(name)}
    for guest in {cell.guest for cell in cells}:
        profiles = [_profiles(cell) for cell in cells if cell.guest == guest and cell.settings]
        if profiles:
            first, *others = profiles
            names |= {name for name, _ in first.union(*others) - first.intersection(*others)}
    return [_with_profiles(cell, sorted(names)) for cell in cells]


def _with_profiles(cell: Cell, names: Sequence[str]) -> Cell:
    if not cell.settings:
        return cell
    kept = {name: value for name, value in cell.settings.items() if not name.startswith(PROFILE)}
    loaded = {name: cell.settings.get(name, NOT_LOADED) for name in names}
    return cell.model_copy(update={"settings": kept | loaded})


def _profiles(cell: Cell) -> set[tuple[str, Value]]:
    return {(name, mode) for name, mode in cell.settings.items() if name.startswith(PROFILE)}


def _with_changes(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with the number of settings in which each differs from the same guest as installed."""
    stock = {cell.guest: cell.settings for cell in cells if cell.variant == STOCK}
    return [cell.model_copy(update={"changed": _changes(cell, stock.get(cell.guest, {}))}) for cell in cells]


def _changes(cell: Cell, before: dict[str, Value]) -> int:
    names = before.keys() | cell.settings.keys()
    changed = sum(before.get(name) != cell.settings.get(name) for name in names)
    # A variant may change what no fact shows.
    return changed + (cell.variant != STOCK)
