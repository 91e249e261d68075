"""The causes that boxlite meets before it starts bubblewrap, in this order: each is the rule that detects it.

The comment above a rule says why it stands there. Its docstring explains the cause to users in two sentences:
what blocks boxlite, and where that comes from. No rule relies on a message that a program prints for several
causes.
"""

import re

from lab.causes.evidence import Evidence
from lab.causes.rule import (
    NO_DEVICE,
    NOT_PERMITTED,
    NOT_THERE,
    PERMISSION_DENIED,
    CauseEvidence,
    add_cause,
    prove_if,
)
from lab.record import Confidence, Needs

# boxlite 0.10.8's messages.
KVM_IS_ABSENT = "KVM is not available on this host"
KVM_IS_DENIED = "KVM is available but access is denied"
DEVICE = "/dev/kvm"


# systemd gives a service with the first of these a /dev of its own, and one with the others a filter for
# devices in its control group.
PRIVATE_DEVICES, DEVICE_RULES = "PrivateDevices", ("DevicePolicy", "DeviceAllow")


# boxlite's runtime checks /dev/kvm first.
@add_cause("service-without-kvm", Needs.RUNTIME)
def service_without_kvm(evidence: Evidence) -> CauseEvidence | None:
    """The systemd service that boxlite runs in gets no /dev/kvm, and every box is a virtual machine that needs
    it. PrivateDevices= hides the device, and DevicePolicy= and DeviceAllow= refuse to open it, whatever the
    user's groups are.
    """
    probe, service = evidence.probes.open_kvm, evidence.service
    if probe.failed_with(NOT_THERE) and PRIVATE_DEVICES in service:
        reason = f"the service has {PRIVATE_DEVICES}={service[PRIVATE_DEVICES]}, and in it there is no {DEVICE}"
        return CauseEvidence(Confidence.PROVED, reason)
    rules = [name for name in DEVICE_RULES if name in service]
    # A file's mode, an AppArmor profile and SELinux give EACCES.
    if probe.failed_with(NOT_PERMITTED) and rules:
        reason = f"the service has {rules[0]}={service[rules[0]]}, and opening {DEVICE} fails with EPERM"
        return CauseEvidence(Confidence.PROVED, reason)
    return None


# See `service-without-kvm`. What is in a container says nothing about its host.
@add_cause("container-without-kvm", Needs.RUNTIME)
def container_without_kvm(evidence: Evidence) -> CauseEvidence | None:
    """The container that boxlite runs in has no /dev/kvm, and every box is a virtual machine that needs it.
    Docker and podman give a container this device only if they are told to.
    """
    if not evidence.container or not evidence.probes.open_kvm.failed_with(NOT_THERE):
        return None
    return CauseEvidence(Confidence.PROVED, f"in the container of {evidence.container} there is no {DEVICE}")


# See `service-without-kvm`, which hides what there is.
@add_cause("kvm-absent", Needs.RUNTIME, blamed_by=[KVM_IS_ABSENT])
def kvm_absent(evidence: Evidence) -> CauseEvidence | None:
    """This host has no /dev/kvm, and every box is a virtual machine that needs it. Either virtualization is
    disabled in the firmware or in the hypervisor that runs this host, or the kernel module kvm_intel or kvm_amd
    is not loaded.
    """  # noqa: D404 - users read it
    probe = evidence.probes.open_kvm
    missing, empty = probe.failed_with(NOT_THERE), probe.failed_with(NO_DEVICE)
    hidden = service_without_kvm(evidence) or container_without_kvm(evidence)
    if hidden or not (missing or empty or evidence.says(KVM_IS_ABSENT)):
        return None
    proof = "there is no /dev/kvm" if missing else f"nothing is behind /dev/kvm: {probe.stderr}"
    return prove_if(missing or empty, "boxlite finds no KVM", f", and {proof}")


# Checked together with its absence; only one of the two is possible.
@add_cause("kvm-denied", Needs.RUNTIME, blamed_by=[KVM_IS_DENIED])
def kvm_denied(evidence: Evidence) -> CauseEvidence | None:
    """The user may not open /dev/kvm, and every box is a virtual machine that needs it. On Debian and Ubuntu it
    belongs to the group kvm, and a user who is added to this group must log in again.
    """
    denied = evidence.probes.open_kvm.failed_with(PERMISSION_DENIED)
    if service_without_kvm(evidence) or not (denied or evidence.says(KVM_IS_DENIED)):
        return None
    # The kernel asks AppArmor only after the file's permissions allowed it.
    if device_denials(evidence):
        return None
    return prove_if(denied, "boxlite may not use KVM", ", and opening /dev/kvm fails with EACCES")


