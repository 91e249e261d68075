"""Send a cell's evidence, each file as soon as it is read. Runs as root.

Argument: {"mark": text, "since": seconds since 1970, "results": folder, "homes": folder, "full": bool}. Without
"full", only what the suite wrote.
"""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

# Read one by one: `sysctl --all` reads a thousand others too, which takes a second in an emulated guest.
SYSCTLS = ("kernel/apparmor*", "kernel/unprivileged*", "kernel/yama/*", "kernel/io_uring*", "user/max_*")
AUDIT_LOG = Path("/var/log/audit/audit.log")
# Larger ones are the program files that boxlite copies beside a box.
LARGEST = 2_000_000
# Of what the suite and boxlite wrote.
MOST_BYTES = 64_000_000
MOST_FILES = 2_000
# boxlite's programs, as it unpacked them and as it copied them beside its boxes.
PROGRAMS = (".local/share/boxlite/runtimes/*/*", "box-*/boxes/*/bin/*")


def output(*command):
    result = subprocess.run(command, capture_output=True, check=False)
    return result.stdout + result.stderr


def since(mark, log):
    """The part of the kernel log after the last line that holds the mark, and whether there was one."""
    lines = log.decode(errors="replace").splitlines()
    marks = [number for number, line in enumerate(lines) if mark in line]
    return ("\n".join(lines[marks[-1] + 1 :]) + "\n").encode() if marks else None


def audited(start):
    """The lines of the audit daemon's own log since then. Where it runs, the kernel's has none of them."""
    try:
        lines = AUDIT_LOG.read_text(errors="replace").splitlines()
    except OSError:
        return b""
    stamps = [(re.search(r"audit\((\d+\.\d+):", line), line) for line in lines]
    recent = [line for stamp, line in stamps if stamp and float(stamp[1]) >= start]
    return "".join("%s\n" % line for line in recent).encode()


def sysctls():
    root = Path("/proc/sys")
    for path in sorted(path for pattern in SYSCTLS for path in root.glob(pattern)):
        name = str(path.relative_to(root)).replace("/", ".")
        try:
            yield "%s = %s\n" % (name, path.read_text().strip())
        except OSError as error:
            yield "%s: %s\n" % (name, error.strerror)


def everything(request):
    log = output("dmesg")
    part = since(request["mark"], log)
    yield ("kernel.log", part) if part is not None else ("kernel-mark-lost.log", log)
    if lines := audited(request["since"]):
        yield "audit.log", lines
    start = "--since=@%.6f" % request["since"]
    yield "journal.log", output("journalctl", "--boot", start, "--no-pager", "--output=short-precise")
    yield "sysctls.txt", "".join(sysctls()).encode()
    yield "apparmor-profiles.txt", output("cat", "/sys/kernel/security/apparmor/profiles")
    yield "processes.txt", output("ps", "-eo", "pid,ppid,user,args")


def written(request):
    """What the suite wrote, each file to its limit, and what boxlite did, without files beyond it."""
    for path in sorted(Path(request["results"]).glob("*")):
        yield "suite/%s" % path.name, path, False
    if request["full"]:
        homes = Path(request["homes"])
        for path in sorted([*homes.glob("box-*/logs/*"), *homes.glob("box-*/boxes/**/*")]):
            yield "boxlite/%s" % path.relative_to(homes), path, True


def read_written(request):
    files = size = 0
    for name, path, must_fit in written(request):
        # A test may have made pipes, and links to files that root alone reads.
        if os.path.realpath(path) != str(path) or not stat.S_ISREG(path.lstat().st_mode):
            continue
        if must_fit and path.stat().st_size > LARGEST:
            continue
        with path.open("rb") as file:
            content = file.read(LARGEST)
        files, size = files + 1, size + len(content)
        if files > MOST_FILES or size > MOST_BYTES:
            break
        yield name, content


def modes(homes):
    """A line for each of boxlite's programs: its mode in octal, and its path below the homes."""
    for path in sorted(path for pattern in PROGRAMS for path in homes.glob(pattern))[:MOST_FILES]:
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            yield "%04o %s\n" % (stat.S_IMODE(mode), path.relative_to(homes))


def entries(request):
    yield from read_written(request)
    if request["full"]:
        yield "modes.txt", "".join(modes(Path(request["homes"]))).encode(errors="replace")
        yield from everything(request)


request = json.loads(sys.argv[1])
sent = 0
for name, content in entries(request):
    keep(name, content)  # noqa: F821 - what runs this program gives it that
    sent += 1
print(json.dumps({"sent": sent}))
