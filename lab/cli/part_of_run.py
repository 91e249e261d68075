"""One part of a run on several hosts, in a process that a host of the run starts and whose output it reads."""

import sys
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from lab import catalog
from lab.base.errors import UsageError, one_line
from lab.base.files import make_folder
from lab.base.notices import hide_progress
from lab.cli import common, consoles
from lab.fleet.part import Part, Refused
from lab.machine.budget import Limits
from lab.report.live import EventLines, RunLog


def run(lab: common.Lab, file: IO[str], folder: Path | None) -> int:
    """Run the part in a file on one lane, and tell its events on standard output; return the exit status.

    Raises Refused, which is told as an event first, if this host must not run it; LabError if it cannot.
    """
    if folder is None:
        raise UsageError("--part needs -o DIR", hint="this is how a host of a run starts the lab")
    hide_progress()
    events = EventLines(sys.stdout)
    try:
        part = Part.model_validate_json(file.read())
        planned = part.plan(folder, catalog.load())
    except ValidationError as error:
        events.tell("refused", text=f"this is no part of a run: {one_line(error)}")
        raise UsageError(f"this is no part of a run: {one_line(error)}") from error
    except Refused as error:
        events.tell("refused", text=str(error))
        raise
    lab.sweep()
    make_folder(folder)
    part.put_evidence(folder)
    with RunLog(folder, events) as log:
        done = planned.run(lab.paths, lab.uri, Limits.of_this_host(1), log, offline=part.offline)
    return consoles.INTERRUPTED if done.run.interrupted else 0
