"""The one record of a run: outcomes, statuses, cells; JSON in and out. Reports only read it."""

import json
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lab.errors import UsageError
from lab.files import plain, write_atomically

RESULTS_FILE = "results.json"


class Outcome(StrEnum):
    """Of one test."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    ERROR = "error"


class Status(StrEnum):
    """Of one cell."""

    PASS = "pass"
    FAIL = "fail"
    XFAIL = "xfail"
    XPASS = "xpass"
    FLAKY = "flaky"
    NOT_APPLICABLE = "n/a"
    ERROR = "error"
    NOT_RUN = "not-run"

    @property
    def as_expected(self) -> bool:
        """Whether the cell did what its variant says it should; `n/a` expects nothing."""
        return self in (Status.PASS, Status.XFAIL, Status.NOT_APPLICABLE)

    @property
    def could_not_run(self) -> bool:
        """Whether the cell says nothing about boxlite, because the lab did not get to run it."""
        return self in (Status.ERROR, Status.NOT_RUN)


class Needs(StrEnum):
    """How much of its host a test of the suite needs. Each of these needs all that stand before it as well."""

    NOTHING = "nothing"
    RUNTIME = "runtime"
    BOX = "box"
    SANDBOX = "sandbox"

    def includes(self, other: "Needs") -> bool:
        """Whether what needs this needs the other too."""
        return list(Needs).index(self) >= list(Needs).index(other)


# The cause of a cell whose evidence shows none of those in `lab.diagnosis.causes`.
UNKNOWN = "unknown"


class Confidence(StrEnum):
    """How well the evidence shows the cause: by an audit line or a telling probe, or by text alone."""

    PROVED = "proved"
    LIKELY = "likely"


# Text that may come from a guest, kept without what would steer a terminal.
PlainText = Annotated[str, AfterValidator(plain)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Expectation(_Record):
    """What a variant expects of a cell: a pass, or a failure for one cause."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["pass", "xfail"] = "pass"
    cause: str | None = None


# What is said of a test that never began.
DID_NOT_RUN = "did not run"


class TestResult(_Record):
    """One test of the suite in one cell; `seconds` is its own time, set-up and tear-down included."""

    __test__ = False  # not a test class of pytest's

    name: str
    outcome: Outcome
    seconds: float = 0.0
    message: PlainText = ""


class Finding(_Record):
    """A cause that the evidence of a cell shows, how well, and the piece of evidence in a sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    confidence: Confidence
    why: PlainText


class RemedyOutcome(StrEnum):
    """What came of a remedy that was tried on a cell."""

    VERIFIED = "verified"  # the whole suite passed
    AVOIDS = "avoids it"  # no test failed, but some that need the sandbox were skipped: nothing is cured
    DOES_NOT_HELP = "does not help"
    MAKES_WORSE = "makes it worse"  # a test failed that passed without it
    CANNOT = "cannot be tried here"
    ERROR = "error"  # the lab's own trouble, or the script's; says nothing about the remedy


class RemedyResult(_Record):
    """A remedy that was tried on the cell, or several at once, and what came of it."""

    name: str = Field(description="Several that were put in place together have their names joined by +.")
    result: RemedyOutcome
    reason: PlainText = ""
    price: str = Field(description="What protection it gives up.")
    seconds: float = 0.0
    scripts: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the script of each remedy that changes the host."
    )
    defects: list[PlainText] = Field(
        default_factory=list,
        description="What is wrong with the script: its second run changed something, its undo does not undo.",
    )
    retried: list[PlainText] = Field(
        default_factory=list, description="The lab's own faults for which it was tried again."
    )
    evidence: list[str] = Field(default_factory=list)


class Experiments(StrEnum):
    """On which cells experiments are made."""

    NEVER = "never"
    UNCLEAR = "unclear"  # those that failed for a cause that is unknown, or only likely
    ALWAYS = "always"  # those that failed, and those that passed


class StepOutcome(StrEnum):
    """What came of changes that were put on a cell, in a fork of it."""

    PASSES = "passes"  # every test that decides passed
    FAILS = "fails"
    CANNOT = "cannot be tried here"
    ERROR = "error"  # the lab's own trouble; says nothing about the changes


class ExperimentStep(_Record):
    """One fork of the cell; `changes`: what it was put on with or without beside its variant, if anything."""

    changes: list[PlainText]
    outcome: StepOutcome
    reason: PlainText = ""
    seconds: float = 0.0
    retried: list[PlainText] = Field(
        default_factory=list, description="The lab's own faults for which it was tried again."
    )


class NotTried(_Record):
    """A change that was not tried, or not alone, and why."""

    change: PlainText
    reason: PlainText


class Experiment(_Record):
    """Changes that were put on a cell, each in a fork of its own, to find which of them turn its outcome."""

    tests: list[str] = Field(description="Those that decide, and nothing else was run.")
    compared_with: str = Field(default="", description="The passing cell whose facts led to changes, if any.")
    steps: list[ExperimentStep] = Field(
        default_factory=list, description="In the order in which they were made; the first changes nothing."
    )
    turning: list[list[PlainText]] = Field(
        default_factory=list,
        description="Each set of changes that turns the outcome. Of a cell that failed the smallest one found; "
        "of one that passed every single change that breaks it.",
    )
    not_tried: list[NotTried] = Field(default_factory=list)
    stopped: PlainText = Field(
        default="", description="Why it ended before all that could be tried was, if so; a budget, for example."
    )
    seconds: float = 0.0
    evidence: list[str] = Field(default_factory=list)


class RepeatResult(_Record):
    """One of several runs of a cell's suite, each in its own fork; `failed`: the tests that did not pass."""

    status: Status
    cause: str | None = None
    reason: PlainText = ""
    failed: list[str] = Field(default_factory=list)
    seconds: dict[str, float] = Field(default_factory=dict)


