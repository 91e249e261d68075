"""A comparison of two builds and the gate's decision over it, for the terminal and as Markdown."""

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from lab.base.files import cut_text, group_values
from lab.gate.compare import CellDifference, Comparison, Difference
from lab.gate.decision import Decision, Gate
from lab.report.markdown_pages import render_template
from lab.report.table import format_count
from lab.report.terminal_tables import print_plain

STYLES = {
    **{difference: "bold red" for difference in Difference if difference.blocks},
    Difference.COULD_NOT_RUN: "magenta",
}
GATE_STYLES = {Gate.PASSED: "bold green", Gate.BLOCKED: "bold red", Gate.INCOMPLETE: "bold magenta"}
BLOCKING = tuple(difference for difference in Difference if difference.blocks)
# Differences that are shown and hold no release back.
NOT_BLOCKING = (Difference.FIXED, Difference.NEW, Difference.TESTS_CHANGED)
LONGEST = 300  # characters of a reason
MOST_TESTS = 20  # tests of a cell that are named


def show_comparison(console: Console, comparison: Comparison, decision: Decision | None = None) -> None:
    """Print a comparison, or the gate's decision: the verdict, the cells that block, and the rest."""
    values = _values(comparison, decision)
    if decision:
        print_plain(console, values["verdict"], GATE_STYLES[decision.gate])
    print_plain(console, f"new: boxlite {comparison.new}\nold: boxlite {comparison.old}")
    print_plain(console, comparison.counts, "" if decision else "bold")
    if values["other_plan"]:
        print_plain(console, values["other_plan"], "cyan")
    apart = True
    for cell in values["blocking"]:
        # Nothing more is known about a cell that the run was not asked for. Such cells follow each other.
        lines = details(cell) if cell.new else []
        print_plain(console, ("\n" if apart or lines else "") + heading(cell), STYLES.get(cell.difference, ""))
        apart = bool(lines)
        for label, text in lines:
            # A record from elsewhere may have a line break in the name of a folder.
            line = " ".join(text.splitlines())
            print_plain(console, f"  {label}: {line}" if label else f"  {line}")
    for title, lines in values["sections"].items():
        print_plain(console, f"\n{title}:", "bold")
        for line in lines:
            print_plain(console, f"  {line}")


def render_comparison(comparison: Comparison, decision: Decision | None = None) -> str:
    values = {"details": details, "transition": transition, **_values(comparison, decision)}
    return render_template("compare.md", comparison=comparison, **values)


def _values(comparison: Comparison, decision: Decision | None) -> dict[str, Any]:
    """Return what both forms show; `sections` are lines under a title."""
    sections = {
        "expectations that do not hold": decision.expectations_at_fault if decision else [],
        "could not run": could_not_run(comparison),
        "known failures, as expected": [
            f"{failure.cell.name}: {transition(failure.cell, 'new')}: {failure.expected.reason} "
            f"({failure.expected.bug}, {failure.expected.owner}, until {failure.expected.until})"
            for failure in (decision.known if decision else [])
        ],
        "different, does not block": [heading(cell) for cell in comparison.of(*NOT_BLOCKING)],
        "environment changed, does not block": environment(comparison),
        "kept from an earlier run, compared like all others": kept(comparison),
    }
    not_asked = [cell for cell in comparison.of(Difference.VANISHED) if decision and cell.new is None]
    return {
        "verdict": verdict(decision) if decision else "",
        "other_plan": f"this run was not asked for {format_count(len(not_asked), 'cell')} that the old side "
        "has: is that side of another plan?"
        if not_asked
        else "",
        "blocking": decision.blocking if decision else comparison.of(*BLOCKING),
        "sections": {title: lines for title, lines in sections.items() if lines},
    }


def verdict(decision: Decision) -> str:
    match decision.gate:
        case Gate.BLOCKED:
            counts = Counter(cell.difference for cell in decision.blocking)
            parts = [f"{count} {difference}" for difference, count in counts.items()]
            at_fault = len(decision.expectations_at_fault)
            plural = "expectations do" if at_fault > 1 else "expectation does"
            reason = ", ".join(parts + ([f"{at_fault} {plural} not hold"] if at_fault else []))
        case Gate.INCOMPLETE:
            missing = (
                f"{format_count(len(decision.could_not_run), 'cell')} could not be run; nothing else is worse"
            )
            reason = missing if decision.could_not_run else "no cell has a result on both sides"
        case Gate.PASSED:
            reason = f"{format_count(decision.comparison.compared, 'cell')} compared, nothing is worse"
    return f"gate {decision.gate}: {reason}"


