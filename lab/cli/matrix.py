"""The main job: run the cells."""

import secrets
import shlex
import sys
from pathlib import Path
from typing import IO, Any

import click

from lab import builds, catalog
from lab.base.errors import UsageError
from lab.base.notices import hide_progress
from lab.builds import HIGHEST_SEED, UNDER_STRESS
from lab.cli import common, completion, consoles, hosts_of_run, lists, part_of_run
from lab.cli.gate import GateOptions, gate_options
from lab.cli.gate import show as show_decision
from lab.machine.budget import Limits
from lab.record import RunResult, Stress
from lab.report import live, table
from lab.report.live import RunLog
from lab.run import journal, start

# Options that change nothing about what a run does, only how it is run or shown; the builds are those it has.
ALLOWED_WITH_RESUME = {
    "resume",
    "builds",
    "jobs",
    "memory",
    "offline",
    "only_list",
    "quiet",
    "verbose",
    "gate",
    "gate_build",
    "expect",
    "hosts",
    "kvm",
}

# What --shuffle stands for without a value.
ANY_SEED = "any"


def _seed(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """The seed of --shuffle, chosen at random if none is given. Raises BadParameter."""
    if value is None:
        return None
    if value == ANY_SEED:
        return secrets.randbelow(HIGHEST_SEED + 1)
    if not value.isdecimal() or len(value) > len(str(HIGHEST_SEED)):
        raise click.BadParameter(f"{value!r} is no number from 0 to {HIGHEST_SEED}")
    return int(value)


def _stress(_context: click.Context, _option: click.Parameter, value: str | None) -> list[Stress]:
    """What --stress loads guests with. Raises BadParameter."""
    wanted = value.split(",") if value is not None else []
    if unknown := [word for word in wanted if word not in list(Stress)]:
        raise click.BadParameter(f"{', '.join(map(repr, unknown))}: expected some of {', '.join(Stress)}")
    return [each for each in Stress if each in wanted]


@click.command("matrix")
@click.option(
    "--set",
    "set_name",
    metavar="NAME",
    shell_complete=completion.sets,
    help="Run a named set of cells; see `lab list sets`.",
)
@click.option(
    "-g",
    "guests",
    multiple=True,
    metavar="GUEST",
    shell_complete=completion.guests,
    help="Run this guest instead of the set's guests; repeatable. See `lab list guests`.",
)
@click.option(
    "-v",
    "variants",
    multiple=True,
    metavar="VARIANT",
    shell_complete=completion.variants,
    help="Run this variant instead of the set's variants; repeatable. See `lab list variants`.",
)
@click.option(
    "--build",
    "builds",
    multiple=True,
    metavar="BUILD",
    shell_complete=completion.builds,
    help=f"Test this {builds.forms()}; repeat it to compare builds. Default: the newest release.",
)
@click.option(
    "--shard", metavar="I/N", help="Run only shard I of N, to split a plan over hosts; join with `lab merge`."
)
@click.option(
    "--resume",
    metavar="RUN",
    shell_complete=completion.runs,
    help="Continue an earlier run: run the cells that have no result, or are error or not-run. A build of "
    "the run for which programs of this host are executed has to be named with --build.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 1000),
    help="Run the suite this many times in each cell, and count how often each test fails. Default: 1.",
)
@click.option(
    "--until-fail",
    is_flag=True,
    help="Repeat the suite of a cell until a test fails, as often as --repeat says at most. "
    f"Default: {start.UNTIL_FAIL} times.",
)
@click.option(
    "--shuffle",
    is_flag=False,
    flag_value=ANY_SEED,
    callback=_seed,
    metavar="[=SEED]",
    help="Shuffle the order of the tests, each repeat by a seed of its own, which is recorded and shown. "
    "With the SEED of a repeat, the first repeat has that one's order.",
)
@click.option(
    "--stress",
    is_flag=False,
    flag_value=",".join(Stress),
    callback=_stress,
    metavar=f"[={','.join(Stress)}]",
    help="Load each guest with these while the suite runs, by stress-ng from the guest's packages. "
    f"Limits of tests are {UNDER_STRESS:.0f} times as long. Default: all of them.",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 10),
    default=1,
    show_default=True,
    help="Retry a cell on a fresh machine this many times after a fault of the lab itself.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    help="Run at most this many machines at once. Default: one per CPU, and under emulation one more.",
)
@click.option(
    "--memory",
    type=click.IntRange(1),
    metavar="MIB",
    help="Use at most this much memory for all machines together. Default: what the host has free.",
)
@click.option(
    "--offline",
    is_flag=True,
    help="Build, fetch and prepare no image: cells of guests whose image is not ready are not-run at once. "
    "Without --build, test the newest release in the cache.",
)
@click.option("--cold", is_flag=True, help="Boot a machine for each cell instead of forking a checkpoint.")
@click.option(
    "--remedies/--no-remedies",
    default=None,
    help="Try remedies on cells that fail. Default: as the set says; without a set, yes.",
)
@click.option(
    "--experiment/--no-experiment",
    default=None,
    help="Try changes one by one to find which of them turn a failing cell into a passing one, and which "
    "break a passing cell. Default: only on failing cells whose cause is not proved.",
)
@click.option(
    "--rootfs",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Boot boxes from this OCI image layout; it needs sh, echo and sleep. Default: a static busybox.",
)
@click.option(
    "-o",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the run into this folder. Default: a new folder among the lab's runs.",
)
@click.option(
    "--hosts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    shell_complete=completion.files,
    help="Run the cells on the hosts of this inventory, a TOML file: a worker is started over SSH on each.",
)
@click.option("--kvm", is_flag=True, help="With --hosts: give no cells to a host whose guests run without KVM.")
@click.option("--part", type=click.File(), hidden=True)
@gate_options
@click.option("--list", "only_list", is_flag=True, help="List the cells and run nothing.")
@click.option("--quiet", is_flag=True, help="Print only the result.")
@click.option("--verbose", is_flag=True, help="Print a line for each step instead of a live table.")
@click.pass_obj
def matrix_command(
    lab: common.Lab,
    /,
    *,
    resume: str | None,
    jobs: int | None,
    memory: int | None,
    offline: bool,
    folder: Path | None,
    only_list: bool,
    quiet: bool,
    verbose: bool,
    gate: str | None,
    gate_build: str | None,
    expect: Path | None,
    hosts: Path | None,
    kvm: bool,
    part: IO[str] | None,
    **asked: Any,
) -> int:
    """Run cells: the jailer's tests in each guest and variant.

    Without --set, -g or -v, this runs every guest in every variant.

    Exit status: 0 if every cell did as expected, 1 if one did not, 2 for wrong usage, 3 if something could not
    be run, 4 for a bug in the lab. With a gate, unless there was a bug: the gate's; see `lab gate`.
    """
    if part is not None:
        return part_of_run.run(lab, part, folder)
    if quiet:
        hide_progress()
    if kvm and hosts is None:
        raise UsageError(
            "--kvm chooses among the hosts of --hosts", hint="lab doctor says whether guests run under KVM here"
        )
    several = hosts_of_run.read(lab, hosts, jobs, memory) if hosts is not None else None
    known = catalog.load()
    wanted = GateOptions.read(lab.paths, gate, gate_build, expect)
    if not only_list and not several:
        lab.sweep()
    if resume is None:
        if offline and (asked["builds"] or not only_list):
            asked["builds"] = [_stored(lab, each, quiet=quiet) for each in asked["builds"] or [None]]
        asked["builds"] = wanted.builds(asked["builds"])
        request = start.Request(**asked)
        if only_list:
            lists.print_cells(*start.preview(request, known))
            return 0
        planned = start.new(request, known, lab.paths, folder, shlex.join(["lab", *sys.argv[1:]]))
        planned_gate = wanted.of_new_run(planned)
    else:
        _refuse_other_options()
        source = journal.find_folder(lab.paths.runs, resume).resolve()
        earlier = RunResult.read(source)
        known = known.with_variants(source / journal.VARIANTS)
        planned = start.resume(source, earlier, known, asked["builds"])
        planned_gate = wanted.of_resumed_run(planned, earlier)
        if only_list:
            lists.print_cells(planned.left, planned.info.options)
            return 0
    if not quiet:
        _announce(planned)
    with (
        live.view(consoles.console, planned.cells, planned.complete, quiet=quiet, verbose=verbose) as view,
        RunLog(planned.folder, view) as log,
    ):
        if several:
            run = several.run(planned, log, offline=offline, kvm=kvm)
        else:
            run = planned.run(lab.paths, lab.uri, Limits.of_this_host(jobs, memory), log, offline=offline)
    common.show_result(run, planned.folder)
    if run.run.interrupted:
        return consoles.INTERRUPTED
    if planned_gate is None:
        return run.exit_status()
    consoles.console.print()
    decided = show_decision(planned_gate.decide(run, planned.folder))
    return consoles.BUG if run.met_bug else decided


