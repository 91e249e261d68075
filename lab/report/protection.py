"""What the sandbox gives a box: compared over cells, because a box can work and be less protected.

It is also compared with what the tests asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lab.record import CellResult, Protection
from lab.verdict.protection import Unmet, lost, strengths, summary, unmet_options, words

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
        """What confines them, as one phrase."""
        return summary(self.what)


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
        lacked = ", ".join(self.lacking)
        box = f"the box of {_named(self.tests)}"
        return f"{where}: less protected: {box} lacked {lacked}; {_where(self.elsewhere)} has that"


@dataclass(frozen=True)
class NotGiven:
    """What tests of one build asked for and what was seen instead, the same in all of them and in all cells."""

    build: str
    unmet: Unmet
    tests: list[str]
    cells: list[CellResult]

    def __str__(self) -> str:
        """One line: who asked for what, what was seen, and where."""
        return f"boxlite {self.build}: {_named(self.tests)} {self.unmet}; {self.where}"

    @property
    def short(self) -> str:
        """The line without what was seen."""
        wanted = f"{self.unmet.wanted} ({self.unmet.option})"
        return f"boxlite {self.build}: {_named(self.tests)} asked for {wanted}; {self.where}"

    @property
    def where(self) -> str:
        """The cells, by name if they are few."""
        named = len(self.cells) <= MOST_NAMED
        return f"in {', '.join(map(_where, self.cells)) if named else f'{len(self.cells)} cells'}"


def not_given(cells: Iterable[CellResult]) -> list[NotGiven]:
    """What the tests of these cells asked boxlite for and what is not to be seen in their boxes."""
    found: dict[tuple[str, Unmet], NotGiven] = {}
    for cell in cells:
        for test, protection in _boxes(cell):
            for unmet in unmet_options(protection):
                same = found.setdefault((cell.build, unmet), NotGiven(cell.build, unmet, [], []))
                same.tests.extend([test] if test not in same.tests else [])
                same.cells.extend([cell] if cell not in same.cells[-1:] else [])
    return list(found.values())


def given(cells: Iterable[CellResult]) -> list[Given]:
    """What confined the boxes of these cells, each combination once."""
    found: dict[tuple[str, tuple[str, ...]], Given] = {}
    for cell in cells:
        for test, protection in _boxes(cell):
            what = tuple(strengths(protection))
            same = found.setdefault((cell.build, what), Given(cell.build, what, [], []))
            same.tests.extend([test] if test not in same.tests else [])
            same.cells.extend([cell] if cell not in same.cells[-1:] else [])
    return list(found.values())


def weaknesses(cells: Sequence[CellResult]) -> list[Weakness]:
    """What boxes of these cells lacked, compared with those of the same build and test in other cells."""
    boxes: dict[tuple[str, str], list[tuple[int, Protection]]] = {}
    for number, cell in enumerate(cells):
        for test, protection in _boxes(cell):
            boxes.setdefault((cell.build, test), []).append((number, protection))
    found: dict[tuple[tuple[str, ...], tuple[int, ...], int], list[str]] = {}
    for (_, test), seen in boxes.items():
        for key in _lacking(seen):
            found.setdefault(key, []).append(test)
    return [
        Weakness(lacking, tests, [cells[each] for each in places], cells[elsewhere])
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
    """What boxes of one test lack, in which cells, and the first cell where it is not lacking."""
    # Hundreds of cells have few kinds of boxes between them: each kind is compared once.
    kinds: dict[tuple[str, ...], list[int]] = {}
    for number, each in seen:
        kinds.setdefault(tuple(words(each)), []).append(number)
    places: dict[tuple[tuple[str, ...], int], list[int]] = {}
    for own, numbers in kinds.items():
        for theirs, (other, *_) in kinds.items():
            if lacking := lost(theirs, own):
                places.setdefault((lacking, other), []).extend(numbers)
                break
    for (lacking, other), numbers in places.items():
        yield lacking, tuple(sorted(numbers)), other


def _named(tests: Sequence[str]) -> str:
    return ", ".join(tests) if len(tests) < MOST_NAMED else f"{len(tests)} tests"


def _where(cell: CellResult) -> str:
    return f"{cell.guest} {cell.variant}"
