"""From a bug report to a verdict."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lab import catalog, cli
from lab.base.errors import Bug, UsageError
from lab.base.files import inert, plain
from lab.cli import options, output
from lab.images import store
from lab.repro import judging, planning, reading, showing, source
from lab.repro.planning import Plan, Wishes
from lab.repro.report import Judged, Report
from lab.run.request import Group, flag, option

# Standard input, as an argument.
STDIN = "-"


@dataclass(frozen=True)
class Repro(Wishes):
    """What `lab repro` is asked for."""

    text_only: bool = flag(
        "Show what the report says and what its text alone shows; boot nothing.", group=Group.HOW
    )
    folder: Path | None = option(options.NEW_RUN, "DIR", flags="-o", group=Group.OUTPUT)
    quiet: bool = flag("Print only the answer.")
    verbose: bool = flag(options.EACH_STEP)
    as_json: bool = flag(options.JSON, flags="--json")


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
        if request.as_json:
            output.print_json(showing.document(read, judged))
        else:
            # Nobody is asked, and nothing is fetched.
            host = planning.Host(
                lambda guest: store.find(lab.paths, guest) is not None, lambda guest: True, None
            )
            _print(read, judged, planning.plan(read, judged, catalog.load(), host, request))
        return 0
    # A text alone needs none of what runs guests.
    from lab.repro import answer, verdict
    from lab.repro.running import Runner

    runner = Runner(
        lab.paths,
        lab.uri,
        shlex.join(["lab", *sys.argv[1:]]),
        output.console,
        quiet=request.quiet or request.as_json,
        verbose=request.verbose,
    )
    plan = planning.plan(read, judged, catalog.load(), runner.host(), request)
    if not runner.quiet:
        _print(read, judged, plan)
    if plan.build is None or plan.why_not:
        subject = answer.Subject(plan, verdict.of_plan(plan))
    else:
        lab.sweep()
        plan.build.check(lab.paths)
        subject = runner.answer(plan, request.folder, request)
    if request.as_json:
        output.print_json({"report": showing.document(read, judged), **answer.document(subject)})
    else:
        runner.say("")
        output.say(inert(answer.render(subject)))
    if subject.run is not None and subject.run.run.interrupted:
        return cli.INTERRUPTED
    if subject.run is not None and subject.run.met_bug:
        return Bug.exit_status
    return subject.verdict.result.exit_status


def _print(read: Report, judged: Judged, plan: Plan) -> None:
    for line in showing.lines(read, judged):
        output.say(inert(line))
    output.say("\nplan")
    for step in (*plan.steps, *(f"not run: {why}" for why in plan.why_not)):
        output.say(f"        {inert(plain(step))}")
    output.say("")


def _content(report: str) -> bytes:
    """The bytes of a report, up to the most that are read. Raises UsageError if there is no such file."""
    if report == STDIN:
        return sys.stdin.buffer.read(source.MOST_BYTES + 1)
    if report.startswith(("http://", "https://")):
        raise UsageError(f"{report} is an address, and nothing is fetched", hint=source.how_to_give(report))
    try:
        with Path(report).open("rb") as file:
            return file.read(source.MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"{report} cannot be read: {why}", hint="name a file, or - for standard input"
        ) from error
