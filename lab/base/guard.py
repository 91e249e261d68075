"""What cannot be shown of one thing is said in its place, and the rest of a report is made all the same."""

import traceback
from collections.abc import Callable
from functools import wraps

from lab.base.errors import LabError, one_line
from lab.base.files import bounded, plain

LONGEST = 300
# The tracebacks of bugs, which the command line shows at its end. One that shows in every cell is one bug.
bugs: dict[str, None] = {}


def shown[T](make: Callable[[], T], otherwise: Callable[[str], T]) -> T:
    """Return what `make` returns. If it fails, return `otherwise` of a sentence that says why.

    A failure that cannot be expected is a bug, and its traceback is kept in `bugs`.
    """
    try:
        return make()
    except Exception as error:
        if not isinstance(error, LabError | OSError):
            bugs["".join(traceback.format_exception(error))] = None
        name = "" if isinstance(error, LabError) else f"{type(error).__name__}: "
        said = str(error.args[0]) if isinstance(error, LabError) else one_line(error)
        return otherwise(bounded(plain(f"could not be shown: {name}{said}"), LONGEST))


def text[**P](make: Callable[P, str]) -> Callable[P, str]:
    """Make a function return the sentence in place of its text if it fails."""

    @wraps(make)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> str:
        return shown(lambda: make(*args, **kwargs), lambda why: why)

    return guarded
