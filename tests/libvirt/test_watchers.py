"""Whoever watches a run decides nothing: where its output cannot be written, all of its cells are run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.images.store import BaseImage
from lab.record import RunResult
from tests.builders.lab import PASSED, statuses

ROOT = Path(__file__).parents[2]
# `lab matrix` as a process, with the real scheduler and its threads. Arguments: the image's folder, and words.
PROGRAM = """
import sys
from pathlib import Path
import libvirt, pytest
from lab import cli
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.builds.kinds.wheel import Wheel
from lab.machine import leftovers
from lab.machine.connection import hold_connection
from tests.builders.guests import base_image
from tests.builders.lab import URI, Lab

image = base_image(Path(sys.argv.pop(1)))
patch = pytest.MonkeyPatch()
patch.setattr(libvirt, "VIR_DOMAIN_START_AUTODESTROY", 0)
patch.setattr(leftovers, "FIRST_PORT", 23200)
patch.setattr(leftovers, "LAST_PORT", 23249)
patch.setattr(Wheel, "check", lambda *_: None)
patch.setattr(rootfs, "make_layouts", lambda *_: {})
with hold_connection(URI) as opened:
    made = Lab(opened, Paths.default())
    made.put_stand_ins(image, patch)
    try:
        cli.main()
    finally:
        assert made.left == []
"""
PLAN = [
    *("-g", "debian-12", "-g", "debian-13", "-v", "stock", "-v", "max-userns-zero"),
    *("--build", "0.10.8", "--no-remedies", "--no-experiment", "--jobs", "2"),
]


def run_redirected(
    tmp_path: Path, image: BaseImage, redirection: str, *more: str
) -> subprocess.CompletedProcess[str]:
    """Run the plan as a shell does; `{pipe}` is a pipe whose reader goes when it has read the first bytes."""
    reading, writing = os.pipe()
    redirection = redirection.format(pipe=writing)
    own = {"LAB_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", PROGRAM, str(image.folder), "--connect", "test:///default", "matrix", *PLAN]
    with subprocess.Popen(
        ["bash", "-c", f'exec "$@" {redirection}', "bash", *words, "-o", str(tmp_path / "run"), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **own},
        pass_fds=[writing],
    ) as process:
        os.close(writing)
        if str(writing) in redirection:
            assert os.read(reading, 1) == b"b"
        os.close(reading)
        out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.mark.parametrize(
    "redirection",
    [">&{pipe}", ">/dev/full", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", ">&{pipe} 2>&{pipe}"],
)
def test_a_run_whose_output_is_lost_runs_all_cells(tmp_path: Path, image: BaseImage, redirection: str) -> None:
    done = run_redirected(tmp_path, image, redirection)
    assert done.returncode == 0, done.stderr
    run = RunResult.read(tmp_path / "run")
    assert statuses(run) == PASSED
    assert run.run.finished is not None
    lines = (tmp_path / "run" / "run.log").read_text().splitlines()
    assert sum(": pass" in line for line in lines) == 4
    assert (tmp_path / "run" / "matrix.md").read_text().count("| pass") == 4
    full = redirection == ">/dev/full"
    warning = "lab: warning: standard output could not be written: No space left on device"
    assert done.stderr.splitlines()[:1] == ([warning] if full else [])