def _stored(lab: common.Lab, wanted: str | None, *, quiet: bool) -> str:
    """What --build takes for `wanted`: for a word, the release in the cache that it stands for.

    Raises UsageError if there is none.
    """
    found = builds.stored(lab.paths, wanted)
    if found is None:
        return str(wanted)
    if not quiet:
        meant = (
            f"{wanted} is {found.name}, as far as releases are"
            if wanted
            else f"{found.name} is the newest release"
        )
        common.say(f"--offline: {meant} in the cache; no package index was asked")
    return str(found.argument)


def _announce(planned: start.PlannedRun) -> None:
    names = ", ".join(build.name for build in planned.info.builds)
    kept = f"{len(planned.complete)} of them kept from before, " if planned.kept else ""
    common.say(f"boxlite {names}, {len(planned.cells)} cells, {kept}run {planned.folder}")
    for build in dict.fromkeys(cell.build for cell in planned.cells):
        for remark in build.remarks:
            common.say(f"{build.name}: {remark}")
    for condition in table.conditions(planned.info.options):
        common.say(condition)
    if planned.info.options.cold:
        common.say("--cold makes no forks, so no remedies and no experiments are tried")


def _refuse_other_options() -> None:
    """Raise UsageError if an option beside --resume would change the plan of the run."""
    context = click.get_current_context()
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if option.name not in ALLOWED_WITH_RESUME and source is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{option.opts[0]} cannot be changed for a run that is resumed",
                hint="leave it out, or start a new run",
            )
