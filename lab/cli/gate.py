"""A build compared with another, the decision whether it may be released, and the file of known failures."""

import datetime
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from lab import builds
from lab.base.errors import LabError, UsageError
from lab.base.files import clean_text
from lab.base.paths import Paths
from lab.builds import EVERY_SUITE
from lab.cli import options, output
from lab.gate import baseline, expectations, results
from lab.gate.compare import Comparison, compare_builds
from lab.gate.decision import Decision, PlannedGate, decide_gate
from lab.gate.expectations import FILL_IN, Expectations
from lab.gate.results import BuildResults, CellSummary, Identity
from lab.plan import PlannedRun
from lab.record import RunResult
from lab.report import compare as report

# The value of --gate-build that stands for the release before the candidate.
PREVIOUS = "previous"
# How to choose a build of a run that tested several.
CHOOSE = "lab gate RUN --against FILE --build"
# The help of --expect.
EXPECT = "Let the known failures of this file pass; see `lab expect`."
format_option = click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "markdown", "json"]),
    default="table",
    show_default=True,
    help="Print this format.",
)


@dataclass(frozen=True)
class GateOptions:
    """What a command line asks of the gate. What it names is read at once, so that it is refused early."""

    old: BuildResults | None
    gate_build: str | None
    expected: Expectations | None

    @classmethod
    def read(cls, paths: Paths, gate: str | None, gate_build: str | None, expect: Path | None) -> "GateOptions":
        """Read what the options name. Raises UsageError if they contradict each other or name nothing good."""
        if gate is not None and gate_build is not None:
            raise UsageError("--gate and --gate-build are different gates", hint="leave one of them out")
        if expect is not None and gate is None and gate_build is None:
            raise UsageError("--expect needs a gate", hint="add --gate FILE-or-RUN, or --gate-build previous")
        return cls(
            old=baseline.read_side(paths.runs, gate) if gate is not None else None,
            gate_build=gate_build,
            expected=expectations.read_expectations(expect) if expect is not None else None,
        )

    def builds(self, arguments: Sequence[str], suite: str | None = None) -> Sequence[str]:
        """Return the builds to test: with --gate-build, the old one and the candidate.

        Raises UsageError if there is no such pair, LabError if the newest release cannot be found out.
        """
        if suite == EVERY_SUITE and (self.old is not None or self.gate_build is not None):
            raise UsageError(
                "a gate decides about one suite, and --suite all runs several",
                hint="name the suite, or decide about each afterwards: lab gate RUN --build BUILD",
            )
        if self.old is not None and len(arguments) > 1:
            raise UsageError("--gate decides about one build", hint="name one --build, or use --gate-build")
        if self.gate_build is None:
            return arguments
        if len(arguments) > 1:
            raise UsageError(
                "--gate-build tests one candidate with the build before it", hint="name one --build"
            )
        candidate = builds.resolve_build(arguments[0] if arguments else None)
        previous = self.gate_build == PREVIOUS
        old = builds.find_previous_release(candidate) if previous else builds.resolve_build(self.gate_build)
        if old.name == candidate.name:
            raise UsageError(f"--gate-build {self.gate_build} is the build under test, {old.name}")
        return [str(old.argument), str(candidate.argument)]

    def plan(self, planned: PlannedRun, earlier: RunResult | None = None) -> PlannedGate | None:
        """Return the gate of a run: a new one, or an earlier one that is resumed, whose builds are decided.

        Raises UsageError if nothing can be compared.
        """
        names = [record.name for record in planned.info.builds]
        if self.gate_build is not None:
            old, new = names[0], names[-1]
            if earlier is not None:
                build = None if self.gate_build == PREVIOUS else self.gate_build
                old, new = results.choose_pair(earlier, build, None, ("--gate-build", CHOOSE))
            return PlannedGate(old, new, self.expected)
        if self.old is None:
            return None
        build = names[0] if earlier is None else results.choose_build(earlier, None, CHOOSE)
        cells = {(cell.guest.name, cell.variant.name) for cell in planned.cells}
        if not self.old.cells.keys() & cells:
            raise UsageError(
                f"this run and boxlite {self.old.build} ({self.old.source}) have no cell in common",
                hint="gate with a baseline of the same plan: the same --set, or the same guests and variants",
            )
        return PlannedGate(self.old, build, self.expected)


