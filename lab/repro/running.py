"""Running a report's cells: one run among the lab's own, with its evidence, its log and its live view."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import tomlkit
from rich.console import Console

from lab import builds
from lab.base.activity import UNWATCHED
from lab.base.errors import ImageNotAvailable, LabError
from lab.base.files import make_folder, write_atomically
from lab.base.formats import KEY, list_versions
from lab.base.paths import Paths
from lab.catalog import Guest, Variant
from lab.images import store
from lab.machine.budget import HostLimits
from lab.plan import Cell
from lab.record import RESULTS_FILE, ExperimentPolicy, RunOptions, RunResult
from lab.record.folders import VARIANTS, choose_new_folder
from lab.report import markdown, terminal_tables
from lab.repro import answer, comment, verdict
from lab.repro.answer import Subject
from lab.repro.planning import HostAbilities, Plan
from lab.repro.wishes import Wishes
from lab.run import live, scheduler, start
from lab.run.decisions import Follow, follow_with_nothing
from lab.run.live import open_log
from lab.trials import bisection
from lab.trials.bisection import Bisection

# The folder of a bisection in that of its report's run.
BISECTION = "bisection"
# What cures a cell does not tell which release broke it.
SUITE_ALONE = RunOptions(experiments=ExperimentPolicy.NEVER)
# A report has few cells, all of one guest; a bisection has one after another.
JOBS = 1


def options(wishes: Wishes) -> RunOptions:
    """The options of a report's run.

    Where no cause of an unexpected failure is proved, an experiment looks for the setting that turns the cell.
    A bisection looks for the release instead.
    """
    policy = ExperimentPolicy.NEVER if wishes.bisection else ExperimentPolicy.UNCLEAR
    return RunOptions(remedies=wishes.remedies, experiments=policy)


@dataclass(frozen=True)
class Runner:
    """Runs the cells of reports in the lab's folders and shows how they go on. `command` is recorded."""

    paths: Paths
    uri: str
    command: str
    console: Console
    quiet: bool = False
    verbose: bool = False

    def say(self, text: str) -> None:
        """Show a line, unless the run is quiet."""
        if not self.quiet:
            terminal_tables.print_plain(self.console, text)

    def host(self) -> HostAbilities:
        """What this host can run."""

        def has_image(guest: Guest) -> bool:
            self.say(f"looking for the image of {guest.name}")
            try:
                store.ensure_image(self.paths, guest, UNWATCHED)
            except ImageNotAvailable as error:
                self.say(f"image not available: {error.args[0]}")
                return False
            return True

        return HostAbilities(
            lambda guest: store.find_image(self.paths, guest) is not None, has_image, builds.list_releases
        )

    def answer(self, plan: Plan, folder: Path | None, wishes: Wishes) -> Subject:
        """Run a plan and judge it: the cells of its questions, and what else is wished for.

        Without a `folder` the run has a new one among the lab's own; the answer is written there, too. Raises
        UsageError if it holds a run already, or if no release can be compared with the build of a wished
        bisection; LabError if nothing can be run at all.
        """
        if wishes.bisection:
            Bisection.of(plan.cells[0])  # The run would take minutes before its bisection is refused.
        folder = choose_new_folder(self.paths.make(self.paths.runs), folder)
        self.say(f"run {folder}")
        run = self._run(folder, plan.cells, plan.made_variants, options(wishes))
        subject = Subject(plan, verdict.judge_run(plan, run, folder), run)
        # The answer stands, whatever becomes of the bisection.
        write_atomically(folder / comment.FILE, answer.render_answer(subject))
        failing = {cell.variant for cell in run.cells if bisection.list_failing_tests(cell)}
        failed = [cell for cell in plan.cells if cell.trials and cell.variant.name in failing]
        if wishes.bisection and not failed:
            self.say("no cell of the report failed, so there is nothing to bisect")
        elif wishes.bisection and not run.run.interrupted:
            facts = next(cell.facts for cell in run.cells if cell.variant == failed[0].variant.name)
            python = facts.python if facts else None
            bisected = self.bisected(failed[0], folder / BISECTION, plan.made_variants, python)
            subject = replace(subject, bisection=bisected)
            write_atomically(folder / comment.FILE, answer.render_answer(subject))
        return subject

    def bisected(
        self, cell: Cell, folder: Path, variants: Mapping[str, Variant], python: str | None
    ) -> Bisection:
        """Bisect releases from a cell that failed, in a run of its own. `python` is that of its guest.

        All steps share one lane as long as it lives: its guest is brought up once, and each build is deployed
        from there. Raises LabError if nothing can be run.
        """
        bisected = Bisection.of(cell, python)
        self.say(f"bisection over {len(bisected.cells)} releases, run {folder}")
        run = self._run(folder, [cell], variants, SUITE_ALONE, bisected.cells, bisected.follow)
        bisected.run = run.run
        return bisected

    def _run(
        self,
        folder: Path,
        cells: Sequence[Cell],
        variants: Mapping[str, Variant],
        options: RunOptions,
        possible: Sequence[Cell] = (),
        follow: Follow = follow_with_nothing,
    ) -> RunResult:
        """Run cells, and those that follow from their results; `possible` are all that may be run.

        `variants` have no file of their own: `lab matrix --resume` finds them in the run's folder.
        Raises LabError if nothing can be run at all.
        """
        planned = start.begin_run(folder, cells, command=self.command, options=options)
        [*_, version] = list_versions("definition")
        for name, variant in variants.items():
            table = variant.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"name"})
            make_folder(folder / VARIANTS)
            (folder / VARIANTS / f"{name}.toml").write_text(tomlkit.dumps({KEY: version, **table}))
        view = live.open_view(
            self.console, possible or planned.cells, [], quiet=self.quiet, verbose=self.verbose
        )
        try:
            with view as observer, open_log(folder, observer) as log:
                limits = HostLimits.of_this_host(JOBS)
                run = scheduler.Scheduler(planned, self.paths, self.uri, limits, log, follow).run()
        except LabError:
            if not (folder / RESULTS_FILE).exists():
                # Nothing was begun, so there is no run to resume.
                shutil.rmtree(folder / VARIANTS, ignore_errors=True)
                with suppress(OSError):
                    folder.rmdir()
            raise
        write_atomically(folder / "matrix.md", markdown.render_run(run, folder))
        return run
