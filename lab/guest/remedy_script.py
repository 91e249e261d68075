"""Putting a remedy in place in a guest and undoing it, with the script that a user would run."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import FailFast, Field

from lab.builds import FOLDER
from lab.catalog.remedies import Remedy
from lab.guest.programs import check_reply
from lab.guest.session import SUITE, Session

# Exit statuses of a remedy's script; see `lab/remedies/script.sh`.
DONE, NOT_IN_PLACE, CANNOT = 0, 1, 3
# The check and two runs of the script, which may install a package, on ordinary hardware with KVM; and each of
# them, under emulation, where a package is installed in a minute.
SECONDS = 400.0
ONE_RUN_SECONDS = 300.0


@dataclass(frozen=True)
class ScriptRun:
    """One run of the script: its command line, exit status, and what it printed."""

    command: str
    status: int
    output: str


@dataclass(frozen=True)
class ScriptRuns:
    """The runs of the script. `changed`: paths that its second run changed; there should be none."""

    runs: Annotated[list[ScriptRun], Field(min_length=1), FailFast()]
    changed: Annotated[list[str], FailFast()]

    @property
    def found_in_place(self) -> bool:
        return len(self.runs) == 1 and self.last.status == DONE

    @property
    def last(self) -> ScriptRun:
        return self.runs[-1]

    def log(self) -> str:
        """All runs as a terminal would have shown them."""
        parts = [f"$ {run.command}\n{run.output}(exit status {run.status})\n" for run in self.runs]
        parts += [f"the second run changed {path}\n" for path in self.changed]
        return "".join(parts)


def run_script(session: Session, remedy: Remedy, *, undo: bool = False) -> ScriptRuns:
    """Run a remedy's script until it is in place, and once more; or undo that. Raises as `Session.run` does."""
    printed = session.program(
        "run_script",
        {
            "file": f"{FOLDER}/{remedy.name}.sh",
            "script": remedy.script(),
            "arguments": ["--user", SUITE] if remedy.about_user else [],
            "undo": undo,
            "seconds": session.speed.from_emulation(ONE_RUN_SECONDS) * session.speed.clock,
        },
        seconds=SECONDS,
    )
    # New groups of a user take effect at the next login.
    session.log_out(SUITE)
    return check_reply("run_script", ScriptRuns, printed)