# The kernel asks AppArmor after it has checked the permissions of the file: see `kvm-denied`.
@add_cause("apparmor-kvm-deny", Needs.RUNTIME)
def apparmor_kvm_deny(evidence: Evidence) -> CauseEvidence | None:
    """An AppArmor profile that confines boxlite denies it /dev/kvm, and every box is a virtual machine that
    needs it. The file's permissions allow it, so membership of the group kvm does not help; the kernel's audit
    line names the profile.
    """
    lines = device_denials(evidence)
    if not lines:
        return None
    probe = evidence.probes.open_kvm
    reason = f"AppArmor denied {DEVICE} to {lines[0].get('comm')} under profile {lines[0].get('profile')}"
    return prove_if(probe.failed_with(PERMISSION_DENIED), reason, ", and opening it fails with EACCES")


def device_denials(evidence: Evidence) -> list[dict[str, str]]:
    """Return AppArmor's denials of /dev/kvm to boxlite, or to any program if no probe could open it."""
    probe = evidence.probes.open_kvm
    return [
        line
        for line in evidence.denied(operation="open", name=DEVICE)
        if not probe.worked and (probe.status is None or line.get("profile") in evidence.profiles)
    ]


# boxlite 0.10.8's words: to its caller, and in its log.
KVM_IS_UNUSABLE = "KVM is present but cannot run a virtual machine"
SMOKE_TEST = "KVM smoke test failed"


# boxlite opens /dev/kvm and then has a virtual machine execute one instruction (`smoke_test_kvm` in its
# system_check.rs).
@add_cause("kvm-unusable", Needs.RUNTIME, blamed_by=[KVM_IS_UNUSABLE, SMOKE_TEST])
def kvm_unusable(evidence: Evidence) -> CauseEvidence | None:
    """The user may open /dev/kvm, but it cannot make or run a virtual machine, and every box is one. Another
    hypervisor such as VirtualBox uses the processor, or virtualization inside of a virtual machine does not
    work there, or another device is in the place of KVM's.
    """
    probe = evidence.probes.create_vm
    words = next((words for words in (SMOKE_TEST, KVM_IS_UNUSABLE) if evidence.boxlite_says(words)), None)
    if probe.failed:
        return CauseEvidence(
            Confidence.PROVED, f"/dev/kvm can be opened, and it makes no virtual machine: {probe.stderr}"
        )
    # A machine can be made, and it may still not run.
    return CauseEvidence(Confidence.LIKELY, f"boxlite says: {words}") if words else None


# A process or a thread that could not be started, for EAGAIN: as bubblewrap, Rust's standard library and the Go
# runtime in boxlite's shim print it. Other calls have the same error for other reasons.
NOT_STARTED = re.compile(
    r"Creating new namespace failed: Resource temporarily unavailable"
    r"|[Ff]ailed to run [^:\n]{1,200}: Resource temporarily unavailable"
    r"|\bspawn\b[^:\n]{0,60}: (?:Resource temporarily unavailable|Os \{ code: 11\b)"
    r"|failed to create new OS thread"
    r"|pthread_create failed: Resource temporarily unavailable"
)


# boxlite starts threads before it runs its own programs: see `home-noexec`. With no process left at all, not
# even its runtime starts; a user who is near the limit has no box. The limit refuses whichever process is one
# too many, and how many threads there are at a moment is timing.
@add_cause("nproc-limit", Needs.BOX, met_by_chance=True)
def nproc_limit(evidence: Evidence) -> CauseEvidence | None:
    """The user has as many processes and threads as the limit RLIMIT_NPROC allows, so no more can be started
    for a box. The limit counts everything of this user on the whole host, and usually comes from
    /etc/security/limits.conf.
    """
    words = next((match[0] for text in evidence.said if (match := NOT_STARTED.search(text))), None)
    probe = evidence.probes.start_processes
    if words is None and not probe.failed:
        return None
    # A control group and the whole host have limits with the same error.
    if words:
        return CauseEvidence(Confidence.LIKELY, f"no process could be started: {words}")
    reason = f"the user cannot start the processes of a box, {' '.join(probe.command)}: {probe.stderr}"
    return CauseEvidence(Confidence.LIKELY, reason)


