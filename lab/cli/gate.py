"""A build compared with another, and the decision whether it may be released."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lab.base.errors import UsageError
from lab.cli import common, completion, consoles
from lab.cli.gate_options import PREVIOUS, expect_option
from lab.gate import baseline, expectations, results
from lab.gate.compare import compare
from lab.gate.decision import Decision, decide_with
from lab.gate.results import BuildResults
from lab.report import compare as report

format_option = click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "markdown", "json"]),
    default="table",
    show_default=True,
    help="Print this format.",
)


def _build_option(name: str, words: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(name, metavar="BUILD", shell_complete=completion.builds, help=words)


@click.command("compare")
@click.argument("old", metavar="OLD", shell_complete=completion.runs)
@click.argument("new", metavar="[NEW]", required=False, shell_complete=completion.runs)
@_build_option("--old-build", "Compare with this build of OLD, if OLD tested several.")
@_build_option("--new-build", "Compare this build of NEW, if NEW tested several.")
@format_option
@click.pass_obj
def compare_command(
    lab: common.Lab, old: str, new: str | None, old_build: str | None, new_build: str | None, kind: str
) -> int:
    """Compare what each cell did with two builds.

    OLD and NEW are runs (name or folder) or baseline files. Without NEW, two builds of one run are compared:
    the first as the old one. Cells are matched by guest and variant. The exit status is 0, whatever differs.
    """
    before, now = _sides(lab, old, new, old_build, new_build)
    comparison = compare(before, now)
    if kind == "json":
        click.echo(comparison.model_dump_json(indent=2, ensure_ascii=True))
    elif kind == "markdown":
        click.echo(report.render(comparison), nl=False)
    else:
        report.table(consoles.console, comparison)
    return 0


@click.command("baseline")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option(
    "-o",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    required=True,
    help="Write this file; an older baseline is replaced.",
)
@_build_option("--build", "Write down this build, if the run tested several.")
@click.pass_obj
def baseline_command(lab: common.Lab, run: str, file: Path, build: str | None) -> int:
    """Write down what each cell of a run did, to compare later runs with it.

    RUN is the name or the folder of a run. FILE is TOML, made for git: one line for each cell, in a stable
    order, without times.
    """
    made = baseline.read_side(lab.paths.runs, run, build, "--build")
    baseline.write(made, file)
    missing = sum(cell.status.could_not_run for cell in made.cells.values())
    common.say(f"{file}: {len(made.cells)} cells of boxlite {made.build}")
    if missing:
        common.say(f"{missing} of them have no result, so a later run cannot be compared with them")
    return 0


@click.command("gate")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option(
    "--against",
    metavar="FILE-or-RUN",
    shell_complete=completion.runs,
    help="Compare with this baseline file or run.",
)
@_build_option(
    "--against-build",
    "Compare with another build of the same run. previous: the first of its two builds, as "
    "`lab matrix --gate-build previous` runs them.",
)
@_build_option("--build", "Decide about this build, if the run tested several.")
@expect_option
@format_option
@click.pass_obj
def gate_command(
    lab: common.Lab,
    run: str,
    against: str | None,
    against_build: str | None,
    build: str | None,
    expect: Path | None,
    kind: str,
) -> int:
    """Decide whether the build of a run may be released.

    RUN is the name or the folder of a run.

    Exit status: 0 if nothing is worse than before, 1 if a cell regressed, failed for another cause, became
    flaky, vanished or passed unexpectedly, or an expectation does not hold, 2 for wrong usage or input, 3 if
    something could not be run and nothing is worse.
    """
    if (against is None) == (against_build is None):
        raise UsageError(
            "lab gate compares with one thing: --against FILE-or-RUN, or --against-build BUILD",
            hint="write a baseline with: lab baseline RUN -o FILE",
        )
    expected = expectations.read(expect) if expect is not None else None
    if against is not None:
        before = baseline.read_side(lab.paths.runs, against)
        now = baseline.read_side(lab.paths.runs, run, build, "--build")
    else:
        old = None if against_build == PREVIOUS else against_build
        before, now = _pair(lab, run, old, build, ("--against-build", "--build"))
    return show(decide_with(before, now, expected), kind)


def show(decision: Decision, kind: str = "table") -> int:
    """Print the gate's decision and return its exit status."""
    if kind == "json":
        click.echo(decision.model_dump_json(indent=2, ensure_ascii=True))
    elif kind == "markdown":
        click.echo(report.render(decision.comparison, decision), nl=False)
    else:
        report.gate(consoles.console, decision)
    return decision.exit_status


def _sides(
    lab: common.Lab, old: str, new: str | None, old_build: str | None, new_build: str | None
) -> tuple[BuildResults, BuildResults]:
    options = ("--old-build", "--new-build")
    if new is None:
        return _pair(lab, old, old_build, new_build, options)
    runs = lab.paths.runs
    before = baseline.read_side(runs, old, old_build, options[0])
    return before, baseline.read_side(runs, new, new_build, options[1])


def _pair(
    lab: common.Lab, run: str, old: str | None, new: str | None, options: tuple[str, str]
) -> tuple[BuildResults, BuildResults]:
    """Return two builds of one run; what is not named is the other one of its two builds."""
    if baseline.baseline_file(run) is not None:
        raise UsageError(
            f"{run} is a baseline of one build", hint=f"name a run too: lab compare {shlex.quote(run)} RUN"
        )
    folder, record = baseline.read_run(lab.paths.runs, run)
    chosen = results.choose_pair(record, old, new, options)
    before, now = (results.of_run(record, folder, build) for build in chosen)
    return before, now
