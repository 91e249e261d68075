"""The table as data: its rows and columns and the text of each square, shared by all reports."""

import re
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from posixpath import commonpath

from lab import builds
from lab.base import guard
from lab.base.errors import TRACEBACK_FILE
from lab.base.files import plain
from lab.record import CellResult, Experiment, RemedyOutcome, RemedyResult, RunResult, Status, StepOutcome

Column = tuple[str, str]

# Cells without a result: reports show only their reason.
LEFT_OUT = (Status.NOT_APPLICABLE, Status.NOT_RUN)

HOW_FAR = re.compile(r"(deploying|image: downloading):.*")


@guard.text
def square(cell: CellResult | None) -> str:
    """Return the text of a cell's square: its status, and the cause if there is one."""
    if cell is None:
        return ""
    match cell.status:
        case Status.FAIL | Status.XFAIL:
            text = f"{cell.status} {cell.cause}" if cell.cause else str(cell.status)
        case Status.FLAKY:
            completed = [repeat for repeat in cell.repeats if not repeat.status.could_not_run]
            text = f"{cell.status} {sum(not repeat.failed for repeat in completed)}/{len(completed)}"
        case _:
            text = str(cell.status)
    return f"{text} (try {len(cell.retried) + 1})" if cell.retried else text


def outcome(cell: CellResult) -> str:
    """Return a cell's outcome in one line: the text of its square, and the reason if it was left out."""
    return f"{square(cell)}{_why(cell)}"


def left_out(run: RunResult) -> list[str]:
    """Return one line for each reason why cells are n/a or were not run, with the cells concerned."""
    found: dict[str, list[CellResult]] = {}
    for cell in run.cells:
        if cell.status in LEFT_OUT:
            found.setdefault(f"{cell.status}{_why(cell)}", []).append(cell)
    return [f"{why}: {listed(run, cells)}" for why, cells in found.items()]


def listed(run: RunResult, cells: Iterable[CellResult]) -> str:
    """Name cells of a run by guest, and those of a guest only if they are not all of it."""
    headings = columns_of(run)
    planned = Counter(cell.guest for cell in run.cells)
    guests: dict[str, list[str]] = {}
    for cell in cells:
        guests.setdefault(cell.guest, []).append(headings[cell.variant, cell.build])
    return ", ".join(
        guest if len(names) == planned[guest] else f"{guest} ({', '.join(names)})"
        for guest, names in guests.items()
    )


def _why(cell: CellResult) -> str:
    reason = " ".join(plain(cell.reason).split())
    return f" ({reason})" if reason and cell.status in LEFT_OUT else ""


def next_step(run: RunResult, folder: Path) -> str:
    """Say what is missing from a run and how to continue it; empty if the run is complete."""
    missing = sum(cell.status.could_not_run for cell in run.cells)
    more = sum(cell.has_more_to_try for cell in run.cells)
    parts = [f"{missing} of {len(run.cells)} cells are missing"] if missing else []
    parts += [f"more to try on {more} of {len(run.cells)} cells"] if more else []
    bugs = sum(cell.met_bug for cell in run.cells)
    parts += [f"{bugs} met a bug in the lab: report it with {TRACEBACK_FILE}"] if bugs else []
    if not parts:
        return ""
    ended = "interrupted; " if run.run.interrupted else "not finished; " if not run.run.finished else ""
    if run.run.is_partial:
        ended = f"partial, merged without {len(run.run.lost_shards)} of its shards; {ended}"
    again = " ".join(filter(None, [shlex.quote(str(folder)), builds.naming(run.run.builds)]))
    return f"{ended}{', '.join(parts)}; continue with: lab matrix --resume {again}"


@guard.text
def kernel(cells: Iterable[CellResult | None]) -> str:
    """Return the kernel that was read in the guest; a dash if the guest never ran."""
    said = next((cell.facts.kernel for cell in cells if cell and cell.facts), "-")
    return " ".join(plain(said).split())


def columns(names: Iterable[Column]) -> dict[Column, str]:
    """Map each column (variant and build) to its heading, which names the build only if there are several."""
    found = dict.fromkeys(names)
    several = len({build for _, build in found}) > 1
    return {(variant, build): f"{variant} {build}" if several else variant for variant, build in found}


def columns_of(run: RunResult) -> dict[Column, str]:
    return columns((cell.variant, cell.build) for cell in run.cells)


def rows(run: RunResult) -> dict[str, list[CellResult | None]]:
    """Return the cells by guest, in the order of the columns; None if the plan has no such cell."""
    known = {(cell.guest, cell.variant, cell.build): cell for cell in run.cells}
    across = columns_of(run)
    guests = dict.fromkeys(cell.guest for cell in run.cells)
    return {guest: [known.get((guest, *column)) for column in across] for guest in guests}


def remedies(cell: CellResult) -> list[RemedyResult]:
    """Return the remedies tried on a cell: cures first, each group sorted by the protection given up."""
    return sorted(cell.remedies, key=lambda tried: tried.result is not RemedyOutcome.VERIFIED)


def how(tried: RemedyResult) -> str:
    """Return the command that shows the remedy, as a script if it changes the host."""
    script = " --script" if tried.scripts else ""
    return " and ".join(f"lab remedies show {name}{script}" for name in tried.name.split("+"))


def folder(tried: RemedyResult | Experiment) -> str:
    """Return the folder of a remedy's or an experiment's evidence, relative to the run's folder."""
    return commonpath(str(PurePosixPath(file).parent) for file in tried.evidence)


@guard.text
def experiment(cell: CellResult) -> str:
    """Say in one line what the experiment on a cell found; empty if there was none."""
    made = cell.experiment
    if made is None:
        return ""
    alone = [step for step in made.steps if len(step.changes) == 1]
    outcomes = Counter(step.outcome for step in alone)
    judged = outcomes[StepOutcome.PASSES] + outcomes[StepOutcome.FAILS]
    turning = [" and ".join(changes) for changes in made.turning]
    if not judged and not turning:
        found = "no change was tried"
    elif cell.status is Status.PASS:
        found = f"it fails {', '.join(turning)}" if turning else "nothing that was tried breaks it"
    else:
        found = f"what failed passes {turning[0]}" if turning else "nothing that was tried lets it pass"
    counts = {
        "tried alone": judged,
        "not tried": len(made.not_tried) + outcomes[StepOutcome.CANNOT],
        "faults of the lab": outcomes[StepOutcome.ERROR],
    }
    numbers = [f"{what}: {count}" for what, count in counts.items() if count]
    return "; ".join(filter(None, [found, made.stopped, *numbers, f"judged by {', '.join(made.tests)}"]))


def evidence(cell: CellResult) -> list[str]:
    """Return a cell's own evidence, without that of the remedies and changes tried on it."""
    theirs = {file for tried in cell.remedies for file in tried.evidence}
    theirs |= set(cell.experiment.evidence) if cell.experiment else set()
    return [file for file in cell.evidence if file not in theirs]


def counts(run: RunResult) -> str:
    """Count the cells by status: `7 pass, 4 xfail, 2 n/a`."""
    statuses = [cell.status for cell in run.cells]
    return ", ".join(f"{statuses.count(s)} {s}" for s in Status if s in statuses)


def step(text: str) -> str:
    """Return a lane's step without its progress."""
    return HOW_FAR.sub(r"\1", text)
