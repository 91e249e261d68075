"""Print the facts of this guest as JSON. Runs as root.

Argument: {"sysctls": [name]}, sysctls to read beside the usual ones. What the facts mean is said in
`lab/probes/facts.py`. They are read from files where possible: starting one program takes longer in an emulated
guest than all the rest.
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

# Read in every guest.
SYSCTLS = (
    "kernel.unprivileged_userns_clone",
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.apparmor_restrict_unprivileged_unconfined",
    "kernel.unprivileged_userns_apparmor_policy",
    "user.max_user_namespaces",
    "kernel.yama.ptrace_scope",
    "kernel.io_uring_disabled",
)
SWAPPED = str.maketrans("./", "/.")
LSM = Path("/sys/kernel/security/lsm")
OS_RELEASE = ("ID", "VERSION_ID", "VERSION_CODENAME", "PRETTY_NAME")
APPARMOR = Path("/sys/kernel/security/apparmor")
# Y if the kernel's AppArmor is in use, whether or not securityfs is mounted.
APPARMOR_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
# The folder whose profiles are loaded at boot, and that of examples.
PROFILES = ("/etc/apparmor.d", "/usr/share/apparmor/extra-profiles")
# Debian's folder, and Fedora's.
PAM_SYSTEMD = ("/usr/lib/*/security/pam_systemd.so", "/usr/lib64/security/pam_systemd.so")
SELINUX = Path("/sys/fs/selinux")
# The default priority of semodule; distributions install with 100 or 200.
PRIORITY = 400
CGROUP = Path("/sys/fs/cgroup")
# Where an ordinary user's shell looks for programs.
SEARCH_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
KVM = Path("/dev/kvm")
PODMAN = "/usr/bin/podman"
MKFS_BTRFS = "/sbin/mkfs.btrfs"
# The processor's flags, of AMD and of Intel.
VIRTUALIZATION = ("svm", "vmx")
# What each level of x86-64 after the first adds, by the kernel's names of flags: pni is SSE3, abm has LZCNT,
# and xsave is hidden where OSXSAVE is off. Source: System V ABI, supplement for x86-64, table 3.1.
CPU_LEVELS = (
    ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"),
    ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"),
    ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
)
MOUNTS = ("/home", "/tmp")


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
    """The NAME=VALUE lines of a file, without the quotes."""
    return dict(re.findall(r'^(\w+)="?(.*?)"?$', text(path) or "", re.MULTILINE))


def names(folder):
    """The names in a directory; empty if there is no such directory."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def os_release():
    found = assignments("/etc/os-release")
    return {key.lower(): found.get(key) for key in OS_RELEASE}


def lsm():
    found = text(LSM)
    return None if found is None else found.split(",")


def sysctls(more):
    return {name: sysctl(name) for name in dict.fromkeys([*SYSCTLS, *more])}


def sysctl(name):
    """A sysctl's value; None if the kernel has none of this name. One that cannot be read ends the program.

    As in sysctl(8), a slash in a name stands for a dot in a file's name: net.ipv4.conf.eth0/1.forwarding.
    """
    try:
        return Path("/proc/sys", name.translate(SWAPPED)).read_text().strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        sys.exit("the sysctl %s cannot be read: %s" % (name, error.strerror))


def apparmor():
    if not APPARMOR.is_dir():
        if text(APPARMOR_ENABLED) == "Y":
            sys.exit("AppArmor is in use, but there is no %s: is securityfs mounted?" % APPARMOR)
        return None
    # A name with a colon in front is of another policy namespace; its profiles confine no program of this one.
    profiles = re.findall(r"^([^:].*) \((\w+)\)$", text(APPARMOR / "profiles") or "", re.MULTILINE)
    version = re.search(r"version (\S+)", output("apparmor_parser", "--version") or "")
    features = APPARMOR / "features"
    mask = text(features / "namespaces/mask")
    return {
        "version": version.group(1) if version else None,
        "features": {
            "namespaces_mask": mask,
            "unconfined_userns": text(features / "policy/unconfined_restrictions/userns"),
            "policy_versions": names(features / "policy/versions"),
        },
        "userns_mediation": "userns_create" in (mask or ""),
        "profiles": dict(sorted(profiles)),
        "profile_files": sorted(str(f) for folder in PROFILES for f in Path(folder).glob("*") if f.is_file()),
    }


