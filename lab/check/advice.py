"""What to do on a host: remedies that were verified on a cell with the same causes, or that only claim it."""

from collections.abc import Iterator, Mapping, Sequence

from lab import remedies
from lab.check.answer import Advice, Close
from lab.check.nearest import Ranked, compared, settings_of
from lab.check.published import Cell, Published
from lab.probes.report import HostReport
from lab.remedies import Remedy
from lab.site.users.answer import compare


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
    yours = settings_of(report)
    claiming = [
        each
        for each in remedies.candidates(known, causes[:1])
        if each.host and not compare(yours, each.helps_with).differing
    ]
    return tuple(Advice(each.name, each.title, each.does, each.price, commands(each)) for each in claiming)


def otherwise(causes: Sequence[str], known: Mapping[str, Remedy]) -> tuple[str, ...]:
    """Return the names of remedies that change how boxlite or its tests are run, not the host."""
    return tuple(each.name for each in remedies.candidates(known, causes[:1]) if each.run)


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
    own = {each.cell.guest for each in ranked.cells}
    yours = settings_of(report)
    cured = [
        Close(cell, compared(report, yours, cell.settings))
        for cell in published.cells
        if cell.remedy and cell.settings and cell.causes and set(cell.causes) == set(causes)
    ]
    cured.sort(key=lambda each: (each.cell.guest not in own, each.comparison.distance, each.cell.changed))
    return cured[0].cell if cured else None


def _verified(cell: Cell, known: Mapping[str, Remedy]) -> Iterator[Advice]:
    assert cell.remedy is not None
    for name in cell.remedy.name.split(remedies.AND):
        if remedy := known.get(name):
            changed = cell.remedy.digests.get(name) != remedy.digest
            yield Advice(name, remedy.title, remedy.does, remedy.price, commands(remedy), cell, changed)
