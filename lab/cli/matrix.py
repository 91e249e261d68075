"""The main job: run the cells. Here, on other hosts, or one part for another host."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import IO, Any

import click

from lab import builds, catalog, cli
from lab.base import notices
from lab.base.errors import Bug, UsageError
from lab.base.files import make_folder
from lab.base.options import Group, make_flag, make_option, parse_duration
from lab.cli import lists, options, output
from lab.cli.gate import EXPECT, GateOptions, show_decision
from lab.fleet import inventory
from lab.fleet.part import EventLines, Part
from lab.machine.budget import HostLimits
from lab.plan import PlannedRun
from lab.record import RunResult
from lab.record.folders import VARIANTS, find_folder
from lab.report import run_notes
from lab.run import live, scheduler, start
from lab.run.live import open_log
from lab.run.priority import OVER_BUDGET, Budget, describe_rest, read_history
from lab.run.request import Request
from lab.run.reuse import EarlierRuns, describe_judgements, read_earlier


@dataclass(frozen=True)
class Matrix(Request):
    """What `lab matrix` is asked for: a new run, or an earlier one to resume, and how it is run and shown."""

    resume: str | None = make_option(
        "Continue an earlier run: run the cells that have no result, or are error or not-run. If the "
        "lab runs programs of this host for a build of that run, name the build again with --build.",
        "RUN",
        group=Group.WHAT,
    )
    jobs: int | None = make_option(
        "Run at most this many machines at once. Default: one per CPU, and under emulation one more.",
        type=click.IntRange(1, 64),
        group=Group.HOW,
    )
    memory: int | None = make_option(
        "Use at most this much memory for all machines together. Default: what the host has free.",
        "MIB",
        type=click.IntRange(min=1),
    )
    offline: bool = make_flag(
        "Build, fetch and prepare no image: cells of guests whose image is not ready are not-run at once. "
        "Without --build, test the newest release in the cache."
    )
    within: float | None = make_option(
        "Begin no cell after this time, such as 90s, 10m or 2h. The cells that say most come first, by what "
        "earlier runs did; the rest is not-run, and --resume goes on with it.",
        "TIME",
        type=parse_duration,
    )
    since: str | None = make_option(
        "Take over what this run, or the folder of a site, has of each cell whose build, suite, guest, variant "
        "and lab's code are still the same, and run the others. With --list: say for each cell which it is.",
        "RUN|SITE",
    )
    fresh: float | None = make_option(
        "With --since: run again what is older, such as 12h or 7d.", "TIME", type=parse_duration
    )
    hosts: Path | None = make_option(
        "Run the cells on the hosts of this inventory, a TOML file: a worker is started over SSH on each.",
        "FILE",
        group=Group.HOSTS,
    )
    gate: str | None = make_option(
        "End with the gate's decision: is this run worse than this baseline or run? See `lab gate`.",
        "FILE-or-RUN",
        group=Group.GATE,
    )
    gate_build: str | None = make_option(
        "Run this build on the same guests as well, and end with the gate's decision over the pair. "
        "previous: the newest release before the one that is tested.",
        "previous|BUILD",
    )
    expect: Path | None = make_option(EXPECT, "FILE")
    only_list: bool = make_flag("List the cells and run nothing.", flags="--list", group=Group.OUTPUT)
    folder: Path | None = make_option(options.NEW_RUN, "DIR", flags="-o")
    quiet: bool = make_flag("Print only the result.")
    verbose: bool = make_flag(options.EACH_STEP)


# Why each of these makes no sense beside --since.
AGAINST_SINCE = {
    "--resume": "a resumed run keeps its own results",
    "--cold": "it is the control of forked cells, and runs each cell by itself",
    "--predict": "it runs no suite",
}
LEAVE_OUT = "leave one of them out"

# What a run is made of cannot be changed when it is resumed; the builds are those it has.
FIXED = {field.name for field in fields(Request)} - {"builds"} | {"folder"}


@click.command("matrix", cls=options.GroupedCommand, params=options.make_request_options(Matrix))
@click.pass_obj
def matrix_command(lab: options.Lab, /, **values: Any) -> int:
    """Run cells: the jailer's tests in each guest and variant.

    Without --set, -g or -v, this runs every guest in every variant.

    Exit status: 0 if every cell did as expected, 1 if one did not, 2 for wrong usage, 3 if something could not
    be run, 4 for a bug in the lab. With a gate it is the gate's, unless there was a bug; see `lab gate`.
    """
    request = Matrix(**values)
    if request.quiet:
        notices.listener = None
    hosts = _hosts(request)
    budget = None if request.within is None else Budget(request.within, read_history(lab.paths.runs))
    earlier_runs = _read_earlier_runs(lab, request)
    definitions = catalog.load_catalog()
    gate_options = GateOptions.read(lab.paths, request.gate, request.gate_build, request.expect)
    if not request.only_list and hosts is None:
        lab.sweep()
    if request.resume is None:
        if request.offline and (request.builds or not request.only_list):
            names: Sequence[str | None] = request.builds or [None]
            stored = [_stored(lab, name, quiet=request.quiet) for name in names]
            request = replace(request, builds=stored)
        request = replace(request, builds=gate_options.builds(request.builds, request.suite))
        if request.only_list:
            if earlier_runs and not request.builds:  # A result stands for one release, so it has to be known.
                request = replace(request, builds=[str(builds.resolve_build(None).argument)])
            cells, run_options = start.preview_run(request, definitions)
            cells = budget.order(cells) if budget else cells
            digests = start.compute_digests(cells, run_options) if earlier_runs else {}
            judged = earlier_runs.judge(cells, digests, run_options) if earlier_runs else []
            lists.print_cells(cells, run_options, judged)
            return 0
        command = shlex.join(["lab", *sys.argv[1:]])
        planned = start.plan_run(request, definitions, lab.paths, request.folder, command)
        planned_gate = gate_options.plan(planned)
        if earlier_runs:
            planned = _keep_unchanged(earlier_runs, planned, quiet=request.quiet)
    else:
        _refuse_other_options()
        source = find_folder(lab.paths.runs, request.resume).resolve()
        earlier = RunResult.read(source)
        definitions = definitions.with_variants(source / VARIANTS)
        planned = start.resume_run(source, earlier, definitions, request.builds)
        planned_gate = gate_options.plan(planned, earlier)
        if request.only_list:
            cells = planned.cells_to_run
            lists.print_cells(budget.order(cells) if budget else cells, planned.info.options)
            return 0
    if not request.quiet:
        _announce(planned)
    run = _run(lab, request, hosts, planned, budget, earlier_runs)
    options.show_result(run, planned.folder)
    if budget:
        left = {cell.folder for cell in run.cells if cell.reason == OVER_BUDGET}
        rest = describe_rest([cell for cell in planned.cells if cell.folder in left], budget.history)
        output.print_line(rest or "--within was enough for all cells")
    if run.run.interrupted:
        return cli.INTERRUPTED
    if planned_gate is None:
        return run.exit_status()
    output.get_console().print()
    decided = show_decision(planned_gate.decide(run, planned.folder))
    return Bug.exit_status if run.met_bug else decided


def _hosts(request: Matrix) -> inventory.Inventory | None:
    """Read the inventory of a run on several hosts. Raises UsageError."""
    if request.hosts is None:
        return None
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            "lab matrix --hosts needs dask.distributed, which is not installed",
            hint="./setup.sh installs it with: ./setup.sh matrix --hosts ...; "
            "or: pip install --require-hashes -r requirements/hosts.txt",
        ) from error
    if request.jobs is not None or request.memory is not None:
        raise UsageError(
            "--jobs and --memory limit the machines of this host, and with --hosts it runs no machine",
            hint="give each host its own: lanes and memory_mib in its table of the inventory",
        )
    if request.within is not None:
        raise UsageError(
            "--within orders the cells of this host, and with --hosts it runs none",
            hint="leave one of them out, or split the plan with --shard",
        )
    return inventory.load_inventory(request.hosts)


def _read_earlier_runs(lab: options.Lab, request: Matrix) -> EarlierRuns | None:
    """Read the run or the site that --since names. Raises UsageError."""
    if request.since is None:
        if request.fresh is not None:
            raise UsageError(
                "--fresh says how old results of --since may be, and there is none",
                hint="add --since RUN, or leave it out",
            )
        return None
    others = {"--resume": request.resume, "--cold": request.cold, "--predict": request.predict}
    if wrong := next((name for name, is_set in others.items() if is_set), None):
        raise UsageError(f"--since and {wrong} contradict each other: {AGAINST_SINCE[wrong]}", hint=LEAVE_OUT)
    return read_earlier(find_folder(lab.paths.runs, request.since).resolve(), lab.paths, request.fresh)


def _keep_unchanged(earlier: EarlierRuns, planned: PlannedRun, *, quiet: bool) -> PlannedRun:
    """Take over what stands of an earlier run, and say why the other cells are run."""
    judged = earlier.judge(planned.cells, planned.info.definitions, planned.info.options)
    if not quiet:
        for line in describe_judgements(judged):
            output.print_line(line)
    return earlier.keep(planned, judged)


def _run(
    lab: options.Lab,
    request: Matrix,
    hosts: inventory.Inventory | None,
    planned: PlannedRun,
    budget: Budget | None,
    earlier_runs: EarlierRuns | None,
) -> RunResult:
    """Run the cells that are left, and show them meanwhile."""
    with (
        live.open_view(
            output.get_console(), planned.cells, planned.complete, quiet=request.quiet, verbose=request.verbose
        ) as view,
        open_log(planned.folder, view) as log,
    ):
        if hosts is None:
            limits = HostLimits.of_this_host(request.jobs, request.memory)
            return scheduler.Scheduler(
                planned,
                lab.paths,
                lab.uri,
                limits,
                log,
                offline=request.offline,
                budget=budget,
                earlier=earlier_runs,
            ).run()
        from lab.fleet.coordinator import Coordinator  # It needs dask.

        again = f"lab matrix --resume {planned.folder} --hosts {request.hosts}"
        return Coordinator(planned, lab.paths, hosts, log, offline=request.offline, again=again).run()


def _stored(lab: options.Lab, text: str | None, *, quiet: bool) -> str:
    """What --build takes for a text of it: for a word, the release in the cache that it stands for.

    Raises UsageError if there is none.
    """
    release = builds.find_stored_build(lab.paths, text)
    if release is None:
        return str(text)
    if not quiet:
        meaning = (
            f"{text} is {release.name}, by the releases" if text else f"{release.name} is the newest release"
        )
        output.print_line(f"--offline: {meaning} in the cache; no package index was asked")
    return str(release.argument)


def _announce(planned: PlannedRun) -> None:
    names = ", ".join(build.name for build in planned.info.builds)
    kept_cells = f"{len(planned.complete)} of them kept from before, " if planned.earlier_results else ""
    output.print_line(f"boxlite {names}, {len(planned.cells)} cells, {kept_cells}run {planned.folder}")
    for build in dict.fromkeys(cell.build for cell in planned.cells):
        for remark in build.remarks:
            output.print_line(f"{build.name}: {remark}")
    for condition in run_notes.list_conditions(planned.info.options):
        output.print_line(condition)
    if planned.info.options.cold:
        output.print_line("--cold makes no forks, so no remedies and no experiments are tried")


def _refuse_other_options() -> None:
    """Raise UsageError if an option beside --resume would change the plan of the run."""
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in FIXED and source is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{parameter.opts[0]} cannot be changed for a run that is resumed",
                hint="leave it out, or start a new run",
            )


@click.command("part", hidden=True)
@click.argument("file", metavar="FILE|-", type=click.File())
@options.add_folder_option(options.NEW_RUN, required=True)
@click.pass_obj
def part_command(lab: options.Lab, file: IO[str], folder: Path) -> int:
    """Run a part of another host's run on one lane, and print its events on standard output.

    A host of a run starts this and reads what it prints. Exit status 2: it must not run the part.
    """
    notices.listener = None
    part = Part.read(file.read())
    planned = part.plan(folder, catalog.load_catalog())
    lab.sweep()
    make_folder(folder)
    limits = HostLimits.of_this_host(1)
    with open_log(folder, EventLines(sys.stdout)) as log:
        result = scheduler.Scheduler(planned, lab.paths, lab.uri, limits, log, offline=part.offline).run()
    return cli.INTERRUPTED if result.run.interrupted else 0
