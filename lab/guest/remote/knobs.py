"""Put a variant's settings on the guest. Runs as root.

Argument: {kind of setting: its settings}, which are put on in this order. Each kind has a function of its name,
which says what its settings are.
"""

import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def run(*command):
    subprocess.run(command, check=True, capture_output=True, text=True)


# -- security modules

# The modes of a profile, which stand among its flags.
MODES = {"enforce", "complain", "unconfined"}


def apparmor(settings):
    """Load profiles, from files below /etc/apparmor.d, and unload others.

    {"profiles": [{"name", "mode", "text" or "shipped"}], "removed": [path]}.
    """
    for profile in settings["profiles"]:
        load_profile(profile)
    for path in settings["removed"]:
        run("apparmor_parser", "--remove", path)


def load_profile(profile):
    if profile["shipped"]:
        path = Path(profile["shipped"])
        text = path.read_text()
    else:
        path = Path("/etc/apparmor.d") / profile["name"]
        text = profile["text"]
    text = re.sub(r"[ \t]*flags=\(([^)]*)\)", without_mode, text)
    if profile["mode"] == "unconfined":
        text = unconfined(text, profile["name"])
    path.write_text(text)
    options = ["--complain"] if profile["mode"] == "complain" else []
    run("apparmor_parser", "--replace", *options, str(path))


def without_mode(flags):
    remaining = [flag for flag in re.split(r"[,\s]+", flags[1]) if flag and flag not in MODES]
    return " flags=(%s)" % ", ".join(remaining) if remaining else ""


def unconfined(text, name):
    """Put the flag `unconfined` into the profile's first line: apparmor_parser has no option for it."""
    begins = r'(?m)^((?:profile[ \t]+)?"?%s"?(?=\s)[^\n]*?)(?:[ \t]*flags=\(([^)]*)\))?[ \t]*\{[ \t]*$'

    def line(match):
        return "%s flags=(%s) {" % (match[1], ", ".join(filter(None, [match[2], "unconfined"])))

    return re.sub(begins % re.escape(name), line, text, count=1)


ENFORCE = Path("/sys/fs/selinux/enforce")


def selinux(settings):
    """Add a module to SELinux's policy, and set SELinux's mode.

    {"mode": "enforcing" or "permissive", "module": text in CIL, or null}.
    """
    if settings["module"]:
        # Debian's policy denies semodule to label what it writes, once for each file: 1,400 lines, by which the
        # kernel's log loses what stood there. Permissive, each rule is told once.
        ENFORCE.write_text("0")
        # semodule calls a module as its file, and the policy lets it read below /tmp what it may not in /run.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "lab.cil"
            file.write_text(settings["module"])
            run("semodule", "--install", str(file))
    ENFORCE.write_text("1" if settings["mode"] == "enforcing" else "0")


# -- the kernel

# Sorts after every file that a distribution ships, 50-bubblewrap.conf among them.
SYSCTL_FILE = Path("/etc/sysctl.d/99-zz-lab.conf")


def sysctl(settings):
    """Set sysctls: written where a reboot finds them again, and put into force at once. {name: value}."""
    SYSCTL_FILE.write_text("".join("%s = %s\n" % item for item in settings.items()))
    run("sysctl", "--quiet", "--load", str(SYSCTL_FILE))


def kvm(settings):
    """Take /dev/kvm from users: its group's members, the kernel's module, or the device behind the name.

    {"state": "denied", "absent" or "masked"}.
    """
    if settings["state"] == "denied":
        run("gpasswd", "--members", "", grp.getgrgid(os.stat("/dev/kvm").st_gid).gr_name)
    elif settings["state"] == "masked":
        # As runc and crun mask a path (`maskedPaths` of the OCI runtime specification).
        run("mount", "--bind", "/dev/null", "/dev/kvm")
    else:
        modules = [name for name in ("kvm_amd", "kvm_intel", "kvm") if os.path.exists("/sys/module/" + name)]
        run("modprobe", "--remove", *modules)


# -- files

# An ordinary user's folders for programs.
PROGRAM_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")


def bubblewrap(settings):
    """Take the system's bubblewrap away, or give it another mode.

    {"mode": in octal, or null for none at all}.
    """
    mode = settings["mode"]
    # /bin may be /usr/bin.
    for path in {os.path.realpath(folder) + "/bwrap" for folder in PROGRAM_FOLDERS}:
        if os.path.exists(path) and mode is None:
            os.unlink(path)
        elif os.path.exists(path):
            os.chmod(path, int(mode, 8))


