"""What a host does for a part: it runs a child, passes on what that tells, and sends what it leaves.

`run_part` is all that the coordinator's tasks call. It runs in the event loop of the host's worker.
"""

import asyncio
import hashlib
import os
import secrets
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed import Worker, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from lab.base import scratch
from lab.base.errors import LabError
from lab.fleet import archive, wire
from lab.fleet.events import LONGEST_LINE, Event
from lab.fleet.host_images import HostImages
from lab.fleet.part import Part, Refused
from lab.fleet.spending import Reading
from lab.record import RESULTS_FILE, cell_folder
from lab.run.hosts import NAME as HOST_NAME
from lab.run.meter import Meter

CHUNK_BYTES = 1 << 20
# How long a child may take to come to its end: its machines are taken down.
END_SECONDS = 60.0
# What is sent of a child's own words, in bytes.
LAST_WORDS = 4_000
# How long they are waited for after its end.
WORDS_SECONDS = 5.0

Command = Callable[[Path, Path], Sequence[str]]


def lab_child(options: Sequence[str]) -> Command:
    """The command that runs a part: this lab, with these options of its own."""

    def command(part: Path, folder: Path) -> Sequence[str]:
        return [sys.executable, "-m", "lab", *options, "matrix", "--part", str(part), "-o", str(folder)]

    return command


async def run_part(text: str, token: str) -> None:
    """Run a part on this host. Its events and its result go to the coordinator as they come."""
    worker = get_worker()
    children: Children = worker.plugins[Children.name]
    await children.run(worker, text, token)


class Children(WorkerPlugin):
    """The children of this host's worker, one for each part that it runs."""

    name = "lab-children"

    def __init__(self, command: Command, host: str, images: HostImages, say: Callable[[str], None]) -> None:
        self.images = images
        self._command = command
        self._environment = {**os.environ, HOST_NAME: host}
        self._say = say
        self._running: dict[str, Process] = {}
        self._stopped: set[str] = set()
        self._session, self._meter = "", Meter()

    def setup(self, worker: Worker) -> None:
        """Begin with a coordinator that this host joins."""
        self._session, self._meter = secrets.token_hex(8), Meter()

        async def send_image(token: str, digest: str, name: str, offset: int, **_more: Any) -> None:
            await self.images.send(worker, token, digest, name, offset)

        worker.stream_handlers |= {wire.STOP: self._stop, wire.SEND_IMAGE: send_image}

    async def run(self, worker: Worker, text: str, token: str) -> None:
        """Run a child to its end, whatever that is, and send what it left."""
        try:
            await self._bring_image(worker, text, token)
        except LabError as error:
            self._stopped.discard(token)
            await self._send(worker, token, None, {"status": error.exit_status, "words": str(error)})
            return
        with scratch.temporary() as folder:
            (folder / "part.json").write_text(text)
            run = folder / "run"
            child = await self._start(token, self._command(folder / "part.json", run))
            said = await self._follow(worker, token, child)
            said["spent"] = Reading.of(self._session, self._meter.read()).model_dump()
            await self._send(
                worker, token, await asyncio.to_thread(_packed, text, run, folder / "result"), said
            )

    async def _bring_image(self, worker: Worker, text: str, token: str) -> None:
        """Have the image of a part in the store, before its child looks for it. Raises LabError."""
        try:
            image = Part.read(text).image
        except Refused:
            return  # The child says why.
        if image is None:
            return
        loop, guest = asyncio.get_running_loop(), image.guest

        def say(what: str) -> None:
            if token in self._stopped:
                raise LabError("interrupted")
            if what:
                line = Event(kind="lane", lane=guest, text=f"image: {what}").model_dump_json()
                message = {"op": wire.EVENT, "token": token, "line": line}
                loop.call_soon_threadsafe(worker.batched_send, message)

        await self.images.bring(worker, image, say)

    async def _start(self, token: str, command: Sequence[str]) -> Process:
        child = self._running[token] = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", "--", *command),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=self._environment,
            limit=LONGEST_LINE,
            # A signal from this terminal is for the worker, which ends its children.
            start_new_session=True,
        )
        if token in self._stopped:  # Before there was a child.
            self._stop(token)
        return child

    async def _follow(self, worker: Worker, token: str, child: Process) -> dict[str, Any]:
        """Pass on what a child prints until it ends; return how it did."""
        refused, words = "", _LastWords(child)
        try:
            async for line in _lines(child):
                event = Event.read(line)
                if event and event.kind == "refused":
                    refused = event.text
                worker.batched_send({"op": wire.EVENT, "token": token, "line": line})
            return {"status": await child.wait(), "refused": refused, "words": await words.read()}
        finally:
            await _end(child)
            del self._running[token]
            self._stopped.discard(token)

    async def _send(self, worker: Worker, token: str, result: Path | None, said: dict[str, Any]) -> None:
        size, digest = 0, hashlib.sha256()
        if result:
            with result.open("rb") as stream:
                while data := await asyncio.to_thread(stream.read, CHUNK_BYTES):
                    answer = await worker.scheduler.lab_chunk(token=token, offset=size, data=data)
                    if not answer["wanted"]:
                        self._say("the coordinator has the result of a part already")
                        break
                    digest.update(data)
                    size += len(data)
        await worker.scheduler.lab_end(token=token, size=size, digest=digest.hexdigest(), **said)

    def _stop(self, token: Any = None, **_more: Any) -> None:
        """End a child as Ctrl-C does: what it decided is kept."""
        self._stopped.add(str(token))
        if child := self._running.get(str(token)):
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)


async def _lines(child: Process) -> AsyncIterator[str]:
    """Each line that a child prints; one that is too long is left out."""
    assert child.stdout is not None
    while True:
        try:
            line = await child.stdout.readline()
        except ValueError:
            continue
        if not line:
            return
        yield line.decode(errors="replace").rstrip("\n")


async def _end(child: Process) -> None:
    """Let a child that still runs take its machines down; then it is killed, with all that it started."""
    if child.returncode is not None:
        return
    with suppress(ProcessLookupError):
        child.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(asyncio.shield(child.wait()), END_SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()


def _packed(text: str, run: Path, to: Path) -> Path | None:
    """The archive of what a child left; None if it left no record."""
    if not (run / RESULTS_FILE).exists():
        return None
    with suppress(Refused):
        cells = [cell_folder(each.guest, each.variant, each.build) for each in Part.read(text).cells]
        archive.pack(run, to, cells)
        return to
    return None


class _LastWords:
    """The end of what a child writes to standard error. It is in no file: the disk may be what is full."""

    def __init__(self, child: Process) -> None:
        self._kept = b""
        self._task = asyncio.get_running_loop().create_task(self._keep(child))

    async def _keep(self, child: Process) -> None:
        assert child.stderr is not None
        while data := await child.stderr.read(65536):
            self._kept = (self._kept + data)[-LAST_WORDS:]

    async def read(self) -> str:
        """What was written, once the child has ended; what it started may hold standard error open."""
        await asyncio.wait([self._task], timeout=WORDS_SECONDS)
        self._task.cancel()
        return self._kept.decode(errors="replace")
