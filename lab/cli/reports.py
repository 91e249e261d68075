"""What came of runs: shown again, and shards made one run."""

from pathlib import Path

import click

from lab.base.errors import UsageError
from lab.base.files import write_atomically
from lab.cli import common
from lab.record import RunResult
from lab.report import claims, markdown, terminal, upstream
from lab.run import journal
from lab.run.merge import merge


@click.command("merge")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("-o", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the merged run.")
@click.pass_obj
def merge_command(lab: common.Lab, runs: tuple[str, ...], folder: Path | None) -> int:
    """Make one run of the shards of a plan; the exit status is that run's."""
    sources = [common.run_folder(lab.paths, run).resolve() for run in runs]
    read = [(source, RunResult.read(source)) for source in sources]
    target = journal.new_folder(lab.paths.make(lab.paths.runs), folder)
    run = merge(read, target)
    write_atomically(target / "matrix.md", markdown.render(run, target))
    terminal.summary(common.console, run, target)
    return run.exit_status()


@click.command("report")
@click.argument("run", metavar="RUN")
@click.option("--format", "kind", type=click.Choice(["table", "markdown", "json"]), help="Default: table.")
@click.option("--claims", "report", metavar="REPORT", help="Judge the claims of a bug report: issue-468.")
@click.option("--upstream", "for_upstream", is_flag=True, help="What boxlite gets wrong of its own failures.")
@click.pass_obj
def report_command(
    lab: common.Lab, run: str, kind: str | None, report: str | None, *, for_upstream: bool
) -> int:
    """Show a run again, from its folder or by its name; --claims and --upstream show it in Markdown.

    The exit status is the run's.
    """
    if (kind, report, for_upstream or None).count(None) < 2:
        raise UsageError("--format, --claims and --upstream are different reports", hint="ask for one of them")
    folder = common.run_folder(lab.paths, run)
    result = RunResult.read(folder)
    if report is not None:
        click.echo(claims.render(result, folder, report), nl=False)
    elif for_upstream:
        click.echo(upstream.render(result, folder), nl=False)
    elif kind == "markdown":
        click.echo(markdown.render(result, folder), nl=False)
    elif kind == "json":
        click.echo(result.model_dump_json(by_alias=True, indent=2))
    else:
        terminal.summary(common.console, result, folder)
    return result.exit_status()
