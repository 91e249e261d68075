"""A comparison of two builds and the gate's decision, for the terminal and as Markdown."""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.base.files import bounded
from lab.gate.compare import CellDifference, Comparison, Difference
from lab.gate.decision import Decision, Gate, KnownFailure
from lab.report import markdown
from lab.report.terminal import print_plain

STYLES = {
    **{difference: "bold red" for difference in Difference if difference.blocks},
    Difference.COULD_NOT_RUN: "magenta",
    Difference.FIXED: "green",
    Difference.NEW: "cyan",
}
GATE_STYLES = {Gate.PASSED: "bold green", Gate.BLOCKED: "bold red", Gate.INCOMPLETE: "bold magenta"}
BLOCKING = tuple(difference for difference in Difference if difference.blocks)
# Told, but nothing that holds a release back.
TOLD = (Difference.FIXED, Difference.NEW, Difference.TESTS_CHANGED)
LONGEST = 300  # characters of a reason
MOST_TESTS = 20  # tests of a cell that are named


def table(console: Console, comparison: Comparison) -> None:
    """Print a comparison: the cells that differ as a table, then what changed in each and under them."""
    print_plain(console, sides(comparison))
    print_plain(console, comparison.counts, "bold")
    cells = comparison.of(*BLOCKING, *TOLD)
    if cells:
        made = Table("difference", "guest", "variant", "old", "new", box=None, pad_edge=False)
        for cell in cells:
            words = [cell.guest, cell.variant, transition(cell, "old"), transition(cell, "new")]
            made.add_row(Text(str(cell.difference), STYLES.get(cell.difference, "")), *map(Text, words))
        console.print()
        console.print(made)
    # A table row says everything about the others.
    _print_cells(
        console,
        [
            cell
            for cell in cells
            if (cell.difference.blocks and cell.new is not None)
            or (cell.tests and transition(cell, "old") == transition(cell, "new"))
        ],
    )
    _print_lines(console, "could not run", could_not_run(comparison))
    _print_lines(console, "environment changed", environment(comparison))


def gate(console: Console, decision: Decision) -> None:
    """Print the gate's decision: the verdict, each cell that blocks, and then what is told."""
    comparison = decision.comparison
    print_plain(console, verdict(decision), GATE_STYLES[decision.gate])
    print_plain(console, sides(comparison))
    print_plain(console, comparison.counts)
    if decision.other_plan:
        print_plain(console, other_plan(decision), "cyan")
    _print_cells(console, decision.blocking)
    _print_lines(console, "expectations that do not hold", decision.expectations_at_fault)
    _print_lines(console, "could not run", could_not_run(comparison))
    _print_lines(console, "known failures, as expected", [known_failure(failure) for failure in decision.known])
    told = [heading(cell) for cell in comparison.of(*TOLD)]
    _print_lines(console, "different, does not block", told)
    _print_lines(console, "environment changed, does not block", environment(comparison))


def render(comparison: Comparison, decision: Decision | None = None) -> str:
    """Render a comparison, or the gate's decision over it, as Markdown."""
    blocking = decision.blocking if decision else comparison.of(*BLOCKING)
    return markdown.page(
        "compare.md",
        comparison=comparison,
        decision=decision,
        blocking=blocking,
        told=comparison.of(*TOLD),
        could_not_run=could_not_run(comparison),
        environment=environment(comparison),
        other_plan=other_plan(decision) if decision and decision.other_plan else "",
        verdict=verdict(decision) if decision else "",
        known=[known_failure(failure) for failure in decision.known] if decision else [],
        details=details,
        transition=transition,
    )


def verdict(decision: Decision) -> str:
    """Say in one line what the gate decided and why."""
    match decision.gate:
        case Gate.BLOCKED:
            counts = Counter(cell.difference for cell in decision.blocking)
            parts = [f"{count} {difference}" for difference, count in counts.items()]
            at_fault = len(decision.expectations_at_fault)
            plural = "expectations do" if at_fault > 1 else "expectation does"
            why = ", ".join(parts + ([f"{at_fault} {plural} not hold"] if at_fault else []))
        case Gate.INCOMPLETE:
            missing = f"{_cells(len(decision.could_not_run))} could not be run; nothing else is worse"
            why = missing if decision.could_not_run else "no cell has a result on both sides"
        case Gate.PASSED:
            why = f"{_cells(decision.comparison.compared)} compared, nothing is worse"
    return f"gate {decision.gate}: {why}"


