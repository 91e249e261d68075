"""The file of known failures, rewritten from runs."""

from pathlib import Path

import click

from lab.base.errors import UsageError
from lab.base.files import plain, write_atomically
from lab.cli import common, completion
from lab.gate import baseline, expectations, results
from lab.gate.expectations import FILL_IN
from lab.gate.results import CellSummary, Identity


@click.command("expect")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=completion.runs)
@click.option(
    "-o",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    required=True,
    help="The file to rewrite, or to make.",
)
@click.option(
    "--build", metavar="BUILD", shell_complete=completion.builds, help="Use this build, if runs tested several."
)
@click.option("--dry-run", is_flag=True, help="Show the difference and write nothing.")
@click.pass_obj
def expect_command(
    lab: common.Lab, runs: tuple[str, ...], file: Path, build: str | None, *, dry_run: bool
) -> int:
    """Rewrite a file of known failures so that it fits what runs show, and print the difference.

    RUN is the name or the folder of a run; where two runs have a cell, the later one counts. Failed cells that
    no entry covers get one; what only a person knows is marked FILL IN, and the gate refuses the file until it
    is replaced. Entries that no longer hold are removed. Comments stay.
    """
    cells: dict[Identity, CellSummary] = {}
    for run in runs:
        folder, record = baseline.read_run(lab.paths.runs, run)
        cells |= results.of_run(record, folder, results.choose_build(record, build, "--build")).cells
    made = expectations.rewrite(file, list(cells.values()))
    click.echo(plain(made.diff(file.name)), nl=False)
    counts = {"added": made.added, "removed": made.removed, "to look at": made.flagged}
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    common.say(f"{file}: {said or 'nothing to change'}{' (nothing was written)' if dry_run else ''}")
    if FILL_IN in made.after:
        common.say(f"replace every {FILL_IN.rstrip(': ')!r} before a gate uses the file")
    if not dry_run:
        try:
            write_atomically(file, made.after)
        except OSError as error:
            raise UsageError(
                f"-o {file}: cannot be written: {error.strerror}", hint="name a file in a folder that exists"
            ) from error
    return 0
