"""What one square of the table says, and which squares there are; every report that shows a matrix uses it."""

import re
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from posixpath import commonpath

from lab.base.files import plain
from lab.record import CellResult, Experiment, RemedyOutcome, RemedyResult, RunResult, Status, StepOutcome

Column = tuple[str, str]

# Of which the reason is all that there is to say.
LEFT_OUT = (Status.NOT_APPLICABLE, Status.NOT_RUN)

HOW_FAR = re.compile(r"(deploying|image: downloading):.*")


def square(cell: CellResult | None) -> str:
    """A cell in a few words: its status, and the cause where there is one."""
    if cell is None:
        return ""
    match cell.status:
        case Status.FAIL | Status.XFAIL:
            text = f"{cell.status} {cell.cause}" if cell.cause else str(cell.status)
        case Status.FLAKY:
            told = [repeat for repeat in cell.repeats if not repeat.status.could_not_run]
            text = f"{cell.status} {sum(not repeat.failed for repeat in told)}/{len(told)}"
        case _:
            text = str(cell.status)
    return f"{text} (try {len(cell.retried) + 1})" if cell.retried else text


def outcome(cell: CellResult) -> str:
    """A cell in a line: as in its square, and why where it was left out."""
    return f"{square(cell)}{_why(cell)}"


def left_out(run: RunResult) -> list[str]:
    """Why cells are n/a or were not run: a line for each reason, with the cells that it holds for."""
    headings = columns_of(run)
    found: dict[str, dict[str, list[str]]] = {}
    for cell in run.cells:
        if cell.status in LEFT_OUT:
            guests = found.setdefault(f"{cell.status}{_why(cell)}", {})
            guests.setdefault(cell.guest, []).append(headings[cell.variant, cell.build])
    planned = Counter(cell.guest for cell in run.cells)

    def told(guest: str, names: list[str]) -> str:
        return guest if len(names) == planned[guest] else f"{guest} ({', '.join(names)})"

    return [
        f"{why}: {', '.join(told(guest, names) for guest, names in guests.items())}"
        for why, guests in found.items()
    ]


def _why(cell: CellResult) -> str:
    reason = " ".join(plain(cell.reason).split())
    return f" ({reason})" if reason and cell.status in LEFT_OUT else ""


def to_go_on(run: RunResult, folder: Path) -> str:
    """What to do about what is missing of a run, or met a fault of the lab's own; empty where nothing is."""
    missing = sum(cell.status.could_not_run for cell in run.cells)
    more = sum(cell.has_more_to_try for cell in run.cells)
    said = [f"{missing} of {len(run.cells)} cells are missing"] if missing else []
    said += [f"more is to be tried on {more}"] if more else []
    if not said:
        return ""
    ended = "interrupted; " if run.run.interrupted else "not finished; " if not run.run.finished else ""
    if run.run.parts:
        return f"{ended}{', '.join(said)}: resume the merged runs, and merge again"
    return f"{ended}{', '.join(said)}; go on with: lab matrix --resume {shlex.quote(str(folder))}"


def kernel(cells: Iterable[CellResult | None]) -> str:
    """The kernel of a guest, read in the guest; a dash where it never ran."""
    said = next((cell.facts["kernel"] for cell in cells if cell and "kernel" in cell.facts), "-")
    return " ".join(plain(str(said)).split())


def columns(names: Iterable[Column]) -> dict[Column, str]:
    """The columns, by variant and build, with their headings; the build is told where there are several."""
    found = dict.fromkeys(names)
    several = len({build for _, build in found}) > 1
    return {(variant, build): f"{variant} {build}" if several else variant for variant, build in found}


def columns_of(run: RunResult) -> dict[Column, str]:
    return columns((cell.variant, cell.build) for cell in run.cells)


def rows(run: RunResult) -> dict[str, list[CellResult | None]]:
    """Cells by guest in the order of the columns; None where the plan has no such cell."""
    known = {(cell.guest, cell.variant, cell.build): cell for cell in run.cells}
    across = columns_of(run)
    guests = dict.fromkeys(cell.guest for cell in run.cells)
    return {guest: [known.get((guest, *column)) for column in across] for guest in guests}


def remedies(cell: CellResult) -> list[RemedyResult]:
    """What was tried on a cell: what cures it first, and then by how much protection it gives up."""
    return sorted(cell.remedies, key=lambda tried: tried.result is not RemedyOutcome.VERIFIED)


def how(tried: RemedyResult) -> str:
    """The command that tells how to put it in place: as a script where it changes the host."""
    script = " --script" if tried.scripts else ""
    return " and ".join(f"lab remedies show {name}{script}" for name in tried.name.split("+"))


def folder(tried: RemedyResult | Experiment) -> str:
    """Where the evidence of a remedy or an experiment is, in the run's folder."""
    return commonpath(str(PurePosixPath(file).parent) for file in tried.evidence)


def experiment(cell: CellResult) -> str:
    """What an experiment on the cell found, in a line; empty where none was made."""
    made = cell.experiment
    if made is None:
        return ""
    alone = [step for step in made.steps if len(step.changes) == 1]
    outcomes = Counter(step.outcome for step in alone)
    told = outcomes[StepOutcome.PASSES] + outcomes[StepOutcome.FAILS]
    turning = [" and ".join(changes) for changes in made.turning]
    if not told and not turning:
        found = "no change was tried"
    elif cell.status is Status.PASS:
        found = f"it fails {', '.join(turning)}" if turning else "nothing that was tried breaks it"
    else:
        found = f"what failed passes {turning[0]}" if turning else "nothing that was tried lets it pass"
    counts = {
        "tried alone": told,
        "not tried": len(made.not_tried) + outcomes[StepOutcome.CANNOT],
        "faults of the lab's own": outcomes[StepOutcome.ERROR],
    }
    said = [f"{what}: {count}" for what, count in counts.items() if count]
    return "; ".join(filter(None, [found, made.stopped, *said, f"judged by {', '.join(made.tests)}"]))


def evidence(cell: CellResult) -> list[str]:
    """A cell's evidence without that of the remedies and changes that were tried on it."""
    theirs = {file for tried in cell.remedies for file in tried.evidence}
    theirs |= set(cell.experiment.evidence) if cell.experiment else set()
    return [file for file in cell.evidence if file not in theirs]


def counts(run: RunResult) -> str:
    """How many cells have which status: `7 pass, 4 xfail, 2 n/a`."""
    statuses = [cell.status for cell in run.cells]
    return ", ".join(f"{statuses.count(s)} {s}" for s in Status if s in statuses)


def step(text: str) -> str:
    """What a lane does, without how far it is with it."""
    return HOW_FAR.sub(r"\1", text)