def sides(comparison: Comparison) -> str:
    return f"new: boxlite {comparison.new}\nold: boxlite {comparison.old}"


def other_plan(decision: Decision) -> str:
    """Say that the old side has what the run was never asked for."""
    missing = ", ".join(decision.other_plan)
    return f"the run was not asked for any cell of {missing}: is the old side of another plan?"


def known_failure(failure: KnownFailure) -> str:
    """Say which known failure a cell shows."""
    expected = failure.expected
    return (
        f"{failure.cell.name}: {transition(failure.cell, 'new')}: {expected.reason} "
        f"({expected.bug}, {expected.owner}, until {expected.until})"
    )


def transition(cell: CellDifference, side: str) -> str:
    """Return what a cell did on one side; `not asked` if that side does not have it."""
    seen = cell.old if side == "old" else cell.new
    return "not asked" if seen is None else str(seen)


def heading(cell: CellDifference) -> str:
    """Return a cell's difference in one line."""
    return f"{cell.difference}: {cell.name}: {transition(cell, 'old')} -> {transition(cell, 'new')}"


def details(cell: CellDifference) -> list[tuple[str, str]]:
    """Return what is known about a cell's difference, as pairs of a label and a text."""
    pairs = [("", bounded(cell.reason, LONGEST))]
    pairs += [("test", str(test)) for test in cell.tests[:MOST_TESTS]]
    if more := len(cell.tests) - MOST_TESTS:
        pairs += [("tests", f"{more} more changed")] if more > 0 else []
    pairs += [("less protected", bounded(line, LONGEST)) for line in cell.protection[:MOST_TESTS]]
    if cell.environment:
        pairs.append(("environment changed", "; ".join(map(str, cell.environment))))
    pairs.append(("evidence", cell.evidence))
    pairs.append(("run it again", cell.rerun))
    pairs.append(("both builds on this guest", cell.both_builds))
    return [(label, text) for label, text in pairs if text]


def could_not_run(comparison: Comparison) -> list[str]:
    """Return one line for each reason why cells could not be run, with its cells, and how to run them."""
    by_reason: dict[str, list[CellDifference]] = {}
    for cell in comparison.of(Difference.COULD_NOT_RUN):
        by_reason.setdefault(cell.reason or "no reason given", []).append(cell)
    lines = [f"{_names(cells, comparison)}: {bounded(reason, LONGEST)}" for reason, cells in by_reason.items()]
    missing = any(cell.new and cell.new.status.could_not_run for cells in by_reason.values() for cell in cells)
    if missing and comparison.new.folder:
        lines.append(f"run what is missing: lab matrix --resume {shlex.quote(comparison.new.folder)}")
    return lines


def environment(comparison: Comparison) -> list[str]:
    """Return one line for each change of environment with its cells, and the command that runs both builds."""
    lines = [
        f"{change}: {_names(cells, comparison)}" for change, cells in comparison.environment_changes.items()
    ]
    offer = f"both builds on the same guests: {comparison.both_builds}"
    return [*lines, offer] if comparison.both_builds else lines


def _names(cells: Sequence[CellDifference], comparison: Comparison) -> str:
    """Name cells, by their guest alone where all of its cells are meant."""
    every = Counter(cell.guest for cell in comparison.cells)
    guests: dict[str, list[str]] = {}
    for cell in cells:
        guests.setdefault(cell.guest, []).append(cell.variant)
    return ", ".join(
        f"{guest} (every variant)" if len(variants) == every[guest] > 1 else f"{guest} ({', '.join(variants)})"
        for guest, variants in guests.items()
    )


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count != 1 else ''}"


def _print_cells(console: Console, cells: Iterable[CellDifference]) -> None:
    """Print each cell with its details; those that one line says everything about follow each other."""
    apart = True
    for cell in cells:
        # Nothing more is known about a cell that the run was not asked for.
        lines = details(cell) if cell.new else []
        print_plain(console, ("\n" if apart or lines else "") + heading(cell), STYLES.get(cell.difference, ""))
        apart = bool(lines)
        for label, text in lines:
            # A record from elsewhere may have a line break in the name of a folder.
            line = " ".join(text.splitlines())
            print_plain(console, f"  {label}: {line}" if label else f"  {line}")


def _print_lines(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        print_plain(console, f"\n{title}:", "bold")
        for line in lines:
            print_plain(console, f"  {line}")
