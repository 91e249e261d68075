"""The causes, in the order in which boxlite meets them. The comment above a row says why it stands there.

boxlite opens /dev/kvm first. Then it looks for bubblewrap and checks that it can make a user namespace
(`can_create_user_namespace` in boxlite's jailer/bwrap.rs). The comment of `userns-sysctl` describes the order
in which the kernel decides.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lab.causes import rules
from lab.causes.evidence import Evidence
from lab.causes.rules import Shown
from lab.record import Needs


@dataclass(frozen=True)
class Cause:
    """A property of the host that blocks boxlite, and the rule that detects it.

    Tests that need the part of the host that it `breaks` fail. `rule` returns what the evidence shows for this
    cause, or None if it shows nothing. `explanation` has two sentences for users: what blocks boxlite, and
    where that comes from. `blamed_by` are messages with which boxlite blames this cause; none if it does not
    know it. `met_by_chance`: whether it is chance which program meets the cause first, so that one host says
    other words the next time.
    """

    name: str
    breaks: Needs
    rule: Callable[[Evidence], Shown | None]
    explanation: str
    blamed_by: tuple[str, ...] = ()
    met_by_chance: bool = False


CAUSES = (
    # boxlite's runtime checks /dev/kvm first.
    Cause(
        "kvm-absent",
        Needs.RUNTIME,
        rules.kvm_absent,
        "This host has no /dev/kvm, and every box is a virtual machine that needs it. Either virtualization is "
        "disabled in the firmware or in the hypervisor that runs this host, or the kernel module kvm_intel or "
        "kvm_amd is not loaded.",
        blamed_by=(rules.KVM_IS_ABSENT,),
    ),
    # Checked together with its absence; only one of the two is possible.
    Cause(
        "kvm-denied",
        Needs.RUNTIME,
        rules.kvm_denied,
        "The user may not open /dev/kvm, and every box is a virtual machine that needs it. On Debian and "
        "Ubuntu it belongs to the group kvm, and a user who is added to this group must log in again.",
        blamed_by=(rules.KVM_IS_DENIED,),
    ),
    # The kernel asks AppArmor after it has checked the permissions of the file: see `kvm-denied`.
    Cause(
        "apparmor-kvm-deny",
        Needs.RUNTIME,
        rules.apparmor_kvm_deny,
        "An AppArmor profile that confines boxlite denies it /dev/kvm, and every box is a virtual machine that "
        "needs it. The file's permissions allow it, so membership of the group kvm does not help; the kernel's "
        "audit line names the profile.",
    ),
    # boxlite starts threads before it runs its own programs: see `home-noexec`.
    Cause(
        "nproc-limit",
        # Of a user who is near the limit: with no process left at all, not even boxlite's runtime starts.
        Needs.BOX,
        rules.nproc_limit,
        "The user has as many processes and threads as the limit RLIMIT_NPROC allows, so no more can be "
        "started for a box. The limit counts everything of this user on the whole host, and usually comes from "
        "/etc/security/limits.conf.",
        # The limit refuses whichever process is one too many: how many threads there are at a moment is timing.
        met_by_chance=True,
    ),
    # boxlite unpacks its own programs below the home and runs them from there; mke2fs, for the box's disk, runs
    # before bubblewrap.
    Cause(
        "home-noexec",
        Needs.BOX,
        rules.home_noexec,
        "The user's home directory is mounted with the option noexec, and boxlite runs its bundled programs "
        "from there (~/.local/share/boxlite). No file on that mount can be executed, whatever its permissions "
        "are.",
    ),
    # boxlite starts bubblewrap after its programs for the box's disk: see `home-noexec`.
    Cause(
        "bwrap-exec-denied",
        Needs.SANDBOX,
        rules.bwrap_exec_denied,
        "The host refuses to execute bubblewrap (EACCES), both the system's and the one that boxlite ships, so "
        "the jailer fails before it asks for a user namespace. An AppArmor profile that confines boxlite and "
        "denies executing bwrap does this; an explicit deny rule leaves no line in the kernel's log.",
        blamed_by=(rules.BWRAP_NOT_RUN,),
    ),
    # bubblewrap checks this first, before it makes any namespace.
    Cause(
        "bwrap-setuid",
        Needs.SANDBOX,
        rules.bwrap_setuid,
        "The system's bubblewrap is setuid root, and newer releases of bubblewrap refuse to run setuid. "
        "boxlite selects it all the same, because it still prints its version.",
    ),
    # The kernel runs the filter before the system call itself.
    Cause(
        "seccomp",
        Needs.SANDBOX,
        rules.seccomp,
        "A seccomp filter denies the system calls that make a namespace, which the jailer's sandbox needs. "
        "Docker's default filter does this in containers without CAP_SYS_ADMIN; podman's does not.",
    ),
    # For a new user namespace the kernel checks this sysctl, then the limit, then the security modules; the
    # capabilities inside come last (`ksys_unshare` in kernel/fork.c, `create_user_ns` in user_namespace.c).
    Cause(
        "userns-sysctl",
        Needs.SANDBOX,
        rules.userns_sysctl,
        "The sysctl kernel.unprivileged_userns_clone is 0: ordinary users may not make user namespaces, and "
        "the jailer's sandbox needs one. The sysctl exists in Debian's and Ubuntu's kernels, and hardening "
        "guides set it to 0.",
        blamed_by=(f"({rules.USERNS_CLONE}=0)",),
    ),
    # See `userns-sysctl`.
    Cause(
        "userns-limit",
        Needs.SANDBOX,
        rules.userns_limit,
        "The host's limit on user namespaces, user.max_user_namespaces, is 0 or reached, and the jailer's "
        "sandbox needs a user namespace. Hardening guides set the limit to 0.",
        blamed_by=(f"({rules.MAX_USERNS}=0)",),
    ),
    # See `userns-sysctl`.
    Cause(
        "apparmor-userns-deny",
        Needs.SANDBOX,
        rules.apparmor_userns_deny,
        "AppArmor denies bubblewrap the user namespace that the jailer's sandbox needs: the profile that "
        "confines bubblewrap has no rule `userns`, or the kernel restricts programs without a profile. The "
        "kernel's audit line names the profile.",
        # Also if the profile of Ubuntu's policy is not loaded.
        blamed_by=(f"({rules.RESTRICTION}=1)",),
    ),
    # See `userns-sysctl`. The same position as AppArmor's: a host uses only one of the two.
    Cause(
        "selinux-userns-deny",
        Needs.SANDBOX,
        rules.selinux_userns_deny,
        "The SELinux policy does not allow bubblewrap to make the user namespace that the jailer's sandbox "
        "needs (class user_namespace, permission create). The kernel's audit line names the domain in which "
        "bubblewrap runs.",
    ),
    # boxlite's own check makes a user namespace with options of every version; then it starts the sandbox.
    Cause(
        "bwrap-too-old",
        Needs.SANDBOX,
        rules.bwrap_too_old,
        "The host's bubblewrap is older than the options that boxlite gives it, and boxlite prefers it to the "
        "newer one that it bundles. Debian 11 has bubblewrap 0.4.1, which lacks --clearenv of 0.5.0.",
    ),
    # The kernel makes the other namespaces after the user namespace, before bubblewrap opens its uid map
    # (`copy_creds` and `copy_namespaces` in kernel/fork.c).
    Cause(
        "namespace-limit",
        Needs.SANDBOX,
        rules.namespace_limit,
        "The host's limit on a kind of namespace that the jailer's sandbox needs besides a user namespace is 0 "
        "or reached: user.max_mnt_namespaces, user.max_uts_namespaces, user.max_ipc_namespaces or "
        "user.max_pid_namespaces. The kernel's default is several thousand of each kind.",
    ),
    # bubblewrap opens its uid map after making the namespace, and before it needs a capability.
    Cause(
        "apparmor-disconnected",
        Needs.SANDBOX,
        rules.apparmor_disconnected,
        "An AppArmor profile that confines bubblewrap lacks the flag attach_disconnected, so the kernel cannot "
        "resolve the files that bubblewrap opens outside its namespace, and denies them. It denies them in "
        "complain mode too, although it logs them as allowed.",
    ),
    # After every cause that denies the namespace itself; see `userns-sysctl`.
    Cause(
        "apparmor-userns-nocaps",
        Needs.SANDBOX,
        rules.apparmor_userns_nocaps,
        "AppArmor lets bubblewrap make a user namespace but denies it every capability inside, so bubblewrap "
        "cannot set up the sandbox. Since 24.04 this is Ubuntu's policy (profile unprivileged_userns) for "
        "programs without a profile of their own.",
        # boxlite reads this sysctl first.
        blamed_by=(f"({rules.RESTRICTION}=1)",),
    ),
    # bubblewrap mounts after it has its namespaces and their capabilities.
    Cause(
        "apparmor-mount-deny",
        Needs.SANDBOX,
        rules.apparmor_mount_deny,
        "An AppArmor profile lets bubblewrap make its namespaces but denies mounts in them, or the call "
        "pivot_root that makes them its root, so bubblewrap cannot set up the sandbox. Docker's profile for "
        "containers denies every mount without logging it.",
    ),
    # See `apparmor-mount-deny`. A host uses only one of the two.
    Cause(
        "selinux-mount-deny",
        Needs.SANDBOX,
        rules.selinux_mount_deny,
        "The SELinux policy lets bubblewrap make its namespaces but denies it the mounts that the jailer's "
        "sandbox consists of (permissions mounton, mount and remount), as policies do to confined users. The "
        "kernel's audit line names the domain in which bubblewrap runs.",
    ),
    # bubblewrap mounts /proc after its first mounts.
    Cause(
        "masked-proc",
        Needs.SANDBOX,
        rules.masked_proc,
        "Mounts hide parts of /proc, as in every container that is not privileged. The kernel then does not "
        "let a user namespace mount its own /proc, which would reveal these parts and which the jailer's "
        "sandbox needs.",
    ),
    # bubblewrap mounts boxlite's own files after /proc: see `masked-proc`.
    Cause(
        "mount-symlink",
        Needs.SANDBOX,
        rules.mount_symlink,
        "A file that boxlite mounts into the jailer's sandbox is a symlink there, and bubblewrap 0.12 refuses "
        "to mount on one. On Arch Linux and Fedora it is the bundle of CA certificates, which older boxlite "
        "releases mount once more inside the folder that it is in.",
    ),
    # bubblewrap starts the shim when its sandbox stands; only then does the shim do anything.
    Cause(
        "shim-not-executable",
        Needs.SANDBOX,
        rules.shim_not_executable,
        "For the jailer boxlite copies its shim beside a box, and on a file system that clones files (btrfs, "
        "Fedora's default, and XFS) the copy loses its execute permission, so bubblewrap cannot start it. This "
        "is a fault of boxlite's, its issue 1496; SELinux and AppArmor have nothing to do with it.",
    ),
    # The shim puts itself under boxlite's own filter after bubblewrap started it.
    Cause(
        "shim-seccomp",
        Needs.SANDBOX,
        rules.shim_seccomp,
        "The kernel ended boxlite's shim with SIGSYS, because it made a system call that boxlite's own seccomp "
        "filter does not allow. Which calls it makes depends on the host's C library, kernel and processor, "
        "and on what the box does; boxlite 0.10 filters only a box without a network.",
    ),
)