def files(settings):
    """Move files and folders, and leave symlinks to them where they were.

    {path: target of the symlink}. A relative target begins at the folder of the path.
    """
    for path, target in settings.items():
        place = os.path.normpath(os.path.join(os.path.dirname(path), target))
        if not os.path.lexists(path):
            sys.exit("there is no %s to move to %s" % (path, place))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        shutil.move(path, place)
        os.symlink(target, path)


# The file of a file system takes no more of the guest's disk than is written into it. The suite's boxes write
# 0.5 GB.
FILESYSTEM_BYTES = 3 << 30


def filesystem(settings):
    """Move folders to a new file system, which is mounted on the folder.

    {folder: kind of file system}. The content of a tmpfs is in memory, that of an overlay in folders of the
    guest's, and that of any other in a file.
    """
    for folder, kind in settings.items():
        image = "/var/lib/lab%s.%s" % (folder.replace("/", "-"), kind)
        if kind == "overlay":
            layers = {name: "%s/%s" % (image, name) for name in ("upperdir", "workdir")}
            for path in layers.values():
                os.makedirs(path)
            options = ",".join("%s=%s" % item for item in {"lowerdir": folder, **layers}.items())
            run("mount", "-t", kind, "-o", options, kind, folder)
            continue
        if kind == "tmpfs":
            move_to(["-t", kind, kind], folder)
            continue
        with open(image, "wb") as file:
            file.truncate(FILESYSTEM_BYTES)
        run("mkfs." + kind, "-q", image)
        move_to(["-o", "loop", image], folder)


def move_to(filesystem, folder):
    """Copy a folder's content to a file system, given as mount's arguments, and mount that on the folder."""
    with tempfile.TemporaryDirectory() as place:
        run("mount", *filesystem, place)
        # With modes, owners and labels, those of the folder itself among them.
        run("cp", "--archive", folder + "/.", place)
        # A mount below a shared one cannot be moved.
        run("mount", "--bind", place, folder)
        run("umount", place)


def mount(settings):
    """Mount folders onto themselves with further options. {folder: [option]}."""
    for folder, options in settings.items():
        run("mount", "--bind", folder, folder)
        run("mount", "--options", ",".join(["remount", "bind", *options]), folder)


# -- the suite's user

DROP_IN = Path("/etc/systemd/system/user@.service.d/lab.conf")


def cgroup(_settings):
    """Hand no control groups over to users: their service managers start without `Delegate=`.

    {"delegation": false}.
    """
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text("[Service]\nDelegate=no\n")
    # Those that run have theirs; a user's next login starts a new one.
    run("systemctl", "daemon-reload")
    run("systemctl", "stop", "user@*.service")


SUITE_USER = "tester"
# Sorts after the files of a distribution: the last line that fits counts.
LIMITS_FILE = Path("/etc/security/limits.d/99-zz-lab.conf")


def limits(settings):
    """Limit what the suite's user may use, from the next login on.

    {"nproc": number of processes and threads, "nofile": number of open files}, either or both.
    """
    LIMITS_FILE.parent.mkdir(parents=True, exist_ok=True)
    LIMITS_FILE.write_text("".join("%s - %s %d\n" % (SUITE_USER, *item) for item in settings.items()))


def sockets(settings):
    """Make the folder for the sockets of the suite's boxes as root, or close /tmp to users.

    {"state": "foreign" or "closed"}.
    """
    if settings["state"] == "foreign":
        folder = "/tmp/bl-%d" % pwd.getpwnam(SUITE_USER).pw_uid
        os.makedirs(folder, 0o700, exist_ok=True)
        os.chown(folder, 0, 0)
    else:
        os.chmod("/tmp", 0o755)


def write_command(name, text):
    """Make a command of /usr/local/bin."""
    command = Path("/usr/local/bin/%s" % name)
    command.write_text(text)
    command.chmod(0o755)


def make_command(name, text, as_root):
    """Make a command of /usr/local/bin, and allow everyone what it does as root."""
    write_command(name, text)
    rule = Path("/etc/sudoers.d/%s" % name)
    rule.write_text("ALL ALL=(root) NOPASSWD: %s *\n" % as_root)
    rule.chmod(0o440)


