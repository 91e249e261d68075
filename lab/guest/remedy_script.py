"""Putting a remedy in place in a guest, and taking it back, by the script that a user would run."""

from dataclasses import dataclass

from lab.builds import FOLDER
from lab.guest.printed import checked
from lab.guest.session import SUITE, Session

# What a remedy's script ends with; see `lab/remedies/script.sh`.
DONE, NOT_IN_PLACE, CANNOT = 0, 1, 3
# Its check, and twice the script; a package may have to be installed.
SECONDS = 400.0


@dataclass(frozen=True)
class Step:
    """One run of the script: its command line, exit status, and what it printed."""

    command: str
    status: int
    output: str


@dataclass(frozen=True)
class Steps:
    """What came of the script. `changed`: what its second run changed, which should be nothing."""

    steps: list[Step]
    changed: list[str]

    @property
    def found_in_place(self) -> bool:
        return len(self.steps) == 1 and self.last.status == DONE

    @property
    def last(self) -> Step:
        return self.steps[-1]

    def log(self) -> str:
        """All of it as a terminal would have shown it."""
        parts = [f"$ {step.command}\n{step.output}(exit status {step.status})\n" for step in self.steps]
        parts += [f"the second run changed {path}\n" for path in self.changed]
        return "".join(parts)


def apply(session: Session, name: str, script: str, *, about_user: bool) -> Steps:
    """Run the script until it is in place, and once more. Raises what `Session.run` raises."""
    return _run(session, name, script, about_user=about_user, undo=False)


def undo(session: Session, name: str, script: str, *, about_user: bool) -> Steps:
    """Take back what `apply` did. Raises what `Session.run` raises."""
    return _run(session, name, script, about_user=about_user, undo=True)


def _run(session: Session, name: str, script: str, *, about_user: bool, undo: bool) -> Steps:
    printed = session.program(
        "run_script",
        {
            "file": f"{FOLDER}/{name}.sh",
            "script": script,
            "arguments": ["--user", SUITE] if about_user else [],
            "undo": undo,
        },
        seconds=SECONDS,
    )
    # Groups that a user was put into hold from the next login on.
    session.log_out(SUITE)
    return checked("run_script", Steps, printed)