def cell_folder(guest: str, variant: str, build: str) -> Path:
    """Where a cell's evidence goes, relative to the run's folder."""
    return Path("cells", guest, variant, build)


class CellResult(_Record):
    """One square of the matrix. Paths in `evidence` are relative to the run's folder."""

    guest: str
    variant: str
    build: str
    status: Status
    expected: Expectation
    cause: str | None = Field(
        default=None,
        description="The first of `causes`, or unknown where a cell failed and the evidence shows none.",
    )
    confidence: Confidence | None = None
    causes: list[Finding] = Field(
        default_factory=list, description="Every cause that the evidence shows, the first that blocks first."
    )
    reason: PlainText = ""
    tests: list[TestResult] = Field(default_factory=list)
    facts: dict[str, Any] = Field(default_factory=dict)
    evidence: list[str] = Field(default_factory=list)
    remedies: list[RemedyResult] = Field(
        default_factory=list,
        description="Those that were tried, the one that gives up least protection first.",
    )
    experiment: Experiment | None = Field(
        default=None, description="Where one was made: changes that turn the outcome, by trying."
    )
    seconds: dict[str, float] = Field(
        default_factory=dict,
        description="Steps that this cell alone took: boot, deploy, fork, apply, suite, evidence. "
        "A forked cell shares its lane's boot and deploy; those are in run.lanes.",
    )
    lane: str = Field(
        default="", description="Which lane served it: its guest, numbered from the guest's second lane on."
    )
    way: str = Field(default="", description="How its guest was made: memory, disk (checkpoint) or cold.")
    repeats: list[RepeatResult] = Field(
        default_factory=list,
        description="With --repeat: each run of the suite. They disagree where the status is flaky.",
    )
    retried: list[PlainText] = Field(
        default_factory=list,
        description="The lab's own faults for which the cell was tried again on a fresh lane.",
    )
    unfinished: bool = Field(
        default=False,
        description="Whether the run ended before all was tried on the cell that was to be; its status stands.",
    )
    rerun: str = Field(default="", description="One command line that runs exactly this cell again.")

    @property
    def folder(self) -> Path:
        """Where its evidence is, relative to the run's folder."""
        return cell_folder(self.guest, self.variant, self.build)

    @property
    def has_more_to_try(self) -> bool:
        """Whether its status stands, and a remedy or a change was not tried or met a fault of the lab's own."""
        faults = [tried.result is RemedyOutcome.ERROR for tried in self.remedies]
        return not self.status.could_not_run and (self.unfinished or self._experiment_met_fault or any(faults))

    @property
    def _experiment_met_fault(self) -> bool:
        steps = self.experiment.steps if self.experiment else []
        return any(step.outcome is StepOutcome.ERROR for step in steps)

    def before_trials(self) -> "CellResult":
        """The result as it was before what met a fault was tried, so that it can be tried anew.

        An experiment that found what lets a failed cell pass stands, whatever fault it met on the way.
        """
        found = self.experiment and self.experiment.turning and self.status is not Status.PASS
        anew = self._experiment_met_fault and not found
        update = {"remedies": [], "unfinished": False} | ({"experiment": None} if anew else {})
        return self.model_copy(update=update)


