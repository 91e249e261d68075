"""Print the facts of this guest as JSON. Runs as root.

What a file tells is read from there: starting a program takes longer in an emulated guest than all the rest.
"""

import glob
import grp
import json
import os
import pwd
import re
import struct
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
OS_RELEASE = ("ID", "VERSION_ID", "VERSION_CODENAME", "PRETTY_NAME")
APPARMOR = Path("/sys/kernel/security/apparmor")
# Of AppArmor's features those that decide about user namespaces; files below `features`.
FEATURES = ("namespaces/mask", "policy/unconfined_restrictions/userns", "policy/versions")
# Those that are loaded, and those that come along without being loaded.
PROFILES = ("/etc/apparmor.d", "/usr/share/apparmor/extra-profiles")
# Debian's folder, and Fedora's.
PAM_SYSTEMD = ("/usr/lib/*/security/pam_systemd.so", "/usr/lib64/security/pam_systemd.so")
SELINUX = Path("/sys/fs/selinux")
CGROUP = Path("/sys/fs/cgroup")
# Where an ordinary user's shell looks, whatever this program's own would.
SEARCH_PATH = ("/usr/local/bin", "/usr/bin", "/bin")


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


def assignments(path):
    """The NAME=VALUE lines of a file, quotes taken off."""
    return dict(re.findall(r'^(\w+)="?(.*?)"?$', text(path) or "", re.MULTILINE))


def names(folder):
    """What a directory holds; none where it is missing."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def os_release():
    found = assignments("/etc/os-release")
    return {key: found[key] for key in OS_RELEASE if key in found}


def sysctls():
    return {name: text("/proc/sys/" + name.replace(".", "/")) for name in SYSCTLS}


def apparmor():
    if not APPARMOR.is_dir():
        return None
    profiles = re.findall(r"^(.*) \((\w+)\)$", text(APPARMOR / "profiles") or "", re.MULTILINE)
    version = re.search(r"version (\S+)", output("apparmor_parser", "--version") or "")
    features = {name: text(APPARMOR / "features" / name) for name in FEATURES}
    features["policy/versions"] = names(APPARMOR / "features/policy/versions")
    return {
        "version": version.group(1) if version else None,
        "features": features,
        "userns_mediation": "userns_create" in (features["namespaces/mask"] or ""),
        "profiles": dict(sorted(profiles)),
        "profile_files": sorted(str(f) for folder in PROFILES for f in Path(folder).glob("*") if f.is_file()),
    }


def selinux():
    """SELinux as the kernel has it loaded, and the policy it was loaded from; None where it is not in use."""
    enforce = text(SELINUX / "enforce")
    if enforce is None:
        return None
    policy = assignments("/etc/selinux/config").get("SELINUXTYPE")
    files = names("/etc/selinux/%s/policy" % policy)
    versions = [int(found[1]) for name in files if (found := re.fullmatch(r"policy\.(\d+)", name))]
    return {
        "mode": "enforcing" if enforce == "1" else "permissive",
        "policy": policy,
        "policy_version": max(versions, default=None),
        # Without the class nothing is decided about user namespaces.
        "user_namespace_class": (SELINUX / "class/user_namespace").is_dir(),
        "deny_unknown": text(SELINUX / "deny_unknown") == "1",
        # Of the policy's modules those that were added to the distribution's (semodule's default priority).
        "modules": names("/var/lib/selinux/%s/active/modules/400" % policy),
    }


def bubblewrap():
    path = next((found for folder in SEARCH_PATH if os.path.exists(found := folder + "/bwrap")), None)
    if path is None:
        return None
    mode = os.stat(path).st_mode
    return {
        "path": path,
        "version": (output(path, "--version") or "").removeprefix("bubblewrap "),
        "setuid": bool(mode & 0o4000),
        "mode": oct(mode & 0o7777),
        "capabilities": capabilities(path),
    }


def capabilities(path):
    """The permitted file capabilities in hex, as /proc/PID/status shows a process's; None where it has none.

    Format: struct vfs_cap_data in the kernel's include/uapi/linux/capability.h, from its revision 2 on.
    """
    try:
        found = os.getxattr(path, "security.capability")
    except OSError:
        return None
    _, low, _, high = struct.unpack_from("<4I", found)
    return "%016x" % (high << 32 | low)


def kvm():
    path = Path("/dev/kvm")
    if not path.exists():
        return None
    found = path.stat()
    return {
        "mode": oct(found.st_mode & 0o7777),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "owner": name_of(pwd.getpwuid, found.st_uid),
        "group": name_of(grp.getgrgid, found.st_gid),
    }


def name_of(look_up, number):
    try:
        return look_up(number)[0]
    except KeyError:
        return None


def virtualization():
    """The processor's flag for running virtual machines, or None."""
    with open("/proc/cpuinfo") as lines:
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return next((flag for flag in ("svm", "vmx") if flag in flags), None)


def cgroup():
    controllers = text(CGROUP / "cgroup.controllers")
    if controllers is None:
        return {"version": "v1", "controllers": []}
    return {"version": "v2", "controllers": controllers.split()}


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
            "kernel": os.uname().release,
            "command_line": text("/proc/cmdline"),
            "python": "%d.%d" % sys.version_info[:2],
            "glibc": os.confstr("CS_GNU_LIBC_VERSION").split()[-1],
            "lsm": (text("/sys/kernel/security/lsm") or "").split(","),
            "sysctls": sysctls(),
            "apparmor": apparmor(),
            "selinux": selinux(),
            "bubblewrap": bubblewrap(),
            "kvm": kvm(),
            "podman": os.path.exists("/usr/bin/podman"),
            # Without it no user gets a service manager, and so no control groups.
            "login_sessions": any(glob.glob(pattern) for pattern in PAM_SYSTEMD),
            "virtualization": virtualization(),
            "cgroup": cgroup(),
            "mounts": mounts("/home", "/tmp"),
        }
    )
)
