"""The main job: run the cells."""

import os
import shlex
import sys
from pathlib import Path

import click

from lab import builds, catalog, plan
from lab.base.errors import UsageError
from lab.base.files import write_atomically
from lab.builds import rootfs
from lab.cli import common, lists
from lab.machine.budget import Limits
from lab.record import Experiments, RunOptions, RunResult
from lab.report import live, markdown, terminal
from lab.report.runlog import RunLog
from lab.run import journal, scheduler, start
from lab.run.estimates import Estimates


@click.command("matrix")
@click.option("--set", "set_name", metavar="NAME", help="A set of cells, for example quick.")
@click.option(
    "-g",
    "guests",
    multiple=True,
    metavar="GUEST",
    help="This guest, and not those of the set; may be repeated.",
)
@click.option("-v", "variants", multiple=True, metavar="VARIANT", help="This variant, likewise.")
@click.option(
    "--build",
    "wanted",
    multiple=True,
    metavar="BUILD",
    help="A release, or a wheel's path; the newest release if not given. Repeated: side by side.",
)
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts of the plan; `lab merge` joins them.")
@click.option("--resume", metavar="RUN", help="Go on with a run: what is missing, an error or not-run.")
@click.option("--repeat", type=click.IntRange(1, 1000), default=1, help="Run each cell's suite so many times.")
@click.option(
    "--retries",
    type=click.IntRange(0, 10),
    default=1,
    show_default=True,
    help="How often a cell is tried again on a fresh lane after a fault of the lab's own.",
)
@click.option("--jobs", type=click.IntRange(1, 64), help="How many lanes run at once.")
@click.option("--memory", type=click.IntRange(1), metavar="MIB", help="Memory for all lanes together.")
@click.option("--cold", is_flag=True, help="Boot every cell afresh instead of forking it from a checkpoint.")
@click.option(
    "--remedies/--no-remedies",
    default=None,
    help="Whether to try remedies on the cells that fail; if not given, as the set says, or yes.",
)
@click.option(
    "--experiment/--no-experiment",
    default=None,
    help="Whether to find by trying which changes turn a cell's outcome, of a cell that passes too; if not "
    "given, on cells that fail for a cause that is not proved.",
)
@click.option(
    "--rootfs",
    "layout",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="OCI image layout that the boxes boot; it needs sh, echo and sleep.",
)
@click.option("-o", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the run.")
@click.option("--list", "only_list", is_flag=True, help="Show the cells and run nothing.")
@click.option("--quiet", is_flag=True, help="Print the result only.")
@click.option("--verbose", is_flag=True, help="A line for each step, on a terminal too.")
@click.pass_obj
def matrix_command(
    lab: common.Lab,
    set_name: str | None,
    guests: tuple[str, ...],
    variants: tuple[str, ...],
    wanted: tuple[str, ...],
    shard: str | None,
    resume: str | None,
    repeat: int,
    retries: int,
    jobs: int | None,
    memory: int | None,
    cold: bool,
    remedies: bool | None,
    experiment: bool | None,
    layout: Path | None,
    folder: Path | None,
    only_list: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Run the cells: each guest in each variant.

    Exit status: 0 every cell as expected, 1 a cell is not, 2 wrong usage, 3 something could not be run.
    """
    known = catalog.load()
    if resume is not None:
        _only_beside_resume()
        run_folder = common.run_folder(lab.paths, resume).resolve()
        begun = start.resume(RunResult.read(run_folder), known)
        if only_list:
            lists.print_cells(begun.left, begun.info.options)
            return 0
    else:
        part = plan.Part.parse(shard) if shard is not None else None
        choice = plan.choose(known, set_name=set_name, guests=guests, variants=variants)
        options = RunOptions(
            cold=cold,
            repeat=repeat,
            retries=retries,
            remedies=_tries_remedies(remedies, known, set_name, cold=cold),
            experiments=_experiments(experiment, cold=cold),
            rootfs=str(layout.resolve()) if layout else None,
        )
        if layout:
            rootfs.check(layout)
        if only_list:
            cells = choice.cells(builds.resolve_all(wanted) if wanted else [builds.ANY])
            lists.print_cells(plan.of_part(cells, part, options), options)
            return 0
        run_folder = journal.new_folder(lab.paths.make(lab.paths.runs), folder)
        chosen = builds.resolve_all(wanted)
        for build in chosen if wanted else []:
            build.check(lab.paths)
        begun = start.begin(
            run_folder,
            choice.cells(chosen),
            command=shlex.join(["lab", *sys.argv[1:]]),
            options=options,
            part=part,
        )
    processors = os.cpu_count() or 1
    limits = Limits(jobs=jobs or processors, memory_mib=memory, processors=processors)
    names = ", ".join(build.name for build in begun.info.builds)
    if not quiet:
        told = f"{len(begun.whole)} of them kept from before, " if begun.kept else ""
        common.say(f"boxlite {names}, {len(begun.cells)} cells, {told}run {run_folder}")
        if begun.info.options.cold:
            common.say("no remedy is tried and no experiment made: they take forks, and --cold makes none")
    with (
        live.view(common.console, begun.cells, begun.whole, quiet=quiet, verbose=verbose) as view,
        RunLog(run_folder, view) as log,
    ):
        run = scheduler.Scheduler(
            begun.cells,
            lab.paths,
            run_folder,
            lab.uri,
            begun.info,
            limits,
            log,
            estimates=Estimates.from_folder(lab.paths.runs, begun.info.options),
            kept=begun.kept,
        ).run()
    write_atomically(run_folder / "matrix.md", markdown.render(run, run_folder))
    terminal.summary(common.console, run, run_folder)
    return common.INTERRUPTED if run.run.interrupted else run.exit_status()


def _tries_remedies(asked: bool | None, known: catalog.Catalog, set_name: str | None, *, cold: bool) -> bool:
    """Whether remedies are tried. Raises UsageError where that is asked for beside --cold."""
    if cold and asked:
        raise _needs_forks("--remedies", "each remedy is tried")
    if cold or asked is not None:
        return bool(asked)
    return known.set(set_name).remedies if set_name is not None else True


def _experiments(asked: bool | None, *, cold: bool) -> Experiments:
    """On which cells experiments are made. Raises UsageError where they are asked for beside --cold."""
    if cold and asked:
        raise _needs_forks("--experiment", "each change is tried")
    if asked:
        return Experiments.ALWAYS
    return Experiments.NEVER if cold or asked is False else Experiments.UNCLEAR


def _needs_forks(option: str, why: str) -> UsageError:
    return UsageError(
        f"{option} and --cold contradict each other: {why} in a fork of its cell", hint="leave one of them out"
    )


def _only_beside_resume() -> None:
    """Raise UsageError where an option beside --resume would change the plan: a run's plan is its own."""
    free = {"resume", "jobs", "memory", "only_list", "quiet", "verbose"}
    context = click.get_current_context()
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if option.name not in free and source is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{option.opts[0]} cannot be changed for a run that is resumed",
                hint="leave it out, or start a new run",
            )
