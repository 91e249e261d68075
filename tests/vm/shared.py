"""Runs of `lab matrix` whose results many tests read. They are made in the background, while other tests run.

The tests that boot guests themselves use one lane at a time, and so does each of these runs. As many runs are
made at once as the host has processors, which is one lane more than processors, as `lab matrix` has it under
emulation: a lane waits now and then, and pytest often does.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lab.base.paths import Paths
from lab.machine import leftovers
from lab.record import RunResult

# Tests change HOME for themselves while these runs are made, and libvirt starts a daemon for each.
ENVIRONMENT = dict(os.environ)

# An image is built without getting in the way of a guest.
BUILD_NICENESS = "15"
# After this a lab that was asked to end is killed.
END_SECONDS = 60.0


@dataclass(frozen=True)
class SharedRun:
    """One `lab matrix` with one lane at a time. `seconds` is about how long it takes under emulation.

    With the `exit_status` 0 every cell of it must come out as expected. `guests` are those whose images it
    needs, `after` the names of runs that must end before it begins, if they are made at all.
    """

    name: str
    words: Sequence[str]
    guests: Sequence[str]
    seconds: float
    after: Sequence[str] = ()
    limit_seconds: float = 1700.0
    exit_status: int = 0


class SharedRuns:
    """The runs, as a context manager: it begins them in their order, and leaves nothing of them behind.

    `builds` are commands that are run beside them one after another, because runs or tests will need what they
    build; whether they succeed is left to those to find out.
    """

    def __init__(self, home: Path, runs: Sequence[SharedRun], builds: Sequence[Sequence[str]] = ()) -> None:
        self.home, self.runs, self.builds = home, runs, builds
        # Each is held while its run is made. Exit status and output of the runs that have ended.
        self._locks = {run.name: threading.Lock() for run in runs}
        self._ended: dict[str, tuple[int, str]] = {}
        self._processes: list[subprocess.Popen[str]] = []
        self._stopping = threading.Lock()
        self._is_stopped = False

    def __enter__(self) -> Self:
        make_home(self.home)
        work = [self._make_all] * (os.cpu_count() or 1) + [self._build]
        self._threads = [threading.Thread(target=task, daemon=True) for task in work]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stopping:
            self._is_stopped = True
        for process in self._processes:
            end(process)
        for thread in self._threads:
            thread.join(END_SECONDS)
        remove_home(self.home)

    def folder(self, run: SharedRun) -> Path:
        return self.home / run.name

    def result(self, run: SharedRun) -> RunResult:
        """The results of a run, made by now. Whoever waits makes runs that nobody has begun."""
        for other in [run, *self.runs]:
            if run.name not in self._ended:
                self._make(other, wait=False)
        self._make(run, wait=True)
        status, output = self._ended[run.name]
        assert status == run.exit_status, output
        result = RunResult.read(self.folder(run))
        assert result.exit_status() == run.exit_status, output
        return result

    def _make_all(self) -> None:
        for run in self.runs:
            self._make(run, wait=False)

    def _make(self, run: SharedRun, *, wait: bool) -> None:
        """Make a run if nobody has; `wait` for another thread that is making it."""
        if not self._locks[run.name].acquire(blocking=wait):
            return
        try:
            if run.name not in self._ended:
                for other in self.runs:
                    if other.name in run.after:
                        self._make(other, wait=True)
                words = ["matrix", *run.words, "--jobs", "1", "-o", str(self.folder(run))]
                self._ended[run.name] = self._run([sys.executable, "-m", "lab", *words], run.limit_seconds)
        finally:
            self._locks[run.name].release()

    def _build(self) -> None:
        for command in self.builds:
            self._run(["nice", "-n", BUILD_NICENESS, *command], seconds=1800)

    def _run(self, command: Sequence[str], seconds: float) -> tuple[int, str]:
        """Run a command to its end, or until it is given up; its exit status and output."""
        with self._stopping:
            if self._is_stopped:
                return -1, "the tests ended before it began"
            process = start(self.home, command)
            self._processes.append(process)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            end(process)
            output = f"given up after {seconds:.0f} s:\n{process.communicate()[0]}"
        return process.returncode, output


def start(home: Path, command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a command with a LAB_HOME, in a process group of its own."""
    return subprocess.Popen(
        command,
        env={**ENVIRONMENT, "LAB_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Ask a lab to end, which takes its guests down, and kill it if it does not."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def make_home(base: Path) -> None:
    """A LAB_HOME whose cache is the user's own, and whose state nobody else uses."""
    base.mkdir(mode=0o755)
    own = Paths.default()
    own.make(own.cache)
    (base / "cache").symlink_to(own.cache)


def remove_home(base: Path) -> None:
    leftovers.reap_dead_lanes(Paths(cache=base / "cache", state=base / "state"))
    (base / "cache").unlink()
    subprocess.run(["rm", "-rf", base], check=True)
