"""Apply a remedy with its script, or undo it. Runs as root.

Argument: {"file": path to write the script to, "script": text, "arguments": [text], "undo": bool,
"seconds": limit of one run}.
To apply it, the script is run three times: to check, to apply, and to apply again, which must change nothing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

# What a second run could change: files, loaded profiles, sysctls.
FOLDERS = ("/etc", "/usr/bin", "/usr/sbin", "/var/lib/boxlite-remedies", "/dev/kvm")
VALUES = (
    "/sys/kernel/security/apparmor/revision",
    *("/proc/sys/kernel/%s*" % name for name in ("apparmor", "unprivileged")),
    "/proc/sys/user/max_*_namespaces",
)


def files(folder):
    top = Path(folder)
    return [top, *top.rglob("*")] if top.is_dir() else [top]


def snapshot():
    states = {}
    for path in (path for folder in FOLDERS for path in files(folder)):
        try:
            about = path.lstat()
        except OSError:
            continue
        states[str(path)] = "%d %o %d" % (about.st_ctime_ns, about.st_mode, about.st_size)
    for pattern in VALUES:
        for path in Path("/").glob(pattern[1:]):
            states[str(path)] = read(path)
    return states


def read(path):
    # In one go: a second read of AppArmor's revision waits for the next.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096).decode()
    finally:
        os.close(descriptor)


def run(*arguments):
    command = ["sh", request["file"], *arguments, *request["arguments"]]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=request["seconds"],
            check=False,
        )
        status, output = result.returncode, result.stdout
    except subprocess.TimeoutExpired:
        status, output = 124, "did not end within %d s" % request["seconds"]
    runs.append({"command": " ".join(command), "status": status, "output": output})
    return status


request = json.loads(sys.argv[1])
runs = []
changed = []
Path(request["file"]).write_text(request["script"])
if request["undo"]:
    run("--undo", "--yes")
elif run("--check") == 1 and run("--yes") == 0:
    earlier = snapshot()
    run("--yes")
    later = snapshot()
    changed = sorted(path for path in {*earlier, *later} if earlier.get(path) != later.get(path))
print(json.dumps({"runs": runs, "changed": changed}))
