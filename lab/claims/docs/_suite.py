"""Whether a cell's whole suite passed, as what a claim looks for."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.upstream.finished import FinishedCell


def passes(cell: FinishedCell) -> Sight:
    """Whether every test passed. The suite ran."""
    failed = _cells.failed(cell.result)
    said = f"fail: {', '.join(failed)}" if failed else "every test passes"
    return Sight(_cells.passed(cell.result), said, ("suite/junit.xml",))
