"""The table of a run as data: its title, its rows and columns, the text of its squares, and how these look."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lab.base import notices
from lab.base.architecture import get_guest_architecture
from lab.base.files import group_values, join_lines
from lab.record import CellResult, RunResult, Status, strip_kernel

Column = tuple[str, str]
# Of which titles say what it is about.
USUAL_SUITE = "jailer"

# Cells without a result: reports show only their reason.
LEFT_OUT = (Status.NOT_APPLICABLE, Status.NOT_RUN)


def format_count(number: int, noun: str) -> str:
    """Count things: `1 cell`, `2 cells`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def describe_run(run: RunResult) -> str:
    """Return the title of a run's reports: what was tested on how many guests."""
    versions = dict.fromkeys(build.version for build in run.run.builds)
    boxlite = " ".join(filter(None, ["boxlite", ", ".join(versions)]))
    guests = {strip_kernel(cell.guest) for cell in run.cells}
    other_kernels = {cell.kernel for cell in run.cells} - {""}
    more = f", with {format_count(len(other_kernels), 'other kernel')}" if other_kernels else ""
    architectures = {
        cell.facts.arch if cell.facts else get_guest_architecture(cell.guest).name for cell in run.cells
    }
    of_architectures = f" of {' and '.join(sorted(architectures))}" if architectures else ""
    suites = list(dict.fromkeys(build.suite for build in run.run.builds if build.suite)) or [USUAL_SUITE]
    tested = (
        "the jailer" if suites == [USUAL_SUITE] else f"the suite{'s' * (len(suites) > 1)} {', '.join(suites)}"
    )
    return f"{boxlite}: {tested} on {format_count(len(guests), 'guest')}{of_architectures}{more}"


def name_cell(cell: CellResult) -> str:
    return f"{cell.guest} {cell.variant} {cell.build}"


def format_square(cell: CellResult | None) -> str:
    """Return the text of a cell's square: its status, and what is said beside it."""
    return f"{cell.status} {format_note(cell)}".strip() if cell else ""


@notices.guard_text
def format_note(cell: CellResult) -> str:
    """Return what is said beside a cell's status: the cause, or how many repeats passed, and the retries.

    And when it ran, if that was in an earlier run.
    """
    parts = []
    if cell.status is Status.NOT_RUN and cell.prediction:
        parts.append(str(cell.prediction))
    if cell.status.failed and cell.cause:
        parts.append(cell.cause)
    if cell.status is Status.FLAKY:
        completed = [repeat for repeat in cell.suite.repeats if not repeat.status.could_not_run]
        parts.append(f"{sum(not repeat.failed for repeat in completed)}/{len(completed)}")
    if cell.history.retried:
        parts.append(f"(try {len(cell.history.retried) + 1})")
    if cell.history.kept:
        parts.append(f"kept {cell.history.kept.date}")
    return " ".join(parts)


def format_cell(cell: CellResult) -> str:
    """Return a cell's outcome in one line: the text of its square, and the reason if it was left out."""
    return f"{format_square(cell)}{_format_reason(cell)}"


def list_left_out(run: RunResult, statuses: Collection[Status] = LEFT_OUT) -> list[str]:
    """Return one line for each reason why cells are n/a or were not run, with the cells concerned."""
    by_reason = group_values(
        (f"{cell.status}{_format_reason(cell)}", cell) for cell in run.cells if cell.status in statuses
    )
    return [f"{reason}: {list_cells(run, cells)}" for reason, cells in by_reason.items()]


def list_kept(run: RunResult) -> list[str]:
    """Return one line for each earlier run that results were taken over from, with the cells concerned."""
    by_origin = group_values((str(cell.history.kept), cell) for cell in run.cells if cell.history.kept)
    return [
        f"kept from {join_lines(origin)}, unchanged since: {list_cells(run, cells)}"
        for origin, cells in by_origin.items()
    ]


def list_cells(run: RunResult, cells: Iterable[CellResult]) -> str:
    """Name cells of a run by guest, and those of a guest only if they are not all of it."""
    headings = label_columns_of(run)
    planned = Counter(cell.guest for cell in run.cells)
    guests = group_values((cell.guest, headings[cell.variant, cell.build]) for cell in cells)
    return ", ".join(
        guest if len(names) == planned[guest] else f"{guest} ({', '.join(names)})"
        for guest, names in guests.items()
    )


def _format_reason(cell: CellResult) -> str:
    reason = join_lines(cell.reason)
    return f" ({reason})" if reason and cell.status in LEFT_OUT else ""


@notices.guard_text
def format_kernel(cells: Iterable[CellResult | None]) -> str:
    """Return the kernel and the architecture that were read in the guest; a dash if the guest never ran."""
    facts = next((cell.facts for cell in cells if cell and cell.facts), None)
    return join_lines(f"{facts.kernel} {facts.arch}") if facts else "-"


def label_columns(names: Iterable[Column]) -> dict[Column, str]:
    """Map each column (variant and build) to its heading, which names the build only if there are several."""
    pairs = dict.fromkeys(names)
    several = len({build for _, build in pairs}) > 1
    return {(variant, build): f"{variant} {build}" if several else variant for variant, build in pairs}


def label_columns_of(run: RunResult) -> dict[Column, str]:
    return label_columns((cell.variant, cell.build) for cell in run.cells)


def arrange_rows(run: RunResult) -> dict[str, list[CellResult | None]]:
    """Return the cells by guest, in the order of the columns; None if the plan has no such cell.

    The rows of a guest with several kernels follow each other.
    """
    by_identity = {(cell.guest, cell.variant, cell.build): cell for cell in run.cells}
    across = label_columns_of(run)
    guests = dict.fromkeys(cell.guest for cell in run.cells)
    with_kernels = group_values((strip_kernel(guest), guest) for guest in guests)
    in_order = (guest for group in with_kernels.values() for guest in group)
    return {guest: [by_identity.get((guest, *column)) for column in across] for guest in in_order}


def count_statuses(cells: Iterable[CellResult]) -> str:
    """Count cells by status: `7 pass, 4 xfail, 2 n/a`."""
    statuses = [cell.status for cell in cells]
    return ", ".join(f"{statuses.count(s)} {s}" for s in Status if s in statuses)


@dataclass(frozen=True)
class Look:
    """How a status is shown: its style on a terminal, the kind of its mark on a page, and what it means."""

    style: str
    mark: str
    meaning: str


# What a person has to look at comes first.
LOOKS = {
    Status.FAIL: Look(
        "bold red",
        "blocked",
        "boxlite failed where a pass is expected, or for another cause than expected",
    ),
    Status.XPASS: Look("bold red", "trouble", "boxlite passed where a failure is expected"),
    Status.FLAKY: Look("bold red", "trouble", "repeats of the suite disagree"),
    Status.ERROR: Look("bold magenta", "trouble", "a fault of the lab: says nothing about boxlite"),
    Status.NOT_RUN: Look("magenta", "untested", "not tested"),
    Status.XFAIL: Look("yellow", "blocked", "boxlite failed as expected, for the expected cause"),
    Status.PASS: Look("green", "works", "every test passed"),
    Status.NOT_APPLICABLE: Look(
        "dim", "untested", "does not apply to this guest, or this user cannot build it: not tested"
    ),
}
