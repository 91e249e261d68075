"""The command line: parse, call, print."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lab import builds, catalog, doctor, matrix, plan, record, rootfs, runs, shell
from lab.errors import LabError, NotApplicable, UsageError, unknown_name
from lab.estimate import Estimates
from lab.files import write_atomically
from lab.images import store
from lab.log import quiet_libraries
from lab.machine import records
from lab.machine.connection import default_uri
from lab.paths import Paths
from lab.report import markdown, progress, terminal
from lab.report.runlog import RunLog
from lab.results import RunOptions, RunResult

INTERRUPTED = 130  # what shells say of a program that SIGINT ended

# A pipe has no width: tables keep their lines whole there.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
errors = Console(stderr=True, highlight=False)


class Lab:
    """What every command needs."""

    def __init__(self, connect: str | None) -> None:
        self.paths = Paths.default()
        self.uri = connect or default_uri()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--connect", metavar="URI", help="libvirt to use; LAB_CONNECT sets it too.")
@click.version_option(package_name="boxlite-lab", prog_name="lab")
@click.pass_context
def cli(context: click.Context, connect: str | None) -> None:
    """Which hosts can run boxlite's jailer, why the others cannot, and what cures them."""
    context.obj = Lab(connect)
    # Whatever a lab that was killed left behind goes first, whichever command comes next.
    records.reap(context.obj.paths)


@cli.command("doctor")
@click.pass_obj
def doctor_command(lab: Lab) -> int:
    """Is this host ready? Each line: what, state, how to mend it."""
    broken = False
    styles = {doctor.State.OK: "green", doctor.State.BROKEN: "bold red"}
    for line in doctor.examine(lab.paths, lab.uri):
        broken |= line.state is doctor.State.BROKEN
        style = styles.get(line.state, "yellow")
        state = f"[{style}]{line.state:10}[/]"
        console.print(f"{line.what:16}{state}{escape(line.found)}", soft_wrap=True)
        if line.mend:
            console.print(f"{'':16}-> {escape(line.mend)}", soft_wrap=True)
    return 3 if broken else 0


@cli.command("list")
@click.argument("what", type=click.Choice(["guests", "variants", "sets", "suites", "cells"]))
def list_command(what: str) -> int:
    """Show what the catalog holds."""
    known = catalog.load()
    table = Table(box=None, pad_edge=False, show_header=False)
    if what == "cells":
        _print_cells(plan.choose(known).cells([builds.ANY]))
        return 0
    if what == "suites":
        table.add_row(known.suite.name, known.suite.title)
        for name, needs in known.suite.tests.items():
            table.add_row("", f"{name} [dim](needs {needs})[/]")
    else:
        for name, item in getattr(known, what).items():
            table.add_row(name, escape(item.title))
    console.print(table)
    return 0


@cli.group("images")
def images_group() -> None:
    """Base images of the guests."""


@images_group.command("build")
@click.argument("guests", nargs=-1, required=True)
@click.pass_obj
def images_build(lab: Lab, guests: tuple[str, ...]) -> int:
    """Build the images of these guests, where they are not in the store yet."""
    known = catalog.load()
    for guest in [known.guest(name) for name in guests]:
        with console.status(guest.name) as status:
            image = store.ensure(lab.paths, guest, lambda text: status.update(escape(text)))
        console.print(f"{guest.name}: {image.folder} ({image.manifest.seconds:.0f} s)", soft_wrap=True)
    return 0


@images_group.command("list")
@click.pass_obj
def images_list(lab: Lab) -> int:
    """Show which guests have an image of their present definition."""
    table = Table("guest", "built", "sha256", "folder", box=None, pad_edge=False)
    for guest in catalog.load().guests.values():
        image = store.find(lab.paths, guest)
        if image:
            manifest = image.manifest
            table.add_row(guest.name, manifest.built, manifest.disk_sha256[:16], str(image.folder))
        else:
            table.add_row(guest.name, "no", "", "")
    console.print(table, soft_wrap=True)
    return 0


