"""Where the lab prints, and the exit statuses that are not an error's own."""

import sys

from rich.console import Console

BUG = 4  # the exit status after an error in the lab itself
INTERRUPTED = 130  # the exit status that shells give a program ended by SIGINT


class Output(Console):
    """Standard output. `lab.cli.main` ends the program if its reader has gone."""

    def on_broken_pipe(self) -> None:
        # Rich itself would replace stdout, and hide from `main` why the program ends.
        raise SystemExit(1)


# A pipe has no width of its own; this one keeps the rows of the matrix whole.
console = Output(highlight=False, width=None if sys.stdout.isatty() else 240)
errors = Console(stderr=True, highlight=False)
