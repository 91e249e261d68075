"""One square of the matrix before it is run."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from lab.builds import Build
from lab.catalog import Guest, Suite, Variant
from lab.record import CellResult, ExperimentPolicy, RunOptions, Status, cell_folder

# Rounded from the 26 cells of two runs under emulation on two processors. Only their proportion matters here.
PASS_SECONDS = 45.0

BLOCKED_SECONDS = 20.0

# Of the remedies that are tried on a blocked cell. Twelve took 67 to 396 s, 207 on average, on a host on which
# a cell that passes took 80.
REMEDIES_SECONDS = 115.0

# Of an experiment on a cell that passes, and on a blocked one. On that host the one took 241 s, for 19 forks,
# and the other 67 s, for two.
BREAKING_SECONDS = 135.0

TURNING_SECONDS = 40.0

AS_EVER = RunOptions()


@dataclass(frozen=True)
class Machine:
    """A guest as lanes boot it: `arguments` are what a variant adds to its kernel's command line."""

    guest: Guest
    arguments: str = ""

    @property
    def name(self) -> str:
        return f"{self.guest.name} {self.arguments}".rstrip()


@dataclass(frozen=True)
class Cell:
    """One square of the matrix, not run yet."""

    guest: Guest
    variant: Variant
    build: Build

    @property
    def folder(self) -> Path:
        """Where its evidence goes, relative to the run's folder."""
        return cell_folder(self.guest.name, self.variant.name, self.build.name)

    @property
    def name(self) -> str:
        return f"{self.guest.name}/{self.variant.name}/{self.build.name}"

    @property
    def suite(self) -> Suite:
        """The suite that is run in it."""
        return self.build.suite

    @property
    def machine(self) -> Machine:
        """What its lane boots."""
        return Machine(self.guest, " ".join(self.variant.kernel_arguments))

    def typical_seconds(self, options: RunOptions = AS_EVER) -> float:
        """How long such a cell takes, by what its variant expects: the same on every host."""
        always = options.experiments is ExperimentPolicy.ALWAYS
        if self.variant.expect.status != "xfail":
            return PASS_SECONDS + (BREAKING_SECONDS if always else 0.0)
        more = (REMEDIES_SECONDS if options.remedies else 0.0) + (TURNING_SECONDS if always else 0.0)
        return BLOCKED_SECONDS + more

    def rerun(self, options: RunOptions) -> str:
        """One command line that runs exactly this cell again."""
        return rerun(self.guest.name, self.variant.name, self.build.argument, options)

    def result(self, status: Status, *, reason: str = "") -> CellResult:
        """A result for this cell, with nothing in it but its status and why."""
        return CellResult(
            guest=self.guest.name,
            variant=self.variant.name,
            build=self.build.name,
            status=status,
            expected=self.variant.expect,
            reason=reason,
        )


def rerun(guest: str, variant: str, build: str | None, options: RunOptions) -> str:
    """One command line that runs one cell; `build` as --build takes it, None for the newest release."""
    words = ["lab", "matrix", "-g", guest, "-v", variant]
    words += ["--build", build] if build else []
    words += ["--cold"] if options.cold else []
    words += ["--repeat", str(options.repeat)] if options.repeat > 1 else []
    words += ["--rootfs", options.rootfs] if options.rootfs else []
    words += [] if options.remedies or options.cold else ["--no-remedies"]
    match options.experiments:
        case ExperimentPolicy.ALWAYS:
            words.append("--experiment")
        case ExperimentPolicy.NEVER if not options.cold:
            words.append("--no-experiment")
    return shlex.join(words)
