"""The words of a result: outcomes of tests, statuses of cells, and how sure a cause is."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from lab.base.files import plain


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


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Expectation(Entry):
    """What a variant expects of a cell: a pass, or a failure for one cause."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["pass", "xfail"] = "pass"
    cause: str | None = None


class TestResult(Entry):
    """One test of the suite in one cell; `seconds` is its own time, set-up and tear-down included."""

    __test__ = False  # not a test class of pytest's

    name: str
    outcome: Outcome
    seconds: float = 0.0
    message: PlainText = ""


class Finding(Entry):
    """A cause that the evidence of a cell shows, how well, and the piece of evidence in a sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    confidence: Confidence
    why: PlainText
