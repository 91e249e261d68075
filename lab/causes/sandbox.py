"""The causes that the jailer meets with bubblewrap, in this order: each is the rule that detects it.

They are written as those of `before_sandbox`, which come first. boxlite looks for bubblewrap and checks that it
can make a user namespace (`can_create_user_namespace` in its jailer/bwrap.rs); then it starts the shim in a
sandbox. The comment of `userns-sysctl` describes the order in which the kernel decides.
"""

import re

from lab.base.architecture import AARCH64, X86_64
from lab.causes.evidence import SHIM, Evidence
from lab.causes.rule import (
    NO_SPACE,
    NOT_PERMITTED,
    NOT_THERE,
    PERMISSION_DENIED,
    CauseEvidence,
    add_cause,
    prove_if,
)
from lab.record import Confidence, Needs

# What bubblewrap says if it made its user namespace and may not write the map of its users.
UID_MAP = "setting up uid map"
# The switch of Ubuntu's restriction of user namespaces, which other kernels do not have. It is 1 on Ubuntu as
# installed, also where boxlite works.
RESTRICTION = "kernel.apparmor_restrict_unprivileged_userns"
# The profile into which Ubuntu's kernel moves an unconfined program that makes a user namespace.
RESTRICTED = "unprivileged_userns"


# boxlite's words for a bubblewrap that it could not start (`can_create_user_namespace` in its jailer/bwrap.rs),
# as Rust's standard library prints EACCES. For one that ran and failed it says `bwrap --unshare-user failed`.
BWRAP_NOT_RUN = "failed to run bwrap: Permission denied (os error 13)"


# boxlite starts bubblewrap after its programs for the box's disk: see `home-noexec`.
@add_cause("bwrap-exec-denied", Needs.SANDBOX, blamed_by=[BWRAP_NOT_RUN])
def bwrap_exec_denied(evidence: Evidence) -> CauseEvidence | None:
    """The host refuses to execute bubblewrap (EACCES), both the system's and the one that boxlite ships, so the
    jailer fails before it asks for a user namespace. An AppArmor profile that confines boxlite and denies
    executing bwrap does this; an explicit deny rule leaves no line in the kernel's log.
    """
    bwrap = evidence.probes.bwrap_user
    lines = [
        line for line in evidence.denied(operation="exec") if line.get("name", "").rpartition("/")[2] == "bwrap"
    ]
    is_quoted = evidence.boxlite_says(BWRAP_NOT_RUN)
    refused = bwrap.status is None and PERMISSION_DENIED in bwrap.stderr
    # A system's bubblewrap that cannot be executed stops nobody by itself: boxlite then uses its own. And a
    # profile of another program, such as a browser's, may deny bubblewrap to that one.
    if not is_quoted and not (lines and refused):
        return None
    if lines:
        reason = f"AppArmor denied executing {lines[0].get('name')} under profile {lines[0].get('profile')}"
    else:
        profile = f" under {evidence.profile}" if evidence.profile else ""
        reason = f"boxlite says{profile}: {BWRAP_NOT_RUN}"
    return prove_if(is_quoted and refused, reason, ": starting it fails with EACCES")


# Only bubblewrap prints this, and only for this reason.
NO_SETUID = "setuid use of bubblewrap is not supported"


# bubblewrap checks this first, before it makes any namespace.
@add_cause("bwrap-setuid", Needs.SANDBOX)
def bwrap_setuid(evidence: Evidence) -> CauseEvidence | None:
    """The system's bubblewrap is setuid root, and newer releases of bubblewrap refuse to run setuid. boxlite
    selects it all the same, because it still prints its version.
    """
    if not evidence.probes.bwrap_user.failed_with(NO_SETUID):
        return None
    return CauseEvidence(Confidence.PROVED, f"bubblewrap prints: {NO_SETUID}")


# Only bubblewrap prints this, and only if /proc lacks the file. It reads it before it makes any namespace.
NO_OVERFLOW_UID = f"Can't read /proc/sys/kernel/overflowuid: {NOT_THERE}"
PROC_SUBSET = "ProcSubset"