@cli.command("matrix")
@click.option("--set", "set_name", metavar="NAME", help="A set of cells, for example quick.")
@click.option("-g", "guests", multiple=True, metavar="GUEST", help="Only this guest; may be repeated.")
@click.option("-v", "variants", multiple=True, metavar="VARIANT", help="Only this variant; may be repeated.")
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
    lab: Lab,
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
        run_folder = _run_folder(lab.paths, resume).resolve()
        start = runs.resume(RunResult.read(run_folder), known)
    else:
        part = plan.Part.parse(shard) if shard is not None else None
        choice = plan.choose(known, set_name=set_name, guests=guests, variants=variants)
        if only_list:
            cells = choice.cells(builds.resolve_all(wanted) if wanted else [builds.ANY])
            _print_cells(part.of(cells) if part else cells)
            return 0
        if layout:
            rootfs.check(layout)
        run_folder = record.new_folder(lab.paths.make(lab.paths.runs), folder)
        start = runs.begin(
            run_folder,
            choice.cells(builds.resolve_all(wanted)),
            known.suite,
            command=shlex.join(["lab", *sys.argv[1:]]),
            options=RunOptions(
                cold=cold, repeat=repeat, retries=retries, rootfs=str(layout.resolve()) if layout else None
            ),
            part=part,
        )
    processors = os.cpu_count() or 1
    limits = matrix.Limits(jobs=jobs or processors, memory_mib=memory, processors=processors)
    names = ", ".join(build.name for build in start.info.builds)
    if not quiet:
        told = f"{len(start.kept)} of them kept from before, " if start.kept else ""
        _say(f"boxlite {names}, {len(start.cells)} cells, {told}run {run_folder}")
    with (
        progress.view(console, start.cells, start.kept.values(), quiet=quiet, verbose=verbose) as view,
        RunLog(run_folder, view) as log,
    ):
        run = matrix.MatrixRun(
            start.cells,
            known.suite,
            lab.paths,
            run_folder,
            lab.uri,
            start.info,
            limits,
            log,
            estimates=Estimates.from_folder(lab.paths.runs),
            kept=start.kept,
        ).run()
    write_atomically(run_folder / "matrix.md", markdown.render(run))
    terminal.summary(console, run)
    _say(f"run: {run_folder} (results.json, matrix.md, cells/, run.log)")
    if run.run.interrupted:
        _say(f"interrupted; go on with: lab matrix --resume {shlex.quote(str(run_folder))}")
        return INTERRUPTED
    return run.exit_status()


def _only_beside_resume() -> None:
    """Raise UsageError where an option beside --resume would change the plan: a run's plan is its own."""
    free = {"resume", "jobs", "memory", "quiet", "verbose"}
    context = click.get_current_context()
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if option.name not in free and source is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{option.opts[0]} cannot be changed for a run that is resumed",
                hint="leave it out, or start a new run",
            )


