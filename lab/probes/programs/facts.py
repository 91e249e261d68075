"""Print the facts of this host as JSON: of a guest, where it runs as root, or of the host of a user.

Argument: {"sysctls": [name]}, sysctls to read beside the usual ones. On the host of a user also "shown":
{"profiles": [part of a name], "words": [name]}: then it runs as that user, prints nothing that may be private,
and says which facts this user may not read. "seconds" is the limit of one command. What the facts mean is said
in `lab/probes/facts.py`. They are read from files where possible: starting one program takes longer in an
emulated guest than all the rest.
"""

import ctypes
import errno
import fcntl
import glob
import grp
import json
import os
import pwd
import re
import subprocess
import sys
import zlib
from pathlib import Path

# Read on every host.
SYSCTLS = (
    "kernel.unprivileged_userns_clone",
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.apparmor_restrict_unprivileged_unconfined",
    "kernel.unprivileged_userns_apparmor_policy",
    "user.max_user_namespaces",
    "kernel.yama.ptrace_scope",
    "kernel.io_uring_disabled",
)
SYSCTL_FOLDER = Path("/proc/sys")
SWAPPED = str.maketrans("./", "/.")
OS_RELEASE = ("ID", "VERSION_ID", "VERSION_CODENAME", "PRETTY_NAME")
APPARMOR = Path("/sys/kernel/security/apparmor")
# Y if the AppArmor of the kernel is in use, whether or not securityfs is mounted.
APPARMOR_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
# The folder whose profiles are loaded at boot, and that of examples.
PROFILES = ("/etc/apparmor.d", "/usr/share/apparmor/extra-profiles")
# Debian has the first folder, Fedora the second.
PAM_SYSTEMD = ("/usr/lib/*/security/pam_systemd.so", "/usr/lib64/security/pam_systemd.so")
SELINUX = Path("/sys/fs/selinux")
# The default priority of semodule; distributions install with 100 or 200.
PRIORITY = 400
# Where the shell of an ordinary user looks for programs.
SEARCH_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
# What starts containers.
ENGINES = ("/usr/bin/docker", "/usr/bin/podman")
KVM = Path("/dev/kvm")
# Of linux/kvm.h: two calls, and the only version that KVM ever had.
KVM_GET_API_VERSION, KVM_CHECK_EXTENSION, KVM_API_VERSION = 0xAE00, 0xAE03, 12
# Without these libkrun starts no machine (`KvmContext::new` in its src/vmm/src/linux/vstate.rs). Other monitors
# that are built with rust-vmm ask for them, too.
KVM_CAPABILITIES = {"IRQCHIP": 0, "USER_MEMORY": 3, "IRQFD": 32, "IOEVENTFD": 36}
KVM_CAPABILITIES_BY_ARCHITECTURE = {"x86_64": {"SET_TSS_ADDR": 4}, "aarch64": {"ARM_PSCI_0_2": 102}}
# landlock_create_ruleset(2), the same number on all architectures but Alpha; its flag asks for the version.
LANDLOCK_CREATE_RULESET, LANDLOCK_CREATE_RULESET_VERSION = 444, 1
# Added to the number of an error in the exit status of a child; more than any version of Landlock.
AN_ERROR = 100
# Where distributions put the configuration of the running kernel.
CONFIGURATIONS = ("/proc/config.gz", "/boot/config-{}", "/lib/modules/{}/config")
# What boxlite's sandbox, limits, machines and networks may need of it, and what other monitors do.
KERNEL_OPTIONS = (
    *("USER_NS", "PID_NS", "NET_NS", "IPC_NS", "UTS_NS"),
    *("CGROUPS", "MEMCG", "CGROUP_PIDS", "CFS_BANDWIDTH"),
    *("KVM", "VSOCKETS", "VHOST_VSOCK", "SECCOMP_FILTER", "OVERLAY_FS", "TUN"),
)
# Names of users and groups from this number on may be those of people.
FIRST_PERSON = 1000
# The limit of one command.
SECONDS = 60

# Paths of the facts that this user may not read, for example apparmor.profiles.
UNREADABLE = []


def unreadable(fact, instead=None):
    """Note that this user may not read a fact. Returns what stands in its place."""
    UNREADABLE.append(fact)
    return instead


def text(path):
    """The content of a file without the white space around it; None if it cannot be read."""
    try:
        return Path(path).read_text("utf-8", "replace").strip("\0 \t\n")
    except OSError:
        return None


def output(*command):
    """What a command prints; None if it does not run or prints nothing."""
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (process.stdout or process.stderr).strip() or None


def assignments(path):
    return dict(re.findall(r"^(\w+)=\x22?(.*?)\x22?$", text(path) or "", re.MULTILINE))


def names(folder):
    """The names in a folder, of which there are none if the folder is missing; None if it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return None


def glibc():
    """The version of the C library; empty for another library than glibc."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").split(" ")[-1]
    except (OSError, ValueError):
        return ""


