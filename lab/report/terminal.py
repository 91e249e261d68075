"""The summary of a run for the terminal."""

from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lab.base import notices
from lab.base.files import clean_text, cut_text, join_lines
from lab.record import CellResult, Outcome, RemedyOutcome, RunResult, Status
from lab.report import predictions, protection, run_notes, sections, table
from lab.report.terminal_tables import format_cell, lay_out_tables, print_plain, style_square

FILES = ("results.json", "decided.jsonl", "matrix.md", "cells/", "run.log")
# Longest message of a test, and longest reason, in characters.
LONGEST, LONGEST_REASON = 300, 4000
# Most tests that are listed for a cell.
MOST = 50
# Most tests that are named in one line.
MOST_NAMED = 3


def print_summary(console: Console, run: RunResult, folder: Path) -> None:
    """Print the table, each unexpected cell with its explanation, what was tried, and where the files are."""
    weaknesses = protection.find_weaknesses(run.cells)
    weak = protection.name_weak_cells(weaknesses)
    rows = {
        guest: [
            Text(_short(table.format_kernel(cells))),
            *[style_square(cell, weak=cell is not None and cell.name in weak) for cell in cells],
        ]
        for guest, cells in table.arrange_rows(run).items()
    }
    for part in lay_out_tables(["kernel", *table.label_columns_of(run).values()], rows, console.width):
        console.print()
        console.print(part)
    if lines := [*table.list_left_out(run), *table.list_kept(run)]:
        console.print()
        for line in lines:
            print_plain(console, line, "dim")
    for weakness in weaknesses:
        print_plain(console, f"\n{weakness}", "yellow")
    if unmet := protection.find_unmet_options(run.cells, in_full=False):
        print_plain(
            console, "\nasked of boxlite but not found in any process of a box (matrix.md: what was seen):"
        )
    for boxes in unmet[:MOST]:
        print_plain(console, f"  {join_lines(str(boxes), LONGEST)}", "yellow")
    for cell in run.cells:
        name = table.name_cell(cell)
        is_unexpected = not cell.status.as_expected and cell.status is not Status.NOT_RUN
        if is_unexpected or cell.remedies or cell.trials.experiment:
            print_cell = partial(_print_cell, console, cell, name, folder)
            notices.show_or_explain(print_cell, partial(_print_not_shown, console, name))
        for number, fault in enumerate(cell.history.retried, 1):
            print_plain(console, f"\n{name}: try {number}: fault of the lab: {_reason(fault)}", "cyan")
    _print_rates(console, run)
    for line in run_notes.list_conditions(run.run.options):
        print_plain(console, f"\n{line}", "cyan")
    for lane in run.run.lanes:
        if lane.note:
            print_plain(console, f"\n{lane.guest}: {lane.note}", "cyan")
    for number, line in enumerate(run_notes.describe_hosts(run)):
        print_plain(console, _reason(line) if number else f"\n{_reason(line)}", "cyan")
    console.print()
    console.print(Text(table.count_statuses(run.cells), "bold"))
    score = predictions.score_run(run)
    if line := score.describe():
        print_plain(console, line)
    for line in score.list_wrong()[:MOST]:
        print_plain(console, f"  {line}", "bold red")
    if line := run_notes.describe_time(run):
        print_plain(console, line)
    files = [name for name in FILES if (folder / name).exists()]
    print_plain(console, f"run: {folder}" + (f" ({', '.join(files)})" if files else ""))
    if line := run_notes.describe_next_step(run, folder):
        print_plain(console, line)


def _print_rates(console: Console, run: RunResult) -> None:
    repeated = run_notes.list_rates(run)
    if not repeated:
        return
    print_plain(console, f"\nHow often tests failed. {run_notes.explain_rates(run)}")
    for rate in repeated[:MOST]:
        style = "bold red" if 0 < rate.rate.failed < rate.rate.ran else ""
        where = f" (in {rate.repeats})" if rate.rate.failed else ""
        tests = join_lines(rate.name_tests(MOST_NAMED), LONGEST)
        print_plain(console, f"  {rate.where}: {rate.failed}, {rate.interval}: {tests}{where}", style)
    if len(repeated) > MOST:
        print_plain(console, f"  and {len(repeated) - MOST} more")


def _print_not_shown(console: Console, name: str, reason: str) -> None:
    print_plain(console, f"  {name}: {reason}", "bold magenta")


def _print_cell(console: Console, cell: CellResult, name: str, folder: Path) -> None:
    """Print a cell's explanation, the remedies and changes tried on it, and where its evidence is."""
    print_plain(console, f"\n{name}: {table.format_square(cell)}", table.LOOKS[cell.status].style)
    if cell.reason:
        confidence = f" ({cell.verdict.confidence})" if cell.verdict.confidence else ""
        print_plain(console, f"  {_reason(cell.reason)}{confidence}")
    if not cell.status.as_expected:
        failed = [test for test in cell.tests if test.outcome is not Outcome.PASS]
        for test in failed[:MOST]:
            message = f": {join_lines(test.message, LONGEST)}" if test.message else ""
            print_plain(console, f"  {join_lines(test.name, LONGEST)}: {test.outcome}{message}")
        if len(failed) > MOST:
            print_plain(console, f"  and {len(failed) - MOST} more tests")
        print_plain(console, f"  run it again: {cell.rerun}")
        if cell.tests:
            print_plain(console, f"  a shell in it: {cell.shell(str(folder))}")
    if experiment := sections.describe_experiment(cell):
        print_plain(console, f"  by experiment: {_reason(experiment)}")
    for remedy in sections.sort_remedies(cell):
        verified = remedy.result is RemedyOutcome.VERIFIED
        reason = f": {join_lines(remedy.reason, LONGEST)}" if remedy.reason else ""
        print_plain(console, f"  {remedy.name}: {remedy.result}{reason}", "green" if verified else "dim")
        if verified or remedy.result is RemedyOutcome.AVOIDS:
            print_plain(console, f"    price: {remedy.price}\n    {sections.format_command(remedy)}")
        for defect in remedy.defects:
            print_plain(console, f"    a defect of {remedy.name}: {join_lines(defect, LONGEST)}", "bold red")
    if cell.evidence:
        print_plain(console, f"  evidence: {folder / cell.folder}")


def _reason(text: str) -> str:
    return clean_text(cut_text(text, LONGEST_REASON))


def _short(kernel: str) -> str:
    """Shorten `6.12.48+deb13-cloud-amd64 x86_64` to `6.12 x86_64`."""
    release, _, arch = kernel.rpartition(" ")
    return format_cell(" ".join([".".join(release.split(".")[:2]), arch]).strip())
