"""The vocabulary of a result: outcomes of tests, statuses of cells, confidence in a cause."""

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from lab.record._base import Entry, PlainText, Seconds
from lab.record.protection import Protection


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
    def as_expected(self) -> bool:
        """Whether the cell did what its variant expects. `n/a` expects nothing."""
        return self in (Status.PASS, Status.XFAIL, Status.NOT_APPLICABLE)

    @property
    def could_not_run(self) -> bool:
        """Whether the cell says nothing about boxlite, because the lab could not run it."""
        return self in (Status.ERROR, Status.NOT_RUN)


class Needs(StrEnum):
    """How much of its host a test needs. Each of these also needs all that are listed before it."""

    NOTHING = "nothing"
    RUNTIME = "runtime"
    BOX = "box"
    SANDBOX = "sandbox"

    def includes(self, other: "Needs") -> bool:
        """Whether a test that needs this also needs the other."""
        return list(Needs).index(self) >= list(Needs).index(other)


# The cause of a failed cell whose evidence shows none of the causes in `lab/causes/`.
UNKNOWN = "unknown"


class Confidence(StrEnum):
    """How well the evidence shows a cause: proved by an audit line or a probe, likely by an error's text."""

    PROVED = "proved"
    LIKELY = "likely"


class Expectation(Entry):
    """What a variant expects of its cells: a pass, or a failure for one cause."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    protection: Protection | None = Field(
        default=None,
        description="What confined the box of a test that passed. None: it has no box, or that was not read.",
    )


class Finding(Entry):
    """A cause that a cell's evidence shows, how well it does, and a sentence about that evidence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    confidence: Confidence
    why: PlainText
