"""What can be expected to go wrong. Anything else that is raised is a bug and shows its traceback."""

import difflib
from collections.abc import Iterable


class LabError(Exception):
    """An expected failure: what was tried and what happened, with the next step as `hint`.

    `exit_status` is what the command line ends with: 3, something could not be run.
    """

    exit_status = 3

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  next: {self.hint}" if self.hint else message


class UsageError(LabError):
    """Wrong usage or a wrong definition: exit status 2, and nothing was started."""

    exit_status = 2


class ImageNotAvailable(LabError):
    """A guest's image cannot be had here and now; that is no fault of the lab's, and no other try helps."""


class NotApplicable(Exception):
    """A cell that makes no sense on its guest; the text is the reason that the table shows."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in the catalog, with the nearest names there are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
    return UsageError(f"no {kind} is called {name!r}", hint=hint)
