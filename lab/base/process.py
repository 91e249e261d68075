"""Runs programs on the host. An error shows the command, ready to paste, and the last lines of its output."""

import codecs
import io
import os
import select
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from lab.base.errors import LabError

Command = Sequence[str | Path]

# Time between SIGTERM and SIGKILL; mmdebstrap needs it to remove its tree and mounts.
GRACE_SECONDS = 10.0
# The kernel ends a killed process when it next runs, which takes a while on a host that has much to do.
KILLED_SECONDS = 60.0
# How often it is looked whether they have ended, or `stop_programs` was called.
LOOK_SECONDS = 0.05
GONE = (psutil.NoSuchProcess, psutil.AccessDenied)

_running: set[subprocess.Popen[bytes]] = set()


class CommandFailed(LabError):
    """A program on the host failed; `output` holds the last lines that it printed.

    `late`: it did not fail by itself, but was stopped at its limit of time.
    """

    def __init__(self, command: Command, status: str, output: str, *, late: bool = False) -> None:
        self.output, self.late = output, late
        super().__init__(f"{quote_command(command)}: {status}\n{output.rstrip()}".rstrip())


def stop_programs() -> None:
    """Stop every program that `run_command` is waiting for, in any thread; those calls raise CommandFailed."""
    for child in list(_running):
        _end(child)
        _running.discard(child)


def quote_command(command: Command) -> str:
    """Format a command so that it can be pasted into a shell."""
    return shlex.join(str(part) for part in command)


def run_command(
    command: Command,
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
    watch: Callable[[int], None] = lambda leader: None,
) -> str:
    """Run a program until it exits and return its standard output and standard error.

    `timeout` is in seconds; `env` is added to the environment; `on_line` gets each line as it arrives. `watch`
    gets the program's process ID now and then, and what it raises ends the program.
    The program gets SIGTERM when this process dies, so that a killed lab leaves no program running.
    Raises CommandFailed if the program is missing, fails or exceeds the timeout.
    """
    guarded = ["setpriv", "--pdeathsig", "TERM", "--", *map(str, command)]
    try:
        child = subprocess.Popen(
            guarded,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            # A process group of its own, so that its children can be stopped with it.
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise CommandFailed(command, "setpriv is not installed (package util-linux)", "") from error
    _running.add(child)
    end = time.monotonic() + timeout
    lines: deque[str] = deque(maxlen=20_000)
    try:
        for line in _lines(child, end, watch):
            lines.append(line)
            on_line(line.rstrip("\n"))
        if child not in _running:
            raise CommandFailed(command, "stopped", tail(lines))
        status = child.wait(max(0.0, end - time.monotonic()))
    except BaseException as error:
        _end(child)
        child.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise CommandFailed(command, f"stopped after {timeout:.0f} s", tail(lines), late=True) from error
    finally:
        _running.discard(child)
        assert child.stdout is not None
        child.stdout.close()
    if status != 0:
        raise CommandFailed(command, f"exit status {status}", tail(lines))
    return "".join(lines)


def _lines(child: subprocess.Popen[bytes], end: float, watch: Callable[[int], None]) -> Iterator[str]:
    """The lines that a program prints, until its output ends or `stop_programs` stopped the program.

    A daemon that it started may keep the output open for ever. Raises TimeoutExpired at `end`.
    """
    assert child.stdout is not None
    poll, parts = select.poll(), [""]
    poll.register(child.stdout, select.POLLIN)
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
    chunk: bytes | None = None
    next_look = 0.0
    while child in _running and chunk != b"":
        clock_time = time.monotonic()
        seconds_left = end - clock_time
        if seconds_left <= 0:
            raise subprocess.TimeoutExpired(child.args, -seconds_left)
        if clock_time >= next_look:
            watch(child.pid)
            next_look = time.monotonic() + LOOK_SECONDS
        if not poll.poll(min(seconds_left, LOOK_SECONDS) * 1000):
            continue
        chunk = os.read(child.stdout.fileno(), io.DEFAULT_BUFFER_SIZE)
        *lines, end_of_chunk = decoder.decode(chunk, final=not chunk).split("\n")
        for line in lines:
            yield "".join(parts) + line + "\n"
            parts.clear()
        parts.append(end_of_chunk)
    if last := "".join(parts):
        yield last


def _end(child: subprocess.Popen[bytes]) -> None:
    """Stop a program and all that it started, and wait for their end; after the grace period by SIGKILL."""
    family: set[psutil.Process] = set()
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, KILLED_SECONDS)):
        signalled: set[psutil.Process] = set()
        end = time.monotonic() + seconds
        while family := _running_of(child.pid, family):
            # The oldest first: a shell whose child ends before it would go on with its next command.
            for process in sorted(family - signalled, key=_age):
                with suppress(*GONE):
                    process.send_signal(number)
            signalled |= family
            if time.monotonic() > end:
                break
            time.sleep(LOOK_SECONDS)
            child.poll()


def _running_of(leader: int, earlier: set[psutil.Process]) -> set[psutil.Process]:
    """The processes of a program that still run: those of its session, those of `earlier`, and their children.

    A child may have left the session, and one whose parent ended is no descendant any more.
    """
    family = set(earlier)
    for process in psutil.process_iter():
        with suppress(OSError):
            if os.getsid(process.pid) == leader:
                family.add(process)
    for process in list(family):
        with suppress(psutil.Error):
            family |= set(process.children(recursive=True))
    return {process for process in family if _runs(process)}


def _runs(process: psutil.Process) -> bool:
    """Whether it has not ended; one whose parent has not noticed its end is a zombie."""
    try:
        return process.is_running() and bool(process.status() != psutil.STATUS_ZOMBIE)
    except GONE:
        return False


def _age(process: psutil.Process) -> tuple[float, int]:
    """A key that sorts a program before those that it started; clock ticks are coarse, so the number helps."""
    try:
        return process.create_time(), process.pid
    except GONE:
        return 0.0, process.pid


def tail(lines: Sequence[str] | deque[str], count: int = 20) -> str:
    """Return the last lines of an output, for an error message."""
    return "".join(list(lines)[-count:])