def selinux():
    """SELinux in the kernel, and the policy that was loaded; None if SELinux is not in use."""
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
        "user_namespace_class": (SELINUX / "class/user_namespace").is_dir(),
        "deny_unknown": text(SELINUX / "deny_unknown") == "1",
        "modules": names("/var/lib/selinux/%s/active/modules/%d" % (policy, PRIORITY)),
    }


def bubblewrap():
    path = next((found for folder in SEARCH_PATH if os.path.exists(found := folder + "/bwrap")), None)
    if path is None:
        return None
    mode = os.stat(path).st_mode
    version = re.search(r"^bubblewrap (\S+)$", output(path, "--version") or "", re.MULTILINE)
    return {
        "path": path,
        "version": version.group(1) if version else None,
        "setuid": bool(mode & 0o4000),
        "mode": oct(mode & 0o7777),
        "capabilities": capabilities(path),
    }


def capabilities(path):
    """The permitted file capabilities in hex, as in /proc/PID/status; None if the file has none.

    Format: struct vfs_cap_data in the kernel's include/uapi/linux/capability.h, from its revision 2 on.
    """
    try:
        found = os.getxattr(path, "security.capability")
    except OSError:
        return None
    _, low, _, high = struct.unpack_from("<4I", found)
    return "%016x" % (high << 32 | low)


def kvm():
    if not KVM.exists():
        return None
    found = KVM.stat()
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


def cpu_flags():
    with open("/proc/cpuinfo") as lines:
        return next((line.split() for line in lines if line.startswith("flags")), [])


def virtualization(flags):
    """The processor's flag for hardware virtualization, or None."""
    return next((flag for flag in VIRTUALIZATION if flag in flags), None)


def cpu_level(flags):
    """The highest level of x86-64 that a processor with these flags has: no level is left out below it."""
    missing = [not set(level) <= set(flags) for level in CPU_LEVELS]
    return 1 + [*missing, True].index(True)


def cgroup():
    controllers = text(CGROUP / "cgroup.controllers")
    if controllers is None:
        return {"version": "v1", "controllers": []}
    return {"version": "v2", "controllers": controllers.split()}


def mounts(*paths):
    """The mount of each path, with its kind of file system and its options."""
    lines = [line.split() for line in (text("/proc/self/mounts") or "").splitlines()]
    return {path: mount_of(path, lines) for path in paths}


def mount_of(path, lines):
    found = None
    for _, point, kind, options, *_ in lines:
        above = (path + "/").startswith(point.rstrip("/") + "/")
        # The longest mount point wins; of several mounts on one point the last hides the others.
        if above and (found is None or len(point) >= len(found["on"])):
            found = {"on": point, "type": kind, "options": options.split(",")}
    return found


def facts(asked):
    flags = cpu_flags()
    return {
        "os": os_release(),
        "kernel": os.uname().release,
        "command_line": text("/proc/cmdline"),
        "python": "%d.%d" % sys.version_info[:2],
        "glibc": os.confstr("CS_GNU_LIBC_VERSION").split()[-1],
        "lsm": lsm(),
        "sysctls": sysctls(asked["sysctls"]),
        "apparmor": apparmor(),
        "selinux": selinux(),
        "bubblewrap": bubblewrap(),
        "kvm": kvm(),
        "podman": os.path.exists(PODMAN),
        "mkfs_btrfs": os.path.exists(MKFS_BTRFS),
        "login_sessions": any(glob.glob(pattern) for pattern in PAM_SYSTEMD),
        "cpu_level": cpu_level(flags),
        "virtualization": virtualization(flags),
        "cgroup": cgroup(),
        "mounts": mounts(*MOUNTS),
    }


if __name__ == "__main__":
    print(json.dumps(facts(json.loads(sys.argv[1]))))