class LaneRecord(_Record):
    """What the cells of one lane share."""

    guest: str
    image: str = Field(description="SHA-256 of the base image's disk.")
    way: str
    note: PlainText = Field(default="", description="Why the best way to fork could not be taken, if so.")
    restored: bool = Field(default=False, description="Whether it took up a stored state instead of booting.")
    stored_build: bool = Field(default=False, description="Whether the build was deployed in that state.")
    seconds: dict[str, float]


class Host(_Record):
    """The machine that ran the guests, and what it ran them with."""

    kernel: str
    system: str
    cpus: int
    memory_mib: int
    libvirt: str
    qemu: str
    connect: str
    acceleration: str
    acceleration_reason: str


class BuildRecord(_Record):
    """One boxlite under test; `files` maps each wheel that was deployed to its SHA-256."""

    name: str
    version: str
    source: str
    files: dict[str, str] = Field(default_factory=dict)


class RunOptions(_Record):
    """How the cells of a run are run; the same for all of them, and for a run that is resumed."""

    cold: bool = False
    repeat: int = 1
    retries: int = 1
    remedies: bool = Field(default=False, description="Whether remedies are tried on the cells that fail.")
    experiments: Experiments = Field(
        default=Experiments.NEVER, description="On which cells experiments are made."
    )
    rootfs: str | None = None


class Shard(_Record):
    """Which part of a plan a run is: `number` of `count`, and every cell of the whole plan."""

    number: int
    count: int
    plan: list[str]


class RunInfo(_Record):
    """What holds for a run as a whole."""

    id: str
    started: datetime
    finished: datetime | None = None
    resumed: list[datetime] = Field(default_factory=list)
    command: str
    lab: str
    interrupted: bool = False
    options: RunOptions = Field(default_factory=RunOptions)
    definitions: dict[str, str] = Field(
        default_factory=dict,
        description="SHA-256 of each definition and program that decides what a cell does.",
    )
    shard: Shard | None = None
    host: Host | None = None
    builds: list[BuildRecord] = Field(default_factory=list)
    lanes: list[LaneRecord] = Field(default_factory=list)
    parts: list["RunInfo"] = Field(
        default_factory=list, description="The runs that `lab merge` made this one of."
    )


class RunResult(_Record):
    """One `lab matrix`, as `results.json` holds it."""

    model_config = ConfigDict(extra="forbid", validate_by_alias=True, validate_by_name=True)

    format: Literal[1] = Field(1, alias="schema")
    run: RunInfo
    cells: list[CellResult]

    def write(self, folder: Path) -> Path:
        """Write `results.json` into the run's folder in one step: a reader sees the old or the new whole."""
        text = self.model_dump_json(by_alias=True, indent=2) + "\n"
        write_atomically(folder / RESULTS_FILE, text)
        return folder / RESULTS_FILE

    @classmethod
    def read(cls, folder: Path) -> "RunResult":
        """Read a run's folder. Raises UsageError where it holds no results that this lab can read."""
        path = folder / RESULTS_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UsageError(
                f"{folder} is not the folder of a run: {error.strerror}: {path}",
                hint="name a folder that `lab matrix` wrote",
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(
                f"{path} is no record that this lab can read: {': '.join(filter(None, [where, first['msg']]))}",
                hint="name another run, or read it with the lab that wrote it",
            ) from error

    def exit_status(self) -> int:
        """0 every cell as expected, 1 a cell is not, 3 something could not be run and nothing worse."""
        statuses = [cell.status for cell in self.cells]
        if any(not s.as_expected and not s.could_not_run for s in statuses):
            return 1
        return 3 if any(s.could_not_run for s in statuses) else 0


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `results.json`; published as `docs/results.schema.json`."""
    schema = RunResult.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
