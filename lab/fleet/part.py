"""A part of a run: cells of one machine. dask brings it to a host, where `run_part` runs it in a child."""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict, Field

from lab import __version__, builds
from lab.base import scratch
from lab.base.activity import Progress
from lab.base.errors import LabError, UsageError, format_error
from lab.base.files import clean_text, cut_text
from lab.base.paths import Paths
from lab.catalog import Catalog
from lab.fleet import images, results
from lab.fleet.messages import PartEnd
from lab.images.store import BaseImage, ImageManifest
from lab.plan import Cell, PlannedRun
from lab.record import RESULTS_FILE, CellResult, Prediction, RunResult, Status
from lab.run import start
from lab.run.backlog import Ticket
from lab.run.journal import UNDECIDED, Journal
from lab.run.lanes import HOST_NAME
from lab.run.observer import Observer

# The topic of dask's event log that has the progress of parts: an `Event` each, to which dask's scheduler adds
# the address of the worker that told it.
TOPIC = "lab"
# The words that run the lab.
LAB: tuple[str, ...] = (sys.executable, "-m", "lab")
# What is told of a child's own words, in lines and in characters, and how long they are waited for after its
# end: what the child started may hold its standard error open.
LAST_LINES, LAST_WORDS, WORDS_SECONDS = 20, 600, 5.0


class PartRefused(UsageError):
    """A host cannot run a part as the coordinator would: it has another lab or other definitions."""


class Part(BaseModel):
    """Cells of one machine without results, as the record of a run that its host resumes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    record: RunResult
    offline: bool = False
    image: ImageManifest = Field(description="The image that its machine must start from.")

    @classmethod
    def of(cls, tickets: Sequence[Ticket], journal: Journal, *, number: int, **more: Any) -> "Part":
        """The part of a run with these tickets; `more` are its other fields."""
        options, cells = journal.info.options, [ticket.cell for ticket in tickets]
        command = f"part {number} of run {journal.info.id}"
        info = start.begin_run(journal.folder, cells, command=command, options=options).info
        undecided = [cell.result(Status.NOT_RUN, reason=UNDECIDED[0]) for cell in cells]
        return cls(number=number, record=RunResult(run=info, cells=undecided), **more)

    @classmethod
    def read(cls, text: str) -> "Part":
        """Read what a coordinator sent. Raises PartRefused if that has another lab, or if it is no part."""
        try:
            # First: a part of another lab may have another form.
            lab = json.loads(text)["record"]["run"]["lab"]
            if lab == __version__:
                return cls.model_validate_json(text)
        except (ValueError, LookupError, TypeError) as error:
            raise PartRefused(f"this is not a part of a run: {format_error(error)}") from error
        raise PartRefused(
            f"the coordinator has lab {clean_text(str(lab))}, and this host has lab {__version__}",
            hint="check out the same version on both",
        )

    def plan(self, folder: Path, catalog: Catalog) -> PlannedRun:
        """The part as a run of this host, in a new folder.

        Raises PartRefused if this host does not have what the coordinator has.
        """
        info = self.record.run
        # Compared below: what is resumed may lack definitions of today, and here each difference counts.
        record = self.record.model_copy(update={"run": info.model_copy(update={"definitions": {}})})
        try:
            planned = start.resume_run(
                folder, record, catalog, [builds.format_argument(build) for build in info.builds]
            )
        except LabError as error:
            raise PartRefused(f"this host lacks what the part needs: {error.args[0]}") from error
        if changed := start.list_differences(info.definitions, planned.info.definitions):
            raise PartRefused(
                f"this host has other definitions than the coordinator: {', '.join(changed)}",
                hint="check out the same version of the lab on both",
            )
        digest = self.image.digest
        pinned = [replace(cell, guest=cell.guest.from_image(digest)) for cell in planned.cells]
        return replace(planned, cells=pinned)


# -- on a host, in the child that runs the part

# Longest text of an event, in characters.
LONGEST = 4000


class EventLines(Observer):
    """An observer that writes what it is told as JSON, one event a line, for the coordinator.

    Their `kind` is `lane`, `prediction`, `note`, or `prepared` (an image, and the folder that has it).
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def lane(self, lane: str, progress: Progress | None) -> None:
        text = progress.text if progress else ""
        step = {"activity": progress.activity, "name": progress.name} if progress and progress.activity else {}
        self.tell("lane", lane=lane, text=text, **step)

    def prediction(self, cell: Cell, prediction: Prediction) -> None:
        self.tell("prediction", cell=cell.name, **prediction.model_dump(mode="json"))

    def cell(self, result: CellResult) -> None:
        # The lane that ended it: another one may have run its suite, on another host.
        if lane := result.history.trials_lane or result.history.lane:
            self.lane(lane, Progress(f"decided {result.variant} {result.build}: {result.status}"))

    def note(self, text: str) -> None:
        self.tell("note", text=text)

    def image(self, image: BaseImage) -> None:
        if image.manifest.base:
            self.tell("prepared", folder=str(image.folder), image=image.manifest.model_dump(mode="json"))

    def tell(self, kind: str, **more: Any) -> None:
        """Write one event."""
        texts = {
            key: cut_text(clean_text(more[key]), LONGEST) for key in ("text", "name", "reason") if key in more
        }
        with self._lock:
            self._stream.write(json.dumps({"kind": kind, **more, **texts}) + "\n")
            self._stream.flush()