# See `bwrap-setuid`.
@add_cause("service-hides-proc", Needs.SANDBOX)
def service_hides_proc(evidence: Evidence) -> CauseEvidence | None:
    """The systemd service that boxlite runs in has ProcSubset=pid, so its /proc shows nothing but processes.
    bubblewrap does not start without the file /proc/sys/kernel/overflowuid.
    """
    setting = evidence.service.get(PROC_SUBSET)
    if setting is None or not evidence.probes.bwrap_user.failed_with(NO_OVERFLOW_UID):
        return None
    reason = f"the service has {PROC_SUBSET}={setting}, and bubblewrap says: {NO_OVERFLOW_UID}"
    return CauseEvidence(Confidence.PROVED, reason)


# systemd's setting for a filter of the flags that ask for namespaces, and what the jailer needs of them.
NAMESPACE_FILTER, JAILER_NAMESPACES = "RestrictNamespaces", ("user", "mnt", "pid", "ipc", "uts")


# The kernel runs a filter before the system call itself.
@add_cause("service-restricts-namespaces", Needs.SANDBOX)
def service_restricts_namespaces(evidence: Evidence) -> CauseEvidence | None:
    """The systemd service that boxlite runs in has RestrictNamespaces=, so a filter of systemd's denies
    namespaces that the jailer's sandbox consists of. It filters the flags of system calls, and is no setting of
    the whole host.
    """
    setting = evidence.service.get(NAMESPACE_FILTER)
    # It is `yes`, or names those that are allowed.
    missing = [] if setting is None else [kind for kind in JAILER_NAMESPACES if kind not in setting.split()]
    if not missing or not evidence.probes.unshare_flags.failed_with(NOT_PERMITTED):
        return None
    reason = f"the service has {NAMESPACE_FILTER}={setting}, which denies {' '.join(missing)}"
    proof = "unshare(2) with the jailer's flags and a wrong one fails with EPERM"
    return CauseEvidence(Confidence.PROVED, f"{reason}, and {proof}")


# See `service-restricts-namespaces`. A filter of a service is another cause: see `service-filters-calls`.
@add_cause("seccomp", Needs.SANDBOX)
def seccomp(evidence: Evidence) -> CauseEvidence | None:
    """A seccomp filter denies the system calls that make a namespace, which the jailer's sandbox needs.
    Docker's default filter does this in containers without CAP_SYS_ADMIN; podman's does not.
    """
    refused = evidence.probes.unshare_nothing.failed_with(NOT_PERMITTED)
    if not refused or service_filters_calls(evidence):
        return None
    reason = "unshare(0), which requests nothing and which the kernel always allows, fails with EPERM"
    return CauseEvidence(Confidence.PROVED, reason)


USERNS_CLONE = "kernel.unprivileged_userns_clone"


# For a new user namespace the kernel checks this sysctl, then the limit, then the security modules; the
# capabilities inside come last (`ksys_unshare` in kernel/fork.c, `create_user_ns` in user_namespace.c).
@add_cause("userns-sysctl", Needs.SANDBOX, blamed_by=[f"({USERNS_CLONE}=0)"])
def userns_sysctl(evidence: Evidence) -> CauseEvidence | None:
    """The sysctl kernel.unprivileged_userns_clone is 0: ordinary users may not make user namespaces, and the
    jailer's sandbox needs one. The sysctl exists in Debian's and Ubuntu's kernels, and hardening guides set it
    to 0.
    """
    probe = evidence.probes.unshare_user
    # The kernel does not ask this sysctl for a user who has CAP_SYS_ADMIN.
    if evidence.sysctls.get(USERNS_CLONE) != "0" or probe.worked:
        return None
    refused = probe.failed_with(NOT_PERMITTED)
    return prove_if(refused, f"{USERNS_CLONE} is 0", " and `unshare -U` fails with EPERM")


MAX_USERNS = "user.max_user_namespaces"


# See `userns-sysctl`.
@add_cause("userns-limit", Needs.SANDBOX, blamed_by=[f"({MAX_USERNS}=0)"])
def userns_limit(evidence: Evidence) -> CauseEvidence | None:
    """The host's limit on user namespaces, user.max_user_namespaces, is 0 or reached, and the jailer's sandbox
    needs a user namespace. Hardening guides set the limit to 0.
    """
    limit = evidence.sysctls.get(MAX_USERNS)
    probe = evidence.probes.unshare_user
    refused = probe.failed_with(NO_SPACE)
    if probe.worked or (limit != "0" and not refused):
        return None
    confidence = Confidence.PROVED if limit == "0" and refused else Confidence.LIKELY
    proof = " and `unshare -U` fails with ENOSPC" if refused else ""
    return CauseEvidence(confidence, f"{MAX_USERNS} is {limit}{proof}")


