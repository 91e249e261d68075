"""Runs that were made: shards joined to one, runs listed, shown again, published and deleted."""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from lab.base.errors import UsageError
from lab.base.files import clean_text
from lab.cli import options, output
from lab.merge import merge_shards
from lab.record import RunResult, Status
from lab.record.folders import (
    PastRun,
    choose_deletable_runs,
    choose_new_folder,
    delete_run,
    find_folder,
    list_folders,
    read_past_run,
)
from lab.report import github, judgements, junit, markdown, terminal


@click.command("merge")
@options.runs_argument
@options.add_folder_option(options.NEW_RUN)
@click.option(
    "--partial",
    is_flag=True,
    help="Merge even if shards are missing or cannot be read: their cells are not-run, and `lab matrix "
    "--resume` runs them.",
)
@click.pass_obj
def merge_command(lab: options.Lab, runs: tuple[str, ...], folder: Path | None, *, partial: bool) -> int:
    """Join the shards of a plan into one run.

    RUN is the name or the folder of a run made with `lab matrix --shard`. The exit status is that of the
    merged run, as `lab matrix` would give it.
    """
    sources = [find_folder(lab.paths.runs, run).resolve() for run in runs]
    read: list[tuple[Path, RunResult]] = []
    faults: list[UsageError] = []
    for source in sources:
        try:
            read.append((source, RunResult.read(source)))
        except UsageError as error:
            faults.append(error)
    if faults and not (partial and read):
        raise faults[0]
    for fault in faults:
        output.print_line(f"left out: {clean_text(str(fault.args[0]))}")
    target = choose_new_folder(lab.paths.make(lab.paths.runs), folder)
    run = merge_shards(read, target, partial=partial)
    options.show_result(run, target)
    return run.exit_status()


@click.command("report")
@options.run_argument
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "markdown", "html", "junit", "json", "github"]),
    help="Show the run in this format. Default: table.",
)
@click.option(
    "--upstream",
    "for_upstream",
    is_flag=True,
    help="List the failures for which boxlite itself names a wrong cause or a wrong cure.",
)
@click.pass_obj
def report_command(lab: options.Lab, run: str, kind: str | None, *, for_upstream: bool) -> int:
    """Show the results of a run again.

    RUN is the name or the folder of a run. --upstream prints Markdown. --format github prints annotations
    for a job of GitHub Actions, and adds its summary to the file that $GITHUB_STEP_SUMMARY names; without
    one it prints the summary, too. The exit status is that of the run, as `lab matrix` gave it.
    """
    if kind is not None and for_upstream:
        raise UsageError("--format and --upstream are different reports", hint="ask for one of them")
    folder = find_folder(lab.paths.runs, run)
    result = RunResult.read(folder)
    if for_upstream:
        click.echo(judgements.render_misdiagnoses(result, folder), nl=False)
    elif kind == "markdown":
        click.echo(markdown.render_run(result, folder), nl=False)
    elif kind == "html":
        from lab.report.site import one_page  # The other formats need nothing of a site.

        click.echo(one_page.render_one_page(result, folder), nl=False)
    elif kind == "junit":
        click.echo(junit.render_junit(result), nl=False)
    elif kind == "github":
        _report_to_github(result, folder)
    elif kind == "json":
        click.echo(result.model_dump_json(by_alias=True, indent=2, ensure_ascii=True))
    else:
        terminal.print_summary(output.get_console(), result, folder)
    return result.exit_status()


def _report_to_github(run: RunResult, folder: Path) -> None:
    """Print annotations, and add the summary to the job's, or print it outside of a job."""
    if not (name := os.environ.get("GITHUB_STEP_SUMMARY")):
        click.echo(github.render_summary(run, folder), nl=False)
    else:
        job = Path(name)
        try:
            # The limit is for all that the step adds.
            room = github.LARGEST - (job.stat().st_size if job.exists() else 0)
            with job.open("a", encoding="utf-8") as stream:
                stream.write(github.render_summary(run, folder, room))
        except OSError as error:
            raise UsageError(
                f"the job's summary cannot be written: {error.strerror}: {job}",
                hint="let $GITHUB_STEP_SUMMARY name a file, as GitHub does, or unset it",
            ) from error
    for line in github.list_annotations(run):
        click.echo(line)


