"""What is told beside results: how a command prepares its work, and what of a report could not be shown."""

import logging
import traceback
from collections.abc import Callable
from functools import wraps

from lab.base.activity import Task
from lab.base.errors import LabError, format_error
from lab.base.files import clean_text, cut_text

# What gets the lines of `announce`; the command line sets it. None: they are not shown.
listener: Callable[[str], None] | None = None


def announce(line: str) -> None:
    """Tell whoever waits for this command what it does before it has anything to show."""
    if listener is not None:
        listener(line)


# Work that a command does before it has anything to show.
ANNOUNCED_TASK = Task(lambda progress: announce(progress.text))


def quiet_libraries() -> None:
    """Silence Paramiko, which logs a traceback for each broken connection; the lab reports these itself."""
    for name in ("paramiko", "fabric", "invoke"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False


LONGEST = 300
# The tracebacks of bugs, which the command line shows at its end. One that shows in every cell is one bug.
bugs: dict[str, None] = {}


def show_or_explain[T](make: Callable[[], T], otherwise: Callable[[str], T]) -> T:
    """Return what `make` returns. If it fails, return `otherwise` of a sentence that says why.

    A failure that cannot be expected is a bug, and its traceback is kept in `bugs`.
    """
    try:
        return make()
    except Exception as error:
        if not isinstance(error, LabError | OSError):
            bugs["".join(traceback.format_exception(error))] = None
        name = "" if isinstance(error, LabError) else f"{type(error).__name__}: "
        problem = str(error.args[0]) if isinstance(error, LabError) else format_error(error)
        return otherwise(cut_text(clean_text(f"could not be shown: {name}{problem}"), LONGEST))


def guard_text[**P](make: Callable[P, str]) -> Callable[P, str]:
    """Make a function return the sentence in place of its text if it fails."""

    @wraps(make)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> str:
        return show_or_explain(lambda: make(*args, **kwargs), lambda sentence: sentence)

    return guarded
