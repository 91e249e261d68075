"""Running a report's cells: one run among the lab's own, with its evidence, its log and its live view."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from rich.console import Console

from lab.base.errors import ImageNotAvailable, LabError
from lab.base.files import make_folder, write_atomically
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images import store
from lab.lane import prepare_image
from lab.machine.budget import Limits
from lab.plan import Cell
from lab.record import RESULTS_FILE, CellResult, ExperimentPolicy, RunOptions, RunResult
from lab.report import live, markdown, terminal
from lab.report.live import RunLog
from lab.repro import answer, bisection, claims, questions, verdict
from lab.repro.answer import Subject
from lab.repro.planning import Plan
from lab.run import journal, start
from lab.run.request import Group, Option
from lab.verdict.words import FinishedCell

# The folder of a bisection in that of its report's run.
BISECTION = "bisection"
# A report has few cells, all of one guest.
JOBS = 1


@dataclass(frozen=True)
class Extras:
    """What is done beside running the suite in a report's cells."""

    bisection: Annotated[
        bool,
        Option(
            Group.HOW,
            "--bisect",
            "Find out by running other releases which one first failed, and which one first passed again.",
        ),
    ] = False
    remedies: Annotated[
        bool,
        Option(Group.HOW, "--remedies/--no-remedies", "Try remedies on the cells that fail. Default: yes."),
    ] = True

    @property
    def options(self) -> RunOptions:
        """The options of the run.

        Where no cause is proved, an experiment looks for the setting that turns the cell. A bisection looks for
        the release instead.
        """
        policy = ExperimentPolicy.NEVER if self.bisection else ExperimentPolicy.UNCLEAR
        return RunOptions(remedies=self.remedies, experiments=policy)


@dataclass(frozen=True)
class View:
    """How a run is shown."""

    console: Console
    quiet: bool = False
    verbose: bool = False

    def line(self, text: str) -> None:
        """Show a line, unless the run is quiet."""
        if not self.quiet:
            terminal.print_plain(self.console, text)

    def step(self, text: str) -> None:
        """Show what is done now, if every step is shown."""
        if self.verbose:
            self.line(text)


def new_folder(paths: Paths, wanted: Path | None) -> Path:
    """Name the folder of a new run. Raises UsageError if it holds a run already."""
    return journal.new_folder(paths.make(paths.runs), wanted)


def run(
    plan: Plan,
    folder: Path,
    paths: Paths,
    uri: str,
    view: View,
    *,
    command: str,
    again: str,
    options: RunOptions,
) -> RunResult:
    """Run the cells of a plan. `command` is recorded, `again` is the command that makes such a run once more.

    Raises LabError if nothing can be run at all.
    """
    planned = start.begin(folder, plan.cells(again), command=command, options=options, shard=None)
    make_folder(folder)
    _write_variants(plan, folder)
    shown = live.view(view.console, planned.cells, [], quiet=view.quiet, verbose=view.verbose)
    try:
        with shown as observer, RunLog(folder, observer) as log:
            result = planned.run(paths, uri, Limits.of_this_host(JOBS, None), log)
    except LabError:
        if not (folder / RESULTS_FILE).exists():
            # Nothing was begun, so there is no run to resume.
            shutil.rmtree(folder / journal.VARIANTS, ignore_errors=True)
            with suppress(OSError):
                folder.rmdir()
        raise
    write_atomically(folder / "matrix.md", markdown.render(result, folder))
    return result


def carry_out(
    plan: Plan,
    folder: Path,
    paths: Paths,
    uri: str,
    view: View,
    *,
    command: str,
    again: str,
    extras: Extras = Extras(),
) -> Subject:
    """Run a plan and judge it: the run with its claims, and what else is asked for.

    `command` is recorded, `again` is the command that makes such a run once more. The answer is written into
    the folder of the run. Raises LabError if nothing can be run at all.
    """
    result = run(plan, folder, paths, uri, view, command=command, again=again, options=extras.options)
    found = verdict.of_run(plan, result, folder)
    said = claims.lines(plan, found, [FinishedCell(cell, folder) for cell in result.cells])
    subject = Subject(plan, found, said, result, again)
    if extras.bisection and not result.run.interrupted:
        subject = _bisect(subject, folder, paths, uri, view, command)
    write_atomically(folder / answer.FILE, answer.render(subject))
    return subject


def _cell_that(
    plan: Plan, result: RunResult, does: Callable[[CellResult], object], again: str = ""
) -> Cell | None:
    """The first cell of a question of which this is true."""
    asked = {each.variant.name for each in plan.questions if each.variant}
    found = {each.variant for each in result.cells if each.variant in asked and does(each)}
    return next((each for each in plan.cells(again) if each.variant.name in found), None)


def _bisect(subject: Subject, folder: Path, paths: Paths, uri: str, view: View, command: str) -> Subject:
    """A subject with the bisection of its first cell that failed, a run of its own inside the report's run."""
    assert subject.run is not None
    cell = _cell_that(subject.plan, subject.run, bisection.failing, subject.again)
    if cell is None:
        return replace(subject, not_bisected="no cell of the report failed")
    try:
        candidates = bisection.Candidates.of(cell)
    except LabError as error:
        return replace(subject, not_bisected=str(error.args[0]))
    target = folder / BISECTION
    make_folder(target)
    _write_variants(subject.plan, target)
    view.line(f"bisection over {len(candidates.all)} releases, run {target}")
    shown = live.view(view.console, candidates.all, [], quiet=view.quiet, verbose=view.verbose)
    limits = Limits.of_this_host(JOBS, None)
    with shown as observer, RunLog(target, observer) as log:
        result = bisection.bisect(
            candidates, paths, target, uri=uri, limits=limits, observer=log, command=command
        )
    return replace(subject, bisection=result)


def is_stored(paths: Paths, guest: Guest) -> bool:
    """Whether a guest's lanes can start at once."""
    return prepare_image.is_ready(paths, guest)


def why_no_image(paths: Paths, view: View, guest: Guest) -> str | None:
    """Build or fetch a guest's image if it is not here; why it cannot be had, None if it is here now."""
    view.line(f"looking for the image of {guest.name}")
    try:
        store.ensure(paths, guest, lambda text: None)
    except ImageNotAvailable as error:
        return f"image not available: {error.args[0]}"
    return None


def _write_variants(plan: Plan, folder: Path) -> None:
    """Write the variants that have no file of their own: `lab matrix --resume` finds them there."""
    target = folder / journal.VARIANTS
    for variant in plan.made_variants:
        target.mkdir(exist_ok=True)
        (target / f"{variant.name}.toml").write_text(questions.to_toml(variant))