def sysctls(more):
    values = {}
    for name in dict.fromkeys([*SYSCTLS, *more]):
        try:
            values[name] = sysctl(name)
        except OSError:
            unreadable("sysctls." + name)
    return values


def sysctl(name):
    """The value of a sysctl; None if the kernel has none of this name. Raises OSError if it cannot be read.

    As in sysctl(8), a slash in a name stands for a dot in the name of a file: net.ipv4.conf.eth0/1.forwarding.
    """
    try:
        return (SYSCTL_FOLDER / name.translate(SWAPPED)).read_text("utf-8", "replace").strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        if not SYSCTL_FOLDER.is_dir():
            raise
        return None


def apparmor():
    if not os.path.isdir(APPARMOR):
        # Where it is in use, or nobody knows, the file system with its features is not mounted here.
        hidden = text(APPARMOR_ENABLED) == "Y" or not os.path.isdir("/sys/module")
        return unreadable("apparmor") if hidden else None
    version = re.search(r"version (\S+)", output("apparmor_parser", "--version") or "")
    return {
        "version": version.group(1) if version else None,
        "userns_mediation": "userns_create" in (text(APPARMOR / "features/namespaces/mask") or ""),
        "profiles": profiles(),
        "profile_files": sorted(str(f) for folder in PROFILES for f in Path(folder).glob("*") if f.is_file()),
    }


def profiles():
    loaded = text(APPARMOR / "profiles")
    if loaded is not None:
        # A name that begins with a colon is of another policy namespace: that profile confines no program of
        # this one.
        return dict(sorted(re.findall(r"^([^:].*) \((\w+)\)$", loaded, re.MULTILINE)))
    # Only root may read that file. Everyone may read this folder, which lacks the profiles inside of profiles.
    folder = APPARMOR / "policy/profiles"
    inside = names(folder)
    if inside is None or not os.path.isdir(folder):
        return unreadable("apparmor.profiles", {})
    modes = {text(folder / name / "name"): text(folder / name / "mode") for name in inside}
    return {name: mode for name, mode in modes.items() if name and mode}


def selinux():
    """SELinux in the kernel, and the policy that was loaded; None if SELinux is not in use."""
    enforce = text(SELINUX / "enforce")
    if enforce is None:
        # The kernel knows this file system if SELinux is in use.
        return unreadable("selinux") if "selinuxfs" in (text("/proc/filesystems") or "") else None
    policy = assignments("/etc/selinux/config").get("SELINUXTYPE")
    files = names("/etc/selinux/%s/policy" % policy) or []
    versions = [int(name[7:]) for name in files if re.match(r"policy\.\d+$", name)]
    modules = names("/var/lib/selinux/%s/active/modules/%d" % (policy, PRIORITY))
    return {
        "mode": "enforcing" if enforce == "1" else "permissive",
        "policy": policy,
        "policy_version": max(versions, default=None),
        "user_namespace_class": (SELINUX / "class/user_namespace").is_dir(),
        "modules": unreadable("selinux.modules", []) if modules is None else modules,
    }


def bubblewrap():
    paths = [folder + "/bwrap" for folder in SEARCH_PATH]
    path = next((path for path in paths if os.path.exists(path)), None)
    if path is None:
        return None
    mode = os.stat(path).st_mode
    version = re.search(r"^bubblewrap (\S+)$", output(path, "--version") or "", re.MULTILINE)
    return {
        "path": path,
        "version": version.group(1) if version else None,
        "setuid": bool(mode & 0o4000),
        "mode": oct(mode & 0o7777),
    }


def kvm():
    if not os.path.exists(KVM):
        return None
    device = os.stat(KVM)
    return {
        "mode": oct(device.st_mode & 0o7777),
        "uid": device.st_uid,
        "gid": device.st_gid,
        "owner": name_of(pwd.getpwuid, device.st_uid),
        "group": name_of(grp.getgrgid, device.st_gid),
        "capabilities": kvm_capabilities(),
    }


def kvm_capabilities():
    """Whether KVM has each capability; None if the device does not answer as KVM does."""
    numbers = dict(KVM_CAPABILITIES, **KVM_CAPABILITIES_BY_ARCHITECTURE.get(os.uname().machine, {}))
    try:
        device = os.open(str(KVM), os.O_RDWR)
    except OSError as error:
        is_hidden = error.errno in (errno.EACCES, errno.EPERM)
        return unreadable("kvm.capabilities") if is_hidden else None
    try:
        if fcntl.ioctl(device, KVM_GET_API_VERSION, 0) != KVM_API_VERSION:
            return None
        return {name: fcntl.ioctl(device, KVM_CHECK_EXTENSION, number) > 0 for name, number in numbers.items()}
    except OSError:
        return None
    finally:
        os.close(device)


