"""boxlite 0.10.8's messages on real guests, shortened, and the expected ones on other hosts."""

SAID = "boxlite.errors.ConfigError: configuration error: The sandbox could not be initialized on this host."
DENIED_BWRAP = (
    "No permissions to create a new namespace, likely because the kernel does not allow non-privileged user "
    "namespaces. See <https://deb.li/bubblewrap> or <file:///usr/share/doc/bubblewrap/README.Debian.gz>."
)
UNKNOWN = r"""Cause: Unknown restriction.
  Check: dmesg | grep -i 'apparmor\|selinux\|userns'
  See: https://boxlite.dev/docs/faq#sandbox-userns"""


def preflight(bwrap: str, cause: str, errno: str = "", which: str = "system bwrap at bwrap") -> str:
    """The log of a box that the preflight stopped; `errno` is that of boxlite's own attempt, if it failed."""
    clone = f"clone(CLONE_NEWUSER) errno: {errno}\n" if errno else ""
    return f"""\
2026-11-24T23:56:37.801063Z  INFO boxlite::rootfs::guest: GC completed elapsed_ms=0
2026-11-24T23:56:40.382166Z ERROR boxlite::jailer::sandbox::bwrap: Sandbox preflight failed: bwrap cannot \
create user namespaces.
bwrap --unshare-user failed ({which})
bwrap stderr: bwrap: {bwrap}
{clone}
{cause}
To skip the sandbox (development only): SecurityOptions::disabled()
{failed("configuration error: The sandbox could not be initialized on this host.")}"""


def failed(reason: str) -> str:
    """The lines that boxlite logs for every failed box."""
    return f"""\
2026-11-24T23:56:40.384210Z ERROR boxlite::litebox::init::tasks: Task failed: {reason} box_id=978 task=vmm_spawn
2026-11-24T23:56:40.397875Z  WARN boxlite::litebox::init::types: Box initialization failed, cleaning up
2026-11-24T23:56:40.398098Z ERROR boxlite::litebox::init::types: Box failed. Diagnostic files preserved at:
  /home/tester/box-aikekrkn/boxes/978mSUlZDKu7

To destroy: issue DESTROY_SANDBOX or `boxlite rm 978mSUlZDKu7`
"""


EPERM = "1 (Operation not permitted (os error 1))"
USERNS_SYSCTL = preflight(
    DENIED_BWRAP,
    """Cause: Unprivileged user namespaces disabled (kernel.unprivileged_userns_clone=0).

Fix: sudo sysctl -w kernel.unprivileged_userns_clone=1
  # Persist: echo 'kernel.unprivileged_userns_clone=1' | sudo tee /etc/sysctl.d/99-boxlite-userns.conf""",
    EPERM,
)
USERNS_LIMIT = preflight(
    "Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
    """Cause: Max user namespaces set to zero (user.max_user_namespaces=0).

Fix: sudo sysctl -w user.max_user_namespaces=15000
  # Persist: echo 'user.max_user_namespaces=15000' | sudo tee /etc/sysctl.d/99-boxlite-userns.conf""",
    "28 (No space left on device (os error 28))",
)
APPARMOR_DENY = preflight("Creating new namespace failed: Permission denied", UNKNOWN)
SELINUX_DENY = (
    "2026-11-25T10:09:08.830431Z ERROR boxlite::jailer::credentials: clone(CLONE_NEWUSER) failed with "
    "UNEXPECTED errno errno=13 Permission denied (os error 13)\n"
) + preflight(
    "Creating new namespace failed: Permission denied", UNKNOWN, "13 (Permission denied (os error 13))"
)
APPARMOR_NOCAPS = preflight(DENIED_BWRAP, UNKNOWN, EPERM)
APPARMOR_DISCONNECTED = preflight("setting up uid map: Permission denied", UNKNOWN)
BWRAP_SETUID = preflight("setuid use of bubblewrap is not supported", UNKNOWN)

KVM_ABSENT = """\
2026-11-24T23:56:40.382166Z ERROR boxlite::system_check: /dev/kvm does not exist

Suggestions:
- Enable KVM in BIOS/UEFI (VT-x for Intel, AMD-V for AMD)
- Load the KVM module: sudo modprobe kvm_intel  # or kvm_amd
- Check: lsmod | grep kvm
"""
KVM_DENIED = """\
2026-11-24T23:56:40.382166Z ERROR boxlite::system_check: /dev/kvm: permission denied

Fix:
- sudo usermod -aG kvm $USER && newgrp kvm
"""
NOEXEC = (
    "storage error: Failed to run mke2fs (/home/tester/.local/share/boxlite/runtimes/"
    "v0.10.8-fc65419-3c4eaf9215b6/mke2fs): Permission denied (os error 13)"
)
HOME_NOEXEC = failed(NOEXEC)

# Not recorded but composed: boxlite's messages for Ubuntu's kernels, from the texts in its library
# (`build_diagnostic` in its jailer/bwrap.rs), with the distribution's bubblewrap and with the bundled one.
UBUNTU = preflight(
    DENIED_BWRAP,
    """Cause: AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns=1).
System bwrap needs an AppArmor profile with 'userns' permission.

Fix (recommended): Install/reinstall bubblewrap:
  sudo apt install --reinstall bubblewrap

Fix (quick, less secure): sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0""",
    EPERM,
)
UBUNTU_BUNDLED = preflight(
    DENIED_BWRAP,
    """Cause: AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns=1).
Bundled bwrap has no AppArmor profile.
BoxLite generated one at: /home/tester/.boxlite/apparmor/boxlite-bwrap

Fix (one command):
  sudo apparmor_parser -r /home/tester/.boxlite/apparmor/boxlite-bwrap

Alternative: Install system bubblewrap:
  sudo apt install bubblewrap

Fix (quick, less secure): sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0""",
    EPERM,
    which="bundled bwrap at /home/tester/.local/share/boxlite/runtimes/v0.10.8/bwrap",
)
