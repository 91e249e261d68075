"""Evidence from real guests (Debian 12 and 13), shortened to the relevant parts."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lab.causes import evidence
from lab.causes.evidence import Evidence
from lab.probes import NOT_RUN, Probe, Probes
from lab.record import BoxGroups
from tests.builders.facts import ALL_WORK, context, probe, probed, service_probe

OK = probe(0, "")
OPEN_SYSCTLS = {"kernel.unprivileged_userns_clone": "1", "user.max_user_namespaces": "7794"}


def bwrap(tried: Probe) -> dict[str, Probe]:
    """Bubblewrap with each of its options does the same."""
    return {"bwrap_user": tried, "bwrap_all": tried}


def none_made(tried: Probe, by_bwrap: Probe) -> dict[str, Probe]:
    """Nobody can make a user namespace."""
    return {"unshare_user": tried, "unshare_user_root": tried, **bwrap(by_bwrap)}


EPERM = probe(1, "unshare: unshare failed: Operation not permitted")
ENOSPC = probe(1, "unshare: unshare failed: No space left on device")
UID_MAP = probe(1, "unshare: write failed /proc/self/uid_map: Operation not permitted")
BWRAP_REFUSED = probe(
    1,
    "bwrap: No permissions to create a new namespace, likely because the kernel does not allow non-privileged "
    "user namespaces. See <https://deb.li/bubblewrap> or <file:///usr/share/doc/bubblewrap/README.Debian.gz>.",
)
BWRAP_ENOSPC = probe(
    1,
    "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
)
NO_PROGRAM = probe(None, "[Errno 2] No such file or directory: 'bwrap'")
BWRAP_NO_SETUID = probe(1, "bwrap: setuid use of bubblewrap is not supported")
BWRAP_EACCES = probe(1, "bwrap: Creating new namespace failed: Permission denied")
MASKS = probe(
    1,
    "/proc/acpi /proc/kcore /proc/keys /proc/timer_list /proc/bus /proc/fs /proc/irq /proc/sys "
    "/proc/sysrq-trigger",
)

# What each is: see the file.
KERNEL: dict[str, str] = tomllib.loads((Path(__file__).parents[1] / "unit/data/kernel.toml").read_text())
NOISE = KERNEL["NOISE"]
NO_MEMORY = KERNEL["NO_MEMORY"]
DENIED_CREATE = KERNEL["DENIED_CREATE"]
DENIED_MOUNT = KERNEL["DENIED_MOUNT"]
DENIED_CAP_BOXLITE = KERNEL["DENIED_CAP_BOXLITE"]
DENIED_CAP_BWRAP = KERNEL["DENIED_CAP_BWRAP"]
DISCONNECTED = KERNEL["DISCONNECTED"]
UBUNTU_MOVED = KERNEL["UBUNTU_MOVED"]
UBUNTU_SETPCAP = KERNEL["UBUNTU_SETPCAP"]
UBUNTU_UID_MAP = KERNEL["UBUNTU_UID_MAP"]
UBUNTU_UNCONFINED = KERNEL["UBUNTU_UNCONFINED"]
DENIED_CREATE_IN_CONTAINER = KERNEL["DENIED_CREATE_IN_CONTAINER"]
SELINUX_DENIED = KERNEL["SELINUX_DENIED"]


def gathered(
    kernel: str = NOISE,
    *,
    probes: Mapping[str, Probe] | None = None,
    sysctls: dict[str, str] | None = None,
    profile: str | None = None,
    messages: tuple[str, ...] = (),
    control_failed: bool = False,
    logs: tuple[str, ...] = (),
    modes: Mapping[str, int] | None = None,
    groups: tuple[BoxGroups, ...] = (),
    nofile: int = 524288,
) -> Evidence:
    """Evidence of a guest on which everything works except what is given."""
    return Evidence(
        probes=Probes(**ALL_WORK | dict(probes or {})),
        sysctls=OPEN_SYSCTLS | (sysctls or {}),
        audit=evidence.parse_audit(kernel),
        profile=profile,
        messages=messages,
        control_failed=control_failed,
        logs=logs,
        modes=dict(modes or {}),
        groups=groups,
        limits=context(nofile_hard=nofile).limits,
    )


CLEAN = gathered()
KVM_ABSENT = gathered(
    probes={"open_kvm": probe(2, "No such file or directory: '/dev/kvm'")},
    messages=("boxlite.errors.UnsupportedError: unsupported: KVM is not available on this host.",),
    control_failed=True,
)
KVM_DENIED = gathered(
    probes={"open_kvm": probe(13, "Permission denied: '/dev/kvm'")},
    messages=(
        "boxlite.errors.UnsupportedError: unsupported: KVM is available but access is denied for the current "
        "user.",
    ),
    control_failed=True,
)
KVM_WITHOUT_DRIVER = gathered(
    probes={"open_kvm": probe(19, "[Errno 19] No such device: '/dev/kvm'"), "create_vm": NOT_RUN},
    messages=("boxlite.errors.UnsupportedError: unsupported: KVM could not be opened.",),
    control_failed=True,
)
KVM_UNUSABLE = gathered(
    probes={"create_vm": probe(25, "[Errno 25] Inappropriate ioctl for device")},
    messages=(
        "boxlite.errors.UnsupportedError: unsupported: KVM is present but cannot run a virtual machine on this "
        "host.",
    ),
    control_failed=True,
)
DENIED_KVM = (
    '[  109.071039] audit: type=1400 audit(1795667221.746:105): apparmor="DENIED" operation="open" '
    'class="file" profile="lab-without-kvm" name="/dev/kvm" pid=755 comm="python3" requested_mask="wr" '
    'denied_mask="wr" fsuid=1001 ouid=0\n'
)
APPARMOR_KVM_DENY = gathered(
    DENIED_KVM,
    probes={"open_kvm": probe(13, "[Errno 13] Permission denied: '/dev/kvm'")},
    profile="lab-without-kvm",
    messages=KVM_DENIED.messages,
    control_failed=True,
)
SOCKET_FOLDER = gathered(
    probes={"socket_folder": probe(1, "/tmp/bl-1001 is owned by uid 0")},
    messages=(
        "boxlite.errors.InternalError: internal error: /tmp/bl-1001 is owned by uid 0 (expected 1001) — "
        "refusing to use it (possible squatting; remove it or check ownership)",
    ),
    control_failed=True,
)
TMP_CLOSED = gathered(
    probes={"socket_folder": probe(13, "[Errno 13] Permission denied: '/tmp/.lab-probe'")},
    messages=(
        "boxlite.errors.StorageError: storage error: Failed to create socket symlink dir /tmp/bl-1001: "
        "Permission denied (os error 13)",
    ),
    control_failed=True,
)
HOME_NOEXEC = gathered(
    probes={
        "exec_home": probe(13, "[Errno 13] Permission denied: '/home/tester/.lab-probe'"),
        "home_allows_exec": probe(1, "noexec"),
    },
    messages=(
        "boxlite.errors.StorageError: storage error: Failed to run mke2fs (/home/tester/.local/share/boxlite/"
        "runtimes/v0.10.8-fc65419-3c4eaf9215b6/mke2fs): Permission denied (os error 13)",
    ),
    control_failed=True,
)
BWRAP_EXEC_EACCES = probe(None, "[Errno 13] Permission denied: 'bwrap'")
BWRAP_EXEC_DENIED = gathered(
    probes=bwrap(BWRAP_EXEC_EACCES),
    profile="lab-without-bwrap",
    logs=(
        "2026-11-26T04:23:46.118529Z ERROR boxlite::jailer::sandbox::bwrap: Sandbox preflight failed: bwrap "
        "cannot create user namespaces.\nfailed to run bwrap: Permission denied (os error 13)\n",
    ),
)
# The same with `audit deny` in the profile.
DENIED_EXEC = (
    '[  117.376722] audit: type=1400 audit(1795667067.089:107): apparmor="DENIED" operation="exec" '
    'class="file" profile="lab-without-bwrap-a" name="/home/tester/.local/share/boxlite/runtimes/'
    'v0.10.8-fc65419-3c4eaf9215b6/bwrap" pid=772 comm="tokio-rt-worker" requested_mask="x" denied_mask="x" '
    "fsuid=1001 ouid=1001\n"
)
BWRAP_EXEC_DENIED_LOGGED = gathered(
    NOISE + DENIED_EXEC,
    probes=bwrap(BWRAP_EXEC_EACCES),
    profile="lab-without-bwrap-a",
    logs=BWRAP_EXEC_DENIED.logs,
)
SHIM_NOT_EXECUTABLE = gathered(
    logs=("bwrap: execvp /home/tester/box-1d_4cqok/boxes/ePoFaMBWTqxA/bin/boxlite-shim: Permission denied\n",),
    modes={
        ".local/share/boxlite/runtimes/v0.10.8-fc65419-3c4eaf9215b6/boxlite-shim": 0o755,
        "box-1d_4cqok/boxes/ePoFaMBWTqxA/bin/boxlite-shim": 0o664,
        "box-1d_4cqok/boxes/ePoFaMBWTqxA/bin/libkrunfw.so.5": 0o664,
    },
)
SHIM_EXECUTABLE = replace(SHIM_NOT_EXECUTABLE, modes={"box-a/boxes/B0X/bin/boxlite-shim": 0o755})
BWRAP_SETUID = gathered(probes=bwrap(BWRAP_NO_SETUID))
USERNS_SYSCTL = gathered(
    probes=none_made(EPERM, BWRAP_REFUSED), sysctls={"kernel.unprivileged_userns_clone": "0"}
)
USERNS_LIMIT = gathered(probes=none_made(ENOSPC, BWRAP_ENOSPC), sysctls={"user.max_user_namespaces": "0"})
NAMESPACE_LIMIT = gathered(probes={"bwrap_all": BWRAP_ENOSPC}, sysctls={"user.max_pid_namespaces": "0"})
NAMESPACE_LIMIT_OF_MOUNTS = gathered(probes=bwrap(BWRAP_ENOSPC), sysctls={"user.max_mnt_namespaces": "0"})
APPARMOR_DENY = gathered(NOISE + DENIED_CREATE, probes=bwrap(BWRAP_EACCES))
UNSHARE_EACCES = probe(1, "unshare: unshare failed: Permission denied")
SELINUX_DENY = gathered(NOISE + SELINUX_DENIED, probes=none_made(UNSHARE_EACCES, BWRAP_EACCES))
BWRAP_UID_MAP = probe(1, "bwrap: setting up uid map: Permission denied")
APPARMOR_DISCONNECTED = gathered(
    NOISE + DENIED_CREATE.replace("DENIED", "ALLOWED") + DISCONNECTED, probes=bwrap(BWRAP_UID_MAP)
)
APPARMOR_NOCAPS = gathered(
    NOISE + DENIED_CAP_BOXLITE + DENIED_CAP_BWRAP, probes={"unshare_user_root": UID_MAP, **bwrap(BWRAP_REFUSED)}
)
UBUNTU_PROBES = {"unshare_user_root": UID_MAP, **bwrap(BWRAP_UID_MAP)}
UBUNTU = gathered(UBUNTU_MOVED + UBUNTU_SETPCAP + UBUNTU_UID_MAP, probes=UBUNTU_PROBES)
UBUNTU_NOT_REPEATED = gathered(UBUNTU_MOVED + UBUNTU_UID_MAP, probes=UBUNTU_PROBES)
# Without a bubblewrap of the system's: boxlite's own makes its namespace and may not write its map of users.
BUNDLED_PROBES = {"unshare_user_root": UID_MAP, **bwrap(NO_PROGRAM)}
BUNDLED_SAYS = ("user_namespaces: bwrap --unshare-user failed: bwrap: setting up uid map: Permission denied",)
UBUNTU_BUNDLED_NOT_LOGGED = gathered(
    probes=BUNDLED_PROBES, logs=BUNDLED_SAYS, sysctls={"kernel.apparmor_restrict_unprivileged_userns": "1"}
)
UBUNTU_WITHOUT_PROFILE = gathered(UBUNTU_UNCONFINED, probes=none_made(UNSHARE_EACCES, BWRAP_EACCES))
BWRAP_NO_MOUNT = probe(1, "bwrap: Failed to make / slave: Permission denied")
APPARMOR_MOUNT_DENY = gathered(NOISE + DENIED_MOUNT, probes=bwrap(BWRAP_NO_MOUNT))
APPARMOR_MOUNT_DENY_QUIET = gathered(NOISE, probes=bwrap(BWRAP_NO_MOUNT), profile="lab-without-mount")
DENIED_PIVOT_ROOT = (
    '[  112.154351] audit: type=1400 audit(1795667190.427:105): apparmor="DENIED" operation="pivotroot" '
    'class="mount" profile="lab-bwrap-without-pivot-root" name="/tmp/" pid=773 comm="bwrap" '
    'srcname="/tmp/oldroot/"\n'
)
BWRAP_NO_PIVOT_ROOT = probe(1, "bwrap: pivot_root: Permission denied")
APPARMOR_PIVOT_ROOT_DENY = gathered(NOISE + DENIED_PIVOT_ROOT, probes=bwrap(BWRAP_NO_PIVOT_ROOT))
# In podman's containers.
SECCOMP = gathered(
    probes=none_made(EPERM, BWRAP_REFUSED)
    | {"unshare_nothing": probe(1, "Operation not permitted"), "proc_unmasked": MASKS},
    profile="containers-default-0.62.2",
)
APPARMOR_DENY_IN_CONTAINER = gathered(
    DENIED_CREATE_IN_CONTAINER,
    probes=none_made(UNSHARE_EACCES, BWRAP_EACCES) | {"proc_unmasked": MASKS},
    profile="containers-default-0.62.2",
)
MASKED_PROC = gathered(
    probes={
        "bwrap_all": probe(1, "bwrap: Can't mount proc on /proc: Operation not permitted"),
        "proc_unmasked": MASKS,
    }
)


def service(**settings: str) -> dict[str, Probe]:
    """The probe that looks at the service, as it tells these settings."""
    return {"service_unrestricted": service_probe(**settings)}


# In services of a debian-13.
SERVICE_PRIVATE_DEVICES = replace(
    KVM_ABSENT,
    probes=KVM_ABSENT.probes.model_copy(
        update=service(DevicePolicy="closed", PrivateDevices="yes")
        | {"open_kvm": probe(2, "[Errno 2] No such file or directory: '/dev/kvm'")}
    ),
)
CONTAINER_WITHOUT_KVM = replace(KVM_ABSENT, container="docker")
SERVICE_DEVICE_RULES = replace(
    KVM_DENIED,
    probes=KVM_DENIED.probes.model_copy(
        update=service(DevicePolicy="closed")
        | {"open_kvm": probe(1, "[Errno 1] Operation not permitted: '/dev/kvm'")}
    ),
)
TMP_READ_ONLY = gathered(
    probes={"socket_folder": probe(30, "[Errno 30] Read-only file system: '/tmp/.lab-probe'")},
    messages=(
        "boxlite.errors.StorageError: storage error: Failed to create socket symlink dir /tmp/bl-1001: "
        "Read-only file system (os error 30)",
    ),
    control_failed=True,
)
SERVICE_STRICT = replace(
    TMP_READ_ONLY, probes=TMP_READ_ONLY.probes.model_copy(update=service(ProtectSystem="strict"))
)
SERVICE_NAMESPACES = gathered(
    probes=none_made(EPERM, BWRAP_REFUSED)
    | {"unshare_flags": probe(1, "Operation not permitted"), **service(RestrictNamespaces="yes")}
)
SERVICE_PROC_SUBSET = gathered(
    probes=bwrap(probe(1, "bwrap: Can't read /proc/sys/kernel/overflowuid: No such file or directory"))
    | service(ProcSubset="pid", ProtectProc="invisible")
)
SERVICE_CALLS = gathered(
    probes=bwrap(probe(-31))
    | {
        "mount_nothing": probe(-31, "killed by SIGSYS", ["mount(NULL)"]),
        **service(SystemCallFilter="mount pivot_root umount2"),
    }
)
SERVICE_OPENAT2 = gathered(
    probes=bwrap(probe(1, "bwrap: Can't open source /: Function not implemented"))
    | service(NoNewPrivileges="yes", RestrictSUIDSGID="yes")
)
SERVICE_PROC = gathered(
    probes={
        "bwrap_all": probe(1, "bwrap: Can't mount proc on /newroot/proc: Operation not permitted"),
        "proc_unmasked": probe(1, "/proc/acpi /proc/bus /proc/fs /proc/irq /proc/kallsyms /proc/sys"),
        **service(ProtectKernelTunables="yes"),
    }
)
# On a debian-11 with boxlite 0.10.0, for each box.
BWRAP_TOO_OLD = gathered(
    messages=("boxes.BoxliteFailed: Error: engine reported an error: The VM failed to start.",),
    logs=("Shim stderr:\nbwrap: Unknown option --clearenv\n",),
)
# On a debian-13 with boxlite 0.10.0, for each box.
MOUNT_SYMLINK = gathered(
    messages=("boxlite.errors.EngineError: engine reported an error: The VM failed to start.",),
    logs=("Shim stderr:\nbwrap: Can't mount on symlink destination /etc/ssl/certs/ca-certificates.crt\n",),
)
# Put together from the report boxlite#888: no guest showed it.
NPROC_LIMIT = gathered(
    logs=("Shim stderr:\nbwrap: Creating new namespace failed: Resource temporarily unavailable\n",),
    control_failed=True,
)
# On a debian-13 with boxlite 0.10.8: a box without a network that makes a symbolic link in a mounted directory.
SHIM_WROTE_SIGSYS = gathered(logs=('{"type":"signal","exit_code":159,"signal":"SIGSYS"}',))
# Put together from the report boxlite#267 and the kernel's `audit_seccomp`: no guest showed it.
SHIM_KILLED = (
    "[  135.883871] audit: type=1326 audit(1795601639.468:105): auid=1001 uid=1001 gid=1001 ses=3 "
    'subj=unconfined pid=807 comm="boxlite-shim" exe="/home/tester/box-a/boxes/b/bin/boxlite-shim" sig=31 '
    "arch=c000003e syscall=35 compat=0 ip=0x7f1c5e2d4a3b code=0x80000000\n"
)
SHIM_SECCOMP = gathered(
    NOISE + SHIM_KILLED,
    messages=(
        "boxlite.errors.EngineError: engine reported an error: The VM failed to start: seccomp violation "
        "(SIGSYS).",
    ),
)
# On a debian-12 with boxlite 0.10.8: a box without a network, in a service with @system-service and @mount.
SERVICE_WITHOUT_SECCOMP = gathered(
    SHIM_KILLED.replace("syscall=35", "syscall=317"), probes=service(SystemCallFilter="seccomp")
)
# Put together from the reports boxlite#1144 and #1509.
LIBRARY_LOST = gathered(
    messages=("boxlite.errors.EngineError: engine reported an error: The VM failed to start.",),
    logs=("Couldn't find or load libkrunfw.so.5\n[krun] krun_start_enter returned (status=-2, elapsed=0ms)\n",),
    modes={".local/share/boxlite/runtimes/v0.10.8-fc65419-3c4eaf9215b6/boxlite-shim": 0o755},
    control_failed=True,
)
# Measured on debian-13-arm64.
LIBRARY_CRASHES = gathered(
    logs=(
        "[shim] T+15ms: logging initialized\n[shim] T+53ms: engine created\n",
        '{"type":"signal","exit_code":139,"signal":"SIGSEGV"}',
    ),
    control_failed=True,
)
# boxlite's own source after 0.10.8: no release says it.
CGROUP_UNAVAILABLE = gathered(
    logs=("ERROR boxlite::jailer: Cgroup setup failed — refusing to start the box unconfined; fix the",)
)
SELINUX_DENIED_MOUNT = (
    "[  322.715868] audit: type=1400 audit(1795669545.984:61): avc:  denied  { mounton } for  pid=685 "
    'comm="bwrap" path="/" dev="vda" ino=2 scontext=unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023 '
    "tcontext=system_u:object_r:root_t:s0 tclass=dir permissive=0\n"
)
SELINUX_MOUNT_DENY = gathered(NOISE + SELINUX_DENIED_MOUNT, probes=bwrap(BWRAP_NO_MOUNT))


def write(folder: Path, evidence: Evidence, kernel: str) -> None:
    """Write evidence into a cell's folder, as a run does."""
    (folder / "probes.json").write_text(probed(evidence.probes.by_name()).model_dump_json())
    (folder / "sysctls.txt").write_text("".join(f"{name} = {v}\n" for name, v in evidence.sysctls.items()))
    (folder / "kernel.log").write_text(kernel)