NAMESPACE_DENIED = f"Creating new namespace failed: {PERMISSION_DENIED}"


# See `userns-sysctl`. boxlite blames the restriction also if the profile of Ubuntu's policy is not loaded.
@add_cause("apparmor-userns-deny", Needs.SANDBOX, blamed_by=[f"({RESTRICTION}=1)"])
def apparmor_userns_deny(evidence: Evidence) -> CauseEvidence | None:
    """AppArmor denies bubblewrap the user namespace that the jailer's sandbox needs: the profile that confines
    bubblewrap has no rule `userns`, or the kernel restricts programs without a profile. The kernel's audit line
    names the profile.
    """
    lines = evidence.own(evidence.denied(operation="userns_create"))
    if lines:
        profile = lines[0].get("profile")
        # Ubuntu's kernels log `unconfined` if the profile that they would switch to is not loaded.
        restricted = "without a profile: the kernel restricts unconfined programs"
        where = restricted if profile == "unconfined" else f"under profile {profile}"
        reason = f"AppArmor denied userns_create to {lines[0].get('comm')} {where}"
        return prove_if(not evidence.probes.bwrap_user.worked, reason)
    # Without a log, as on a user's own host.
    unshare_is_denied = evidence.probes.unshare_user.failed_with(PERMISSION_DENIED)
    if not (unshare_is_denied and evidence.bubblewrap_says(NAMESPACE_DENIED)):
        return None
    if evidence.sysctls.get(RESTRICTION) != "1":
        return None
    reason = f"{RESTRICTION} is 1, and `unshare -U` and bubblewrap fail with EACCES"
    return CauseEvidence(Confidence.LIKELY, f"{reason}, as where the profile of Ubuntu's policy is not loaded")


# See `userns-sysctl`. The same position as AppArmor's: a host uses only one of the two.
@add_cause("selinux-userns-deny", Needs.SANDBOX)
def selinux_userns_deny(evidence: Evidence) -> CauseEvidence | None:
    """The SELinux policy does not allow bubblewrap to make the user namespace that the jailer's sandbox needs
    (class user_namespace, permission create). The kernel's audit line names the domain in which bubblewrap
    runs.
    """
    lines = evidence.own(evidence.avc_denied("create", tclass="user_namespace", permissive="0"))
    if not lines:
        return None
    reason = f"SELinux denied {lines[0].get('comm')} in {lines[0].get('scontext')} a user namespace"
    return prove_if(not evidence.probes.bwrap_user.worked, reason)


# The words of a release after 0.10.8 (boxlite#1419), for root alone: boxes of other users get no limits there.
# 0.10.8 starts each such box and says "continuing without cgroup limits".
REFUSES_UNCONFINED = "refusing to start the box unconfined"


# boxlite makes a box's control group after its own check of user namespaces and before it starts bubblewrap
# (`BwrapSandbox::setup` in its jailer/sandbox/bwrap.rs).
@add_cause("cgroup-unavailable", Needs.SANDBOX, blamed_by=[REFUSES_UNCONFINED])
def cgroup_unavailable(evidence: Evidence) -> CauseEvidence | None:
    """Root's boxes get control groups with limits, which boxlite could not make, and releases after 0.10.8
    refuse to start a box without them. The control groups are mounted read-only, as in containers, or are of
    version 1, or lack the controllers cpu, memory and pids.
    """
    words = evidence.boxlite_says(REFUSES_UNCONFINED)
    return CauseEvidence(Confidence.LIKELY, f"boxlite says: {REFUSES_UNCONFINED}") if words else None


# Only bubblewrap prints this, and only of an option that its version does not have. What a report quotes of it
# comes without its name.
UNKNOWN_OPTION = re.compile(r"(?:bwrap: |^)(Unknown option --[a-z][a-z0-9-]{0,40})", re.MULTILINE)


