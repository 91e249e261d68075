"""Try what boxlite needs of its host, as the suite's user and confined like the suite. Prints JSON.

Argument: {"probes": bool}, or {"probes": false, "links": [path]}. Without probes only the user is described; if
`links` are given, also its limits, the label of its bubblewrap, and where these paths lead. The models in
`lab/probes/` say what each key means. `unshare_user` only makes a user namespace; `unshare_user_root` needs
capabilities inside it too. If the first works and the second does not, the kernel makes the namespace and
denies it the capabilities.
"""

import ctypes
import errno
import fcntl
import json
import os
import resource
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

PROBES = {
    "unshare_user": ["unshare", "-U", "true"],
    "unshare_user_root": ["unshare", "-Ur", "true"],
    "bwrap_user": ["bwrap", "--unshare-user", "--bind", "/", "/", "true"],
    "bwrap_all": [
        *["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"],
        *["--bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"],
    ],
}

# Empty folders that the kernel makes in /proc for mounts (by proc_create_mount_point and
# register_sysctl_mount_point): a mount there hides nothing.
MOUNT_POINTS = ("/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/openprom", "/proc/xen")
MOUNTS = "/proc/self/mounts"
# A script that is written into the home, executed and deleted.
PROGRAM = ".lab-probe"
# The control group of a user's service manager, by the user's number.
USER_MANAGER = "/sys/fs/cgroup/user.slice/user-{0}.slice/user@{0}.service"
# For bubblewrap's first argument; it takes milliseconds, and some hundred in an emulated guest.
WAIT_SECONDS = 20.0
# Podman makes this file in its containers.
CONTAINER = "/run/.containerenv"


def lies_on_path(name):
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.path.lexists(os.path.join(folder, name)) for folder in folders)


def attempt(command):
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
        # The kernel refuses a folder of PATH that may not be entered, too.
        is_nowhere = error.errno == errno.EACCES and not lies_on_path(command[0])
        return {"command": command, "status": None, "stderr": str(missing if is_nowhere else error)}
    except subprocess.TimeoutExpired:
        return {"command": command, "status": None, "stderr": "did not end within 60 s"}
    return {"command": command, "status": done.returncode, "stderr": done.stderr.strip()}


def open_kvm():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        return {"command": ["open", "/dev/kvm"], "status": error.errno, "stderr": str(error)}
    return {"command": ["open", "/dev/kvm"], "status": 0, "stderr": ""}


def unshare_nothing():
    """Ask for no namespace at all: the kernel grants that to everyone, only a seccomp filter refuses it."""
    libc = ctypes.CDLL(None, use_errno=True)
    error = ctypes.get_errno() if libc.unshare(0) != 0 else 0
    return {"command": ["unshare(0)"], "status": error, "stderr": os.strerror(error) if error else ""}


def proc_unmasked():
    """Look for mounts on parts of /proc: with one, a user namespace cannot mount its own /proc."""
    with open(MOUNTS) as lines:
        points = [line.split()[1] for line in lines]
    masks = [point for point in points if point.startswith("/proc/") and point not in MOUNT_POINTS]
    return {"command": [MOUNTS], "status": int(bool(masks)), "stderr": " ".join(masks)}


def exec_in(folder):
    """Execute a script in this folder. A copy of a program might depend on the name it is called by."""
    program = os.path.join(folder, PROGRAM)
    Path(program).write_text("#!/bin/sh\nexit 0\n")
    os.chmod(program, 0o700)
    try:
        done = subprocess.run([program], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    except OSError as error:
        return {"command": [program], "status": error.errno, "stderr": str(error)}
    finally:
        os.unlink(program)
    return {"command": [program], "status": done.returncode, "stderr": ""}


def allows_exec(folder):
    noexec = bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)
    return {"command": ["statvfs", folder], "status": int(noexec), "stderr": "noexec" if noexec else ""}


def probe_all():
    home = str(Path.home())
    return {
        **{name: attempt(command) for name, command in PROBES.items()},
        "open_kvm": open_kvm(),
        "unshare_nothing": unshare_nothing(),
        "proc_unmasked": proc_unmasked(),
        "exec_home": exec_in(home),
        "home_allows_exec": allows_exec(home),
    }


def text(path):
    try:
        return Path(path).read_text().strip("\0\n")
    except OSError:
        return None


def context():
    """What confines this user, and the controllers that systemd delegated to the user's service manager."""
    selinux = os.path.exists("/sys/fs/selinux/enforce")
    manager = Path(USER_MANAGER.format(os.getuid()))
    # The file lists controllers in any case; they are delegated only if the user may write to the folder.
    given = text(manager / "cgroup.controllers") if os.access(manager, os.W_OK) else None
    return {
        "apparmor": text("/proc/self/attr/apparmor/current"),
        # AppArmor uses the same file if SELinux is not in use.
        "selinux": text("/proc/self/attr/current") if selinux else None,
        "delegated": (given or "").split(),
    }


def status(field):
    with open("/proc/self/status") as lines:
        return next(line.split()[1] for line in lines if line.startswith(field + ":"))


def link(path):
    """Where a path leads, and why this user cannot reach what is there."""
    target = os.readlink(path) if os.path.islink(path) else None
    try:
        os.stat(path)
    except OSError as error:
        return {"target": target, "error": error.strerror}
    return {"target": target, "error": ""}


def unread(pipe):
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, struct.pack("i", 0)))[0]


def bubblewrap():
    """AppArmor's label of a bubblewrap that waits for its arguments, and so has not done anything yet."""
    end, arguments = os.pipe()
    try:
        with subprocess.Popen(
            ["bwrap", "--args", str(end)],
            pass_fds=[end],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as started:
            # The kernel changes the label a moment after Popen knows that the program was started: a bubblewrap
            # that has read its first argument has the label of the profile that it runs under.
            os.write(arguments, b"--help\0")
            end_of_wait = time.monotonic() + WAIT_SECONDS
            while unread(end) and started.poll() is None and time.monotonic() < end_of_wait:
                time.sleep(0.01)
            label = None if unread(end) else text("/proc/%d/attr/apparmor/current" % started.pid)
            # It gets no more, and ends.
            os.close(arguments)
            arguments = None
            return label
    except OSError:
        return None
    finally:
        os.close(end)
        if arguments is not None:
            os.close(arguments)


def limits():
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    return {"nproc": None if soft == resource.RLIM_INFINITY else soft}


def who():
    return {
        "uid": os.getuid(),
        "groups": os.getgroups(),
        "context": context(),
        "seccomp": int(status("Seccomp")),
        "container": os.path.exists(CONTAINER),
    }


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    found = who()
    if asked["probes"]:
        found["probes"] = probe_all()
    if "links" in asked:
        links = {path: link(path) for path in asked["links"]}
        found.update(limits=limits(), links=links, bubblewrap=bubblewrap())
    print(json.dumps(found))
