"""Things to test with, and other processes to test against."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from lab.base.wait import Deadline, wait_for
from lab.catalog import Firmware
from lab.images.content import DISK
from lab.images.store import BaseImage, Manifest, StoredFile
from lab.probes import NOT_RUN, Context, Facts, Probe, Probed, Probes, SuiteUser, Who
from lab.record import BuildRecord, CellResult, Expectation, Host, RunInfo, RunResult, Status

LOCK_HOLDER = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("locked", flush=True)
sys.stdin.read()
"""

LANE_HOLDER = """
import sys
from pathlib import Path
from lab.machine import leftovers, ports
from lab.base.paths import Paths
ports.FIRST, ports.LAST = 23150, 23199
base = Path(sys.argv[1])
paths = Paths(cache=base / "cache", state=base / "state")
port = ports.reserve(paths.make(paths.ports))
with leftovers.lane_folder(paths, guest="debian-13", uri="test:///default") as folder:
    print(folder.name, flush=True)
    sys.stdin.read()
"""

# What confines a box of the jailer, as the record has it.
JAILED: dict[str, Any] = {
    "program": "libkrun VM",
    "namespaces": ["ipc", "mnt", "pid", "user", "uts"],
    "no_new_privs": True,
    "seccomp": ["filter"],
    "capabilities": dict.fromkeys(("Inh", "Prm", "Eff", "Bnd", "Amb"), "0" * 16),
    "users": ["1001"],
    "groups": ["1001", "993"],
    "root": "/",
    "cgroup": "0::/user.slice/box",
    "limits": {"open files": "1024"},
    "mounts": ["/ rw", "/usr ro", "HOME/boxes/BOX/tmp rw"],
}

# A debian-13 as installed.
DEBIAN: dict[str, Any] = {
    "os": {
        "id": "debian",
        "version_id": "13",
        "version_codename": "trixie",
        "pretty_name": "Debian GNU/Linux 13 (trixie)",
    },
    "kernel": "6.12.118+deb13-cloud-amd64",
    "command_line": "root=LABEL=root rw console=ttyS0 panic=-1",
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
        "features": {
            "namespaces_mask": "userns_create",
            "unconfined_userns": None,
            "policy_versions": ["v5", "v6", "v7", "v8", "v9"],
        },
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
        "capabilities": None,
    },
    "kvm": {"mode": "0o660", "uid": 0, "gid": 993, "owner": "root", "group": "kvm"},
    "podman": False,
    "mkfs_btrfs": False,
    "cpu_level": 3,
    "login_sessions": False,
    "virtualization": "svm",
    "cgroup": {"version": "v2", "controllers": ["cpu", "memory", "pids"]},
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
    "deny_unknown": False,
    "modules": [],
}
TESTER: dict[str, Any] = {
    "uid": 1001,
    "groups": [993, 1001],
    "context": {"apparmor": "unconfined", "selinux": None, "delegated": ["memory", "pids"]},
    "seccomp": 0,
    "container": False,
}


def _changed(known: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of `known` with these values; a dict only changes the keys that it has."""
    merged = {
        key: known[key] | value
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(known.get(key), dict)
    }
    return known | changes | merged


def printed_facts(**changes: Any) -> dict[str, Any]:
    """What facts.py prints on a debian-13, with these changes; `selinux` changes `SELINUX`."""
    if changes.get("selinux") is not None:
        changes["selinux"] = SELINUX | changes["selinux"]
    # A test may change what it gets.
    return _changed(deepcopy(DEBIAN), changes)


def facts(**changes: Any) -> Facts:
    """The facts of a debian-13, changed as in `printed_facts`."""
    return Facts.model_validate(printed_facts(**changes))


SETTINGS_OF_A_USER = {"links": {}, "limits": {"nproc": 3897}, "bubblewrap": "unconfined"}


def who(**changes: Any) -> SuiteUser:
    """The suite's user on a debian-13, changed likewise."""
    return SuiteUser.model_validate(_changed({**TESTER, **SETTINGS_OF_A_USER}, changes))


def context(apparmor: str | None = "unconfined") -> Context:
    """What confines the suite's user on a debian-13."""
    return Context(apparmor=apparmor, selinux=None, delegated=())


def probe(status: int | None, stderr: str = "", command: Sequence[str] = ()) -> Probe:
    return Probe(status=status, stderr=stderr, command=tuple(command))


def probed(probes: Mapping[str, Probe], **changes: Any) -> Probed:
    """The suite's user, changed likewise, with these probes; the others did not run."""
    all_of_them = dict.fromkeys(Probes.model_fields, NOT_RUN) | dict(probes)
    user = Who.model_validate(_changed(TESTER, changes))
    return Probed(**dict(user), probes=Probes(**all_of_them))


@contextmanager
def other_process(program: str, *arguments: object) -> Iterator[tuple[psutil.Process, str]]:
    """A Python program in its own process and the first line it prints; killed at the end of the block."""
    child = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            yield psutil.Process(child.pid), child.stdout.readline().strip()
        finally:
            child.kill()


def keys_for_all(folder: Path) -> list[Path]:
    """The files below a folder that hold a private key and that others than their owner may read."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o044]
    return [file for file in files if b"PRIVATE KEY-----" in file.read_bytes()]


def wait_until_ended(pid: int) -> None:
    """Wait until a process is gone; one that nobody has collected yet counts as gone."""

    def ended() -> bool | None:
        try:
            return True if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return True

    wait_for(ended, Deadline(20, f"the end of process {pid}"), interval=0.02)


def cell(guest: str = "debian-13", variant: str = "stock", **more: Any) -> CellResult:
    wanted: dict[str, Any] = {"build": "0.10.8", "status": Status.PASS, "expected": Expectation()}
    return CellResult(guest=guest, variant=variant, **(wanted | more))


def host(**more: Any) -> Host:
    """A host without KVM, as a run's record has it."""
    values: dict[str, Any] = {
        "name": "host.example",
        "kernel": "6.12",
        "system": "Debian",
        "cpus": 2,
        "memory_mib": 24_000,
        "libvirt": "11.3.0",
        "qemu": "10.0.13",
        "connect": "qemu:///system",
        "acceleration": "emulation",
        "acceleration_reason": "/dev/kvm does not exist",
    }
    return Host(**(values | more))


def run_of(*cells: CellResult, **more: Any) -> RunResult:
    started = datetime(2026, 11, 24, 16, 0, tzinfo=UTC)
    builds = dict.fromkeys(cell.build for cell in cells)
    more.setdefault("builds", [BuildRecord(name=name, version=name, source="PyPI") for name in builds])
    info = RunInfo(id="20261124-160000", started=started, command="lab matrix", lab="0.1.0", **more)
    return RunResult(run=info, cells=list(cells))


def base_image(folder: Path, firmware: Firmware | None = None) -> BaseImage:
    disk = StoredFile(sha256="1" * 64, size=1, modified_ns=1)
    manifest = Manifest(
        guest="debian-13",
        inputs="0" * 64,
        disk_sha256=disk.sha256,
        built="today",
        seconds=1.0,
        source="built",
        files={DISK: disk},
    )
    return BaseImage(folder, manifest, firmware)


def domain_capabilities(*firmware: Path) -> str:
    """As much of what libvirt says of a kind of machine as tells which UEFI firmware it can have."""
    values = "".join(f"<value>{file}</value>" for file in firmware)
    return f"<domainCapabilities><os><loader supported='yes'>{values}</loader></os></domainCapabilities>"