@click.command("expect")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@options.add_file_option("The file to rewrite, or to make.")
@options.add_build_option("Use this build, if runs tested several.")
@click.option("--dry-run", is_flag=True, help="Show the difference and write nothing.")
@click.option(
    "--stale",
    is_flag=True,
    help="Write nothing, and name the entries of the file that have expired or, if runs are named, do not hold "
    "in the last of them that has their cells.",
)
@click.option(
    "--ask-tracker",
    is_flag=True,
    help="With --stale, name entries whose bug is closed, too: ask GitHub, with the token in GITHUB_TOKEN if "
    "it is set.",
)
@click.pass_obj
def expect_command(
    lab: options.Lab,
    runs: tuple[str, ...],
    file: Path,
    build: str | None,
    *,
    dry_run: bool,
    stale: bool,
    ask_tracker: bool,
) -> int:
    """Rewrite a file of known failures so that it fits what runs show, and print the difference.

    RUN is the name or the folder of a run; if two runs have the same cell, the later one counts. Each failed
    cell that no entry covers gets an entry. FILL IN marks the values that only a person knows, and the gate
    refuses the file until you replace them. Entries that no longer hold are removed. Comments stay.

    Exit status with --stale: 0 if no entry is stale, 1 if one is, 3 if the tracker did not answer and none is.
    """
    if ask_tracker and not stale:
        raise UsageError("--ask-tracker goes with --stale", hint="add --stale, or leave it out")
    sides = []
    for run in runs:
        folder, record = baseline.read_run(lab.paths.runs, run)
        sides.append(results.reduce_run(record, folder, results.choose_build(record, build, "--build")))
    if stale:
        return _show_stale(expectations.read_expectations(file), sides, ask_tracker=ask_tracker)
    if not runs:
        raise UsageError("lab expect rewrites the file from runs", hint="name at least one, or add --stale")
    cells: dict[Identity, CellSummary] = {}
    for side in sides:
        cells |= side.cells
    rewriting = expectations.rewrite_expectations(file, list(cells.values()))
    click.echo(clean_text(rewriting.diff(file.name)), nl=False)
    counts = {"added": rewriting.added, "removed": rewriting.removed}
    changes = ", ".join(f"{count} {change}" for change, count in counts.items() if count)
    output.print_line(f"{file}: {changes or 'nothing to change'}{' (nothing was written)' if dry_run else ''}")
    for entry in rewriting.look_at:
        output.print_line(clean_text(f"look at {entry}"))
    if FILL_IN in rewriting.new:
        output.print_line(f"replace every {FILL_IN.rstrip(': ')!r} before a gate uses the file")
    if not dry_run:
        baseline.write_file(file, rewriting.new)
    return 0


def _show_stale(expected: Expectations, sides: Sequence[BuildResults], *, ask_tracker: bool) -> int:
    """Name stale expectations, and what was not asked of them; return the exit status."""
    problems = expectations.find_stale_entries(expected, sides, datetime.datetime.now(datetime.UTC).date())
    if not sides:
        output.print_line("no run is named: whether cells pass that are expected to fail was not asked")
    failures: list[str] = []
    if ask_tracker:
        from lab.gate.tracker import ask_about_bugs  # httpx takes longer to import than all else of this.

        answers = ask_about_bugs(entry.bug for entry in expected.expect.values())
        failures = answers.failures
        for name, entry in expected.expect.items():
            if entry.bug in answers.closed:
                problems.append(f"{expected.file}: expect.{name}: {entry.bug} is {answers.closed[entry.bug]}")
        for bug in answers.unasked:
            output.print_line(clean_text(f"{bug} is no issue of the tracker, so it was not asked"))
    else:
        output.print_line("whether their bugs are closed was not asked: --ask-tracker asks GitHub")
    for problem in problems:
        output.print_line(clean_text(problem))
    for failure in failures:
        output.print_warning(clean_text(f"lab: {failure}"))
    if not problems:
        output.print_line(f"{expected.file}: as far as was asked, no entry is stale")
    return 1 if problems else LabError.exit_status if failures else 0


