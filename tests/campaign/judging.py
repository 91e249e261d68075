"""Is a run's table true, and is it the table of an undisturbed run?"""

from pydantic import BaseModel

from lab.record import CellResult, RunResult


class Square(BaseModel):
    """What a cell did: its status, its cause, and the outcome of each test."""

    status: str
    cause: str | None
    tests: dict[str, str]

    def __str__(self) -> str:
        return f"{self.status} {self.cause}" if self.cause else self.status


Table = dict[str, Square]


def table_of(run: RunResult) -> Table:
    return {_name(cell): _square(cell) for cell in run.cells}


def untrue(reference: Table, run: RunResult) -> list[str]:
    """The cells of a disturbed run that claim what is not so, and those that are missing.

    A cell may do as in the undisturbed run, or say with a reason that it could not be run.
    """
    found = [f"{name} is missing from the results" for name in reference.keys() - table_of(run).keys()]
    for cell in run.cells:
        name, square = _name(cell), _square(cell)
        if cell.status.could_not_run:
            if not cell.reason.strip():
                found.append(f"{name} is {cell.status} without a reason")
        elif name not in reference:
            found.append(f"{name} was not planned")
        elif square != reference[name]:
            found.append(f"{name} is {square} ({cell.reason.strip()[:200]}), expected {reference[name]}")
            found += _tests(name, reference[name], square)
    return sorted(found)


def _tests(name: str, expected: Square, found: Square) -> list[str]:
    differ = [test for test in expected.tests if expected.tests[test] != found.tests.get(test)]
    return [f"{name}: {test} is {found.tests.get(test)}, expected {expected.tests[test]}" for test in differ]


def unfinished(run: RunResult) -> list[str]:
    """The cells that could not be run, or on which more is to be tried."""
    return [_name(cell) for cell in run.cells if cell.status.could_not_run or cell.has_more_to_try]


def _name(cell: CellResult) -> str:
    return f"{cell.guest}/{cell.variant}/{cell.build}"


def _square(cell: CellResult) -> Square:
    tests = {test.name: str(test.outcome) for test in cell.tests}
    return Square(status=str(cell.status), cause=cell.cause, tests=tests)
