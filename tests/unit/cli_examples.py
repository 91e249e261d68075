"""Command lines, and how tests run them and read what they print."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import cli
from lab.record import RunResult, Status
from lab.run import scheduler
from lab.run.journal import Journal

ONE_CELL = ["matrix", "-g", "debian-13", "-v", "stock"]
TWO_CELLS = [*ONE_CELL, "-v", "max-userns-zero"]


def lab(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lab", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """The exit status of a command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["lab", *map(str, arguments)])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def rows_listed(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]


def interrupt_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on runs are interrupted after their first cell."""

    class Interrupted(scheduler.Scheduler):
        def run(self) -> RunResult:
            self.folder.mkdir(parents=True, exist_ok=True)
            journal = Journal(self.folder, self.cells, self.info, self.kept)
            self.observer.cell(journal.decide(self.cells[0], self.cells[0].result(Status.XPASS)))
            return journal.finish(interrupted=True)

    monkeypatch.setattr(scheduler, "Scheduler", Interrupted)
