"""From a bug report to what it shows."""

import sys
from pathlib import Path

import click

from lab.base.errors import UsageError
from lab.cli import common
from lab.repro import judging, reading, showing

# Standard input, as an argument.
STDIN = "-"
# Beyond this a report is not read at all.
MOST_BYTES = reading.MOST_BYTES


@click.command("repro")
@click.argument("report", metavar="REPORT|-")
@click.option(
    "--text-only", is_flag=True, help="Show what the report says and what its text alone shows; boot nothing."
)
@common.json_option
def repro_command(report: str, text_only: bool, as_json: bool) -> int:
    """Read a bug report and say what it shows.

    REPORT is a file, or - for standard input: plain text, Markdown, or what `gh issue view NUMBER --json
    title,body,comments` prints. Nothing of a report is executed or fetched.
    """
    if not text_only:
        raise UsageError("the cells of a report cannot be run yet", hint="add --text-only")
    read = reading.read(_content(report))
    judged = judging.judge(read)
    if as_json:
        common.print_json(showing.document(read, judged))
    else:
        for line in showing.lines(read, judged):
            common.say(line)
    return 0


def _content(report: str) -> bytes:
    """The bytes of a report, up to the most that are read. Raises UsageError if there is no such file."""
    if report == STDIN:
        return sys.stdin.buffer.read(MOST_BYTES + 1)
    if report.startswith(("http://", "https://")):
        raise UsageError(f"{report} is an address, and nothing is fetched", hint=reading.how_to_give(report))
    path = Path(report)
    try:
        if path.is_dir():
            raise UsageError(
                f"{report} is a folder, not a report", hint="name one file, or - for standard input"
            )
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"{report} cannot be read: {why}", hint="name a file, or - for standard input"
        ) from error
