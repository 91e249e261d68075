"""The options by which `lab matrix` ends with a gate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lab import builds
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.cli import completion
from lab.gate import baseline, expectations, results
from lab.gate.decision import PlannedGate
from lab.gate.expectations import Expectations
from lab.gate.results import BuildResults
from lab.record import RunResult
from lab.run.start import PlannedRun

# The value of --gate-build that stands for the release before the candidate.
PREVIOUS = "previous"
# How to choose a build of a run that tested several.
CHOOSE = "lab gate RUN --against FILE --build"

expect_option = click.option(
    "--expect",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Let the known failures of this file pass; see `lab expect`.",
)


def gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a gate to a command."""
    for option in (
        expect_option,
        click.option(
            "--gate-build",
            metavar="previous|BUILD",
            shell_complete=completion.builds,
            help="Run this build on the same guests as well, and end with the gate's decision over the pair. "
            "previous: the newest release before the one that is tested.",
        ),
        click.option(
            "--gate",
            metavar="FILE-or-RUN",
            shell_complete=completion.runs,
            help="End with the gate's decision: is this run worse than this baseline or run? See `lab gate`.",
        ),
    ):
        command = option(command)
    return command


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
            expected=expectations.read(expect) if expect is not None else None,
        )

    def builds(self, asked: Sequence[str]) -> Sequence[str]:
        """Return the builds to test: with --gate-build, the old one and the candidate.

        Raises UsageError if there is no such pair, LabError if the newest release cannot be found out.
        """
        if self.old is not None and len(asked) > 1:
            raise UsageError("--gate decides about one build", hint="name one --build, or use --gate-build")
        if self.gate_build is None:
            return asked
        if len(asked) > 1:
            raise UsageError(
                "--gate-build tests one candidate with the build before it", hint="name one --build"
            )
        candidate = builds.resolve(asked[0] if asked else None)
        previous = self.gate_build == PREVIOUS
        old = builds.previous(candidate) if previous else builds.resolve(self.gate_build)
        if old.name == candidate.name:
            raise UsageError(f"--gate-build {self.gate_build} is the build under test, {old.name}")
        return [str(old.argument), str(candidate.argument)]

    def of_new_run(self, planned: PlannedRun) -> PlannedGate | None:
        """Return the gate of a new run. Raises UsageError if nothing can be compared."""
        names = [record.name for record in planned.info.builds]
        if self.gate_build is not None:
            return PlannedGate(names[0], names[1], self.expected)
        return self._against_old(planned, names[0])

    def of_resumed_run(self, planned: PlannedRun, run: RunResult) -> PlannedGate | None:
        """Return the gate of a run that is resumed, whose builds are decided. Raises UsageError."""
        if self.gate_build is not None:
            wanted = None if self.gate_build == PREVIOUS else self.gate_build
            old, new = results.choose_pair(run, wanted, None, ("--gate-build", CHOOSE))
            return PlannedGate(old, new, self.expected)
        if self.old is None:
            return None
        return self._against_old(planned, results.choose_build(run, None, CHOOSE))

    def _against_old(self, planned: PlannedRun, build: str) -> PlannedGate | None:
        if self.old is None:
            return None
        gate = PlannedGate(self.old, build, self.expected)
        gate.check([(cell.guest.name, cell.variant.name) for cell in planned.cells])
        return gate