# -- on a host, in the process of dask's worker

_children: set[subprocess.Popen[str]] = set()
_is_stopping = threading.Event()


def run_part(text: str) -> bytes:
    """Run a part on this host in a child; return the archive of what it left. Raises LabError, OSError.

    PartRefused means that no part can be run here.
    """
    from distributed import get_worker  # Not installed where all runs are on one host.

    worker = get_worker()
    part, host = Part.read(text), str(worker.name)

    def tell(event: dict[str, Any]) -> None:
        worker.log_event(TOPIC, {**event, "part": part.number})

    tell({"kind": "begins"})

    def ask(folder: str) -> None:
        tell({"kind": "lacks image", "folder": folder})

    images.await_image(Paths.default(), part.image, ask, _is_stopping)
    with scratch.make_temporary_folder() as folder:
        run = folder / "run"
        status, words = _run_child(text, run, host, tell)
        if status == PartRefused.exit_status:
            raise PartRefused(" ".join(words.split()))
        if not (run / RESULTS_FILE).exists():
            raise LabError(f"the lab on {host} ended with exit status {status}: {words}".rstrip(": "))
        return results.pack_part(run, PartEnd(host=host, status=status, words=words))


def _run_child(text: str, run: Path, host: str, tell: Callable[[dict[str, Any]], None]) -> tuple[int, str]:
    """Run the child to its end; its exit status, and its last words."""
    child = subprocess.Popen(
        # It ends with this thread, also if dask's worker is killed.
        ["setpriv", "--pdeathsig", "TERM", "--", *LAB, "part", "-", "-o", str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, HOST_NAME: host},
        text=True,
        errors="replace",
    )
    assert child.stdin and child.stdout and child.stderr
    _children.add(child)
    try:
        if _is_stopping.is_set():
            child.terminate()
        last: deque[str] = deque(maxlen=LAST_LINES)
        words = threading.Thread(target=last.extend, args=(child.stderr,), daemon=True)
        words.start()
        with suppress(BrokenPipeError), child.stdin as stdin:
            stdin.write(text)
        for line in child.stdout:
            with suppress(ValueError, TypeError):  # A library may print something else.
                tell(json.loads(line))
        status = child.wait()
        words.join(WORDS_SECONDS)
        return status, clean_text("".join(last)).strip()[-LAST_WORDS:]
    finally:
        _children.discard(child)


def stop_parts() -> None:
    """End all parts of this host as Ctrl-C does: what they decided is kept. Called by the coordinator."""
    _is_stopping.set()
    for child in list(_children):
        with suppress(ProcessLookupError):
            child.terminate()
