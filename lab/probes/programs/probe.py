"""Try what boxlite needs of its host, as the user who runs it and confined like that user. Prints JSON.

Argument: {"probes": bool}, or {"probes": false, "links": [path]}. Without probes only the user is described; if
`links` are given, also what settings of variants are read back from, among that where these paths lead.
"seconds" is the limit of one command. The models in `lab/probes/` say what each key means. `unshare_user` only
makes a user namespace; `unshare_user_root` needs capabilities inside it too. If the first works and the second
does not, the kernel makes the namespace and denies it the capabilities.
"""

import ctypes
import errno
import fcntl
import json
import os
import pwd
import re
import resource
import signal
import socket
import stat
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
# The limit of one command.
SECONDS = 60

# Empty folders that the kernel makes in /proc for mounts (by proc_create_mount_point and
# register_sysctl_mount_point): a mount there hides nothing.
MOUNT_POINTS = ("/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/openprom", "/proc/xen")
MOUNTS = "/proc/self/mounts"
# File systems that another host or a program serves. A home there is not touched: it might never answer.
REMOTE = r"nfs|cifs|smb|9p$|afs|ceph|lustre|glusterfs|fuse|autofs"
# Of linux/kvm.h, neither with an argument; and the only version that KVM ever had.
KVM_GET_API_VERSION, KVM_CREATE_VM, KVM_API_VERSION = 0xAE00, 0xAE01, 12
# A script that is written into the home, executed and deleted; and a folder that is made in /tmp and removed.
PROGRAM = ".lab-probe"
# The control group of the service manager of a user, by the number of the user.
USER_MANAGER = "/sys/fs/cgroup/user.slice/user-{0}.slice/user@{0}.service"
# Where version 2 of control groups is mounted.
CGROUPS = "/sys/fs/cgroup"
# Parts of a control group's path that every host has. Other names may be private, or change with each session.
STANDARD_PART = r"((app|system|user|user-\d+)\.slice|(user@\d+|sshd?|crond?)\.service|init\.scope)"
# For the first argument of bubblewrap; it takes milliseconds, and some hundred in an emulated guest.
WAIT_SECONDS = 20.0
# The files that engines make in their containers.
CONTAINERS = {"podman": "/run/.containerenv", "docker": "/.dockerenv"}
# linux/sched.h: the flags of the namespaces of the jailer (mount, uts, ipc, user, pid), and one that unshare(2)
# never takes.
JAILER_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000
CLONE_PARENT = 0x00008000
# Settings of a service, as systemd names them, with the value of a service that is not restricted. None: it
# restricts nothing, and may name folders.
SERVICE = {
    "BindPaths": None,
    "Delegate": None,
    "DeviceAllow": "",
    "DevicePolicy": "auto",
    "LockPersonality": "no",
    "MemoryDenyWriteExecute": "no",
    "NoNewPrivileges": "no",
    "PrivateDevices": "no",
    "PrivateTmp": "no",
    "ProcSubset": "all",
    "ProtectClock": "no",
    "ProtectControlGroups": "no",
    "ProtectHome": "no",
    "ProtectHostname": "no",
    "ProtectKernelLogs": "no",
    "ProtectKernelTunables": "no",
    "ProtectProc": "default",
    "ProtectSystem": "no",
    "ReadWritePaths": None,
    "RestrictNamespaces": "no",
    "RestrictSUIDSGID": "no",
    "SystemCallFilter": "~",
}
# Processes and threads that one box has at once, at least, beside the program that starts it. Measured with
# boxlite 0.10.8 on one processor, without the jailer: with 13 the machine does not start. The jailer takes two
# more, and each further processor of the host some.
PROCESSES = 14
# The limits of a process, by the names of limits.conf(5) where it has a word for one.
LIMITS = {
    "nproc": resource.RLIMIT_NPROC,
    "nofile": resource.RLIMIT_NOFILE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "fsize": resource.RLIMIT_FSIZE,
    "data": resource.RLIMIT_DATA,
    "address_space": resource.RLIMIT_AS,
    "cpu": resource.RLIMIT_CPU,
}
# What bubblewrap, and the shim for its filter, need of a list of system calls, which has hundreds of names.
SANDBOX_CALLS = ("clone", "mount", "pivot_root", "seccomp", "umount2", "unshare")


