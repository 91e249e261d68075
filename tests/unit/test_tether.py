"""A host worker ends with the connection over which it was started."""

import os
import signal
import subprocess
import sys
import threading

from lab.fleet import tether

# Stands for `lab worker`: the first signal ends it in good order, the second at once.
WORKER = """
import os, signal, sys, time
from lab.fleet import tether
signals = []
def note(*_):
    signals.append(1)
    os.write(1, b"told to end\\n")
    if len(signals) == int(sys.argv[1]):
        sys.exit(7)
signal.signal(signal.SIGTERM, note)
tether.end_with_stdin(grace=0.05, silence=float(sys.argv[2]))
os.write(1, b"joined\\n")
while True:
    time.sleep(0.01)
"""


def worker(signals: int, silence: float = 600.0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WORKER, str(signals), str(silence)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"joined\n"
    return child


def test_it_is_told_to_end_when_its_standard_input_closes() -> None:
    child = worker(signals=1)
    out, _ = child.communicate(b"what arrives is not looked at\n", timeout=60)
    assert (out, child.returncode) == (b"told to end\n", 7)


def test_one_that_does_not_end_is_told_a_second_time() -> None:
    child = worker(signals=2)
    out, _ = child.communicate(timeout=60)
    assert (out, child.returncode) == (b"told to end\ntold to end\n", 7)


def test_it_ends_when_nothing_is_heard_of_the_other_end_which_is_still_open() -> None:
    child = worker(signals=1, silence=0.5)
    assert child.wait(timeout=60) == 7
    child.communicate()


def test_it_ends_when_nobody_holds_the_other_end_whoever_was_killed() -> None:
    holder = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    command = [sys.executable, "-c", WORKER, "1", "600"]
    child = subprocess.Popen(command, stdin=holder.stdout, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert child.stdout is not None
    holder.stdout.close()
    assert child.stdout.readline() == b"joined\n"
    holder.kill()
    holder.wait()
    assert child.wait(timeout=60) == 7
    child.stdout.close()


def test_a_standard_input_that_cannot_be_read_is_a_closed_one() -> None:
    told: list[tuple[int, int]] = []
    both = threading.Event()

    def kill(pid: int, number: int) -> None:
        told.append((pid, number))
        if len(told) == 2:
            both.set()

    reading, writing = os.pipe()
    os.close(reading)
    tether.end_with_stdin(reading, grace=0.0, kill=kill)
    assert both.wait(60)
    assert told == [(os.getpid(), signal.SIGTERM)] * 2
    os.close(writing)