# boxlite's own check makes a user namespace with options of every version; then it starts the sandbox.
@add_cause("bwrap-too-old", Needs.SANDBOX)
def bwrap_too_old(evidence: Evidence) -> CauseEvidence | None:
    """The host's bubblewrap is older than the options that boxlite gives it, and boxlite prefers it to the
    newer one that it bundles. Debian 11 has bubblewrap 0.4.1, which lacks --clearenv of 0.5.0.
    """
    option = next(filter(None, map(UNKNOWN_OPTION.search, evidence.said)), None)
    return CauseEvidence(Confidence.PROVED, f"bubblewrap prints: {option[1]}") if option else None


# The limits on those that bubblewrap makes for a box. It makes the first for every sandbox.
NAMESPACE_LIMITS = tuple(f"user.max_{kind}_namespaces" for kind in ("mnt", "uts", "ipc", "pid"))
# bubblewrap's words for ENOSPC, whichever of its namespaces the kernel refuses.
NAMESPACES_EXCEEDED = "namespaces exceeded (ENOSPC)"


# The kernel makes the other namespaces after the user namespace, before bubblewrap opens its uid map
# (`copy_creds` and `copy_namespaces` in kernel/fork.c).
@add_cause("namespace-limit", Needs.SANDBOX)
def namespace_limit(evidence: Evidence) -> CauseEvidence | None:
    """The host's limit on a kind of namespace that the jailer's sandbox needs besides a user namespace is 0 or
    reached: user.max_mnt_namespaces, user.max_uts_namespaces, user.max_ipc_namespaces or
    user.max_pid_namespaces. The kernel's default is several thousand of each kind.
    """
    probes = evidence.probes
    zero = [name for name in NAMESPACE_LIMITS if evidence.sysctls.get(name) == "0"]
    # If a user namespace alone can be made, its own limit is not what bubblewrap met.
    refused = probes.unshare_user.worked and probes.bwrap_all.failed_with(NAMESPACES_EXCEEDED)
    if probes.bwrap_all.worked or not (zero or refused):
        return None
    if not zero:
        reason = "`unshare -U` works and bubblewrap, which makes more namespaces, fails with ENOSPC"
        return CauseEvidence(Confidence.LIKELY, reason)
    reason = f"{' and '.join(zero)} {'is' if len(zero) == 1 else 'are'} 0"
    return prove_if(refused, reason, ", and bubblewrap fails with ENOSPC although `unshare -U` works")


DISCONNECTED = "Failed name lookup - disconnected path"
EACCES = "-13"


# bubblewrap opens its uid map after making the namespace, and before it needs a capability.
@add_cause("apparmor-disconnected", Needs.SANDBOX)
def apparmor_disconnected(evidence: Evidence) -> CauseEvidence | None:
    """An AppArmor profile that confines bubblewrap lacks the flag attach_disconnected, so the kernel cannot
    resolve the files that bubblewrap opens outside its namespace, and denies them. It denies them in complain
    mode too, although it logs them as allowed.
    """
    # Ubuntu's policy lacks the flag attach_disconnected too, and bubblewrap fails at the same point. But even
    # with the flag bubblewrap would fail at its first capability, so that policy, if it is enforced, is another
    # cause.
    policies = {line.get("profile") for line in capability_denials(evidence)}
    lines = [
        line
        for line in evidence.own(evidence.audit)
        if line.get("profile") not in policies
        and line.get("info") == DISCONNECTED
        and line.get("error") == EACCES
        and line.get("operation") == "open"
    ]
    if lines:
        file, profile = lines[0].get("name"), lines[0].get("profile")
        reason = (
            f"AppArmor could not resolve {file}, which {lines[0].get('comm')} opens under profile {profile}"
        )
        return prove_if(not evidence.probes.bwrap_user.worked, reason)
    # Without a log: the restriction is on and takes no capability, so its profile is in complain mode.
    words = f"{UID_MAP}: {PERMISSION_DENIED}"
    in_force = evidence.sysctls.get(RESTRICTION) == "1" and evidence.probes.unshare_user_root.worked
    if in_force and not evidence.audit and evidence.bubblewrap_says(words):
        reason = f"{RESTRICTION} is 1, `unshare -Ur` works all the same, and bubblewrap says: {words}"
        return CauseEvidence(Confidence.LIKELY, reason)
    return None


