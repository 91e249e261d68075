"""Runs the lab's programs in a guest: once, over SSH, or as the resident agent. Both get this text.

It has the guest's own Python and nothing else: no imports from the lab.

A program reads its argument, which is JSON, from `sys.argv[1]` and prints its result as JSON. It may call
`keep(name, content)` to send a file at once. What comes of programs is lines of JSON: {"file": name, "content":
base64}, and at the end {"results": [...]} or {"failed": text}; each has the fields of `about`, too.

The agent serves the lab on a virtio-serial port, as root. It is started before a checkpoint is taken. In each
fork it stands where it stood then: it waits for a line, with its programs compiled and their modules imported.
There is no other way to reach it, and the port's device is root's alone. A line is JSON: {"token": text} after
each load of the machine's state, then {"token", "id", "programs": {name: source}} or {"token", "id", "calls":
[[name, argument]]}. What has another token was sent to an earlier life of this machine and is left out. Each
line of an answer begins with the `id`.
"""

import base64
import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

# What the programs import: a fork of the agent has it already.
MODULES = "ctypes errno fcntl glob grp pwd re resource shutil signal socket stat struct tempfile termios zlib"
# How much of what a program and its children printed is part of an error.
SHOWN = 20000
# The agent's other side has not connected yet.
ABSENT_SECONDS = 0.05


def send(out, about, line):
    out.write(json.dumps({**about, **line}).encode() + b"\n")
    out.flush()


def run(calls, out, about):
    """Run `calls`, each a name, compiled code and an argument. Returns why one failed, None if none did."""

    def keep(name, content):
        send(out, about, {"file": name, "content": base64.b64encode(content).decode()})

    results = []
    try:
        for name, code, argument in calls:
            # Others read what a program makes. The agent itself has a umask of 077, and sudo may have one, too.
            os.umask(0o022)
            sys.argv[1:] = [argument]
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, {"__name__": "__main__", "keep": keep})
            results.append(json.loads(printed.getvalue()))
    except subprocess.CalledProcessError as error:
        return "%s: %s%s" % (" ".join(error.cmd), error.stdout, error.stderr)
    except (OSError, SystemExit) as error:
        return "%s: %s" % (name, error)
    except BaseException:
        return traceback.format_exc()
    send(out, about, {"results": results})
    return None


def once(calls):
    """Run programs once. `calls` is JSON: a list of names, sources in base64, and arguments."""
    compiled = [
        (name, compile(base64.b64decode(source), name, "exec"), argument)
        for name, source, argument in json.loads(calls)
    ]
    failed = run(compiled, sys.stdout.buffer, {})
    if failed:
        send(sys.stdout.buffer, {}, {"failed": failed})


# -- the agent


def find_port(name):
    """The device of a port. Raises SystemExit without one."""
    for port in sorted(Path("/sys/class/virtio-ports").glob("*")):
        if (port / "name").read_text().strip() == name:
            return Path("/dev", port.name)
    raise SystemExit("this machine has no virtio-serial port %s" % name)


def lines(port):
    """The lines that the host sends, without end."""
    pending = b""
    while True:
        block = os.read(port, 65536)
        if not block:
            time.sleep(ABSENT_SECONDS)
            continue
        *complete, pending = (pending + block).split(b"\n")
        yield from complete


def serve(port, out):
    token, programs = None, {}
    for line in lines(port):
        try:
            request = json.loads(line)
        except ValueError:
            continue  # The end of a line whose beginning an earlier life of this machine read.
        if not isinstance(request, dict) or "token" not in request:
            continue
        if "id" not in request:
            token = request["token"]
            out.write(b"\n")  # An earlier life may have sent the beginning of a line.
            send(out, {}, {"token": token})
        elif request["token"] == token:
            about = {"id": request["id"]}
            if "programs" in request:
                programs = {name: compile(text, name, "exec") for name, text in request["programs"].items()}
                send(out, about, {"results": []})
            else:
                call([(name, programs[name], argument) for name, argument in request["calls"]], out, about)


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


def agent(name):
    port = os.open(find_port(name), os.O_RDWR)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    for module in MODULES.split():
        importlib.import_module(module)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    # What the kernel killed for want of memory is evidence, and the agent gathers it.
    Path("/proc/self/oom_score_adj").write_text("-1000")
    with os.fdopen(os.dup(port), "wb") as out:
        serve(port, out)


if __name__ == "__main__":
    mode, argument = sys.argv.pop(1), sys.argv.pop(1)
    (once if mode == "once" else agent)(argument)
