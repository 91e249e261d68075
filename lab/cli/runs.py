"""The lab's past runs: which there are, and their deletion."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from lab.base.errors import UsageError
from lab.base.files import plain
from lab.cli import common, completion
from lab.run import past
from lab.run.past import PastRun

# What the exit status of a run means, in a few words.
RESULTS = {0: "as expected", 1: "not as expected", 3: "not all could be run", 4: "met a bug in the lab"}


@click.group("runs", invoke_without_command=True)
@common.json_option
@click.pass_context
def runs_group(context: click.Context, as_json: bool) -> int:
    """List the lab's own runs: when, which builds, what they found, their size.

    Runs that were written elsewhere with -o are not listed.
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise UsageError("--json lists the runs", hint="leave it out, or leave out the command after it")
        return 0
    found = [past.read(folder) for folder in past.folders(context.obj.paths.runs)]
    if as_json:
        common.print_json({"runs": [_document(run) for run in found]})
    elif found:
        common.print_rows([["run", "started (UTC)", "builds", "state", "result", "size"], *map(_row, found)])
    else:
        common.say(f"no runs yet in {context.obj.paths.runs}; make one with: lab matrix --set quick")
    return 0


@runs_group.command("delete")
@click.argument("names", nargs=-1, metavar="[RUN]...", shell_complete=completion.own_runs)
@click.option(
    "--older-than",
    "days",
    type=click.IntRange(0),
    metavar="DAYS",
    help="Delete all runs that were started more than this many days ago.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def runs_delete(lab: common.Lab, names: tuple[str, ...], days: int | None, yes: bool) -> int:
    """Delete runs with all their evidence.

    RUN is a name that `lab runs` lists. A run that is being made is never deleted.
    """
    if bool(names) is (days is not None):
        raise UsageError("name the runs to delete, or use --older-than DAYS", hint="lab runs lists them")
    chosen = past.to_delete(lab.paths.runs, [*names] if days is None else _older_than(lab, days))
    if not chosen:
        common.say("no run is that old")
        return 0
    _confirm(chosen, yes=yes)
    for run in chosen:
        past.delete(run)
        common.say(f"deleted {run.name} ({common.mib(run.size)})")
    common.say("`lab images prune` removes images that only these runs used")
    return 0


def _older_than(lab: common.Lab, days: int) -> list[str]:
    """The names of the runs that are older. Leaves out those being made, and those whose age nobody knows."""
    limit = datetime.now(UTC) - timedelta(days=days)
    found = [past.read(folder) for folder in past.folders(lab.paths.runs)]
    return [run.name for run in found if run.started and run.started < limit and not run.is_being_made]


def _confirm(chosen: list[PastRun], *, yes: bool) -> None:
    """Ask before deleting. Raises UsageError where nobody can answer, Abort if the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("deleting needs a confirmation, and this is no terminal", hint="add --yes")
    common.print_rows([_row(run) for run in chosen])
    click.confirm("Delete them?", abort=True)


def _row(run: PastRun) -> list[str]:
    if run.record is None:
        result = plain(run.fault)
    else:
        counts = ", ".join(f"{number} {status}" for status, number in run.counts.items())
        result = f"{counts or 'no cells'}: {RESULTS[run.record.exit_status()]}"
    started = f"{run.started:%Y-%m-%d %H:%M}" if run.started else "-"
    builds = plain(", ".join(run.builds)) or "-"
    return [plain(run.name), started, builds, run.state, " ".join(result.split()), common.mib(run.size)]


def _document(run: PastRun) -> dict[str, Any]:
    record = run.record
    return {
        "name": run.name,
        "folder": str(run.folder),
        "state": run.state,
        "started": record.run.started.isoformat() if record else None,
        "finished": record.run.finished.isoformat() if record and record.run.finished else None,
        "builds": run.builds,
        "counts": run.counts,
        "exit_status": run.exit_status,
        "fault": run.fault or None,
        "bytes": run.size,
    }