@click.command("compare")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="[NEW]", required=False)
@format_option
@click.pass_obj
def compare_command(lab: options.Lab, old: str, new: str | None, kind: str) -> int:
    """Compare what each cell did with two builds.

    OLD and NEW are runs (name or folder) or baseline files. Without NEW, two builds of one run are compared:
    the first as the old one. Cells are matched by guest and variant. The exit status is 0, whatever differs.
    """
    if new is None:
        old_results, new_results = _pair(lab, old, None, None, (baseline.OF_SEVERAL, baseline.OF_SEVERAL))
    else:
        old_results, new_results = (baseline.read_side(lab.paths.runs, side) for side in (old, new))
    _print(kind, compare_builds(old_results, new_results))
    return 0


@click.command("baseline")
@options.run_argument
@options.add_file_option("Write this file; an older baseline is replaced.")
@options.add_build_option("Write down this build, if the run tested several.")
@click.pass_obj
def baseline_command(lab: options.Lab, run: str, file: Path, build: str | None) -> int:
    """Write down what each cell of a run did, to compare later runs with it.

    RUN is the name or the folder of a run. FILE is TOML, made for git: one line for each cell, in a stable
    order, without times.
    """
    build_results = baseline.read_side(lab.paths.runs, run, build, "--build")
    baseline.write_baseline(build_results, file)
    missing = sum(cell.status.could_not_run for cell in build_results.cells.values())
    output.print_line(f"{file}: {len(build_results.cells)} cells of boxlite {build_results.build}")
    if missing:
        output.print_line(f"{missing} of them have no result, so a later run cannot be compared with them")
    return 0


@click.command("gate")
@options.run_argument
@click.option("--against", metavar="FILE-or-RUN", help="Compare with this baseline file or run.")
@options.add_build_option(
    "Compare with another build of the same run. previous: the first of its two builds, as "
    "`lab matrix --gate-build previous` runs them.",
    "--against-build",
)
@options.add_build_option("Decide about this build, if the run tested several.")
@click.option("--expect", type=click.Path(path_type=Path), metavar="FILE", help=EXPECT)
@format_option
@click.pass_obj
def gate_command(
    lab: options.Lab,
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
    expected = expectations.read_expectations(expect) if expect is not None else None
    if against is not None:
        old_results = baseline.read_side(lab.paths.runs, against)
        new_results = baseline.read_side(lab.paths.runs, run, build, "--build")
    else:
        old = None if against_build == PREVIOUS else against_build
        old_results, new_results = _pair(lab, run, old, build, ("--against-build", "--build"))
    return show_decision(decide_gate(old_results, new_results, expected), kind)


def show_decision(decision: Decision, kind: str = "table") -> int:
    """Print the gate's decision and return its exit status."""
    _print(kind, decision.comparison, decision)
    return decision.exit_status


def _print(kind: str, comparison: Comparison, decision: Decision | None = None) -> None:
    """Print a comparison, or the gate's decision over it."""
    if kind == "json":
        click.echo((decision or comparison).model_dump_json(indent=2, ensure_ascii=True))
    elif kind == "markdown":
        click.echo(report.render_comparison(comparison, decision), nl=False)
    else:
        report.show_comparison(output.get_console(), comparison, decision)


def _pair(
    lab: options.Lab, run: str, old: str | None, new: str | None, flags: tuple[str, str]
) -> tuple[BuildResults, BuildResults]:
    """Return two builds of one run; what is not named is the other one of its two builds."""
    if baseline.find_baseline_file(run) is not None:
        raise UsageError(
            f"{run} is a baseline of one build", hint=f"name a run too: lab compare {shlex.quote(run)} RUN"
        )
    folder, record = baseline.read_run(lab.paths.runs, run)
    pair = results.choose_pair(record, old, new, flags)
    old_results, new_results = (results.reduce_run(record, folder, build) for build in pair)
    return old_results, new_results
