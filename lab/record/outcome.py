"""The vocabulary of a result: outcomes of tests, statuses of cells, confidence in a cause."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from lab.base.data import FailFastModel
from lab.base.files import clean_text
from lab.base.ordered import OrderedEnum

# Text that may come from a guest, without the characters that control a terminal.
PlainText = Annotated[str, AfterValidator(clean_text)]
# The most seconds that are believed, 31 years: sums of them are finite, and integers hold them.
MOST_SECONDS = 1e9
Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS)]


class Entry(FailFastModel):
    """Base of everything in the record: unknown keys are errors.

    So are numbers that are not finite: JSON has no such number, so what is written could not be read again.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    def with_values(self, **values: Any) -> Self:
        """Return an entry that has these values, and the others of this one.

        Raises ValidationError, as for every new entry: `model_copy` takes a misspelt name and a wrong value.
        """
        return type(self)(**dict(self) | values)


class FrozenEntry(Entry):
    """An entry that is never changed."""

    model_config = ConfigDict(frozen=True)


# The build under test can write these texts. A path has at most 4096 bytes, and a box some 40 mounts.
LONGEST, MOST = 5000, 500
Text = Annotated[str, StringConstraints(max_length=LONGEST), AfterValidator(clean_text)]
Texts = Annotated[list[Text], Field(max_length=MOST)]
# A set of capabilities, as /proc/PID/status has it.
Mask = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]
# What boxlite takes for a limit: 64 bits.
Limit = Annotated[int, Field(ge=0, lt=2**64)]


class BoxProcess(Entry):
    """One process of a box, with what boxlite may give to any of them."""

    program: Text
    seccomp: Texts
    limits: dict[Text, Text] = Field(max_length=50)


class Protection(Entry):
    """What confines the process of a box: of the shim and its descendants the one with the most namespaces.

    In paths, HOME stands for the home of boxlite's runtime, and BOX for the box.
    """

    program: Text = Field(description="The name of the process.")
    namespaces: Texts = Field(description="The kinds of namespace that it does not share with the test.")
    no_new_privs: bool
    seccomp: Texts = Field(
        description="The modes of its threads: off, strict, filter. A kernel without seccomp does not tell it: "
        "`not told by the kernel`."
    )
    capabilities: dict[Text, Mask] = Field(
        max_length=10, description="Its sets of capabilities: Inh, Prm, Eff, Bnd, Amb."
    )
    inherited: Texts = Field(
        default_factory=list,
        description="What it has, or lacks, as the test has it: no_new_privs, seccomp filter, no capabilities, "
        "empty bounding set.",
    )
    users: Texts = Field(description="Its real, effective, saved and file system user, each number once.")
    groups: Texts = Field(description="The numbers of all its groups.")
    root: Text = Field(description="Where its root directory is.")
    cgroup: Text | None = Field(description="Its own control group. None: that of the test.")
    cgroup_limits: dict[Text, Text] = Field(
        default_factory=dict,
        max_length=10,
        description="What its own control group limits, by the names of its files; without what is unlimited.",
    )
    limits: dict[Text, Text] = Field(
        max_length=50, description="Its soft limits, by their names in /proc; what is unlimited is left out."
    )
    own_limits: Texts = Field(
        default_factory=list, description="The names of those limits that are lower than the test's own."
    )
    mounts: Texts = Field(description="What is mounted for it, each with ro or rw.")
    asked: dict[Text, bool | Limit | None] = Field(
        default_factory=dict,
        max_length=50,
        description="The security options that the test gave boxlite, by their names in Python.",
    )
    processes: Annotated[list[BoxProcess], Field(max_length=MOST)] = Field(
        default_factory=list, description="The shim and all its descendants, each after its parent."
    )
    warnings: Texts = Field(
        default_factory=list, description="What boxlite warns of in the logs of the box, without the time."
    )


class BoxGroups(Entry):
    """The control groups of a test's own process and of its box, as /proc shows them."""

    caller: Text
    box: Texts = Field(description="Those of the processes of the box, each once.")