# capabilities(7): needed in the namespace to mount, and to drop capabilities.
SYS_ADMIN, SETPCAP = "21", "8"
# bubblewrap's words where it has its user namespace and may do nothing in it; the second without a network.
WITHOUT_CAPABILITIES = (UID_MAP, f"loopback: Failed RTM_NEWADDR: {NOT_PERMITTED}")
# Its words if the profile confined it before, so that the kernel denies the namespaces made with that one.
# bubblewrap prints them for several causes.
NO_PERMISSIONS = "No permissions to creat"


# After every cause that denies the namespace itself; see `userns-sysctl`. boxlite reads this sysctl first.
@add_cause("apparmor-userns-nocaps", Needs.SANDBOX, blamed_by=[f"({RESTRICTION}=1)"])
def apparmor_userns_nocaps(evidence: Evidence) -> CauseEvidence | None:
    """AppArmor lets bubblewrap make a user namespace but denies it every capability inside, so bubblewrap
    cannot set up the sandbox. Since 24.04 this is Ubuntu's policy (profile unprivileged_userns) for programs
    without a profile of their own.
    """
    words = next((words for words in WITHOUT_CAPABILITIES if evidence.bubblewrap_says(words)), None)
    lines = capability_denials(evidence)
    if evidence.bubblewrap_says(NO_PERMISSIONS):
        # The kernel logs a denied capability once: that of boxlite's thread may stand for bubblewrap's.
        words = NO_PERMISSIONS
        thread = evidence.denied(operation="capable", capability=SYS_ADMIN)
        lines += [line for line in thread if line.get("profile") in evidence.profiles]
    if lines:
        capability = lines[0].get("capname") or lines[0].get("name")
        reason = (
            f"AppArmor denied {capability} to {lines[0].get('comm')} under profile {lines[0].get('profile')}"
        )
        return prove_if(words is not None, reason, f", and bubblewrap says: {words}")
    # A bug report may quote the log alone.
    wordless = evidence.probes.bwrap_user.failed and not evidence.probes.bwrap_user.stderr
    if words not in WITHOUT_CAPABILITIES and not wordless:
        return None
    # AUDIT: the kernel moves bubblewrap into the profile. With ALLOWED the profile is in complain mode.
    in_policy = {
        line.get("apparmor")
        for line in evidence.own(evidence.audit)
        if RESTRICTED in (line.get("profile"), line.get("target"))
    }
    if in_policy == {"AUDIT"}:
        reason = f"AppArmor moved {evidence.programs[0]} into profile {RESTRICTED} as it made its namespace"
        return prove_if(words is not None, reason, f", and bubblewrap says: {words}")
    # Without a log, as on a user's own host.
    stripped = evidence.probes.unshare_user.worked and evidence.probes.unshare_user_root.failed
    if stripped and evidence.sysctls.get(RESTRICTION) == "1" and not evidence.audit:
        probes = "`unshare -U` works and `unshare -Ur` does not"
        return CauseEvidence(Confidence.LIKELY, f"{RESTRICTION} is 1, {probes}, and bubblewrap says: {words}")
    return None


def capability_denials(evidence: Evidence) -> list[dict[str, str]]:
    """Return what bubblewrap was denied of the capabilities that it needs, or by Ubuntu's policy.

    The policy's profile also lacks the flag attach_disconnected, so bubblewrap fails at its uid map before it
    needs a capability. The kernel logs that each time, and a capability once for a profile and a program.
    """
    return [
        line
        for line in evidence.own(evidence.denied())
        if line.get("profile") == RESTRICTED
        or (line.get("operation") == "capable" and line.get("capability") in (SYS_ADMIN, SETPCAP))
    ]


CALL_FILTER = "SystemCallFilter"
# seccomp(2) in the kernel's audit lines.
SECCOMP = {(X86_64.audit, "317"), (AARCH64.audit, "277")}