def transition(cell: CellDifference, side: str) -> str:
    """Return what a cell did on one side; `not asked` if that side does not have it."""
    result = cell.old if side == "old" else cell.new
    return "not asked" if result is None else str(result)


def heading(cell: CellDifference) -> str:
    """Return a cell's difference in one line, with the tests that changed where nothing else did."""
    old, new = transition(cell, "old"), transition(cell, "new")
    tests = "; ".join(map(str, cell.tests)) if old == new and not cell.difference.blocks else ""
    return f"{cell.difference}: {cell.name}: {old} -> {new}" + (
        f" ({cut_text(tests, LONGEST)})" if tests else ""
    )


def details(cell: CellDifference) -> list[tuple[str, str]]:
    """Return what is known about a cell's difference, as pairs of a label and a text."""
    pairs = [("", cut_text(cell.reason, LONGEST))]
    pairs += [("test", str(test)) for test in cell.tests[:MOST_TESTS]]
    if (more := len(cell.tests) - MOST_TESTS) > 0:
        pairs.append(("tests", f"{more} more changed"))
    pairs += [("less protected", cut_text(line, LONGEST)) for line in cell.protection[:MOST_TESTS]]
    pairs += [
        ("environment changed", "; ".join(map(str, cell.environment))),
        ("evidence", cell.evidence),
        ("run it again", cell.rerun),
        ("both builds on this guest", cell.both_builds),
    ]
    return [(label, text) for label, text in pairs if text]


def could_not_run(comparison: Comparison) -> list[str]:
    """Return one line for each reason why cells could not be run, with its cells, and how to run them."""
    missing = comparison.of(Difference.COULD_NOT_RUN)
    by_reason = group_values((cell.reason or "no reason given", cell) for cell in missing)
    lines = [f"{_names(cells, comparison)}: {cut_text(reason, LONGEST)}" for reason, cells in by_reason.items()]
    if comparison.new.folder and any(cell.new and cell.new.status.could_not_run for cell in missing):
        lines.append(f"run what is missing: lab matrix --resume {shlex.quote(comparison.new.folder)}")
    return lines


def environment(comparison: Comparison) -> list[str]:
    changes = group_values((str(change), cell) for cell in comparison.cells for change in cell.environment)
    lines = [f"{change}: {_names(cells, comparison)}" for change, cells in changes.items()]
    offer = f"both builds on the same guests: {comparison.both_builds}"
    return [*lines, offer] if comparison.both_builds else lines


def kept(comparison: Comparison) -> list[str]:
    """Return one line for each earlier run that results of the new side are kept from, with its cells."""
    by_origin = group_values(
        ((cell.new.kept, _is_same_result(cell, comparison)), cell)
        for cell in comparison.cells
        if cell.new and cell.new.kept
    )
    return [
        f"{origin}: {_names(cells, comparison)}"
        + ("; both sides have this one result, which cannot differ" if is_same else "")
        for (origin, is_same), cells in by_origin.items()
    ]


def _is_same_result(cell: CellDifference, comparison: Comparison) -> bool:
    """Whether both sides of a kept cell are one result: the old side ran it, or took it over as well."""
    if not (cell.old and cell.new) or comparison.old.build != comparison.new.build:
        return False
    return cell.old.kept == cell.new.kept or cell.new.kept.startswith(f"{comparison.old.source} of ")


def _names(cells: Sequence[CellDifference], comparison: Comparison) -> str:
    """Name cells, by their guest alone where all of its cells are meant."""
    every = Counter(cell.guest for cell in comparison.cells)
    guests = group_values((cell.guest, cell.variant) for cell in cells)
    return ", ".join(
        f"{guest} (every variant)" if len(variants) == every[guest] > 1 else f"{guest} ({', '.join(variants)})"
        for guest, variants in guests.items()
    )
