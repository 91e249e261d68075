"""What is told while a command prepares its work, and what libraries log, which is kept off the terminal."""

import logging
from collections.abc import Callable

PROGRESS = logging.getLogger("lab.progress")


class _Shown(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        self.say(record.getMessage())


def progress(line: str) -> None:
    """Tell whoever waits for this command what it does before it has anything to show."""
    PROGRESS.info("%s", line)


def show_progress(say: Callable[[str], None]) -> None:
    """Give each line of `progress` to `say`."""
    PROGRESS.handlers = [_Shown(say)]
    PROGRESS.setLevel(logging.INFO)
    PROGRESS.propagate = False


def hide_progress() -> None:
    """Show no more lines of `progress`."""
    PROGRESS.setLevel(logging.WARNING)


def quiet_libraries() -> None:
    """Silence Paramiko, which logs a traceback for each broken connection; the lab reports these itself."""
    for name in ("paramiko", "fabric", "invoke"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
