"""Running a report's commands: only in a guest that is thrown away, as the suite's user, without a network.

A command travels as data to a program in the guest, which gives it to a shell there as one argument. No shell
of this host ever sees it.
"""

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lab.base.errors import LabError, NotApplicable
from lab.base.files import bounded, plain
from lab.base.paths import Paths
from lab.guest import variant
from lab.guest.programs import checked
from lab.guest.session import SUITE, Session
from lab.lane import shell
from lab.plan import Cell
from lab.repro.report import Command, Report

# Limits of one command: seconds with hardware acceleration, bytes of output, processes, bytes of memory.
SECONDS, BYTES, TASKS, MEMORY = 10.0, 64_000, 128, 2**29
# The most commands that are run, and the longest one, in characters.
MOST, LONGEST = 10, 2000
# Where the results are kept in the cell's folder.
FOLDER = "commands"


class Ran(BaseModel):
    """What a program in the guest tells of one command. `interfaces`: None if the command was not run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interfaces: list[str] | None
    status: int | None
    timed_out: bool
    cut: bool
    output: str


@dataclass(frozen=True)
class CommandResult:
    """A command of the report and what came of it under a variant; `why_not` says why it was not run."""

    command: Command
    ran: Ran | None = None
    why_not: str = ""
    variant: str = ""

    @property
    def outcome(self) -> str:
        """What came of it, in a few words."""
        if self.ran is None:
            return f"not run: {self.why_not}"
        if self.ran.timed_out:
            return "ended at its time limit"
        if self.ran.cut:
            return f"ended after {BYTES} bytes of output"
        return f"exit status {self.ran.status}"

    def text(self) -> str:
        """The file of evidence."""
        said = plain(self.ran.output) if self.ran else ""
        return f"$ {plain(self.command.text)}\n{said.rstrip()}\n({self.outcome}; without a network)\n"


def chosen(report: Report) -> list[Command]:
    """Return the commands to run, each once."""
    unique = {each.text: each for each in reversed(list(report.of(Command))) if len(each.text) <= LONGEST}
    return sorted(unique.values(), key=lambda each: each.quote.number)[:MOST]


def run(
    wanted: Sequence[Command],
    cell: Cell,
    run_folder: Path,
    paths: Paths,
    uri: str,
    say: Callable[[str], None],
    show: Callable[[str], None],
) -> list[CommandResult]:
    """Run commands one after another in a guest in the state of a cell; the guest is then thrown away.

    Each is shown before it is run, and its result is kept with the cell's evidence. A guest that cannot be
    brought up is a reason and no error.
    """
    if any("container" in kind for kind in cell.variant.knobs):
        return [CommandResult(each, why_not="the suite of this cell runs in a container") for each in wanted]
    results = []
    try:
        with shell.ready(cell, paths, uri, say) as opened:
            lane = opened.lane
            session = Session(lane.endpoint, alive=lane.check_alive, speed=lane.speed)
            for each in wanted:
                show(f"in {cell.guest.name}, as {SUITE}, without a network: {bounded(plain(each.text), 300)}")
                results.append(_run_one(session, each, cell))
            session.close()
    except (LabError, NotApplicable) as error:
        why = str(error).partition("\n")[0]
        results += [CommandResult(each, why_not=why) for each in wanted[len(results) :]]
    _keep(results, run_folder / cell.folder / FOLDER)
    return results


def _run_one(session: Session, command: Command, cell: Cell) -> CommandResult:
    argument = {
        "command": command.text,
        "user": SUITE,
        "under": shlex.split(variant.under(cell.variant)),
        "seconds": session.speed.in_guest(SECONDS),
        "bytes": BYTES,
        "tasks": TASKS,
        "memory": MEMORY,
    }
    told = checked("without_network", Ran, session.program("without_network", argument, seconds=SECONDS + 20))
    if told.interfaces is None:
        return CommandResult(command, why_not="it could not be shown that it has no network")
    return CommandResult(command, told, variant=cell.variant.name)


def _keep(results: Iterable[CommandResult], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(results, start=1):
        (folder / f"{number:02}.txt").write_text(each.text())