@click.command("publish")
@options.runs_argument
@options.add_folder_option(
    "Put the site into this folder: a new or empty one, or that of an earlier `lab publish`, which is "
    "replaced as a whole.",
    required=True,
)
@click.option(
    "--host-names",
    is_flag=True,
    help="Name the hosts that ran the cells. Default: they are numbered, because the names may be private.",
)
@click.pass_obj
def publish_command(lab: options.Lab, runs: tuple[str, ...], folder: Path, *, host_names: bool) -> None:
    """Make a web site of the results of runs.

    RUN is the name or the folder of a run. The site shows the newest result of each cell over all runs. It is
    files only: it needs no server and no network, and opens from the folder as well.
    """
    from lab.report.site.publish import publish_site  # No other command needs it.

    index = publish_site([find_folder(lab.paths.runs, run) for run in runs], folder, host_names=host_names)
    output.print_line(f"site: {index}")


# What the exit status of a run means, in a few words.
RESULTS = {0: "as expected", 1: "not as expected", 3: "not all could be run", 4: "met a bug in the lab"}


@click.group("runs", invoke_without_command=True)
@options.json_option
@click.pass_context
def runs_command(context: click.Context, as_json: bool) -> int:
    """List the lab's own runs: when, which builds, what they found, their size.

    Runs that were written elsewhere with -o are not listed.
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise UsageError("--json lists the runs", hint="leave it out, or leave out the command after it")
        return 0
    runs = [read_past_run(folder) for folder in list_folders(context.obj.paths.runs)]
    if as_json:
        output.print_json({"runs": [_document(run) for run in runs]})
    elif runs:
        output.print_rows([["run", "started (UTC)", "builds", "state", "result", "size"], *map(_row, runs)])
    else:
        output.print_line(f"no runs yet in {context.obj.paths.runs}; make one with: lab matrix --set quick")
    return 0


@runs_command.command("delete")
@click.argument("names", nargs=-1, required=True, metavar="RUN...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def runs_delete(lab: options.Lab, names: tuple[str, ...], yes: bool) -> int:
    """Delete runs with all their evidence.

    RUN is a name that `lab runs` lists. A run in progress is never deleted.
    """
    past_runs = choose_deletable_runs(lab.paths.runs, names)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("deleting needs a confirmation, and this is not a terminal", hint="add --yes")
        output.print_rows([_row(run) for run in past_runs])
        click.confirm("Delete them?", abort=True)
    for run in past_runs:
        delete_run(run)
        output.print_line(f"deleted {run.name} ({output.format_mib(run.size)})")
    output.print_line("`lab images prune` removes images that only these runs used")
    return 0


def _row(run: PastRun) -> list[str]:
    about = _document(run)
    result = clean_text(run.fault)
    if run.record:
        counts = ", ".join(f"{number} {status}" for status, number in about["counts"].items())
        result = f"{counts or 'no cells'}: {RESULTS[about['exit_status']]}"
    started = f"{run.record.run.started:%Y-%m-%d %H:%M}" if run.record else "-"
    builds = clean_text(", ".join(about["builds"])) or "-"
    return [
        clean_text(run.name),
        started,
        builds,
        run.state,
        " ".join(result.split()),
        output.format_mib(run.size),
    ]


def _document(run: PastRun) -> dict[str, Any]:
    record = run.record
    info = record.run if record else None
    counts = Counter(cell.status for cell in record.cells) if record else Counter[Status]()
    return {
        "name": run.name,
        "folder": str(run.folder),
        "state": run.state,
        "started": info.started.isoformat() if info else None,
        "finished": info.finished.isoformat() if info and info.finished else None,
        "builds": [build.name for build in info.builds] if info else [],
        "counts": {status: counts[status] for status in Status if counts[status]},
        "exit_status": record.exit_status() if record else None,
        "fault": run.fault or None,
        "bytes": run.size,
    }
