"""What a guest says of itself: facts, its suite's user, probes."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from lab.probes import NONE_RUN, PROGRAMS, Context, Facts, Probe, ProbedUser, Probes, ProcessUser, SuiteUser
from lab.probes.facts import ServiceProbe, UserSession

# A debian-13 as installed.
DEBIAN: dict[str, Any] = {
    "os": {
        "id": "debian",
        "version_id": "13",
        "version_codename": "trixie",
        "pretty_name": "Debian GNU/Linux 13 (trixie)",
    },
    "kernel": "6.12.118+deb13-cloud-amd64",
    "arch": "x86_64",
    "command_line": "root=LABEL=root rw console=ttyS0 panic=-1",
    "kernel_options": {"USER_NS": "y", "VSOCKETS": "m", "TUN": "m"},
    "landlock": 6,
    "python": "3.13",
    "glibc": "2.41",
    "lsm": ["lockdown", "capability", "landlock", "yama", "apparmor"],
    "sysctls": {
        "kernel.unprivileged_userns_clone": "1",
        "kernel.apparmor_restrict_unprivileged_userns": None,
        "kernel.apparmor_restrict_unprivileged_unconfined": "0",
        "kernel.unprivileged_userns_apparmor_policy": "1",
        "user.max_user_namespaces": "7794",
        "user.max_pid_namespaces": "7794",
        "kernel.yama.ptrace_scope": "1",
        "kernel.io_uring_disabled": "0",
    },
    "apparmor": {
        "version": "4.1.0",
        "userns_mediation": True,
        "profiles": {"unprivileged_userns": "complain"},
        "profile_files": [
            "/etc/apparmor.d/unprivileged_userns",
            "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict",
        ],
    },
    "selinux": None,
    "bubblewrap": {
        "path": "/usr/bin/bwrap",
        "version": "0.12.0",
        "setuid": False,
        "mode": "0o755",
    },
    "kvm": {
        "mode": "0o660",
        "uid": 0,
        "gid": 993,
        "owner": "root",
        "group": "kvm",
        "capabilities": {"IRQCHIP": True, "IRQFD": True},
    },
    "systemd": True,
    "cron": False,
    "engines": [],
    "mkfs": [],
    "login_sessions": False,
    "virtualization": "svm",
    "cgroup": "v2",
    "mounts": {
        "/home": {"on": "/", "type": "ext4", "options": ["rw", "relatime"]},
        "/tmp": {"on": "/tmp", "type": "tmpfs", "options": ["rw", "nosuid"]},
    },
}
# SELinux as a debian-13-selinux has it.
SELINUX = {
    "mode": "enforcing",
    "policy": "default",
    "policy_version": 34,
    "user_namespace_class": True,
    "modules": [],
}
# Somebody has logged in by SSH.
LOGIN: dict[str, Any] = {
    "kind": "login",
    "cgroup": "/user.slice/user-1001.slice/session-*.scope",
    "login_class": "user",
    "runtime_dir": "/run/user/1001",
    "manager": True,
    "lingers": False,
}
# The limits of its suite's user.
LIMITS = {
    "nproc": 3897,
    "nofile": 1024,
    "nofile_hard": 524288,
    "memlock": 8 << 20,
    "fsize": None,
    "data": None,
    "address_space": None,
    "cpu": None,
}
TESTER: dict[str, Any] = {
    "uid": 1001,
    "groups": [993, 1001],
    "context": {
        "apparmor": "unconfined",
        "selinux": None,
        "delegated": ["memory", "pids"],
        "session": LOGIN,
        "limits": LIMITS,
    },
    "seccomp": 0,
    "container": None,
}


def _changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of `base` with these values; a dict only changes the keys that it has."""
    merged = {
        key: base[key] | value
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return base | changes | merged


def printed_facts(**changes: Any) -> dict[str, Any]:
    """What facts.py prints on a debian-13, with these changes; `selinux` changes `SELINUX`."""
    if changes.get("selinux") is not None:
        changes["selinux"] = SELINUX | changes["selinux"]
    # A test may change what it gets.
    return _changed(deepcopy(DEBIAN), changes)


def facts(**changes: Any) -> Facts:
    """The facts of a debian-13, changed as in `printed_facts`."""
    return Facts.model_validate(printed_facts(**changes))


WORKS = {"status": 0, "stderr": "", "command": []}
SETTINGS_OF_A_USER = {
    "links": {},
    "uid_outside": 1001,
    "service": {},
    "bubblewrap": "unconfined",
    "create_vm": WORKS,
    "socket_folder": WORKS,
}


def who(**changes: Any) -> SuiteUser:
    """The suite's user on a debian-13, changed likewise."""
    return SuiteUser.model_validate(_changed({**TESTER, **SETTINGS_OF_A_USER}, changes))


def session(**changes: Any) -> UserSession:
    """The session of the suite's user on a debian-13, changed likewise."""
    return UserSession.model_validate(LOGIN | changes)


def context(apparmor: str | None = "unconfined", **limits: int | None) -> Context:
    """What confines the suite's user on a debian-13, with these limits in place of its own."""
    about = {"apparmor": apparmor, "selinux": None, "delegated": (), "session": LOGIN}
    return Context.model_validate(about | {"limits": LIMITS | limits})


def probe(status: int | None, stderr: str = "", command: Sequence[str] = ()) -> Probe:
    return Probe(status=status, stderr=stderr, command=tuple(command))


def service_probe(**settings: str) -> ServiceProbe:
    """The look at a service that these settings restrict."""
    words = "; ".join(f"{name}={value}" for name, value in settings.items())
    return ServiceProbe(status=int(bool(settings)), stderr=words, command=(), settings=settings)


# The probes of a host on which everything works.
ALL_WORK: dict[str, Any] = dict.fromkeys(Probes.model_fields, probe(0)) | {
    "service_unrestricted": service_probe()
}


def probed(probes: Mapping[str, Probe], **changes: Any) -> ProbedUser:
    """The suite's user, changed likewise, with these probes; the others did not run."""
    all_of_them: dict[str, Any] = NONE_RUN.by_name() | dict(probes)
    user = ProcessUser.model_validate(_changed(TESTER, changes))
    return ProbedUser(**dict(user), probes=Probes(**all_of_them))


def put(root: Path, files: Mapping[str, str]) -> Path:
    """Write files below a folder that stands for a host's file system. Returns the folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def executable(file: Path, text: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    file.chmod(0o755)
    return file


# What the program of the facts answers where a user may not open /dev/kvm: root, who runs it in guests, may.
HIDDEN_KVM = 'return unreadable("kvm.capabilities") if is_hidden else None'


def read_facts_of_this_host(sysctls: Sequence[str]) -> Facts:
    """The facts of this host, by the program of guests; without the capabilities of KVM if they are hidden."""
    source = (PROGRAMS / "facts.py").read_text()
    assert HIDDEN_KVM in source
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        source = source.replace(HIDDEN_KVM, "return None")
    command = [sys.executable, "-I", "-S", "-c", source, json.dumps({"sysctls": [*sysctls]})]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return Facts.model_validate_json(printed)


def run_program(name: str, argument: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a program of the lab's here as it is run in a guest: without what `site` finds."""
    command = [sys.executable, "-I", "-S", str(PROGRAMS / f"{name}.py"), json.dumps(argument)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
