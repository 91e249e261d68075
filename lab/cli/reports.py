"""Results of runs: shards joined to one run, runs shown again, and published as a web site."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from lab.base.errors import UsageError
from lab.base.files import plain
from lab.cli import common, completion, consoles
from lab.record import RunResult
from lab.report import github, judgements, junit, markdown, terminal
from lab.run import journal
from lab.run.past import merge
from lab.site import one_page
from lab.site.publish import publish


@click.command("merge")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=completion.runs)
@click.option(
    "-o",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the merged run into this folder. Default: a new folder among the lab's runs.",
)
@click.option(
    "--partial",
    is_flag=True,
    help="Merge although shards are missing, or cannot be read: their cells are not-run, and `lab matrix "
    "--resume` runs them.",
)
@click.pass_obj
def merge_command(lab: common.Lab, runs: tuple[str, ...], folder: Path | None, *, partial: bool) -> int:
    """Join the shards of a plan into one run.

    RUN is the name or the folder of a run made with `lab matrix --shard`. The exit status is that of the
    merged run, as `lab matrix` would give it.
    """
    sources = [journal.find_folder(lab.paths.runs, run).resolve() for run in runs]
    read = _readable(sources) if partial else [(source, RunResult.read(source)) for source in sources]
    target = journal.new_folder(lab.paths.make(lab.paths.runs), folder)
    run = merge(read, target, partial=partial)
    common.show_result(run, target)
    return run.exit_status()


def _readable(sources: Sequence[Path]) -> list[tuple[Path, RunResult]]:
    """Read the shards that can be read, and say which cannot. Raises UsageError if none can."""
    read: list[tuple[Path, RunResult]] = []
    faults: list[UsageError] = []
    for source in sources:
        try:
            read.append((source, RunResult.read(source)))
        except UsageError as error:
            faults.append(error)
    if not read:
        raise faults[0]
    for fault in faults:
        common.say(f"left out: {plain(str(fault.args[0]))}")
    return read


@click.command("report")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "markdown", "html", "junit", "json", "github"]),
    help="Show the run in this format. Default: table.",
)
@click.option(
    "--claims",
    "report",
    metavar="REPORT",
    shell_complete=completion.reports,
    help="Judge the claims of a bug report, or those of boxlite's documentation: issue-468, docs.",
)
@click.option(
    "--upstream",
    "for_upstream",
    is_flag=True,
    help="List the failures for which boxlite itself names a wrong cause or a wrong cure.",
)
@click.pass_obj
def report_command(
    lab: common.Lab, run: str, kind: str | None, report: str | None, *, for_upstream: bool
) -> int:
    """Show the results of a run again.

    RUN is the name or the folder of a run. --claims and --upstream print Markdown. --format github prints
    annotations for a job of GitHub Actions, and adds its summary to the file that $GITHUB_STEP_SUMMARY names;
    without one it prints the summary, too. The exit status is that of the run, as `lab matrix` gave it.
    """
    if (kind, report, for_upstream or None).count(None) < 2:
        raise UsageError("--format, --claims and --upstream are different reports", hint="ask for one of them")
    folder = journal.find_folder(lab.paths.runs, run)
    result = RunResult.read(folder)
    if report is not None:
        click.echo(judgements.render_claims(result, folder, report), nl=False)
    elif for_upstream:
        click.echo(judgements.render_misdiagnoses(result, folder), nl=False)
    elif kind == "markdown":
        click.echo(markdown.render(result, folder), nl=False)
    elif kind == "html":
        click.echo(one_page.render(result, folder), nl=False)
    elif kind == "junit":
        click.echo(junit.render(result), nl=False)
    elif kind == "github":
        _report_to_github(result, folder)
    elif kind == "json":
        click.echo(result.model_dump_json(by_alias=True, indent=2, ensure_ascii=True))
    else:
        terminal.summary(consoles.console, result, folder)
    return result.exit_status()


def _report_to_github(run: RunResult, folder: Path) -> None:
    """Print annotations, and add the summary to the job's, or print it outside of a job."""
    if not (name := os.environ.get("GITHUB_STEP_SUMMARY")):
        click.echo(github.summary(run, folder), nl=False)
    else:
        job = Path(name)
        try:
            # The limit is for all that the step adds.
            room = github.LARGEST - (job.stat().st_size if job.exists() else 0)
            with job.open("a", encoding="utf-8") as stream:
                stream.write(github.summary(run, folder, room))
        except OSError as error:
            raise UsageError(
                f"the job's summary cannot be written: {error.strerror}: {job}",
                hint="let $GITHUB_STEP_SUMMARY name a file, as GitHub does, or unset it",
            ) from error
    for line in github.annotations(run):
        click.echo(line)


@click.command("publish")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=completion.runs)
@click.option(
    "-o",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Put the site into this folder: a new or empty one, or that of an earlier `lab publish`, which is "
    "replaced as a whole.",
)
@click.option(
    "--host-names",
    is_flag=True,
    help="Name the hosts that ran the cells. Default: they are numbered, because the names may be private.",
)
@click.pass_obj
def publish_command(lab: common.Lab, runs: tuple[str, ...], folder: Path, *, host_names: bool) -> None:
    """Make a web site of the results of runs.

    RUN is the name or the folder of a run. The site shows the newest result of each cell over all runs. It is
    files only: it needs no server and no network, and opens from the folder as well.
    """
    found = [journal.find_folder(lab.paths.runs, run) for run in runs]
    index = publish(found, folder, host_names=host_names)
    common.say(f"site: {index}")
