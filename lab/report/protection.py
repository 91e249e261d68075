"""What the sandbox gives a box, compared over the cells of a run: a box can work and be less protected."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lab.record import CellResult, Protection, RunResult

EMPTY = "0" * 16
# The sets of capabilities that a process has or can take from itself.
HELD = ("Inh", "Prm", "Eff", "Amb")
LIMIT = "limit of "
SECCOMP = "seccomp filter"
# What a process has of which its kernel does not tell.
UNTOLD = "not told by the kernel"
# Fewer tests than these are named.
MOST_NAMED = 3


@dataclass(frozen=True)
class Given:
    """What confines boxes of one build, if it is the same in all of them: its tests, and its cells."""

    build: str
    what: tuple[str, ...]
    tests: list[str]
    cells: list[CellResult]

    @property
    def summary(self) -> str:
        """What confines them, with all limits in one phrase: most of them are those of every process."""
        others = [each for each in self.what if not each.startswith(LIMIT)]
        limits = len(self.what) - len(others)
        counted = [f"{limits} limit{'s' if limits != 1 else ''}"] if limits else []
        return ", ".join(others + counted) or "nothing"


@dataclass(frozen=True)
class Weakness:
    """Boxes that worked, and lacked what boxes of the same tests and the same build had in another cell."""

    lacking: tuple[str, ...]
    tests: list[str]
    cells: list[CellResult]
    elsewhere: CellResult

    def __str__(self) -> str:
        """One line: where, whose box, what it lacked, and where it was not so."""
        where = ", ".join(map(_where, self.cells))
        named = ", ".join(self.tests) if len(self.tests) < MOST_NAMED else f"{len(self.tests)} tests"
        lacked = ", ".join(self.lacking)
        return f"{where}: less protected: the box of {named} lacked {lacked}; {_where(self.elsewhere)} has that"


def given(run: RunResult) -> list[Given]:
    """What confined the boxes of a run, each combination once."""
    found: dict[tuple[str, tuple[str, ...]], Given] = {}
    for cell in run.cells:
        for test, protection in _boxes(cell):
            what = tuple(_strengths(protection))
            same = found.setdefault((cell.build, what), Given(cell.build, what, [], []))
            same.tests.extend([test] if test not in same.tests else [])
            same.cells.extend([cell] if cell not in same.cells[-1:] else [])
    return list(found.values())


def weaknesses(run: RunResult) -> list[Weakness]:
    """What boxes of a run lacked, compared with the boxes of the same build in the same test in other cells."""
    boxes: dict[tuple[str, str], list[tuple[int, Protection]]] = {}
    for number, cell in enumerate(run.cells):
        for test, protection in _boxes(cell):
            boxes.setdefault((cell.build, test), []).append((number, protection))
    found: dict[tuple[tuple[str, ...], tuple[int, ...], int], list[str]] = {}
    for (_, test), seen in boxes.items():
        for key in _lacking(seen):
            found.setdefault(key, []).append(test)
    return [
        Weakness(lacking, tests, [run.cells[each] for each in places], run.cells[elsewhere])
        for (lacking, places, elsewhere), tests in found.items()
    ]


def weak_cells(found: Iterable[Weakness]) -> set[int]:
    """The cells with a weakness, by `id`."""
    return {id(cell) for weakness in found for cell in weakness.cells}


def _boxes(cell: CellResult) -> Iterator[tuple[str, Protection]]:
    for test in cell.tests:
        if test.protection:
            yield test.name, test.protection


def _lacking(
    seen: list[tuple[int, Protection]],
) -> Iterator[tuple[tuple[str, ...], tuple[int, ...], int]]:
    """What boxes of one test lack, in which cells, and a cell where it is not lacking."""
    writable = {mount for _, protection in seen for mount in _writable(protection)}
    strengths = {number: [*_strengths(each), *_closed(each, writable)] for number, each in seen}
    unknown = {number for number, each in seen if UNTOLD in each.seccomp}
    places: dict[tuple[tuple[str, ...], int], list[int]] = {}
    for number, own in strengths.items():
        for other, theirs in strengths.items():
            # What the kernel does not tell is no finding.
            known = [each for each in theirs if number not in unknown or not each.startswith(SECCOMP)]
            if lacking := tuple(each for each in known if each not in own):
                places.setdefault((lacking, other), []).append(number)
                break
    for (lacking, other), numbers in places.items():
        yield lacking, tuple(numbers), other


def _strengths(protection: Protection) -> Iterator[str]:
    """What confines a box, in words: each is one that another box may lack."""
    for kind in protection.namespaces:
        yield f"{kind} namespace"
    if protection.no_new_privs:
        yield "no_new_privs"
    if protection.seccomp == ["filter"]:
        yield SECCOMP
    elif "filter" in protection.seccomp:
        yield f"{SECCOMP} in some threads"
    held = {protection.capabilities.get(name, EMPTY) for name in HELD}
    if held == {EMPTY}:
        yield "no capabilities"
    if protection.capabilities.get("Bnd") == EMPTY:
        yield "empty bounding set"
    if protection.cgroup is not None:
        yield "control group of its own"
    for what in protection.limits:
        yield f"{LIMIT}{what}"


def _writable(protection: Protection) -> set[str]:
    """What is mounted writable for a box that does not share the mounts of its host."""
    if "mnt" not in protection.namespaces:
        return set()
    return {mount.removesuffix(" rw") for mount in protection.mounts if mount.endswith(" rw")}


def _closed(protection: Protection, writable: set[str]) -> Iterator[str]:
    """What other boxes may write and this one may not."""
    if "mnt" in protection.namespaces:
        for mount in sorted(writable - _writable(protection)):
            yield f"a {mount} that is not writable"


def _where(cell: CellResult) -> str:
    return f"{cell.guest} {cell.variant}"
