"""From a bug report to a verdict."""

import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import click

from lab import builds, catalog, cli
from lab.base.errors import Bug, UsageError
from lab.base.files import inert, plain
from lab.catalog import Guest
from lab.cli import options, output
from lab.repro import answer, judging, planning, reading, running, showing, verdict
from lab.repro.answer import Subject
from lab.repro.judging import Judged
from lab.repro.planning import Plan, Wishes
from lab.repro.report import Report
from lab.repro.running import Extras, View
from lab.run.request import Group, Option

# Standard input, as an argument.
STDIN = "-"


@dataclass(frozen=True)
class Repro(Extras, Wishes):
    """What `lab repro` is asked for."""

    text_only: Annotated[
        bool,
        Option(
            Group.HOW, "--text-only", "Show what the report says and what its text alone shows; boot nothing."
        ),
    ] = False
    folder: Annotated[Path | None, Option(Group.OUTPUT, "-o", options.NEW_RUN, "DIR")] = None
    quiet: Annotated[bool, Option(Group.OUTPUT, "--quiet", "Print only the answer.")] = False
    verbose: Annotated[bool, Option(Group.OUTPUT, "--verbose", options.EACH_STEP)] = False
    as_json: Annotated[bool, Option(Group.OUTPUT, "--json", options.JSON)] = False


@click.command("repro", cls=options.GroupedCommand, params=options.of_request(Repro))
@click.argument("report", metavar="REPORT|-")
@click.pass_obj
def repro_command(lab: options.Lab, /, *, report: str, **values: Any) -> int:
    """Read a bug report, run what it describes, and end in a verdict.

    REPORT is a file, or - for standard input: plain text, Markdown, or what `gh issue view NUMBER --json
    title,body,comments` prints. Nothing of a report is executed on this host, and nothing is fetched.

    Exit status: 0 reproduced, 1 not reproduced or reproduced with another cause, 2 for wrong usage, 3 not run.
    """
    request = Repro(**values)
    read = reading.read(_content(report))
    judged = judging.judge(read)
    if request.text_only:
        _show_text(read, judged, as_json=request.as_json)
        if not request.as_json:
            offline = planning.Host(partial(running.is_stored, lab.paths), _as_if_there, None)
            _show_plan(planning.plan(read, judged, catalog.load(), offline, request))
        return 0
    view = View(output.console, quiet=request.quiet or request.as_json, verbose=request.verbose)
    host = planning.Host(
        partial(running.is_stored, lab.paths), partial(running.why_no_image, lab.paths, view), builds.releases
    )
    plan = planning.plan(read, judged, catalog.load(), host, request)
    if not view.quiet:
        _show_text(read, judged)
        _show_plan(plan)
    subject = Subject(plan, verdict.of_plan(plan))
    if not plan.why_not:
        assert plan.build is not None
        lab.sweep()
        plan.build.check(lab.paths)
        target = running.new_folder(lab.paths, request.folder)
        view.line(f"run {target}")
        subject = running.carry_out(
            plan,
            target,
            lab.paths,
            lab.uri,
            view,
            command=shlex.join(["lab", *sys.argv[1:]]),
            again=_again(request),
            extras=request,
        )
    if request.as_json:
        output.print_json({"report": showing.document(read, judged), **answer.document(subject)})
    else:
        view.line("")
        output.say(inert(answer.render(subject)))
    if subject.run is not None and subject.run.run.interrupted:
        return cli.INTERRUPTED
    if subject.run is not None and subject.run.met_bug:
        return Bug.exit_status
    return subject.verdict.result.exit_status


def _as_if_there(_guest: Guest) -> None:
    """Stand in for fetching an image, which only a run does."""


def _show_text(read: Report, judged: Judged, *, as_json: bool = False) -> None:
    if as_json:
        output.print_json(showing.document(read, judged))
        return
    for line in showing.lines(read, judged):
        output.say(inert(line))


def _show_plan(plan: Plan) -> None:
    output.say("\nplan")
    for step in plan.steps:
        output.say(f"        {inert(plain(step))}")
    for why in plan.why_not:
        output.say(f"        not run: {inert(plain(why))}")
    output.say("")


def _again(request: Repro) -> str:
    """The command that answers the report again. It holds no path of this machine."""
    words = ["lab", "repro", "REPORT"]
    words += ["--nearest"] if request.nearest else []
    words += ["--guest", request.guest] if request.guest else []
    words += ["--build", Path(request.build).name] if request.build else []
    words += ["--bisect"] if request.bisection else []
    words += [] if request.remedies else ["--no-remedies"]
    return shlex.join(words)


def _content(report: str) -> bytes:
    """The bytes of a report, up to the most that are read. Raises UsageError if there is no such file."""
    if report == STDIN:
        return sys.stdin.buffer.read(reading.MOST_BYTES + 1)
    if report.startswith(("http://", "https://")):
        raise UsageError(f"{report} is an address, and nothing is fetched", hint=reading.how_to_give(report))
    path = Path(report)
    try:
        if path.is_dir():
            raise UsageError(
                f"{report} is a folder, not a report", hint="name one file, or - for standard input"
            )
        with path.open("rb") as file:
            return file.read(reading.MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"{report} cannot be read: {why}", hint="name a file, or - for standard input"
        ) from error
