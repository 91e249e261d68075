"""One part of a run on several hosts, in a process that `lab worker` starts and whose output it reads."""

import sys
from pathlib import Path

from lab import catalog
from lab.base.errors import LabError, UsageError
from lab.base.files import make_folder
from lab.base.log import hide_progress
from lab.cli import common
from lab.fleet.events import EventLines
from lab.fleet.part import Part, Refused
from lab.images import store
from lab.machine.budget import Limits
from lab.report.runlog import RunLog


def run(lab: common.Lab, file: Path, folder: Path | None) -> int:
    """Run the part in a file on one lane, and tell its events on standard output; return the exit status.

    Raises Refused, which is told as an event first, if this host must not run it; LabError if it cannot.
    """
    if folder is None:
        raise UsageError(
            "--part needs -o DIR", hint="this is how `lab worker` starts the lab; see `lab worker -h`"
        )
    hide_progress()
    events = EventLines(sys.stdout)
    try:
        part = Part.read(file.read_bytes())
        planned = part.plan(folder, catalog.load())
    except Refused as error:
        events.refuse(str(error.args[0]))
        raise
    lab.sweep()
    for guest in {cell.guest.name: cell.guest for cell in planned.cells}.values():
        if guest.only_image and store.find(lab.paths, guest) is None:
            raise LabError(
                f"the image of {guest.name} that the run uses is not in the store: {guest.only_image[:16]}",
                hint="was the store pruned meanwhile? the coordinator sends it again with the next part",
            )
    make_folder(folder)
    part.known.put_evidence(folder)
    with RunLog(folder, events) as log:
        done = planned.run(lab.paths, lab.uri, Limits.of_this_host(1), log, offline=part.offline)
    return common.INTERRUPTED if done.run.interrupted else 0
