"""Running a program of the host, so that its failure says which command to paste and what it printed."""

import os
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lab.base.errors import LabError

Command = Sequence[str | Path]

# How long a program may take to clean up after itself; mmdebstrap removes a tree and its mounts.
GRACE_SECONDS = 10.0

_running: set[subprocess.Popen[str]] = set()


class CommandFailed(LabError):
    """A program of the host ended with an error; `output` holds the last lines it printed."""

    def __init__(self, command: Command, status: str, output: str) -> None:
        self.output = output
        super().__init__(f"{display(command)}: {status}\n{output.rstrip()}".rstrip())


def stop_all() -> None:
    """End every program that `run` waits for, in whatever thread; those calls raise CommandFailed."""
    for child in list(_running):
        _end(child)


def display(command: Command) -> str:
    """The command as one would paste it into a shell."""
    return shlex.join(str(part) for part in command)


def run(
    command: Command,
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> str:
    """Run a program to its end and return what it printed on standard output and error.

    `timeout` is in seconds; `env` is added to the environment; `on_line` sees each line as it comes.
    The program gets SIGTERM when this process dies, so a killed lab leaves none behind.
    Raises CommandFailed for a missing program, a non-zero status or the time being up.
    """
    guarded = ["setpriv", "--pdeathsig", "TERM", "--", *map(str, command)]
    try:
        child = subprocess.Popen(
            guarded,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            text=True,
            errors="replace",
            # A group of its own, so that what it starts can be ended with it.
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise CommandFailed(command, "setpriv is not installed (package util-linux)", "") from error
    _running.add(child)
    late = threading.Event()

    def stop() -> None:
        late.set()
        _end(child)

    timer = threading.Timer(timeout, stop)
    timer.start()
    lines: deque[str] = deque(maxlen=20_000)
    try:
        assert child.stdout is not None
        for line in child.stdout:
            lines.append(line)
            on_line(line.rstrip("\n"))
        status = child.wait()
    except BaseException:
        _end(child)
        child.wait()
        raise
    finally:
        timer.cancel()
        _running.discard(child)
    if late.is_set():
        raise CommandFailed(command, f"stopped after {timeout:.0f} s", tail(lines))
    if status != 0:
        raise CommandFailed(command, f"exit status {status}", tail(lines))
    return "".join(lines)


def _end(child: subprocess.Popen[str]) -> None:
    """End a program and all that it started: politely, and then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
            return


def tail(lines: Sequence[str] | deque[str], count: int = 20) -> str:
    """The last lines of an output, for an error message."""
    return "".join(list(lines)[-count:])