# The guest's root file system once more, without what is mounted on it: podman needs no image of it.
ROOT = Path("/srv/lab-container")
FILTER = Path("/srv/lab-container.json")
EPERM = 1
ENOSYS = 38
CLONE_NEWUSER = 0x10000000
# What a filter must refuse so that no user namespace is made; Docker's default one refuses a lot more. A filter
# cannot see the flags of clone3: where that does not exist, programs use clone.
REFUSED = [
    {"names": ["unshare", "setns"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
    {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
    {
        "names": ["clone"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": EPERM,
        "args": [
            {"index": 0, "value": CLONE_NEWUSER, "valueTwo": CLONE_NEWUSER, "op": "SCMP_CMP_MASKED_EQ"},
        ],
    },
]
ENGINES = {
    "podman": {
        "run": "sudo -n /usr/bin/podman run",
        "unmasked": "--security-opt=unmask=ALL",
        "user": '"$(id -un)"',
        # What is mounted on its own in the guest is so in the container, with its options.
        "volumes": "$(for each in /home /tmp; do ! mountpoint -q $each || echo --volume=$each:$each; done)",
        "root": "--rootfs %s" % ROOT,
    },
    # Docker starts containers from images alone: the lab's has only the symlinks of the guest's root (/bin and
    # /lib), and the folders that they lead to are volumes. Docker looks up the name of a user in the image.
    "docker": {
        "run": "sudo -n /usr/bin/docker run",
        "unmasked": "--security-opt=systempaths=unconfined",
        "user": "$(id -u):$(id -g) $(for each in $(id -G); do echo --group-add=$each; done)",
        "volumes": "$(for each in etc home opt root srv tmp usr var; do echo --volume=/$each:/$each; done)",
        "root": "lab-container",
    },
}
# Without root the daemon has the users of a user namespace: in it the suite's user is root, whose home in
# /etc/passwd is not that of the suite's user.
ROOTLESS = {
    **ENGINES["docker"],
    "run": "env DOCKER_HOST=unix:///run/user/$(id -u)/docker.sock /usr/bin/docker run --env=HOME",
    "user": "0:0",
}
# The folder of the daemon's script in Debian's package. The script's unit, as dockerd-rootless-setuptool.sh
# writes it.
ROOTLESS_FOLDER = "/usr/share/docker.io/contrib"
ROOTLESS_UNIT = ["--unit=docker", "--property=Type=notify", "--property=NotifyAccess=all"]
ROOTLESS_UNIT += ["--property=Delegate=yes", "--property=KillMode=mixed"]
OPTIONS = {
    "no-namespaces": ["--security-opt=seccomp=%s" % FILTER],
    "default": [],
    "apparmor-off": ["--security-opt=apparmor=unconfined"],
    "unconfined": ["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"],
    "privileged": ["--privileged"],
}
DEVICE = "$(test -e /dev/kvm && echo --device=/dev/kvm)"
# With --init there is a first process that collects those that end without a parent, as on every host.
COMMAND = """#!/bin/sh
exec %(run)s --rm --init $(test -t 0 && echo --interactive --tty) \\
    $(test -n "$LAB_STDIN" && echo --interactive) \\
    --network=host %(options)s %(volumes)s \\
    --user %(user)s --workdir "$PWD" %(root)s "$@"
"""


def container(settings):
    """Make the command that runs another one in a container, /usr/local/bin/lab-container.

    {"engine": one of ENGINES, "kind": one of OPTIONS, "kvm": whether the container gets /dev/kvm, "rootless":
    whether a daemon of the suite's user starts it}.
    """
    engine, options = ENGINES[settings["engine"]], OPTIONS[settings["kind"]]
    daemon = "docker"
    if settings["rootless"]:
        engine, daemon = ROOTLESS, start_rootless_daemon()
    if settings["engine"] == "podman":
        ROOT.mkdir(exist_ok=True)
        run("mount", "--bind", "/", str(ROOT))
    else:
        # Docker mounts its init at /sbin/docker-init before the volumes, of which /usr hides it.
        if not os.path.lexists("/usr/sbin/docker-init"):
            os.symlink("/usr/bin/docker-init", "/usr/sbin/docker-init")
        symlinks = "cd / && tar --create $(find . -maxdepth 1 -type l)"
        run("sh", "-c", "%s | %s import - %s" % (symlinks, daemon, engine["root"]))
    FILTER.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": REFUSED}))
    options = [*options, *([engine["unmasked"]] if settings["kind"] == "unconfined" else [])]
    options += [DEVICE] if settings["kvm"] else []
    text = COMMAND % {**engine, "options": " ".join(options)}
    if settings["rootless"]:
        write_command("lab-container", text)
    else:
        # As a member of Docker's group could: whoever may start containers is root outside of them.
        make_command("lab-container", text, engine["run"][len("sudo -n ") :])


def start_rootless_daemon():
    """Start Docker's daemon as a unit of the suite's user. Returns what speaks to it, for a shell."""
    script = ROOTLESS_FOLDER + "/dockerd-rootless.sh"
    if not os.path.exists(script):
        sys.exit("there is no %s to start Docker's daemon without root" % script)
    user = pwd.getpwnam(SUITE_USER)
    # The daemon lives on after a logout, as Docker's documentation advises.
    run("loginctl", "enable-linger", SUITE_USER)
    run("systemctl", "start", "user@%d.service" % user.pw_uid)
    folder = "/run/user/%d" % user.pw_uid
    path = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:" + ROOTLESS_FOLDER
    as_user = ["runuser", "-u", SUITE_USER, "--", "env", "XDG_RUNTIME_DIR=" + folder, "HOME=" + user.pw_dir]
    run(*as_user, "systemd-run", "--user", "--quiet", *ROOTLESS_UNIT, "--setenv=" + path, script)
    return " ".join([*as_user, "docker", "--host=unix://%s/docker.sock" % folder])


# Root makes the view, in a mount namespace of the command's own, and becomes the caller again. Only the
# environment's variables of the caller's session come along.
IN_STORE = r"""#!/usr/bin/python3 -IS
import ctypes
import glob
import os
import pwd
import sys
# os.execvp imports it, and by then it is at another place.
import warnings

SYSTEM = "/nix/store/lab-system"
LINKS = ["bin/env", "bin/sh"]
KEPT = ["HOME", "LOGNAME", "USER", "XDG_RUNTIME_DIR", "XDG_SESSION_ID"]
CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18

if sys.argv[1:2] != ["--as"]:
    kept = ["%s=%s" % (name, os.environ[name]) for name in KEPT if name in os.environ]
    words = ["sudo", "-n", __file__, "--as", str(os.getuid()), os.getcwd(), *kept, "--", *sys.argv[1:]]
    os.execvp("sudo", words)

user = pwd.getpwuid(int(sys.argv[2]))
end = sys.argv.index("--")
folder, kept, command = sys.argv[3], sys.argv[4:end], sys.argv[end + 1 :]
libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*arguments):
        sys.exit("%s of %s: %s" % (name, SYSTEM, os.strerror(ctypes.get_errno())))


loaders = [os.path.relpath(path, "/usr") for path in glob.glob("/usr/lib*/ld-linux-*")]
libraries = glob.glob(SYSTEM + "/lib/*-linux-gnu") + [SYSTEM + "/lib64", SYSTEM + "/lib"]
call("unshare", CLONE_NEWNS)
call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
call("mount", b"lab", b"/usr", b"tmpfs", 0, b"mode=755")
for folder_of_usr in ["bin", "lib", "sbin", *map(os.path.dirname, loaders)]:
    os.makedirs("/usr/" + folder_of_usr, exist_ok=True)
for name in [*LINKS, *loaders]:
    os.symlink("%s/%s" % (SYSTEM, name), "/usr/" + name)
os.initgroups(user.pw_name, user.pw_gid)
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
os.chdir(folder)
os.environ.clear()
os.environ.update(word.split("=", 1) for word in kept)
os.environ.update(PATH="%s/bin:%s/sbin" % (SYSTEM, SYSTEM), LD_LIBRARY_PATH=":".join(libraries))
os.execvp(command[0], command)
"""


def programs(_settings):
    """Make the command that gives another one a view without /usr, /usr/local/bin/lab-nix-store."""
    system = Path("/nix/store/lab-system")
    system.mkdir(parents=True)
    run("mount", "--bind", "/usr", str(system))
    make_command("lab-nix-store", IN_STORE, "/usr/local/bin/lab-nix-store")


# systemd would replace variables in the words of a command. The shell waits for the command, because
# systemd-run does not tell which signal ended it.
SERVICE = r"""#!/usr/bin/python3 -IS
import os
import sys

words = ["/bin/sh", "-c", '"$@"; exit $?', "sh", *sys.argv[1:]]
options = ["--quiet", "--collect", "--wait", "--pty" if os.isatty(0) else "--pipe"]
options += ["--working-directory=" + os.getcwd(), "--"]
command = [*START, *options, *(word.replace("$", "$$") for word in words)]
os.execvp(command[0], command)
"""


def render_service_command(start):
    """The text of a command that runs another one in a systemd service; `start` begins its command line."""
    return SERVICE.replace("START", start)


def service(settings):
    """Make the command that runs another one in a systemd service, /usr/local/bin/lab-service.

    {name of a setting: value}.
    """
    properties = ["--property=%s=%s" % item for item in settings.items()]
    start = '["sudo", "-n", "systemd-run", "--uid=%%d" %% os.getuid(), *%r]' % properties
    make_command("lab-service", render_service_command(start), "/usr/bin/systemd-run")


# The control group of systemd itself.
INIT_SCOPE = "/sys/fs/cgroup/init.scope/cgroup.procs"
# The shell moves itself there. What logind told the login is not so there.
IN_INIT_SCOPE = (
    """#!/bin/sh
echo $$ | sudo -n tee %s >/dev/null || exit 1
unset XDG_SESSION_ID XDG_SESSION_CLASS XDG_SESSION_TYPE
exec "$@"
"""
    % INIT_SCOPE
)
# Has cron run the command in its next job: the job gets the files, the folder and the words of the caller, who
# waits for its exit status. cron runs a job with @reboot as it starts, and others once a minute.
IN_CRON = r"""#!/usr/bin/python3 -IS
import array
import json
import os
import socket
import subprocess
import sys

# Of no file: /tmp may be closed.
ADDRESS = "\0" + os.path.realpath(__file__)
SECONDS = 60


def call(words):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(ADDRESS)
        listener.listen(1)
        listener.settimeout(SECONDS)
        subprocess.run(["sudo", "-n", "systemctl", "restart", UNIT], check=True)
        try:
            job, _ = listener.accept()
        except socket.timeout:
            sys.exit("%s did not start its job within %d s" % (UNIT, SECONDS))
    job.settimeout(None)
    job.sendmsg([b"\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    with job.makefile("rw") as lines:
        lines.write(json.dumps([os.getcwd(), words]) + "\n")
        lines.flush()
        return int(lines.readline() or 1)


def serve():
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(ADDRESS)
        files = array.array("i")
        _, [(_, _, numbers)], _, _ = caller.recvmsg(1, socket.CMSG_SPACE(3 * files.itemsize))
        files.frombytes(numbers)
        with caller.makefile("rw") as lines:
            folder, words = json.loads(lines.readline())
            stdin, stdout, stderr = files
            ended = subprocess.run(words, cwd=folder, stdin=stdin, stdout=stdout, stderr=stderr).returncode
            lines.write("%d\n" % (ended if ended >= 0 else 128 - ended))
    return 0


sys.exit(call(sys.argv[1:]) if sys.argv[1:] else serve())
"""
CRON_JOB = Path("/etc/cron.d/lab")
# Where the crons of Debian and of Fedora note that their jobs with @reboot have run.
REBOOTED = "/run/crond.reboot /run/cron.reboot"
PAM_FILES = Path("/etc/pam.d")


def session(settings):
    """Make the command that runs another one in a session of this kind, /usr/local/bin/lab-session.

    {"kind": "user-unit", "cron", "init-scope", "none" or "linger"}. The last two need no command.
    """
    kind = settings["kind"]
    if kind == "user-unit":
        write_command("lab-session", render_service_command('["systemd-run", "--user"]'))
    elif kind == "init-scope":
        make_command("lab-session", IN_INIT_SCOPE, "/usr/bin/tee")
    elif kind == "cron":
        run_by_cron()
    elif kind == "none":
        for file in filter(Path.is_file, PAM_FILES.iterdir()):
            text = file.read_text()
            if "pam_systemd.so" in text:
                file.write_text(re.sub(r"(?m)^(?=.*\bpam_systemd\.so)", "#", text))
        # Not user-runtime-dir@.service: the sessions require it, and the lab's own agent is in one.
        run("systemctl", "stop", "user@*.service")
    elif kind == "linger":
        run("loginctl", "enable-linger", SUITE_USER)


def run_by_cron():
    unit = "cron.service" if os.path.exists("/usr/sbin/cron") else "crond.service"
    make_command("lab-session", IN_CRON.replace("UNIT", repr(unit)), "/usr/bin/systemctl restart")
    CRON_JOB.write_text("@reboot %s /usr/local/bin/lab-session\n" % SUITE_USER)
    drop_in = Path("/etc/systemd/system/%s.d/lab.conf" % unit)
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    # Each command restarts cron, and systemd refuses the sixth start of a unit within ten seconds.
    drop_in.write_text("[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStartPre=/bin/rm -f %s\n" % REBOOTED)
    run("systemctl", "daemon-reload")


KINDS = {
    "apparmor": apparmor,
    "bubblewrap": bubblewrap,
    "cgroup": cgroup,
    "container": container,
    "files": files,
    "filesystem": filesystem,
    "kvm": kvm,
    "limits": limits,
    "mount": mount,
    "programs": programs,
    "selinux": selinux,
    "service": service,
    "session": session,
    "sockets": sockets,
    "sysctl": sysctl,
}

for kind, settings in json.loads(sys.argv[1]).items():
    KINDS[kind](settings)
print(json.dumps({"applied": True}))
