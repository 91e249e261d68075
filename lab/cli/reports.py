"""What came of runs: shown again, and shards made one run."""

from pathlib import Path

import click

from lab import record, runs
from lab.cli import common
from lab.files import write_atomically
from lab.report import markdown, terminal
from lab.results import RunResult


@click.command("merge")
@click.argument("parts", nargs=-1, required=True, metavar="RUN...")
@click.option("-o", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the merged run.")
@click.pass_obj
def merge_command(lab: common.Lab, parts: tuple[str, ...], folder: Path | None) -> int:
    """Make one run of the shards of a plan; the exit status is that run's."""
    sources = [common.run_folder(lab.paths, part).resolve() for part in parts]
    read = [(source, RunResult.read(source)) for source in sources]
    target = record.new_folder(lab.paths.make(lab.paths.runs), folder)
    run = runs.merge(read, target)
    write_atomically(target / "matrix.md", markdown.render(run))
    terminal.summary(common.console, run)
    common.say(f"run: {target} (results.json, matrix.md, cells/)")
    return run.exit_status()


@click.command("report")
@click.argument("run", metavar="RUN")
@click.option("--format", "kind", type=click.Choice(["table", "markdown", "json"]), default="table")
@click.pass_obj
def report_command(lab: common.Lab, run: str, kind: str) -> int:
    """Show a run again, from its folder or by its name."""
    result = RunResult.read(common.run_folder(lab.paths, run))
    if kind == "table":
        terminal.summary(common.console, result)
    elif kind == "markdown":
        click.echo(markdown.render(result), nl=False)
    else:
        click.echo(result.model_dump_json(by_alias=True, indent=2))
    return result.exit_status()