@cli.command("merge")
@click.argument("parts", nargs=-1, required=True, metavar="RUN...")
@click.option("-o", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the merged run.")
@click.pass_obj
def merge_command(lab: Lab, parts: tuple[str, ...], folder: Path | None) -> int:
    """Make one run of the shards of a plan; the exit status is that run's."""
    sources = [_run_folder(lab.paths, part).resolve() for part in parts]
    read = [(source, RunResult.read(source)) for source in sources]
    target = record.new_folder(lab.paths.make(lab.paths.runs), folder)
    run = runs.merge(read, target)
    write_atomically(target / "matrix.md", markdown.render(run))
    terminal.summary(console, run)
    _say(f"run: {target} (results.json, matrix.md, cells/)")
    return run.exit_status()


@cli.command("report")
@click.argument("run", metavar="RUN")
@click.option("--format", "kind", type=click.Choice(["table", "markdown", "json"]), default="table")
@click.pass_obj
def report_command(lab: Lab, run: str, kind: str) -> int:
    """Show a run again, from its folder or by its name."""
    result = RunResult.read(_run_folder(lab.paths, run))
    if kind == "table":
        terminal.summary(console, result)
    elif kind == "markdown":
        click.echo(markdown.render(result), nl=False)
    else:
        click.echo(result.model_dump_json(by_alias=True, indent=2))
    return result.exit_status()


@cli.command("shell")
@click.argument("guest")
@click.argument("variant", default="stock")
@click.option("--build", metavar="BUILD", help="As for matrix.")
@click.pass_obj
def shell_command(lab: Lab, guest: str, variant: str, build: str | None) -> int:
    """A shell in exactly the state that a cell's tests see. The guest goes when the shell ends."""
    known = catalog.load()
    cell = plan.Cell(known.guest(guest), known.variant(variant), builds.resolve(build))
    with console.status("starting") as status:
        opened = shell.ready(cell, known.suite, lab.paths, lab.uri, lambda text: status.update(escape(text)))
        with opened as command:
            status.stop()
            return subprocess.run(command, check=False).returncode


@cli.command("clean")
@click.pass_obj
def clean_command(lab: Lab) -> int:
    """Remove every domain, overlay, port lock and passt process of dead runs, and nothing else."""
    # `cli` has done it already: what is left belongs to labs that are alive.
    alive = sorted(folder.name for folder in lab.paths.lanes.glob("lab-*"))
    console.print("nothing of a dead run is left" + (f"; alive: {', '.join(alive)}" if alive else ""))
    return 0


def _say(text: str) -> None:
    """A line as it is: paths may hold what looks like markup."""
    console.print(text, soft_wrap=True, markup=False)


def _print_cells(cells: Sequence[plan.Cell]) -> None:
    table = Table("guest", "variant", "expected", "rerun", box=None, pad_edge=False)
    for cell in cells:
        guest, variant = cell.guest.name, cell.variant.name
        expected = " ".join(filter(None, [cell.variant.expect.status, cell.variant.expect.cause]))
        table.add_row(guest, variant, expected, f"lab matrix -g {guest} -v {variant}")
    console.print(table)


def _run_folder(paths: Paths, run: str) -> Path:
    """A run by the path of its folder, or by its name in the lab's own place."""
    if (paths.runs / run).is_dir():
        return paths.runs / run
    if Path(run).is_dir():
        return Path(run)
    known = [folder.name for folder in paths.runs.glob("*")] if paths.runs.is_dir() else []
    raise unknown_name("run", run, known) if known else UsageError(f"no run {run!r}: there are none yet")


def main() -> None:
    """Run the command line; expected failures are a message and a status, never a traceback."""
    quiet_libraries()
    # SIGTERM ends a run as Ctrl-C does: with everything taken down.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        status = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        errors.print("interrupted; nothing was left running")
        sys.exit(INTERRUPTED)
    except NotApplicable as reason:
        errors.print(f"lab: n/a: {escape(str(reason))}", soft_wrap=True)
        sys.exit(UsageError.exit_status)
    except LabError as error:
        errors.print(f"lab: {escape(str(error))}", soft_wrap=True)
        sys.exit(error.exit_status)
    sys.exit(status if isinstance(status, int) else 0)


def _end(_number: int, _frame: FrameType | None) -> None:
    """Take everything down; the second time, stop at once."""
    # From here on nothing but the end at once will do, whatever the main thread waits for.
    signal.signal(signal.SIGTERM, _end_at_once)
    signal.signal(signal.SIGINT, _end_at_once)
    raise KeyboardInterrupt


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    # Machines end with this process (autodestroy); the next command removes their records.
    os.write(2, b"\nstopped at once; the next lab command removes what is left\n")
    os._exit(INTERRUPTED)
