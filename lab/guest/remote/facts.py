"""Print the facts of this guest as JSON. Runs as root."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

SYSCTLS = (
    "kernel.unprivileged_userns_clone",
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.apparmor_restrict_unprivileged_unconfined",
    "kernel.unprivileged_userns_apparmor_policy",
    "user.max_user_namespaces",
    "kernel.yama.ptrace_scope",
    "kernel.io_uring_disabled",
)
APPARMOR = Path("/sys/kernel/security/apparmor")


def text(path):
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return None
    return (done.stdout or done.stderr).strip() or None


def os_release():
    pairs = re.findall(r'^(\w+)="?(.*?)"?$', text("/etc/os-release") or "", re.MULTILINE)
    return {key: value for key, value in pairs if key in ("ID", "VERSION_ID", "PRETTY_NAME")}


def sysctls():
    return {name: text("/proc/sys/" + name.replace(".", "/")) for name in SYSCTLS}


def apparmor():
    if not APPARMOR.is_dir():
        return None
    profiles = re.findall(r"^(.*) \((\w+)\)$", text(APPARMOR / "profiles") or "", re.MULTILINE)
    version = re.search(r"version (\S+)", output("apparmor_parser", "--version") or "")
    return {
        "version": version.group(1) if version else None,
        "userns_mediation": "userns_create" in (text(APPARMOR / "features/namespaces/mask") or ""),
        "profiles": dict(sorted(profiles)),
        "profile_files": sorted(str(f) for f in Path("/etc/apparmor.d").glob("*") if f.is_file()),
    }


def bubblewrap():
    path = Path("/usr/bin/bwrap")
    if not path.exists():
        return None
    return {
        "path": str(path),
        "version": (output(str(path), "--version") or "").removeprefix("bubblewrap "),
        "mode": oct(path.stat().st_mode & 0o7777),
    }


def kvm():
    path = Path("/dev/kvm")
    if not path.exists():
        return None
    found = path.stat()
    return {"mode": oct(found.st_mode & 0o7777), "uid": found.st_uid, "gid": found.st_gid}


def mounts(*paths):
    """For each path the mount it is on, with its kind of file system and its options."""
    lines = [line.split() for line in (text("/proc/self/mounts") or "").splitlines()]
    return {path: mount_of(path, lines) for path in paths}


def mount_of(path, lines):
    found = None
    for _, point, kind, options, *_ in lines:
        above = (path + "/").startswith(point.rstrip("/") + "/")
        # The nearest above it, and of several on one point the last, which hides the others.
        if above and (found is None or len(point) >= len(found["on"])):
            found = {"on": point, "type": kind, "options": options.split(",")}
    return found


print(
    json.dumps(
        {
            "os": os_release(),
            "kernel": platform.release(),
            "python": "%d.%d" % sys.version_info[:2],
            "glibc": platform.libc_ver()[1],
            "lsm": (text("/sys/kernel/security/lsm") or "").split(","),
            "sysctls": sysctls(),
            "apparmor": apparmor(),
            "bubblewrap": bubblewrap(),
            "kvm": kvm(),
            "mounts": mounts("/home", "/tmp"),
            "cgroup": "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1",
        }
    )
)
