"""Runs of `lab matrix` whose results many tests read. They are made in the background, while other tests run.

The tests that boot guests themselves use one lane at a time, and most of a lane's work keeps one processor
busy. So a host with two processors has room for one more lane, and never for many: boxlite gives a box 30 s to
start.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
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


@dataclass(frozen=True)
class _Ended:
    """What became of a run's process."""

    status: int
    output: str


@dataclass
class SharedRuns:
    """The runs, as a context manager: it begins them, the longest first, and leaves nothing of them behind.

    `builds` are commands that are run beside them one after another, because runs or tests will need what they
    build; whether they succeed is left to those to find out.
    """

    home: Path
    runs: Sequence[SharedRun]
    builds: Sequence[Sequence[str]] = ()
    _waiting: list[SharedRun] = field(init=False)
    _ended: dict[str, _Ended] = field(default_factory=dict)
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stopped: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._waiting = in_order(self.runs)

    @property
    def paths(self) -> Paths:
        return Paths(cache=self.home / "cache", state=self.home / "state")

    def __enter__(self) -> Self:
        make_home(self.home)
        for work in (self._work, self._build):
            thread = threading.Thread(target=work, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            running = list(self._processes)
        for process in running:
            end(process)
        for thread in self._threads:
            thread.join(END_SECONDS)
        remove_home(self.home)

    def folder(self, run: SharedRun) -> Path:
        """The folder of a run's results."""
        return self.home / run.name

    def result(self, run: SharedRun) -> RunResult:
        """The results of a run, made by now. Whoever waits makes runs that nobody has begun."""
        while True:
            with self._changed:
                if run.name in self._ended:
                    break
                mine = self._take()
                if mine is None:
                    self._changed.wait()
                    continue
            self._make(mine)
        ended = self._ended[run.name]
        assert ended.status == run.exit_status, ended.output
        result = RunResult.read(self.folder(run))
        assert result.exit_status() == run.exit_status, ended.output
        return result

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or not self._waiting or self._next())
                run = self._take()
            if run is None or self._stopped:
                return
            self._make(run)

    def _next(self) -> SharedRun | None:
        """The run to begin now; None if there is none, or none that need not wait for another."""
        unfinished = {run.name for run in self.runs} - self._ended.keys()
        return next((run for run in self._waiting if not unfinished.intersection(run.after)), None)

    def _take(self) -> SharedRun | None:
        run = self._next()
        if run is not None:
            self._waiting.remove(run)
        return run

    def _make(self, run: SharedRun) -> None:
        words = ["matrix", *run.words, "--jobs", "1", "-o", str(self.folder(run))]
        try:
            ended = self._run([sys.executable, "-m", "lab", *words], run.limit_seconds)
        except OSError as error:
            ended = _Ended(-1, str(error))
        with self._changed:
            self._ended[run.name] = ended
            self._changed.notify_all()

    def _build(self) -> None:
        for command in self.builds:
            self._run(["nice", "-n", BUILD_NICENESS, *command], seconds=1800)

    def _run(self, command: Sequence[str], seconds: float) -> _Ended:
        """Run a command to its end, or until it is given up."""
        with self._changed:
            if self._stopped:
                return _Ended(-1, "the tests ended before it began")
            process = start(self.home, command)
            self._processes.append(process)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            end(process)
            output = f"given up after {seconds:.0f} s:\n{process.communicate()[0]}"
        return _Ended(process.returncode, output)


def in_order(runs: Sequence[SharedRun]) -> list[SharedRun]:
    """The order in which they are begun: a long one that is begun last is waited for alone."""
    return sorted(runs, key=lambda run: -run.seconds)


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
    leftovers.reap(Paths(cache=base / "cache", state=base / "state"))
    (base / "cache").unlink()
    subprocess.run(["rm", "-rf", base], check=True)
