"""What the sandbox gives a box: compared over cells, because a box can work and be less protected.

It is also compared with what the tests asked for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lab.record import CellResult, Protection
from lab.verdict.protection import (
    describe_protection,
    describe_strengths,
    find_losses,
    join_strengths,
    list_unmet_options,
)

# Fewer tests than these are named.
MOST_NAMED = 3


@dataclass(frozen=True)
class BoxGroup:
    """Boxes of one build with the same description: their tests, and their cells."""

    build: str
    description: str
    tests: list[str]
    cells: list[CellResult]

    def __str__(self) -> str:
        """One line: the cells, by name if they are few, whose boxes, and what is said of them."""
        are_few = len(self.cells) <= MOST_NAMED
        where = ", ".join(map(_where, self.cells)) if are_few else f"{len(self.cells)} cells"
        return f"{where}, boxlite {self.build}: {_name_tests(self.tests)} {self.description}"


@dataclass(frozen=True)
class Weakness:
    """Boxes that worked, and lacked what boxes of the same tests and the same build had in another cell.

    Only cells of one architecture are compared: on another, the same version is another program.
    """

    lacking: tuple[str, ...]
    tests: list[str]
    cells: list[CellResult]
    elsewhere: CellResult

    def __str__(self) -> str:
        """One line: where, whose box, what it lacked, and where it was not so."""
        where = ", ".join(map(_where, self.cells))
        lacked = ", ".join(self.lacking)
        box = f"the box of {_name_tests(self.tests)}"
        return f"{where}: less protected: {box} lacked {lacked}; {_where(self.elsewhere)} has that"


def find_unmet_options(cells: Iterable[CellResult], *, in_full: bool = True) -> list[BoxGroup]:
    """Return what the tests of these cells asked boxlite for and what is not to be seen in their boxes.

    `in_full`: with what was seen instead, which may be long.
    """

    def describe(protection: Protection) -> list[str]:
        return [str(option) if in_full else option.request_text for option in list_unmet_options(protection)]

    return _group_boxes(cells, describe)


def find_confinements(cells: Iterable[CellResult]) -> list[BoxGroup]:
    """Return what confined the boxes of these cells, as one phrase, each combination once."""
    return _group_boxes(cells, lambda protection: [join_strengths(describe_strengths(protection))])


def _group_boxes(
    cells: Iterable[CellResult], describe: Callable[[Protection], Iterable[str]]
) -> list[BoxGroup]:
    groups: dict[tuple[str, str], BoxGroup] = {}
    for cell in cells:
        for test, protection in _boxes(cell):
            for description in describe(protection):
                key = (cell.build, description)
                group = groups.setdefault(key, BoxGroup(*key, [], []))
                group.tests.extend([test] if test not in group.tests else [])
                group.cells.extend([cell] if cell not in group.cells[-1:] else [])
    return list(groups.values())


def find_weaknesses(cells: Sequence[CellResult]) -> list[Weakness]:
    """Return what boxes of these cells lacked that other cells had, for the same build and test."""
    # Hundreds of cells have few kinds of boxes between them: each kind is compared once.
    kinds: dict[tuple[str | None, str, str], dict[tuple[str, ...], list[int]]] = {}
    for number, cell in enumerate(cells):
        arch = cell.facts.arch if cell.facts else None
        for test, protection in _boxes(cell):
            of_test = kinds.setdefault((arch, cell.build, test), {})
            of_test.setdefault(tuple(describe_protection(protection)), []).append(number)
    tests_of: dict[tuple[tuple[str, ...], tuple[int, ...], int], list[str]] = {}
    for (_, _, test), of_test in kinds.items():
        places: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for strength, numbers in of_test.items():
            for other, (elsewhere, *_) in of_test.items():
                if lacking := find_losses(other, strength):
                    places.setdefault((lacking, elsewhere), []).extend(numbers)
                    break
        for (lacking, elsewhere), numbers in places.items():
            tests_of.setdefault((lacking, tuple(sorted(numbers)), elsewhere), []).append(test)
    return [
        Weakness(lacking, tests, [cells[number] for number in numbers], cells[elsewhere])
        for (lacking, numbers, elsewhere), tests in tests_of.items()
    ]


def name_weak_cells(weaknesses: Iterable[Weakness]) -> set[str]:
    """Return the names of the cells with a weakness."""
    return {cell.name for weakness in weaknesses for cell in weakness.cells}


def _boxes(cell: CellResult) -> Iterator[tuple[str, Protection]]:
    for test in cell.tests:
        if test.protection:
            yield test.name, test.protection


def _name_tests(tests: Sequence[str]) -> str:
    return ", ".join(tests) if len(tests) < MOST_NAMED else f"{len(tests)} tests"


def _where(cell: CellResult) -> str:
    return f"{cell.guest} {cell.variant}"
