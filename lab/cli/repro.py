"""From a bug report to a verdict.

What plans and runs is imported where it is used: it takes longer to import than a report to read.
"""

import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lab import cli
from lab.base.errors import Bug, UsageError
from lab.base.files import clean_text, escape_commands, make_folder, write_atomically
from lab.base.options import Group, make_flag, make_option
from lab.cli import options, output
from lab.repro import comment, judging, reading, source, subjects
from lab.repro.report import Assertion, JudgedReport, Report, format_report, make_report_document
from lab.repro.wishes import Wishes

if TYPE_CHECKING:
    from lab.catalog import Guest
    from lab.repro.planning import Plan

# Standard input, as an argument.
STDIN = "-"
# The exit status if no test is about what a report is about.
NOT_TESTED = 3


@dataclass(frozen=True)
class Repro(Wishes):
    """What `lab repro` is asked for."""

    text_only: bool = make_flag(
        "Answer by the text alone, and boot nothing; with --verbose, show what was read and the plan, too.",
        group=Group.HOW,
    )
    comment: bool = make_flag("Print only the comment for the report's issue, in Markdown.", group=Group.OUTPUT)
    folder: Path | None = make_option(options.NEW_RUN, "DIR", flags="-o", group=Group.OUTPUT)
    quiet: bool = make_flag("Print only the answer.")
    verbose: bool = make_flag(options.EACH_STEP)
    as_json: bool = make_flag(options.JSON, flags="--json")


@click.command("repro", cls=options.GroupedCommand, params=options.make_request_options(Repro))
@click.argument("report", metavar="REPORT|-")
@click.pass_obj
def repro_command(lab: options.Lab, /, *, report: str, **values: Any) -> int:
    """Read a bug report, run what it describes, and end in a verdict.

    REPORT is a file, or - for standard input: plain text, Markdown, or what `gh issue view NUMBER --json
    title,body,comments` prints. Nothing of a report is executed on this host, and nothing is fetched.

    Exit status: 0 reproduced, 1 not reproduced or reproduced with another cause, 2 for wrong usage, 3 not run,
    or not tested because no test is about what the report is about.
    """
    request = Repro(**values)
    read = reading.read_report(read_content(report))
    judged = judging.judge_report(read)
    if request.text_only:
        return _show_text(lab, request, read, judged)
    from lab import catalog
    from lab.repro import answer, planning, verdict
    from lab.repro.running import Runner

    runner = Runner(
        lab.paths,
        lab.uri,
        shlex.join(["lab", *sys.argv[1:]]),
        output.get_console(),
        quiet=request.quiet or request.as_json or request.comment,
        verbose=request.verbose,
    )
    plan = planning.plan_report(read, judged, catalog.load_catalog(), runner.host(), request)
    if not runner.quiet:
        _print_lines([*(format_report(read, judged) if request.verbose else ()), *_format_plan(plan)])
    if plan.build is None or plan.why_not:
        subject = answer.Subject(plan, verdict.judge_plan(plan))
    else:
        lab.sweep()
        plan.build.check(lab.paths)
        subject = runner.answer(plan, request.folder, request)
    if request.as_json:
        output.print_json(
            {"report": make_report_document(read, judged), **answer.make_answer_document(subject)}
        )
    elif request.comment:
        _print_lines(answer.list_comment(subject))
    else:
        runner.say("")
        output.print_line(escape_commands(answer.render_answer(subject)))
    if subject.is_interrupted:
        return cli.INTERRUPTED
    if subject.run is not None and subject.run.met_bug:
        return Bug.exit_status
    return subject.verdict.result.exit_status


def _show_text(lab: options.Lab, request: Repro, read: Report, judged: JudgedReport) -> int:
    """Show the comment on a text: nobody is asked, nothing is fetched, and what takes long is not imported.

    What was understood line by line, with the plan, is made only if it is asked for. Returns the exit status: 3
    if nothing would be run because no test is about what the report is about.
    """
    choice = subjects.choose_suite(read, judged)
    lines = comment.write_comment(read, judged, choice)
    is_whole = request.verbose and not request.comment
    details: list[str] = []
    if request.folder or (is_whole and not request.as_json):
        details = [*format_report(read, judged), *_format_plan(_plan_text(lab, request, read, judged))]
    if request.folder:
        make_folder(request.folder)
        text = "\n".join([*lines, "", "```text", *details, "```", ""])
        write_atomically(request.folder / comment.FILE, text)
    if request.as_json:
        document = {"suite": choice.name, "not_tested": choice.reason, "suites": list(choice.steps)}
        output.print_json({"comment": lines, **make_report_document(read, judged), **document})
    else:
        _print_lines([*lines, "", *details] if is_whole else lines)
    is_asserted = any(assertion.variant for assertion in read.of(Assertion))
    return NOT_TESTED if choice.is_untested and not is_asserted else 0


def _plan_text(lab: options.Lab, request: Repro, read: Report, judged: JudgedReport) -> "Plan":
    """A plan that is only shown."""
    from lab import catalog
    from lab.repro import planning

    def is_stored(guest: "Guest") -> bool:
        from lab.images import store  # Most plans do not ask.

        return store.find_image(lab.paths, guest) is not None

    host = planning.HostAbilities(is_stored, lambda guest: True, None)
    return planning.plan_report(read, judged, catalog.load_catalog(), host, request)


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        output.print_line(escape_commands(line))


def _format_plan(plan: "Plan") -> Iterator[str]:
    yield "\nplan"
    word = "not tested" if plan.choice.is_untested else "not run"
    reasons = [*plan.why_not, plan.hint] if plan.why_not and plan.hint else plan.why_not
    for line in (*plan.steps, *(f"{word}: {reason}" for reason in reasons)):
        yield f"        {clean_text(line)}"


def read_content(report: str) -> bytes:
    """The bytes of a report, up to the most that are read. Raises UsageError if there is no such file."""
    if report == STDIN:
        return sys.stdin.buffer.read(source.MOST_BYTES + 1)
    if report.startswith(("http://", "https://")):
        raise UsageError(
            f"{report} is an address, and nothing is fetched", hint=source.format_source_command(report)
        )
    try:
        with Path(report).open("rb") as file:
            return file.read(source.MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"{report} cannot be read: {reason}", hint="name a file, or - for standard input"
        ) from error