def result(command, status, stderr=""):
    return {"command": command, "status": status, "stderr": stderr}


def attempt(command):
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
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        # The kernel refuses a folder of PATH that may not be entered, too: then the program is missing.
        places = [os.path.join(folder, command[0]) for folder in os.get_exec_path()]
        if error.errno == errno.EACCES and not any(map(os.path.lexists, places)):
            error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
        return result(command, None, str(error))
    except subprocess.TimeoutExpired:
        return result(command, None, "did not end within %d s" % SECONDS)
    return result(command, process.returncode, process.stderr.strip())


def of_kvm():
    """The probes of /dev/kvm: open it, and have it make a virtual machine, which is given up at once."""
    opening, making = ["open", "/dev/kvm"], ["KVM_CREATE_VM", "/dev/kvm"]
    try:
        device = os.open("/dev/kvm", os.O_RDWR)
    except OSError as error:
        unmade = result(making, None, "/dev/kvm cannot be opened")
        return {"open_kvm": result(opening, error.errno, str(error)), "create_vm": unmade}
    try:
        # Another device may answer the second call with anything.
        version = fcntl.ioctl(device, KVM_GET_API_VERSION, 0)
        if version != KVM_API_VERSION:
            raise OSError(errno.ENOTTY, "not KVM: its version is %d" % version)
        os.close(fcntl.ioctl(device, KVM_CREATE_VM, 0))
        creation = result(making, 0)
    except OSError as error:
        creation = result(making, error.errno, str(error))
    finally:
        os.close(device)
    return {"open_kvm": result(opening, 0), "create_vm": creation}


def socket_folder():
    """Look whether the folder for the sockets of boxes is of this user, or can be made.

    boxlite makes it if nothing is there, and refuses what is no folder or belongs to another user.
    """
    path = "/tmp/bl-%d" % os.getuid()
    try:
        status_of_path = os.lstat(path)
    except FileNotFoundError:
        return make_folder("/tmp")
    except OSError as error:
        return result(["lstat", path], error.errno, str(error))
    if not stat.S_ISDIR(status_of_path.st_mode):
        return result(["lstat", path], errno.ENOTDIR, "%s is not a directory" % path)
    if status_of_path.st_uid != os.getuid():
        return result(["lstat", path], errno.EPERM, "%s is owned by uid %d" % (path, status_of_path.st_uid))
    return result(["lstat", path], 0)


def make_folder(folder):
    """Make a folder in this one, and remove it. The answer names it in the same way each time."""
    name = os.path.join(folder, PROGRAM)
    path = "%s-%d" % (name, os.getpid())
    try:
        os.mkdir(path, 0o700)
        os.rmdir(path)
    except OSError as error:
        return result(["mkdir", name], error.errno, str(OSError(*error.args[:2], name)))
    return result(["mkdir", name], 0)


