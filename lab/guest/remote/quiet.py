"""Keep what a guest does by itself out of its cells, and wait until nobody installs packages. Runs as root.

Argument: {"units": [name], "scripts": [folder], "locks": [path], "loaders": [[pattern of files, keyword of
their lines]], "kernel_arguments": [word], "seconds": how long to wait}. Units that the guest has are masked,
and their timers stopped; a service that runs may end what it began. A unit whose file is in
/etc/systemd/system cannot be masked and stays as it is. Scripts are made not executable. In the boot loader's
files the kernel gets these arguments. Prints what was changed, the units that were not masked with systemctl's
reason, and the locks that are still held.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def systemctl(*arguments):
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)


def mask(units):
    # Says with its status, in newer versions, that there is none of them.
    listing = systemctl("list-unit-files", "--no-legend", "--no-pager", *units).stdout
    names = [line.split()[0] for line in listing.splitlines() if line.strip()]
    # Each reload runs all generators again, which takes half a minute in an emulated guest.
    results = {unit: systemctl("mask", "--quiet", "--no-reload", unit) for unit in names}
    masked = [unit for unit, ran in results.items() if ran.returncode == 0]
    systemctl("daemon-reload")
    if timers := [unit for unit in masked if unit.endswith(".timer")]:
        systemctl("stop", *timers)
    failed = {unit: ran.stderr.strip() for unit, ran in sorted(results.items()) if ran.returncode != 0}
    return {"masked": sorted(masked), "not_masked": failed}


def disable(folders):
    files = [path for folder in folders for path in Path(folder).glob("*") if path.is_file()]
    scripts = sorted(path for path in files if os.access(path, os.X_OK))
    for path in scripts:
        path.chmod(path.stat().st_mode & ~0o111)
    return [str(path) for path in scripts]


def is_held(path):
    try:
        with open(path, "r+b") as file:
            # The kind of lock that apt, dpkg and dnf take.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def wait(paths, seconds):
    end = time.monotonic() + seconds
    while (locks := [path for path in paths if is_held(path)]) and time.monotonic() < end:
        time.sleep(1)
    return locks


def with_arguments(line, keyword, arguments):
    words = line.split()
    return " ".join([line, *(w for w in arguments if w not in words)]) if words[:1] == [keyword] else line


def add_arguments(loaders, arguments):
    changed = []
    for pattern, keyword in loaders:
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            lines = path.read_text().splitlines()
            changed_lines = [with_arguments(line, keyword, arguments) for line in lines]
            if changed_lines != lines:
                path.write_text("\n".join(changed_lines) + "\n")
                changed.append(str(path))
    return changed


request = json.loads(sys.argv[1])
changes = {**mask(request["units"]), "not_executable": disable(request["scripts"])}
changes["loader_files"] = add_arguments(request["loaders"], request["kernel_arguments"])
print(json.dumps({**changes, "held": wait(request["locks"], request["seconds"])}))