# A detached box in a login by SSH, and in a scope of the user's own systemd; measured on debian-13.
SSH_SERVICE, USER_SCOPE = "0::/system.slice/ssh.service", "0::/user.slice/user-1001.slice/user@1001.service"
CGROUP_NOT_JOINED = gathered(groups=(BoxGroups(caller=SSH_SERVICE, box=[SSH_SERVICE]),))
CGROUP_JOINED = gathered(
    groups=(BoxGroups(caller=f"{USER_SCOPE}/app.slice/run-u1.scope", box=[f"{USER_SCOPE}/boxlite/BOX"]),)
)
# On a debian-13 with nofile-256: the box of the strongest preset.
NOFILE_LIMIT = gathered(
    nofile=256,
    messages=("boxlite.errors.EngineError: engine reported an error: The VM failed to start.",),
    logs=("fatal runtime error: assertion failed: output.write(&bytes).is_ok(), aborting",),
)
# On a debian-13 with boxlite 0.10.8: a volume behind a symlink, and three beside the network.
VOLUME_SYMLINK = gathered(
    logs=(
        "[shim] T+77ms: engine created\nError: Engine(\"Filesystem share directory 'uservol0' not found: "
        '/home/tester/volumes-8n7wjqpf/one")\n',
    )
)
THREE_VOLUMES = gathered(
    logs=(
        "[krun] 18:19:28.641231 krun_start_enter called\n"
        "[2026-12-01T18:19:28.804Z ERROR krun] Building the microVM failed: RegisterNetDevice(IrqsExhausted)\n"
        'Error: Engine("VM failed to start (libkrun status=-22)")\n',
    )
)