def call(words, function, *arguments, expected=0):
    """Make a system call that ends with the error `expected`, whoever makes it: only a seccomp filter differs.

    A filter may kill the caller, which therefore is a child.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        failed = getattr(libc, function)(*arguments) != 0
        os._exit(ctypes.get_errno() if failed else 0)
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        number = os.WTERMSIG(ended)
        return result([words], -number, "killed by %s" % signal.Signals(number).name)
    error = os.WEXITSTATUS(ended)
    return result([words], 0) if error in (0, expected) else result([words], error, os.strerror(error))


def calls():
    """System calls that only a seccomp filter can refuse, each by the name of its probe."""
    flags = JAILER_NAMESPACES | CLONE_PARENT
    return {
        "unshare_nothing": call("unshare(0)", "unshare", 0),
        # The kernel refuses the wrong flag; a filter that looks at the flags sees namespaces before that.
        "unshare_flags": call("unshare(namespaces, and a wrong flag)", "unshare", flags, expected=errno.EINVAL),
        # The kernel reads the path before it asks whether the caller may mount.
        "mount_nothing": call("mount(NULL)", "mount", None, None, None, 0, None, expected=errno.EFAULT),
    }


def mounts():
    """The mount point, kind and options of each mount, in their order."""
    with open(MOUNTS, encoding="utf-8", errors="replace") as lines:
        return [tuple(line.split()[1:4]) for line in lines]


def proc_unmasked():
    """Look for mounts on parts of /proc: with one, a user namespace cannot mount a /proc of its own."""
    points = [point for point, _, _ in mounts()]
    masks = [point for point in points if point.startswith("/proc/") and point not in MOUNT_POINTS]
    return result([MOUNTS], int(bool(masks)), " ".join(masks))


def exec_in(folder):
    """Execute a script in this folder. A copy of a program might depend on the name it is called by."""
    program = os.path.join(folder, PROGRAM)
    # Nothing that is there already is written to. The answer names the program in the same way each time.
    path = "%s-%d" % (program, os.getpid())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
    except OSError as error:
        return result([program], None, "no file can be made: %s" % error.strerror)
    try:
        with os.fdopen(handle, "w") as script:
            # \x21 is an exclamation mark, which older shells expand in what is pasted.
            script.write("#\x21/bin/sh\nexit 0\n")
        os.chmod(path, 0o700)
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.run([path], check=False, **quiet)
    except OSError as error:
        # Without the name of a file it is an error of writing: the disk is full.
        status = error.errno if error.filename else None
        return result([program], status, str(OSError(*error.args[:2], program)))
    finally:
        os.unlink(path)
    return result([program], process.returncode)


def of_home(folder):
    """The probes of a home. A remote one is only looked up among the mounts."""
    remote = remote_mount(folder) or remote_mount(os.path.realpath(folder))
    if remote:
        kind, options = remote
        executed = result([os.path.join(folder, PROGRAM)], None, "the home is on %s" % kind)
        noexec = "noexec" in options
    else:
        executed = exec_in(folder)
        try:
            noexec = bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)
        except OSError as error:
            return {"exec_home": executed, "home_allows_exec": result(["statvfs", folder], None, str(error))}
    allows_exec = result(["statvfs", folder], int(noexec), "noexec" if noexec else "")
    return {"exec_home": executed, "home_allows_exec": allows_exec}


def remote_mount(path):
    """The kind and the options of the mount that a path is on, if it is remote; else None."""
    longest, kind, options = "", "", ""
    for point, its_kind, its_options in mounts():
        # Of several mounts on one point the last hides the others.
        if (path + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(longest):
            longest, kind, options = point, its_kind, its_options
    return (kind, options.split(",")) if re.match(REMOTE, kind) else None


def text(path):
    try:
        return Path(path).read_text("utf-8", "replace").strip("\0 \t\n")
    except OSError:
        return None


def context():
    """What confines this user, the session, and the controllers for the service manager of the user."""
    selinux = os.path.exists("/sys/fs/selinux/enforce")
    manager = Path(USER_MANAGER.format(os.getuid()))
    # The file lists controllers in any case; they are delegated only if the user may write to the folder.
    controllers = text(manager / "cgroup.controllers") if os.access(manager, os.W_OK) else None
    return {
        "apparmor": text("/proc/self/attr/apparmor/current"),
        # AppArmor uses the same file if SELinux is not in use.
        "selinux": text("/proc/self/attr/current") if selinux else None,
        "delegated": (controllers or "").split(),
        "session": session(),
        "limits": limits(),
    }


def control_group():
    """The control group of this process: of version 2, or that of systemd in version 1; or nothing."""
    # N:CONTROLLERS:PATH; cgroup v2 has no controllers there.
    lines = [line.split(":", 2) for line in (text("/proc/self/cgroup") or "").splitlines()]
    return next((line[2] for line in lines if line[1] in ("", "name=systemd")), "")


def session():
    """What kind of session this process is in, and whether the user has a service manager."""
    parts = [part for part in control_group().split("/") if part]
    login = next(filter(None, (re.match(r"session-(\w+)\.scope", part) for part in parts)), None)
    if any(part.startswith("user@") for part in parts):
        kind = "user unit"
    elif login:
        kind = "login"
    elif parts == ["init.scope"]:
        kind = "init.scope"
    else:
        kind = "system service" if any(part.endswith(".service") for part in parts) else "other"
    printable = [part if re.fullmatch(STANDARD_PART, part) else private_part(part) for part in parts]
    # As /run/systemd/sessions has it.
    lines = (text("/run/systemd/sessions/%s" % login[1]) or "").splitlines() if login else []
    return {
        "kind": kind,
        "cgroup": "/" + "/".join(printable),
        "login_class": next((line[len("CLASS=") :] for line in lines if line.startswith("CLASS=")), None),
        "runtime_dir": runtime_dir(),
        "manager": manager_answers(),
        "lingers": os.path.exists("/var/lib/systemd/linger/" + user_name()),
    }


def runtime_dir():
    """XDG_RUNTIME_DIR, with * for another folder than that of logind: it may be named after the user."""
    folder = os.environ.get("XDG_RUNTIME_DIR") or None
    return "*" if folder and not re.fullmatch(r"/run/user/\d+", folder) else folder


def private_part(part):
    """A part of a path without what is private or changes with each session."""
    begin = "session-" if part.startswith("session-") else ""
    _, end = os.path.splitext(part)
    return begin + "*" + (end if end in (".scope", ".service", ".slice") else "")


def user_name():
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def manager_answers():
    """Whether the service manager of this user answers the first line of D-Bus on its own socket."""
    folder = os.environ.get("XDG_RUNTIME_DIR") or "/run/user/%d" % os.getuid()
    with socket.socket(socket.AF_UNIX) as manager:
        manager.settimeout(SECONDS)
        try:
            manager.connect(os.path.join(folder, "systemd/private"))
            # D-Bus takes the number of a user as its digits' codes, in hexadecimal.
            manager.sendall(b"\0AUTH EXTERNAL %s\r\n" % str(os.getuid()).encode().hex().encode())
            return manager.recv(2) == b"OK"
        except OSError:
            return False


def own_cgroup():
    """Move a process that only waits into a new control group where boxlite makes its own, and undo that.

    boxlite makes them below the service manager of the user, and at the top for root or without a manager.
    """
    manager = USER_MANAGER.format(os.getuid())
    name = os.path.join(manager if os.getuid() and os.path.exists(manager) else CGROUPS, PROGRAM)
    if not os.path.exists(CGROUPS + "/cgroup.controllers"):
        return result(["mkdir", name], None, "there are no control groups of version 2")
    path = "%s-%d" % (name, os.getpid())
    try:
        os.mkdir(path)
    except OSError as error:
        return result(["mkdir", name], error.errno, str(OSError(*error.args[:2], name)))
    command = ["move a process to", name]
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        signal.pause()
        os._exit(0)
    try:
        members = os.open(path + "/cgroup.procs", os.O_WRONLY)
        try:
            os.write(members, b"%d" % child)
        finally:
            os.close(members)
    except OSError as error:
        return result(command, error.errno, str(OSError(*error.args[:2], name)))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.rmdir(path)
    return result(command, 0)


def status(field):
    with open("/proc/self/status", encoding="utf-8", errors="replace") as lines:
        return next((line.split()[1] for line in lines if line.startswith(field + ":")), "0")


def service():
    """The settings of the systemd service that this process is in. Empty outside of one; None: nobody tells."""
    units = [part for part in control_group().split("/") if part.endswith(".service")]
    if not units:
        return {}
    # A service of a user is below that of the service manager of the user.
    manager = ["--user"] if len(units) > 1 and units[0].startswith("user@") else []
    try:
        process = subprocess.run(
            ["systemctl", *manager, "show", "--property=" + ",".join(SERVICE), "--", units[-1]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(line.partition("=")[::2] for line in process.stdout.splitlines())


def denied_calls(calls):
    """Those of SANDBOX_CALLS that a list of system calls denies; a list of the denied ones begins with ~."""
    denies = calls.startswith("~")
    names = {call.partition(":")[0] for call in calls.lstrip("~").split()}
    return " ".join(call for call in SANDBOX_CALLS if (call in names) == denies)


def service_unrestricted(settings):
    """Look for settings that restrict the service. Of a list of system calls it tells what the jailer lacks."""
    command = ["systemctl", "show"]
    if settings is None:
        return dict(result(command, None, "systemd does not tell the settings of the service"), settings={})
    restricting = {name: value for name, value in settings.items() if SERVICE.get(name) not in (None, value)}
    if "SystemCallFilter" in restricting:
        restricting["SystemCallFilter"] = denied_calls(restricting["SystemCallFilter"])
    restricting = {name: value for name, value in sorted(restricting.items()) if value}
    settings_in_words = "; ".join("%s=%s" % item for item in restricting.items())
    return dict(result(command, int(bool(restricting)), settings_in_words), settings=restricting)


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
    """The AppArmor label of a bubblewrap that waits for its arguments, and so has not done anything yet."""
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


def start_processes():
    """Start as many processes at once as a box has, and end them. The kernel counts threads as processes."""
    command = ["fork", "%d at once" % PROCESSES]
    children = []
    waiting, end = os.pipe()
    try:
        while len(children) < PROCESSES:
            child = os.fork()
            if child == 0:
                os.close(end)
                os.read(waiting, 1)
                os._exit(0)
            children.append(child)
    except OSError as error:
        return result(command, error.errno, error.strerror)
    finally:
        os.close(end)
        os.close(waiting)
        for child in children:
            os.waitpid(child, 0)
    return result(command, 0)


def limits():
    values = {name: resource.getrlimit(number)[0] for name, number in LIMITS.items()}
    values["nofile_hard"] = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return {name: None if value == resource.RLIM_INFINITY else value for name, value in values.items()}


def uid_outside():
    """The number of this user outside of the user namespace, by the map of user_namespaces(7)."""
    uid = os.getuid()
    for line in (text("/proc/self/uid_map") or "").splitlines():
        first, outside, count = map(int, line.split())
        if first <= uid < first + count:
            return outside + uid - first
    return None


def who():
    return {
        "uid": os.getuid(),
        "groups": os.getgroups(),
        "context": context(),
        "seccomp": int(status("Seccomp")),
        "container": next((name for name, path in CONTAINERS.items() if os.path.exists(path)), None),
    }


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    SECONDS = request.get("seconds", SECONDS)
    user = who()
    if request["probes"]:
        user["probes"] = {
            **{name: attempt(command) for name, command in PROBES.items()},
            **of_kvm(),
            **calls(),
            "proc_unmasked": proc_unmasked(),
            "socket_folder": socket_folder(),
            "own_cgroup": own_cgroup(),
            "service_unrestricted": service_unrestricted(service()),
            "start_processes": start_processes(),
            **of_home(os.path.expanduser("~")),
        }
    if "links" in request:
        links = {path: link(path) for path in request["links"]}
        read_back = {"create_vm": of_kvm()["create_vm"], "socket_folder": socket_folder()}
        read_back.update(service=service(), bubblewrap=bubblewrap(), uid_outside=uid_outside())
        user.update(links=links, **read_back)
    print(json.dumps(user))
