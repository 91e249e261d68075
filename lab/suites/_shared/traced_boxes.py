"""Boxes whose life the tests follow from outside, by the processes, files and control groups that they have."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import outside
import pytest
from boxlite import Boxlite, SecurityOptions
from python_api import allowed, options, requested, runtime

# How long a process may take to end that was told to. One that was not told never ends.
END_SECONDS = 3.0
# What boxlite makes for each user beside the home: folders for sockets.
SOCKETS = Path(f"/tmp/bl-{os.getuid()}")
GROUPS = Path("/sys/fs/cgroup")


class OwnerFailed(Exception):
    """What the process printed that should have owned a runtime."""


def wait_for_end(processes: Iterable[int]) -> list[int]:
    """Wait until these processes have ended. Return those that live on after the time for that."""
    waiting: dict[int, int] = {}
    for pid in processes:
        with suppress(ProcessLookupError):
            waiting[os.pidfd_open(pid)] = pid
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting and (ended := poll.poll(END_SECONDS * 1000)):
        for descriptor, _ in ended:
            poll.unregister(descriptor)
            os.close(descriptor)
            del waiting[descriptor]
    for descriptor in waiting:
        os.close(descriptor)
    return sorted(waiting.values())


def name_programs(processes: Iterable[int]) -> list[str]:
    """The names of processes, for a message."""
    names = []
    for pid in processes:
        with suppress(OSError):
            names.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return names


async def run(box: Any, *words: str) -> str:
    """What a command prints in a box. Fails if the command does."""
    execution = await box.exec(words[0], list(words[1:]))
    output = "".join([str(chunk) async for chunk in execution.stdout()])
    errors = "".join([str(chunk) async for chunk in execution.stderr()])
    result = await execution.wait()
    assert result.exit_code == 0, f"{' '.join(words)} ended with {result.exit_code} in the box: {errors}"
    return output.strip()


@dataclass
class TracedBoxes:
    """Boxes in one home. `record` keeps what was seen of them in the test's result; `ids` are theirs."""

    home: Path
    rootfs: str
    registry: str | None
    record: Callable[[str, object], None]
    ids: list[str] = field(default_factory=list)

    @contextmanager
    def open_runtime(self) -> Iterator[Boxlite]:
        """A runtime with the home, which has one at a time."""
        owned = runtime(self.home, self.registry)
        try:
            yield owned
        finally:
            owned.close()

    async def start(self, owned: Boxlite, security: SecurityOptions | None = None, **more: object) -> Any:
        """A box that runs and outlives a stop, with the usual options of the jailer if none are given."""
        security = allowed(security or SecurityOptions.standard())
        box = await owned.create(options(self.rootfs, security, auto_remove=False, **more))
        self.ids.append(str(box.id))
        await box.start()
        return box

    @contextmanager
    def own_elsewhere(self, kind: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """Another process that owns a runtime with the home, and the ID of its box; `kind`: detach, or not."""
        allowed(SecurityOptions.standard())  # A remedy may skip the test.
        command = [
            sys.executable,
            str(Path(__file__).with_name("owner.py")),
            self.home,
            self.registry or "",
            kind,
        ]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as process:
            box_id = process.stdout.readline().strip()
            if not box_id:
                raise OwnerFailed(process.communicate()[1])
            self.ids.append(box_id)
            try:
                yield process, box_id
            finally:
                process.kill()

    def record_protection(self, box: Any, security: SecurityOptions) -> None:
        """Keep what confines a running box."""
        outside.record(self.record, self.home, str(box.id), requested(allowed(security)))

    def record_groups(self, box_id: str) -> None:
        """Keep the control groups of a running box and of this process."""
        outside.record_groups(self.record, box_id)

    def list_remains(self, box_id: str) -> list[str]:
        """What is left of a removed box, besides logs: processes, files, sockets.

        boxlite 0.10.8 also leaves an empty control group of each box that it could put into one.
        """
        living = wait_for_end(outside.box_processes(box_id))
        files = [path for path in self.home.rglob(f"*{box_id}*") if "logs" not in path.parts]
        files += SOCKETS.rglob(f"*{box_id}*")
        return [*name_programs(living), *map(str, files)]

    def end(self) -> None:
        """End what is left of the boxes, however boxlite left them."""
        for box_id in self.ids:
            for pid in outside.box_processes(box_id):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_for_end(outside.box_processes(box_id))


@pytest.fixture
def boxes(
    home: Path, images: str | None, record_property: Callable[[str, object], None]
) -> Iterator[TracedBoxes]:
    """Boxes in the test's home. None of them outlives the test, whatever boxlite did."""
    boxes = TracedBoxes(home, os.environ["LAB_ROOTFS"], images, record_property)
    yield boxes
    boxes.end()


@pytest.fixture
def host_folder() -> Iterator[Path]:
    """A folder for volumes, below the user's home: the jailer's sandbox has a /tmp of its own."""
    with TemporaryDirectory(prefix="volumes-", dir=Path.home()) as folder:
        yield Path(folder)