class Outcome(StrEnum):
    """The outcome of one test."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    ERROR = "error"
    NOT_RUN = "not-run"

    @property
    def is_failure(self) -> bool:
        """Whether the test ran and failed, in its body or in its set-up or tear-down."""
        return self in (Outcome.FAIL, Outcome.ERROR)


class Status(StrEnum):
    """The status of one cell."""

    PASS = "pass"
    FAIL = "fail"
    XFAIL = "xfail"
    XPASS = "xpass"
    FLAKY = "flaky"
    NOT_APPLICABLE = "n/a"
    ERROR = "error"
    NOT_RUN = "not-run"

    @property
    def passed(self) -> bool:
        """Whether every test passed, expected or not."""
        return self in (Status.PASS, Status.XPASS)

    @property
    def failed(self) -> bool:
        """Whether the same tests failed each time, expected or not."""
        return self in (Status.FAIL, Status.XFAIL)

    @property
    def is_decisive(self) -> bool:
        """Whether the suite ran, with the same result each time."""
        return self.passed or self.failed

    @property
    def as_expected(self) -> bool:
        """Whether the cell did what its variant expects. `n/a` expects nothing."""
        return self in (Status.PASS, Status.XFAIL, Status.NOT_APPLICABLE)

    @property
    def could_not_run(self) -> bool:
        """Whether the cell says nothing about boxlite, because the lab could not run it."""
        return self in (Status.ERROR, Status.NOT_RUN)


class Fault(StrEnum):
    """What of the lab's own kept it from judging boxlite by a suite that ran."""

    TOO_SLOW = "too slow"  # a box missed boxlite's own time limit on a slow host
    TIME_LIMIT = "time limit"  # one of the lab's ended it on a slow host, where it may have been slow or hung
    NO_REGISTRY = "no registry"  # the build pulls its boxes' system from one, which the guest could not reach
    NO_MEMORY = "no memory"  # the guest's kernel killed programs

    @property
    def missed_a_limit(self) -> bool:
        """Whether the suite may be in time while no other lane is at work."""
        return self in (Fault.TOO_SLOW, Fault.TIME_LIMIT)

    @property
    def is_lasting(self) -> bool:
        """Whether every other lane would show it, too."""
        return self is Fault.NO_REGISTRY


class Needs(OrderedEnum):
    """How much of its host a test needs. Each also needs all before it, as far as the sandbox."""

    NOTHING = "nothing"
    RUNTIME = "runtime"
    BOX = "box"
    SANDBOX = "sandbox"
    # A box in the sandbox, and besides:
    CGROUP = "cgroup"  # a control group of its own
    OPEN_FILES = "open-files"  # as many open files as boxlite's strongest preset sets
    VOLUMES = "volumes"  # any number of volumes, wherever their folders are

    def includes(self, other: "Needs") -> bool:
        """Whether a test that needs this also needs the other."""
        return self is other or other.rank <= min(self.rank, Needs.SANDBOX.rank)


# The cause of a failed cell whose evidence shows none of the causes in `lab/causes/`.
UNKNOWN = "unknown"


class Confidence(StrEnum):
    """How well the evidence shows a cause: proved by an audit line or a probe, likely by an error's text."""

    PROVED = "proved"
    LIKELY = "likely"


class Expectation(FrozenEntry):
    """What a variant expects of its cells: a pass, or a failure for one cause."""

    status: Literal["pass", "xfail"] = "pass"
    cause: str | None = None


class Stress(StrEnum):
    """What a guest is loaded with while its suite runs."""

    CPU = "cpu"
    MEMORY = "memory"
    IO = "io"


class TestResult(Entry):
    """One test of the suite in one cell.

    `seconds` includes its set-up and tear-down. They are on the guest's clock: see `clock` of its lane.
    """

    __test__ = False  # pytest must not collect it as a test class

    name: str
    outcome: Outcome
    seconds: Seconds = 0.0
    message: PlainText = ""
    subject: PlainText = Field(
        default="", description="What the test is about: a word of `lab/suites/subjects.toml`."
    )
    out_of_time: bool = Field(
        default=False, description="Whether a time limit of the lab ended it: its own, or that of the suite."
    )
    protection: Protection | None = Field(
        default=None,
        description="What confined the box of a test that passed. None: it has no box, or that was not read.",
    )
    groups: BoxGroups | None = Field(
        default=None,
        description="The control groups of a test that is about them. None: it is not, or never read them.",
    )


@dataclass(frozen=True)
class SuiteRun:
    """One run of a suite: a result for each test.

    `cut_short` says what ended it before each test had its turn, for example "was killed at its time limit of
    45 s"; it is empty if nothing did. `out_of_time`: whether that was its time limit.
    """

    tests: list[TestResult]
    cut_short: str = ""
    out_of_time: bool = False


class FoundCause(FrozenEntry):
    """A cause that a cell's evidence shows, how well it does, and a sentence about that evidence."""

    name: str
    confidence: Confidence
    reason: PlainText


class Foreseen(StrEnum):
    """What the probes alone expect of a suite."""

    WORKS = "works"
    BLOCKED = "blocked"
    UNKNOWN = "not known"


class Prediction(FrozenEntry):
    """What the probes alone say of a cell, before its suite ran. It is no result and never decides a status."""

    says: Foreseen
    cause: str | None = Field(
        default=None,
        description="The cause that blocks it first. null: none does, or the probes do not show which.",
    )
    reason: PlainText = ""

    def __str__(self) -> str:
        return f"~ {self.cause or self.says}"