# bubblewrap mounts after it has its namespaces and their capabilities, and the kernel runs a filter before it
# asks AppArmor or SELinux. A list that lacks even unshare(2) denies the namespaces, too.
@add_cause("service-filters-calls", Needs.SANDBOX)
def service_filters_calls(evidence: Evidence) -> CauseEvidence | None:
    """The systemd service that boxlite runs in has a SystemCallFilter= that lacks system calls of the sandbox:
    those of bubblewrap, such as mount(2), or seccomp(2), by which boxlite's shim filters a box without a
    network. The usual list @system-service lacks the calls of @mount (in systemd 252 of Debian 12 seccomp,
    too), and systemd ends a program that makes such a call, or lets the call fail with SystemCallErrorNumber=.
    """
    denied = evidence.service.get(CALL_FILTER, "").split()
    calls = {"unshare": evidence.probes.unshare_nothing, "mount": evidence.probes.mount_nothing}
    refused = next((probe for name, probe in calls.items() if name in denied and probe.failed), None)
    reason = f"the service's {CALL_FILTER}= lacks {' '.join(denied)}"
    if refused is None:
        # The shim makes this call before it is under its own filter.
        ended = {(line.get("arch"), line.get("syscall")) for line in evidence.shims_ended}
        if "seccomp" not in denied or not ended & SECCOMP:
            return None
        return CauseEvidence(
            Confidence.PROVED, f"{reason}, and the kernel ended {SHIM} with SIGSYS for that call"
        )
    call = " ".join(refused.command)
    proof = f"{call}, which ends in one way for everyone, ended with: {refused.stderr}"
    return CauseEvidence(Confidence.PROVED, f"{reason}, and {proof}")


# The operations in the kernel's audit lines, and what each is.
MOUNT_OPERATIONS = {"mount": "a mount", "pivotroot": "pivot_root"}
# bubblewrap prints the first only for its first mount, which separates / from the host, and the second only for
# the call that makes its mounts its root. SELinux does not decide about that call, and AppArmor gives EACCES.
FIRST_MOUNT = f"Failed to make / slave: {PERMISSION_DENIED}"
PIVOT_ROOT = f"pivot_root: {PERMISSION_DENIED}"


# See `service-filters-calls`.
@add_cause("apparmor-mount-deny", Needs.SANDBOX)
def apparmor_mount_deny(evidence: Evidence) -> CauseEvidence | None:
    """An AppArmor profile lets bubblewrap make its namespaces but denies mounts in them, or the call pivot_root
    that makes them its root, so bubblewrap cannot set up the sandbox. Docker's profile for containers denies
    every mount without logging it.
    """
    bwrap = evidence.probes.bwrap_user
    lines = evidence.own([line for name in MOUNT_OPERATIONS for line in evidence.denied(operation=name)])
    if lines:
        comm, profile = lines[0].get("comm"), lines[0].get("profile")
        reason = f"AppArmor denied {comm} {MOUNT_OPERATIONS[lines[0]['operation']]} under profile {profile}"
        return prove_if(not bwrap.worked, reason)
    # An explicit deny rule does not log.
    if evidence.profile and bwrap.failed_with(FIRST_MOUNT):
        reason = f"under {evidence.profile} bubblewrap makes its namespaces; its first mount fails with EACCES"
        return CauseEvidence(Confidence.LIKELY, reason)
    if evidence.bubblewrap_says(PIVOT_ROOT):
        where = f"under {evidence.profile} " if evidence.profile else ""
        reason = f"{where}bubblewrap makes its namespaces and mounts; pivot_root fails with EACCES"
        return CauseEvidence(Confidence.LIKELY, reason)
    return None


# SELinux's permissions of a mount: on a directory or a file, and of a file system.
MOUNT_PERMISSIONS = ("mounton", "mount", "remount", "unmount")


# See `apparmor-mount-deny`. A host uses only one of the two.
@add_cause("selinux-mount-deny", Needs.SANDBOX)
def selinux_mount_deny(evidence: Evidence) -> CauseEvidence | None:
    """The SELinux policy lets bubblewrap make its namespaces but denies it the mounts that the jailer's sandbox
    consists of (permissions mounton, mount and remount), as policies do to confined users. The kernel's audit
    line names the domain in which bubblewrap runs.
    """
    denied = [line for name in MOUNT_PERMISSIONS for line in evidence.avc_denied(name, permissive="0")]
    lines = evidence.own(denied)
    if not lines:
        return None
    where = lines[0].get("path") or lines[0].get("name") or "a file system"
    reason = f"SELinux denied {lines[0].get('comm')} in {lines[0].get('scontext')} a mount on {where}"
    return prove_if(not evidence.probes.bwrap_user.worked, reason)


# strerror(3) for ENOSYS, and systemd's setting that has openat2 fail so: a filter cannot see that call's flags.
NOT_IMPLEMENTED, NO_SETUID_FILES = "Function not implemented", "RestrictSUIDSGID"


