"""Kept guests: each has a keeper, a process that brings the guest up and holds its lane until told to end.

To the rest of the lab a keeper is a lab at work with one lane. It holds the lane's lock, its port and the
connection to libvirt. When it dies, libvirt ends the machine, and the next command removes the lane's folder.
"""

import json
import os
import signal
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

import psutil
from pydantic import BaseModel

from lab.base.errors import LabError, NotApplicable, UsageError, unknown_name
from lab.base.files import is_locked
from lab.base.paths import Paths
from lab.base.wait import Deadline, wait_for
from lab.lane import shell
from lab.lane.entrance import Entrance
from lab.lane.shell import Say
from lab.machine.leftovers import FOLDERS, LOCK
from lab.plan import Cell

# The mark of a kept guest, in its lane's folder.
MARK = "kept.json"
# How often a keeper looks whether its machine still runs.
WATCH_SECONDS = 2.0
# Taking a lane down takes a second; a loaded host needs longer.
END_SECONDS = 60.0


class Kept(BaseModel):
    """A guest that is kept. `keeper` is the id of the process that holds its lane."""

    name: str
    cell: str
    since: datetime
    keeper: int
    entrance: Entrance

    def check_alive(self) -> None:
        """Raise LabError if the guest is gone."""
        if not is_locked(self.entrance.folder / LOCK):
            raise LabError(f"{self.name} is gone", hint="lab attach --list names the guests that are kept")


def all_kept(paths: Paths) -> list[Kept]:
    """The guests that are kept, the oldest first."""
    found = [_read(folder) for folder in paths.lanes.glob(FOLDERS)]
    return sorted((kept for kept in found if kept), key=lambda kept: kept.since)


def find(paths: Paths, name: str | None) -> Kept:
    """The kept guest of this name, or the only one there is. Raises UsageError."""
    found = {kept.name: kept for kept in all_kept(paths)}
    if not found:
        raise UsageError("no guest is kept", hint="keep one: lab shell GUEST [VARIANT] --keep")
    if name is None:
        if len(found) > 1:
            raise UsageError("several guests are kept", hint=f"name one of {', '.join(found)}")
        return next(iter(found.values()))
    if name not in found:
        raise unknown_name("kept guest", name, found)
    return found[name]


def end(kept: Kept) -> None:
    """Have a keeper take its lane down, and wait until it has. Raises DeadlineExpired."""
    # While the lane's lock is held, its keeper lives, and no other process has its number.
    if not is_locked(kept.entrance.folder / LOCK):
        return
    with suppress(psutil.NoSuchProcess):
        keeper = psutil.Process(kept.keeper)
        keeper.terminate()
        wait_for(lambda: _has_ended(keeper), Deadline(END_SECONDS, f"the end of {kept.name}"))


def _has_ended(process: psutil.Process) -> bool | None:
    """True, or None while it runs. One whose parent has not noticed its end is a zombie."""
    return True if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE else None


@dataclass(frozen=True)
class Starting:
    """A keeper whose guest is not up yet. `messages` come from it."""

    keeper: int
    messages: IO[str]

    def wait(self, say: Say) -> Kept:
        """Wait until the guest is in the cell's state. Raises as `shell.ready` does; the keeper ends then."""
        try:
            with self.messages:
                return _follow(self.messages, say)
        except BaseException:
            os.kill(self.keeper, signal.SIGTERM)
            os.waitpid(self.keeper, 0)
            raise


def start(cell: Cell, paths: Paths, uri: str, *, own_rootfs: Path | None = None) -> Starting:
    """Start a keeper. This process must have one thread, and no connection to libvirt."""
    receiving, sending = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(receiving)
        _be_a_keeper(os.fdopen(sending, "w"), cell, paths, uri, own_rootfs)
    os.close(sending)
    return Starting(keeper, os.fdopen(receiving))


def _read(folder: Path) -> Kept | None:
    """What the mark says, or None if the lane is another one or its keeper is dead."""
    try:
        kept = Kept.model_validate_json((folder / MARK).read_bytes())
    except (OSError, ValueError):
        return None
    return kept if is_locked(folder / LOCK) else None


# -- what the keeper and the process that started it say to each other: one JSON list in a line, its kind first


def _tell(messages: IO[str], *parts: Any) -> None:
    """Send a message. Raises OSError if nobody waits for the keeper any more."""
    messages.write(json.dumps(parts) + "\n")
    messages.flush()


def _follow(messages: IO[str], say: Say) -> Kept:
    """Wait until the keeper's guest is up; raise what kept it from that."""
    for line in messages:
        match json.loads(line):
            case ["say", text]:
                say(text)
            case ["kept", mark]:
                return Kept.model_validate_json(mark)
            case ["n/a", reason]:
                raise NotApplicable(reason)
            case ["error", message, hint, status]:
                error = LabError(message, hint=hint)
                error.exit_status = status
                raise error
            case [_, text]:
                raise RuntimeError(f"the keeper failed:\n{text}")
    raise LabError("the guest's keeper died before the guest was up")


# -- the keeper


def _be_a_keeper(messages: IO[str], cell: Cell, paths: Paths, uri: str, own_rootfs: Path | None) -> NoReturn:
    """Keep a guest until its end; this process never returns to what started it."""
    last: tuple[Any, ...] = ()
    try:
        _detach()
        _keep(messages, cell, paths, uri, own_rootfs)
    except KeyboardInterrupt:
        pass
    except NotApplicable as reason:
        last = ("n/a", str(reason))
    except LabError as error:
        last = ("error", error.args[0], error.hint, error.exit_status)
    except BaseException:
        last = ("bug", traceback.format_exc())
    finally:
        # Whoever started it has been told before that the guest is up, or has gone.
        with suppress(OSError, ValueError):
            _tell(messages, *last)
        os._exit(0)


def _detach() -> None:
    """Leave the terminal and the files of the process that started this one."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.chdir("/")
    signal.signal(signal.SIGTERM, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    # A second signal must not stop the taking down.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _keep(messages: IO[str], cell: Cell, paths: Paths, uri: str, own_rootfs: Path | None) -> None:
    """Bring the guest up, tell so, and hold it until its machine dies or this process is told to end."""
    with shell.ready(
        cell, paths, uri, lambda text: _tell(messages, "say", text), own_rootfs=own_rootfs
    ) as opened:
        kept = Kept(
            name=opened.lane.name,
            cell=cell.name,
            since=datetime.now(UTC),
            keeper=os.getpid(),
            entrance=opened.entrance,
        )
        mark = kept.model_dump_json()
        _write(opened.lane.folder, mark)
        _tell(messages, "kept", mark)
        messages.close()
        while True:
            opened.lane.check_alive()
            time.sleep(WATCH_SECONDS)


def _write(folder: Path, mark: str) -> None:
    """Write the mark in one step. Only its owner may read it: it holds the key to the guest."""
    half = folder / f".{MARK}"
    half.touch(0o600)
    half.write_text(mark + "\n")
    half.rename(folder / MARK)
