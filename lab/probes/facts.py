"""Facts about a host: the models of what `programs/facts.py` prints."""

import re
from typing import Annotated, Literal

from packaging.version import Version
from pydantic import Field

from lab.probes._base import Answer, Answers

# The permission bits of a file, as Python's oct() writes them.
Mode = Annotated[str, Field(pattern="^0o[0-7]+$")]


# As many numbers, and as many digits of one, as any release has: a guest may tell anything.
NUMBERS = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,5}", re.ASCII)


def numbers(version: str | None) -> Version | None:
    """The numbers that a version begins with, to compare them; None if it has none."""
    begins = NUMBERS.match(version or "")
    return Version(begins[0]) if begins else None


class OsRelease(Answer):
    """Lines of /etc/os-release."""

    id: str | None = Field(description="ID, for example debian. None: the file has no such line.")
    version_id: str | None = Field(
        description="VERSION_ID, for example 13. None: the file has no such line, as on a rolling release."
    )
    version_codename: str | None = Field(
        description="VERSION_CODENAME, for example trixie. None: the file has no such line."
    )
    pretty_name: str | None = Field(
        description="PRETTY_NAME, for example Debian GNU/Linux 13 (trixie). None: the file has no such line."
    )


class AppArmorFeatures(Answer):
    """What the kernel's AppArmor can do, as far as it decides about user namespaces."""

    namespaces_mask: str | None = Field(
        description="Content of namespaces/mask: userns_create if AppArmor mediates user namespaces. "
        "None: this AppArmor has no such file."
    )
    unconfined_userns: str | None = Field(
        description="Content of policy/unconfined_restrictions/userns: 1 if AppArmor can restrict the user "
        "namespaces of unconfined processes. None: this AppArmor has no such file."
    )
    policy_versions: tuple[str, ...] = Field(
        description="Names in policy/versions: the versions of compiled policy that the kernel loads."
    )


class AppArmor(Answer):
    """AppArmor in the kernel, and what the guest has installed for it."""

    version: str | None = Field(
        description="Version of apparmor_parser. None: it is not installed, or it prints no version."
    )
    features: AppArmorFeatures = Field(description="What the kernel's AppArmor can do.")
    userns_mediation: bool = Field(description="Whether the kernel's AppArmor mediates user namespaces.")
    profiles: dict[str, str] = Field(
        description="The mode of each loaded profile (for example enforce, complain, unconfined), by the "
        "profile's name; without those of other policy namespaces."
    )
    profile_files: tuple[str, ...] = Field(
        description="Paths of the profiles that are installed, whether they are loaded or not."
    )


class Selinux(Answer):
    """SELinux in the kernel, and its policy."""

    mode: Literal["enforcing", "permissive"] = Field(
        description="Whether the kernel denies what the policy does not allow, or only logs it."
    )
    policy: str | None = Field(
        description="Name of the policy, for example targeted. None: /etc/selinux/config names none."
    )
    policy_version: int | None = Field(
        description="Version of the newest compiled policy. None: no file of that policy was found."
    )
    user_namespace_class: bool = Field(
        description="Whether the loaded policy has the class user_namespace. SELinux decides nothing about "
        "user namespaces without it."
    )
    deny_unknown: bool = Field(
        description="Whether the kernel denies permissions that the loaded policy does not define."
    )
    modules: tuple[str, ...] = Field(
        description="Policy modules with the default priority of semodule: those that the distribution did not "
        "install."
    )


class Bubblewrap(Answer):
    """The bubblewrap that an ordinary user's shell finds."""

    path: str = Field(description="Absolute path of the program.")
    version: str | None = Field(description="For example 0.11.0. None: it does not run, or prints no version.")
    setuid: bool = Field(description="Whether the file has the set-user-ID bit.")
    mode: Mode = Field(description="Permission bits, in octal with 0o before it.")
    capabilities: str | None = Field(
        description="Permitted file capabilities as 16 hexadecimal digits. None: the file has no capabilities."
    )


class Kvm(Answer):
    """The device /dev/kvm."""

    mode: Mode = Field(description="Permission bits, in octal with 0o before it.")
    uid: int = Field(description="The owner's number.")
    gid: int = Field(description="The group's number.")
    owner: str | None = Field(description="Name of the owner. None: no user has this uid.")
    group: str | None = Field(description="Name of the group. None: no group has this gid.")


class Cgroup(Answer):
    """Control groups."""

    version: Literal["v1", "v2"] = Field(description="The version that is mounted on /sys/fs/cgroup.")
    controllers: tuple[str, ...] = Field(
        description="Controllers of the root control group of cgroup v2; empty for cgroup v1."
    )


class Mount(Answer):
    """The mount that a path is on."""

    on: str = Field(description="The mount point.")
    type: str = Field(description="Kind of file system, for example ext4.")
    options: tuple[str, ...] = Field(description="Mount options, for example rw and noexec.")


class Sysctls(Answers[str | None]):
    """The value of each sysctl that was asked for, as text. None: the kernel has no sysctl of this name."""


class Mounts(Answers[Mount]):
    """The mount of each path that was asked for."""


class Facts(Answer):
    """What a host is: its system, kernel, security modules, and the programs that matter to boxlite."""

    os: OsRelease = Field(description="The system, by its own words.")
    kernel: str = Field(description="Release of the running kernel, as `uname -r` prints it.")
    command_line: str = Field(description="What the kernel was booted with: /proc/cmdline.")
    python: str = Field(description="Version of the system's python3: major and minor, for example 3.13.")
    glibc: str = Field(description="Version of the C library, for example 2.41.")
    lsm: tuple[str, ...] | None = Field(
        description="Security modules in use, in the kernel's order. None: the kernel's list cannot be read "
        "(securityfs is not mounted)."
    )
    sysctls: Sysctls = Field(description="The usual sysctls, and those that variants set.")
    apparmor: AppArmor | None = Field(
        description="AppArmor. None: the kernel has no AppArmor, or it is not in use."
    )
    selinux: Selinux | None = Field(
        description="SELinux. None: the kernel has no SELinux, or it is not in use."
    )
    bubblewrap: Bubblewrap | None = Field(
        description="The system's bubblewrap. None: there is no bwrap in /usr/local/bin, /usr/bin or /bin."
    )
    kvm: Kvm | None = Field(description="The device /dev/kvm. None: there is none.")
    podman: bool = Field(description="Whether /usr/bin/podman exists.")
    mkfs_btrfs: bool | None = Field(
        None,
        description="Whether mkfs.btrfs is installed. None: the script for users does not ask.",
    )
    login_sessions: bool = Field(
        description="Whether pam_systemd is installed. Without it a user gets no service manager, and so no "
        "control groups."
    )
    cpu_level: int | None = Field(
        None,
        description="The highest level of x86-64 that the processor's flags show, from 1 to 4. None: the "
        "script for users does not ask.",
    )
    virtualization: Literal["svm", "vmx"] | None = Field(
        description="The processor's flag for hardware virtualization. None: the processor shows neither flag."
    )
    cgroup: Cgroup = Field(description="Control groups.")
    mounts: Mounts = Field(description="The mounts of /home and /tmp.")
