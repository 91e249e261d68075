"""The lab as the first process of a container: what it waits for, how it ends, which signals reach it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lab.base.paths import PACKAGE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has namespaces of its own on every host")
BEGIN = "import os, signal, subprocess, sys, time\nfrom lab.base.first_process import leave_first_process\n"
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c"]


def run_first(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program as the first process of a container."""
    command = [*CONTAINER, BEGIN + program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=PACKAGE.parent)


# Whether a process is gone whose parent has ended before it.
ORPHAN = """
done = subprocess.run(["sh", "-c", "sleep 0.2 >&- 2>&- & echo $!"], capture_output=True, text=True)
for _ in range(COUNT):
    try:
        os.kill(int(done.stdout), 0)
    except ProcessLookupError:
        sys.exit(print("gone", flush=True))
    time.sleep(0.01)
print("still there")
"""


def test_what_ends_without_a_parent_is_waited_for() -> None:
    done = run_first("leave_first_process()\nprint(os.getpid() != 1)" + ORPHAN.replace("COUNT", "3000"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\ngone\n", "")


def test_tests_that_call_the_lab_are_not_forked_by_it(tmp_path: Path) -> None:
    """The threads that make guests for them would stay behind."""
    pids = tmp_path / "pids"
    tell = f"    print(os.getpid(), file=open({str(pids)!r}, 'a'))\n"
    plugin = f"import os\ndef pytest_sessionstart():\n{tell}def pytest_sessionfinish():\n{tell}"
    (tmp_path / "told.py").write_text(plugin)
    calls_the_lab = "tests/unit/base/test_scratch.py::test_a_killed_build_is_removed"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "told", calls_the_lab]
    done = subprocess.run(
        [*CONTAINER[:-1], *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=PACKAGE.parent,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{PACKAGE.parent}"},
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    first, last = pids.read_text().split()
    assert first == last != "1"


def test_nobody_else_waits_for_it() -> None:
    assert run_first("print(os.getpid())" + ORPHAN.replace("COUNT", "100")).stdout == "1\nstill there\n"


@pytest.mark.parametrize(("end", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 137)])
def test_the_container_ends_as_the_lab_does(end: str, status: int) -> None:
    assert run_first(f"leave_first_process()\n{end}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_for_the_container_reaches_the_lab(number: signal.Signals) -> None:
    program = f"""
leave_first_process()
signal.signal({number}, lambda *_: sys.exit(130))
print("ready", flush=True)
time.sleep(50)
"""
    with subprocess.Popen(
        [*CONTAINER, BEGIN + program], stdout=subprocess.PIPE, text=True, cwd=PACKAGE.parent
    ) as unshare:
        assert unshare.stdout is not None
        assert unshare.stdout.readline() == "ready\n"
        [first] = psutil.Process(unshare.pid).children()
        first.send_signal(number)
        assert unshare.wait(40) == 130


def test_anywhere_else_nothing_happens() -> None:
    program = f"{BEGIN}pid = os.getpid()\nleave_first_process()\nprint(os.getpid() == pid)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
