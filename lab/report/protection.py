"""What the sandbox gives a box: compared over cells, because a box can work and be less protected.

It is also compared with what the tests asked for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab.record import CellResult, Protection
from lab.verdict.protection import Unmet, lost, strengths, summary, unmet_options, words

# Fewer tests than these are named.
MOST_NAMED = 3


@dataclass(frozen=True)
class Boxes[What]:
    """Boxes of one build in which the same was seen: their tests, and their cells."""

    build: str
    what: What
    tests: list[str]
    cells: list[CellResult]


class Given(Boxes[tuple[str, ...]]):
    """What confines boxes, if it is the same in all of them."""

    @property
    def summary(self) -> str:
        """What confines them, as one phrase."""
        return summary(self.what)


class NotGiven(Boxes[Unmet]):
    """What tests asked for and what was seen instead, the same in all of them and in all cells."""

    def __str__(self) -> str:
        """One line: who asked for what, what was seen, and where."""
        return f"boxlite {self.build}: {_named(self.tests)} {self.what}; {self.where}"

    @property
    def short(self) -> str:
        """The line without what was seen."""
        asked = f"asked for {self.what.wanted} ({self.what.option})"
        return f"boxlite {self.build}: {_named(self.tests)} {asked}; {self.where}"

    @property
    def where(self) -> str:
        """The cells, by name if they are few."""
        named = len(self.cells) <= MOST_NAMED
        return f"in {', '.join(map(_where, self.cells)) if named else f'{len(self.cells)} cells'}"


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


def not_given(cells: Iterable[CellResult]) -> list[NotGiven]:
    """What the tests of these cells asked boxlite for and what is not to be seen in their boxes."""
    return _grouped(NotGiven, cells, unmet_options)


def given(cells: Iterable[CellResult]) -> list[Given]:
    """What confined the boxes of these cells, each combination once."""
    return _grouped(Given, cells, lambda protection: [tuple(strengths(protection))])


def _grouped[B: Boxes[Any]](
    kind: type[B], cells: Iterable[CellResult], seen: Callable[[Protection], Iterable[Any]]
) -> list[B]:
    groups: dict[tuple[str, Any], B] = {}
    for cell in cells:
        for test, protection in _boxes(cell):
            for what in seen(protection):
                group = groups.setdefault((cell.build, what), kind(cell.build, what, [], []))
                group.tests.extend([test] if test not in group.tests else [])
                group.cells.extend([cell] if cell not in group.cells[-1:] else [])
    return list(groups.values())


def weaknesses(cells: Sequence[CellResult]) -> list[Weakness]:
    """What boxes of these cells lacked, compared with those of the same build and test in other cells."""
    # Hundreds of cells have few kinds of boxes between them: each kind is compared once.
    kinds: dict[tuple[str, str], dict[tuple[str, ...], list[int]]] = {}
    for number, cell in enumerate(cells):
        for test, protection in _boxes(cell):
            of_test = kinds.setdefault((cell.build, test), {})
            of_test.setdefault(tuple(words(protection)), []).append(number)
    tests_of: dict[tuple[tuple[str, ...], tuple[int, ...], int], list[str]] = {}
    for (_, test), of_test in kinds.items():
        places: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for own, numbers in of_test.items():
            for other, (elsewhere, *_) in of_test.items():
                if lacking := lost(other, own):
                    places.setdefault((lacking, elsewhere), []).extend(numbers)
                    break
        for (lacking, elsewhere), numbers in places.items():
            tests_of.setdefault((lacking, tuple(sorted(numbers)), elsewhere), []).append(test)
    return [
        Weakness(lacking, tests, [cells[number] for number in numbers], cells[elsewhere])
        for (lacking, numbers, elsewhere), tests in tests_of.items()
    ]


def weak_cells(found: Iterable[Weakness]) -> set[int]:
    """The cells with a weakness, by `id`."""
    return {id(cell) for weakness in found for cell in weakness.cells}


def _boxes(cell: CellResult) -> Iterator[tuple[str, Protection]]:
    for test in cell.tests:
        if test.protection:
            yield test.name, test.protection


def _named(tests: Sequence[str]) -> str:
    return ", ".join(tests) if len(tests) < MOST_NAMED else f"{len(tests)} tests"


def _where(cell: CellResult) -> str:
    return f"{cell.guest} {cell.variant}"