def landlock():
    """The version of the interface of Landlock; None if the kernel has none, or does not use it.

    A filter of system calls may kill the caller, which therefore is a child.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        call = (LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION)
        version = libc.syscall(*call)
        os._exit(version if version >= 0 else AN_ERROR + ctypes.get_errno())
    _, ended = os.waitpid(child, 0)
    answer = os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else AN_ERROR
    if answer < AN_ERROR:
        return answer
    return None if answer - AN_ERROR in (errno.ENOSYS, errno.EOPNOTSUPP) else unreadable("landlock")


def value_of(option, lines):
    return next((value for value in "ym" if ("\nCONFIG_%s=%s\n" % (option, value)).encode() in lines), None)


def kernel_options():
    """How each option of the running kernel is set; None if no file tells it."""
    for path in CONFIGURATIONS:
        try:
            content = Path(path.format(os.uname().release)).read_bytes()
            # 31: with the header of gzip.
            lines = zlib.decompress(content, 31) if path.endswith(".gz") else content
        except (OSError, zlib.error):
            continue
        return {name: value_of(name, lines) for name in KERNEL_OPTIONS}
    return unreadable("kernel_options")


def name_of(look_up, number):
    try:
        return look_up(number)[0]
    except KeyError:
        return None


def mounts(*paths):
    """The mount of each path, with its kind of file system and its options."""
    lines = [line.split() for line in (text("/proc/self/mounts") or "").splitlines()]
    mounted = {path: mount_of(path, lines) or unreadable("mounts." + path) for path in paths}
    return {path: mount for path, mount in mounted.items() if mount}


def mount_of(path, lines):
    mount = None
    for _, point, kind, options, *_ in lines:
        above = (path + "/").startswith(point.rstrip("/") + "/")
        # The longest mount point wins; of several mounts on one point the last hides the others.
        if above and (mount is None or len(point) >= len(mount["on"])):
            mount = {"on": point, "type": kind, "options": options.split(",")}
    return mount


def facts(more):
    """All facts, with the values of more sysctls than the usual ones."""
    release, modules = assignments("/etc/os-release"), text("/sys/kernel/security/lsm")
    processors = (text("/proc/cpuinfo") or "").splitlines()
    flags = next((line.split() for line in processors if line.startswith("flags")), [])
    return {
        "os": {key.lower(): release.get(key) for key in OS_RELEASE},
        "kernel": os.uname().release,
        "arch": os.uname().machine,
        "command_line": text("/proc/cmdline") or "",
        "kernel_options": kernel_options(),
        "landlock": landlock(),
        "python": "%d.%d" % sys.version_info[:2],
        "glibc": glibc(),
        "lsm": unreadable("lsm") if modules is None else modules.split(","),
        "sysctls": sysctls(more),
        "apparmor": apparmor(),
        "selinux": selinux(),
        "bubblewrap": bubblewrap(),
        "kvm": kvm(),
        # As in sd_booted(3).
        "systemd": os.path.isdir("/run/systemd/system"),
        "cron": any(os.path.exists("/usr/sbin/" + name) for name in ("cron", "crond")),
        "engines": [os.path.basename(path) for path in ENGINES if os.path.exists(path)],
        "mkfs": [kind for kind in ("btrfs", "xfs") if os.path.exists("/sbin/mkfs." + kind)],
        "login_sessions": any(glob.glob(pattern) for pattern in PAM_SYSTEMD),
        "virtualization": next((flag for flag in ("svm", "vmx") if flag in flags), None),
        "cgroup": "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1",
        "mounts": mounts("/home", "/tmp"),
    }


def without_private(every, public_names):
    """The facts without what may tell of people, of a network, or of what else is installed."""
    words = [word for word in every["command_line"].split() if word.split("=")[0] in public_names["words"]]
    public = dict(every, command_line=" ".join(words))
    for mount in every["mounts"].values():
        # Options with a value may name an address, a user or a folder.
        mount["options"] = [word for word in mount["options"] if "=" not in word]
    if every["apparmor"]:
        loaded, files = every["apparmor"]["profiles"], every["apparmor"]["profile_files"]

        def concerns(name):
            return any(part in name for part in public_names["profiles"])

        public["apparmor"] = dict(
            every["apparmor"],
            profiles={name: mode for name, mode in loaded.items() if concerns(name)},
            profile_files=[path for path in files if concerns(os.path.basename(path))],
        )
    for name, number in (("owner", "uid"), ("group", "gid")):
        if every["kvm"] and every["kvm"][number] >= FIRST_PERSON:
            public["kvm"] = dict(public["kvm"], **{name: unreadable("kvm." + name)})
    return public


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    SECONDS = request.get("seconds", SECONDS)
    every = facts(request["sysctls"])
    if "shown" in request:
        like = (assignments("/etc/os-release").get("ID_LIKE") or "").split()
        public = without_private(every, request["shown"])
        print(json.dumps({"facts": public, "unreadable": UNREADABLE, "id_like": like}))
    else:
        # Root may read everything. These say None where their file system is not mounted, and where no file is.
        hidden = [fact for fact in UNREADABLE if fact not in ("lsm", "selinux", "kernel_options")]
        if hidden:
            sys.exit("root cannot read %s" % ", ".join(hidden))
        print(json.dumps(every))