# bubblewrap opens what it mounts after its first mounts.
@add_cause("service-restricts-suid", Needs.SANDBOX)
def service_restricts_suid(evidence: Evidence) -> CauseEvidence | None:
    """The systemd service that boxlite runs in has RestrictSUIDSGID=, for which systemd denies the system call
    openat2 altogether. bubblewrap 0.12 opens with it what it mounts, and has no other way if it is built for
    newer kernels alone, as in Debian 13 and Arch Linux (its issue 774).
    """
    setting = evidence.service.get(NO_SETUID_FILES)
    if setting is None or not evidence.probes.bwrap_user.failed_with(NOT_IMPLEMENTED):
        return None
    # A list of system calls may give the same error for a mount.
    if service_filters_calls(evidence):
        return None
    reason = f"the service has {NO_SETUID_FILES}={setting}, and bubblewrap fails with ENOSYS"
    return CauseEvidence(Confidence.PROVED, f"{reason}: {evidence.probes.bwrap_user.stderr}")


# How bubblewrap's words about this mount end; AppArmor and SELinux deny it with another error.
NO_PROC = f"/proc: {NOT_PERMITTED}"


def proc_masked(evidence: Evidence, by: str = "") -> CauseEvidence | None:
    """What shows that parts of /proc are hidden; `by` says what hides them."""
    masks, user = evidence.probes.proc_unmasked, evidence.probes.bwrap_user
    if masks.worked or None in (masks.status, user.status):
        return None
    if not user.worked:
        # Something else stops bubblewrap before it mounts /proc.
        return CauseEvidence(Confidence.LIKELY, f"{by}these mounts hide parts of /proc: {masks.stderr}")
    if not evidence.probes.bwrap_all.failed_with(NO_PROC):
        return None
    reason = (
        f"{by}bubblewrap can make its namespaces but cannot mount /proc, parts of which are hidden by mounts"
    )
    return CauseEvidence(Confidence.PROVED, f"{reason}: {masks.stderr}")


# systemd's settings that mount something upon parts of /proc.
PROC_SETTINGS = ("ProtectKernelTunables", "ProtectKernelLogs", "ProtectHostname")


# bubblewrap mounts /proc after its first mounts.
@add_cause("service-masks-proc", Needs.SANDBOX)
def service_masks_proc(evidence: Evidence) -> CauseEvidence | None:
    """The systemd service that boxlite runs in has mounts upon parts of /proc, by ProtectKernelTunables=,
    ProtectKernelLogs= or ProtectHostname=. The kernel then does not let a user namespace mount its own /proc,
    which would reveal these parts and which the jailer's sandbox needs.
    """
    service = evidence.service
    settings = " and ".join(f"{name}={service[name]}" for name in PROC_SETTINGS if name in service)
    return proc_masked(evidence, f"the service has {settings}: ") if settings else None


# See `service-masks-proc`.
@add_cause("masked-proc", Needs.SANDBOX)
def masked_proc(evidence: Evidence) -> CauseEvidence | None:
    """Mounts hide parts of /proc, as in every container that is not privileged. The kernel then does not let a
    user namespace mount its own /proc, which would reveal these parts and which the jailer's sandbox needs.
    """
    return None if service_masks_proc(evidence) else proc_masked(evidence)


# Only bubblewrap prints this, since 0.11.2, and only for this reason.
ON_SYMLINK = "Can't mount on symlink destination"
SYMLINK = re.compile(re.escape(ON_SYMLINK) + r" (/[^\s:]{1,300})")


# bubblewrap mounts boxlite's own files after /proc: see `masked-proc`.
@add_cause("mount-symlink", Needs.SANDBOX)
def mount_symlink(evidence: Evidence) -> CauseEvidence | None:
    """A file that boxlite mounts into the jailer's sandbox is a symlink there, and bubblewrap 0.12 refuses to
    mount on one. On Arch Linux and Fedora it is the bundle of CA certificates, which older boxlite releases
    mount once more inside the folder that it is in.
    """
    text = next((text for text in evidence.said if ON_SYMLINK in text), None)
    if text is None:
        return None
    place = SYMLINK.search(text)
    return CauseEvidence(Confidence.PROVED, f"bubblewrap prints: {place[0] if place else ON_SYMLINK}")
