"""What one square of the table says; shared by every report that shows the matrix."""

from lab.results import CellResult, RunResult, Status


def square(cell: CellResult) -> str:
    """A cell in a few words: its status, and the cause or the reason where there is one."""
    match cell.status:
        case Status.NOT_APPLICABLE | Status.NOT_RUN:
            return f"{cell.status} ({cell.reason})" if cell.reason else str(cell.status)
        case Status.FAIL | Status.XFAIL:
            return f"{cell.status} {cell.cause}" if cell.cause else str(cell.status)
        case _:
            return str(cell.status)


def kernel(cells: list[CellResult]) -> str:
    """The kernel of a guest, read in the guest; a dash where it never ran."""
    return next((str(c.facts["kernel"]) for c in cells if "kernel" in c.facts), "-")


def columns(run: RunResult) -> list[str]:
    return list(dict.fromkeys(cell.variant for cell in run.cells))


def rows(run: RunResult) -> dict[str, list[CellResult]]:
    """Cells by guest, in the order of the plan."""
    found: dict[str, list[CellResult]] = {}
    for cell in run.cells:
        found.setdefault(cell.guest, []).append(cell)
    return found


def counts(run: RunResult) -> str:
    """How many cells have which status: `7 pass, 4 xfail, 2 n/a`."""
    statuses = [cell.status for cell in run.cells]
    return ", ".join(f"{statuses.count(s)} {s}" for s in Status if s in statuses)
