"""The resident agent: serves the lab on a virtio-serial port, as root.

It is started before a checkpoint is taken. In each fork it stands where it stood then: it waits for a line,
with its programs compiled and their modules imported. There is no other way to reach it, and the port's device
is root's alone.

A line is JSON: {"token": text} after each load of the machine's state, then {"token", "id", "programs": {name:
source}} or {"token", "id", "calls": [[name, argument]]}. What has another token was sent to an earlier life of
this machine and is left out. Each line of an answer begins with the `id`.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

from calls import run, send

# What the programs import: a fork of this process has it already.
MODULES = "ctypes errno fcntl glob grp pwd re resource shutil stat struct tempfile termios"
# How much of what a program and its children printed is part of an error.
SHOWN = 20000
# The other side has not connected yet.
ABSENT_SECONDS = 0.05


def find(name):
    """The device of a port. Raises SystemExit without one."""
    for each in sorted(Path("/sys/class/virtio-ports").glob("*")):
        if (each / "name").read_text().strip() == name:
            return Path("/dev", each.name)
    raise SystemExit("this machine has no virtio-serial port %s" % name)


def lines(port):
    """The lines that the host sends, without end."""
    left = b""
    while True:
        block = os.read(port, 65536)
        if not block:
            time.sleep(ABSENT_SECONDS)
            continue
        *whole, left = (left + block).split(b"\n")
        yield from whole


def serve(port, out):
    token, known = None, {}
    for line in lines(port):
        try:
            asked = json.loads(line)
        except ValueError:
            continue  # The end of a line whose beginning an earlier life of this machine read.
        if not isinstance(asked, dict) or "token" not in asked:
            continue
        if "id" not in asked:
            token = asked["token"]
            out.write(b"\n")  # An earlier life may have sent the beginning of a line.
            send(out, {}, {"token": token})
        elif asked["token"] == token:
            about = {"id": asked["id"]}
            if "programs" in asked:
                known = {name: compile(text, name, "exec") for name, text in asked["programs"].items()}
                send(out, about, {"results": []})
            else:
                call([(name, known[name], argument) for name, argument in asked["calls"]], out, about)


def call(calls, out, about):
    """Run programs in a child of this process, which stays as it is."""
    child = os.fork()
    if child == 0:
        try:
            printed = begin()
            failed = run(calls, out, about)
            if failed:
                send(out, about, {"failed": failed + os.pread(printed, SHOWN, 0).decode(errors="replace")})
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    # If the child sent an end, this one is not read.
    send(out, about, {"failed": "it was ended"})


def begin():
    """Be like a process that was started for this. Returns the file that gets what children of it print."""
    # Only the agent itself is spared when memory is short.
    Path("/proc/self/oom_score_adj").write_text("0")
    printed = os.memfd_create("printed")
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    return printed


def main(name):
    port = os.open(find(name), os.O_RDWR)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    for module in MODULES.split():
        importlib.import_module(module)
    null = os.open(os.devnull, os.O_RDWR)
    for each in (0, 1, 2):
        os.dup2(null, each)
    # What the kernel killed for want of memory is evidence, and the agent gathers it.
    Path("/proc/self/oom_score_adj").write_text("-1000")
    with os.fdopen(os.dup(port), "wb") as out:
        serve(port, out)


main(sys.argv[1])
