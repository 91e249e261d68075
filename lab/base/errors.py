"""The failures that are expected. Any other exception is a bug and shows its traceback."""

import difflib
import traceback
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

# The name of a traceback among the evidence, and how much of it, and of an exception's message, is kept.
TRACEBACK_FILE, LONGEST, LONGEST_MESSAGE = "traceback.txt", 20_000, 500
# More than any model has fields that can be wrong at once, in data of which each list ends at its first error.
MOST_ERRORS = 1000


class LabError(Exception):
    """An expected failure: the message says what was tried and what happened, `hint` says what to do next.

    `exit_status` is the exit status of the command line: 3, something could not be run. `lasting`: it would be
    the same on every other lane, so nothing is tried again. `evidence` holds texts that show why, by file name.
    """

    exit_status = 3
    lasting = False

    def __init__(
        self, message: str, *, hint: str | None = None, evidence: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.evidence = evidence or {}

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  next: {self.hint}" if self.hint else message


class UsageError(LabError):
    """Wrong usage or a wrong definition; nothing was started."""

    exit_status = 2
    lasting = True


class ImageNotAvailable(LabError):
    """A guest's image is not available on this host. The lab is not at fault, and a retry does not help."""


class UserCannotBuild(ImageNotAvailable):
    """The user of the lab is not allowed to build the image; running the cells again changes nothing."""


class NotPublished(ImageNotAvailable):
    """A server answered that it has no such file."""


class Bug(LabError):
    """An exception that nobody expected, in one cell, trial or lane: a bug of the lab, with its traceback.

    It is deterministic as far as anybody knows. `error` is the exception itself.
    """

    exit_status = 4
    lasting = True

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"a bug in the lab: {type(error).__name__}: {format_error(error)[:LONGEST_MESSAGE]}",
            hint=f"report it with {TRACEBACK_FILE}, which is among the evidence; it says nothing about boxlite",
            evidence={TRACEBACK_FILE: "".join(traceback.format_exception(error))[-LONGEST:]},
        )
        self.error = error


class NotApplicable(Exception):
    """A cell does not apply to its guest; the message is the reason shown in the table."""


def is_lasting(error: Exception) -> bool:
    """Whether an error would be the same on every other lane."""
    return isinstance(error, LabError) and error.lasting


def format_error(error: Exception) -> str:
    """An error's message in one line, without the input that failed validation: it may hold a secret."""
    from pydantic import ValidationError  # Few commands meet one, and its import takes long.

    if isinstance(error, ValidationError):
        return format_first_errors(error, 1)
    return " ".join(str(error).split())


def format_first_errors(error: "ValidationError", most: int) -> str:
    """The first of the errors that pydantic found, without the input; the end says how many more there are.

    Each takes 500 bytes more as soon as one is asked for, so of very many only their number is told.
    """
    count = error.error_count()
    if count > MOST_ERRORS:
        return f"{count} errors"
    first = error.errors(include_input=False, include_url=False, include_context=False)[:most]
    texts = [": ".join(filter(None, [".".join(map(str, each["loc"])), each["msg"]])) for each in first]
    return "; ".join(texts) + (f"; and {count - most} more" if count > most > 1 else "")


def make_unknown_name_error(kind: str, name: str, existing: Iterable[str]) -> UsageError:
    """Build the error for a name that is not in the catalog; its hint suggests the closest known names."""
    names = sorted(existing)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(names)}"
    return UsageError(f"no {kind} is called {name!r}", hint=hint)