# boxlite 0.10.8's messages about the folder through which it reaches the sockets of a box
# (`ensure_owned_private_dir` in its net/socket_path.rs).
NO_SOCKET_FOLDER = "Failed to create socket symlink dir"
SQUATTED = "refusing to use it (possible squatting"
SOCKET_FOLDER = re.compile(
    rf"{NO_SOCKET_FOLDER} /tmp/[^\n]{{1,100}}"
    r"|/tmp/bl-\d{1,10} (?:is owned by uid \d{1,10}|exists but is not a directory)"
)
# strerror(3) for EROFS, and systemd's setting that makes all files read-only but those that a service names.
READ_ONLY, PROTECT_SYSTEM = "Read-only file system", "ProtectSystem"


# See `socket-folder`.
@add_cause("service-closes-tmp", Needs.BOX, blamed_by=[NO_SOCKET_FOLDER])
def service_closes_tmp(evidence: Evidence) -> CauseEvidence | None:
    """The systemd service that boxlite runs in has ProtectSystem=strict and no /tmp of its own, so /tmp is
    read-only for it. boxlite reaches the sockets of its boxes through the folder /tmp/bl-UID, which it cannot
    make there.
    """
    setting = evidence.service.get(PROTECT_SYSTEM)
    # The other values of the setting leave /tmp alone.
    if setting != "strict" or not evidence.probes.socket_folder.failed_with(READ_ONLY):
        return None
    reason = f"the service has {PROTECT_SYSTEM}={setting}, and making a folder in /tmp fails with EROFS"
    return CauseEvidence(Confidence.PROVED, reason)


# boxlite prepares a box's folders before its disks: see `home-noexec`.
@add_cause("socket-folder", Needs.BOX, blamed_by=[NO_SOCKET_FOLDER, SQUATTED])
def socket_folder(evidence: Evidence) -> CauseEvidence | None:
    """The user cannot have the folder /tmp/bl-UID, through which boxlite reaches the sockets of its boxes.
    Another user made it before, as anybody can, or the user may not write to /tmp, because its mode is not the
    usual 1777 or because it is read-only.
    """
    if service_closes_tmp(evidence):
        return None
    probe = evidence.probes.socket_folder
    message = next((match[0] for text in evidence.said if (match := SOCKET_FOLDER.search(text))), None)
    if probe.failed:
        return CauseEvidence(Confidence.PROVED, f"the user cannot have the folder for sockets: {probe.stderr}")
    return CauseEvidence(Confidence.LIKELY, f"boxlite says: {message}") if message else None


# boxlite unpacks its own programs below the home and runs them from there; mke2fs, for the box's disk, runs
# before bubblewrap.
@add_cause("home-noexec", Needs.BOX)
def home_noexec(evidence: Evidence) -> CauseEvidence | None:
    """The user's home directory is mounted with the option noexec, and boxlite runs its bundled programs from
    there (~/.local/share/boxlite). No file on that mount can be executed, whatever its permissions are.
    """
    if not evidence.probes.exec_home.failed_with(PERMISSION_DENIED):
        return None
    # Without the option something else denies the execution, which is another cause.
    if not evidence.probes.home_allows_exec.failed_with("noexec"):
        return None
    reason = "the home directory is mounted noexec: executing a program in it fails with EACCES"
    return CauseEvidence(Confidence.PROVED, reason)


# What `SecurityOptions.maximum()` of boxlite 0.10.8 asks for, as `max_open_files`.
MOST_OPEN_FILES = 1024
# Rust's standard library, if a step between fork and exec failed and its error cannot be passed on: boxlite has
# closed the pipe for it by then. After that come only a box's limits and its PID file (`add_pre_exec_hook` in
# boxlite's jailer/pre_exec.rs).
STEP_FAILED = "assertion failed: output.write(&bytes).is_ok(), aborting"


# boxlite's child sets the limits of a box right before it executes bubblewrap.
@add_cause("nofile-limit", Needs.OPEN_FILES)
def nofile_limit(evidence: Evidence) -> CauseEvidence | None:
    """The user may have fewer files open in a process (RLIMIT_NOFILE) than the 1024 that boxlite's strongest
    preset sets for a box, and only root may raise a hard limit, so a box with that preset does not start. The
    limit comes from /etc/security/limits.conf, or from LimitNOFILE= of boxlite's systemd service.
    """
    limit = evidence.limits.nofile_hard if evidence.limits else None
    if limit is None or limit >= MOST_OPEN_FILES:
        return None
    reason = f"the user may have at most {limit} files open, and the strongest preset sets {MOST_OPEN_FILES}"
    return prove_if(evidence.boxlite_says(STEP_FAILED), reason, ", and the child that sets it aborted")
