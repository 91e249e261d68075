"""A cell before it is run."""

import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from lab import causes
from lab.builds import Build
from lab.catalog import PASS, Guest, Suite, Variant, first_expected
from lab.record import CellResult, Expectation, ExperimentPolicy, RunOptions, Status, cell_folder

# Rounded from the 26 cells of two runs under emulation on two processors. Only their proportion matters here.
PASS_SECONDS = 45.0

BLOCKED_SECONDS = 20.0

# Remedies on a blocked cell. On a host where a passing cell takes 80 s, twelve cells took 67 to 396 s, 207 s on
# average.
REMEDIES_SECONDS = 115.0

# An experiment on a passing cell (on the same host: 241 s for 19 forks) and on a blocked one (67 s for two).
BREAKING_SECONDS = 135.0

TURNING_SECONDS = 40.0

DEFAULT_OPTIONS = RunOptions()

# The package of the program that makes the load; each distribution calls it so.
STRESS_NG = "stress-ng"


@dataclass(frozen=True)
class Machine:
    """What a lane boots: a guest, and the arguments that a variant adds to its kernel's command line."""

    guest: Guest
    arguments: str = ""

    @property
    def name(self) -> str:
        return f"{self.guest.name} {self.arguments}".rstrip()


@dataclass(frozen=True)
class Cell:
    """One guest in one variant with one build: what is run and gets a status.

    `trials`: whether remedies and experiments are tried on it. `again`: the command that runs it again, if that
    is not `lab matrix`, because its variant has no file.
    """

    guest: Guest
    variant: Variant
    build: Build
    trials: bool = True
    again: str = ""

    @property
    def folder(self) -> Path:
        """The folder for its evidence, relative to the run's folder."""
        return cell_folder(self.guest.name, self.variant.name, self.build.name)

    @property
    def name(self) -> str:
        return f"{self.guest.name}/{self.variant.name}/{self.build.name}"

    @property
    def suite(self) -> Suite:
        """The suite of its build."""
        return self.build.suite

    @cached_property
    def expected(self) -> Expectation:
        """What its guest and its variant expect; a pass if the suite needs nothing of what the cause breaks."""
        expect = first_expected(self._of_guest, self.variant.expect)
        is_met = expect.cause is None or self.suite.needing(causes.known()[expect.cause].breaks)
        return expect if is_met else Expectation()

    @property
    def because(self) -> str:
        """What the guest's own settings have to do with it, as a clause; empty if nothing."""
        own, cause = self.guest.expect.cause, self.expected.cause
        if own and cause == own:
            return self.guest.because
        if own and own in self.variant.turns:
            return f"the variant lifts {own}" + (f" and leads to {cause}" if cause else "")
        return ""

    @property
    def _of_guest(self) -> Expectation:
        """What the guest's own settings lead to under the variant."""
        own = self.guest.expect
        cause = self.variant.turns.get(own.cause or "", own.cause)
        return Expectation(status="xfail", cause=cause) if cause and cause != PASS else Expectation()

    @property
    def machine(self) -> Machine:
        """The machine that its lane boots."""
        return Machine(self.guest, " ".join(self.variant.kernel_arguments))

    def typical_seconds(self, options: RunOptions = DEFAULT_OPTIONS) -> float:
        """Estimate how long the cell takes from what its variant expects, the same on every host."""
        always = self.trials and options.experiments is ExperimentPolicy.ALWAYS
        if self.expected.status != "xfail":
            return PASS_SECONDS + (BREAKING_SECONDS if always else 0.0)
        more = (REMEDIES_SECONDS if self.trials and options.remedies else 0.0) + (
            TURNING_SECONDS if always else 0.0
        )
        return BLOCKED_SECONDS + more

    def typical_trials_seconds(self, options: RunOptions = DEFAULT_OPTIONS) -> float:
        """Estimate how long its remedies and its experiment take, once its suite has run."""
        always = options.experiments is ExperimentPolicy.ALWAYS
        if always and self.expected.status != "xfail":
            return BREAKING_SECONDS
        remedies = REMEDIES_SECONDS if options.remedies else 0.0
        return remedies + (TURNING_SECONDS if always or not remedies else 0.0)

    def rerun(self, options: RunOptions) -> str:
        """Return a command line that runs exactly this cell again."""
        return self.again or rerun(self.guest.name, self.variant.name, self.build.argument, options)

    def under(self, options: RunOptions) -> "Cell":
        """The cell with what the options need of its guest: stress-ng, if it is put under load."""
        return replace(self, guest=self.guest.with_packages(STRESS_NG)) if options.stress else self

    def result(self, status: Status, *, reason: str = "") -> CellResult:
        """Return a result for this cell that has only a status and a reason."""
        return CellResult(
            guest=self.guest.name,
            variant=self.variant.name,
            build=self.build.name,
            status=status,
            expected=self.expected,
            differs=self.variant.differs,
            reason=reason,
        )


def rerun(guest: str, variant: str, build: str | None, options: RunOptions) -> str:
    """Return a command line that runs one cell. `build` is an argument for --build, or None for the newest."""
    words = ["lab", "matrix", "-g", guest, "-v", variant]
    words += ["--build", build] if build else []
    words += ["--cold"] if options.cold else []
    words += ["--repeat", str(options.repeat)] if options.repeat > 1 else []
    words += [f"--shuffle={options.shuffle}"] if options.shuffle is not None else []
    words += [f"--stress={','.join(options.stress)}"] if options.stress else []
    words += ["--until-fail"] if options.until_fail else []
    words += ["--rootfs", options.rootfs] if options.rootfs else []
    words += [] if options.remedies or options.cold else ["--no-remedies"]
    match options.experiments:
        case ExperimentPolicy.ALWAYS:
            words.append("--experiment")
        case ExperimentPolicy.NEVER if not options.cold:
            words.append("--no-experiment")
    return shlex.join(words)
