"""Facts about a host, what its kernel allows a user, and who that is: the models of what `programs/` print."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from packaging.version import Version
from pydantic import ConfigDict, Field

from lab.base.data import FailFastModel


class FactsModel(FailFastModel):
    """Part of what a program in a guest prints: every key is required, and there is no other key."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# What starts containers.
ContainerEngine = Literal["docker", "podman"]
# The permission bits of a file, as Python's oct() writes them.
Mode = Annotated[str, Field(pattern="^0o[0-7]+$")]
# As many numbers, and as many digits of one, as any release has: a guest may tell anything.
NUMBERS = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,5}", re.ASCII)


def parse_version(version: str | None) -> Version | None:
    """The numbers that a version begins with, to compare them; None if it has none."""
    begins = NUMBERS.match(version or "")
    return Version(begins[0]) if begins else None


class OsRelease(FactsModel):
    """Lines of /etc/os-release."""

    id: str | None = Field(description="ID, for example debian. None: the file has no such line.")
    version_id: str | None = Field(description="VERSION_ID, such as 13. None: none, as on a rolling release.")
    version_codename: str | None = Field(description="VERSION_CODENAME, such as trixie. None: no such line.")
    pretty_name: str | None = Field(description="PRETTY_NAME, as users know the system. None: no such line.")


class AppArmorFacts(FactsModel):
    """AppArmor in the kernel, and what the guest has installed for it."""

    version: str | None = Field(description="Version of apparmor_parser. None: it prints none.")
    userns_mediation: bool = Field(description="Whether the kernel's AppArmor mediates user namespaces.")
    profiles: dict[str, str] = Field(
        description="The mode of each loaded profile, for example enforce, by its name; without those of other "
        "policy namespaces."
    )
    profile_files: tuple[str, ...] = Field(description="Paths of the installed profiles, loaded or not.")


class SelinuxFacts(FactsModel):
    """SELinux in the kernel, and its policy."""

    mode: Literal["enforcing", "permissive"] = Field(
        description="Whether the kernel denies what the policy does not allow, or only logs it."
    )
    policy: str | None = Field(description="The policy, for example targeted. None: its file names none.")
    policy_version: int | None = Field(
        description="Version of the newest compiled policy. None: there is none."
    )
    user_namespace_class: bool = Field(
        description="Whether the loaded policy has the class user_namespace. SELinux decides nothing about "
        "user namespaces without it."
    )
    modules: tuple[str, ...] = Field(description="Policy modules that the distribution did not install.")


class BubblewrapFacts(FactsModel):
    """The bubblewrap that an ordinary user's shell finds."""

    path: str = Field(description="Absolute path of the program.")
    version: str | None = Field(description="For example 0.11.0. None: it does not run, or prints no version.")
    setuid: bool = Field(description="Whether the file has the set-user-ID bit.")
    mode: Mode = Field(description="Permission bits, in octal with 0o before it.")


class KvmFacts(FactsModel):
    """The device /dev/kvm."""

    mode: Mode = Field(description="Permission bits, in octal with 0o before it.")
    uid: int = Field(description="The owner's number.")
    gid: int = Field(description="The group's number.")
    owner: str | None = Field(description="Name of the owner. None: no user has this uid.")
    group: str | None = Field(description="Name of the group. None: no group has this gid.")
    capabilities: dict[str, bool] | None = Field(
        description="Whether KVM has each capability without which boxlite's machines do not start, by the "
        "names of linux/kvm.h without KVM_CAP_. None: the device does not answer as KVM does."
    )

    @property
    def lacking(self) -> list[str]:
        """The capabilities that KVM was asked for and does not have."""
        return [name for name, is_there in (self.capabilities or {}).items() if not is_there]


class MountFacts(FactsModel):
    """The mount that a path is on."""

    on: str = Field(description="The mount point.")
    type: str = Field(description="Kind of file system, for example ext4.")
    options: tuple[str, ...] = Field(description="Mount options, for example rw and noexec.")


class Facts(FactsModel):
    """What a host is: its system, kernel, security modules, and the programs that matter to boxlite."""

    os: OsRelease = Field(description="The system, by its own words.")
    kernel: str = Field(description="Release of the running kernel, as `uname -r` prints it.")
    arch: str = Field(description="The architecture, as `uname -m` prints it, for example x86_64.")
    command_line: str = Field(description="What the kernel was booted with: /proc/cmdline.")
    kernel_options: dict[str, Literal["y", "m"] | None] | None = Field(
        description="How the kernel was built: each option, without CONFIG_, is y, or m for a module, or null "
        "for one that is not set. None: no file on the host tells it."
    )
    landlock: int | None = Field(
        description="Version of Landlock's interface. None: the kernel has no Landlock, or does not use it."
    )
    python: str = Field(description="Version of the system's python3: major and minor, for example 3.13.")
    glibc: str = Field(description="Version of the C library, for example 2.41.")
    lsm: tuple[str, ...] | None = Field(
        description="Security modules in use, in the kernel's order. None: securityfs is not mounted."
    )
    sysctls: dict[str, str | None] = Field(
        description="The usual sysctls and those that variants set; null where the kernel has no such name."
    )
    apparmor: AppArmorFacts | None = Field(description="AppArmor. None: it is not in use.")
    selinux: SelinuxFacts | None = Field(description="SELinux. None: it is not in use.")
    bubblewrap: BubblewrapFacts | None = Field(
        description="The system's bubblewrap. None: there is no bwrap in /usr/local/bin, /usr/bin or /bin."
    )
    kvm: KvmFacts | None = Field(description="The device /dev/kvm. None: there is none.")
    systemd: bool = Field(description="Whether systemd manages the host's services.")
    cron: bool = Field(description="Whether /usr/sbin/cron or /usr/sbin/crond exists.")
    engines: tuple[ContainerEngine, ...] = Field(
        description="Which of /usr/bin/docker and /usr/bin/podman exist, by their names."
    )
    mkfs: tuple[str, ...] = Field(description="For which of btrfs and xfs a mkfs.KIND is installed.")
    login_sessions: bool = Field(
        description="Whether pam_systemd is installed. Without it users get no control groups."
    )
    virtualization: Literal["svm", "vmx"] | None = Field(
        description="The processor's flag for hardware virtualization. None: it shows neither flag."
    )
    cgroup: Literal["v1", "v2"] = Field(description="The version of control groups on /sys/fs/cgroup.")
    mounts: dict[str, MountFacts] = Field(description="The mounts of /home and /tmp.")

    @property
    def unset_options(self) -> list[str]:
        """The options of the kernel that are not set, without CONFIG_."""
        return [name for name, value in (self.kernel_options or {}).items() if value is None]


# Joins the profiles of a stack. Each of them has to allow what a process does.
STACKED = "//&"
# The label of a process that no profile confines. In a stack it denies nothing.
UNCONFINED = "unconfined"


@dataclass(frozen=True)
class Label:
    """The profiles of a process. `mode` is that of all of them, or `mixed`; None if no profile is left."""

    profiles: tuple[str, ...]
    mode: str | None

    @property
    def confines(self) -> bool:
        """Whether a profile restricts the process. One in unconfined mode only gives it a name."""
        return bool(self.profiles) and self.mode != UNCONFINED


def parse_label(text: str | None) -> Label:
    """Read a label. `unconfined` is left out of a stack.

    A kernel that restricts changes of profile (kernel.apparmor_restrict_unprivileged_unconfined) stacks the
    profile that an unconfined process asks for: `unconfined//&NAME (enforce)`.
    """
    names, _, mode = (text or "").partition(" (")
    profiles = tuple(name for name in names.split(STACKED) if name and name != UNCONFINED)
    return Label(profiles, mode.removesuffix(")") or None if profiles else None)


class Probe(FactsModel):
    """One thing that was tried, and what came of it."""

    status: int | None = Field(
        description="Exit status of the command or errno of the call; 0 if it worked. None: it did not run, or "
        "did not end in time."
    )
    stderr: str = Field(description="What the command wrote to standard error, or the text of the error.")
    command: tuple[str, ...] = Field(description="The command line, or a name for the call.")

    @property
    def worked(self) -> bool:
        return self.status == 0

    @property
    def failed(self) -> bool:
        return self.status not in (0, None)

    def failed_with(self, text: str) -> bool:
        """Whether it failed and its error holds this text."""
        return self.failed and text in self.stderr


class ServiceProbe(Probe):
    """The look at the systemd service that the process is in."""

    settings: dict[str, str] = Field(description="The settings that restrict it, by systemd's names.")


NOT_RUN = Probe(status=None, stderr="not run", command=())


class Probes(FactsModel):
    """The probes, each by its name."""

    unshare_user: Probe = Field(description="Make a user namespace.")
    unshare_user_root: Probe = Field(description="Make a user namespace and become root in it.")
    bwrap_user: Probe = Field(description="Have bubblewrap make a user namespace.")
    bwrap_all: Probe = Field(description="Have bubblewrap make every namespace that boxlite wants, with /proc.")
    open_kvm: Probe = Field(description="Open /dev/kvm for reading and writing.")
    create_vm: Probe = Field(description="Have /dev/kvm make a virtual machine, with nothing in it.")
    unshare_nothing: Probe = Field(
        description="Call unshare(0), which the kernel grants to everyone: only a seccomp filter refuses it."
    )
    unshare_flags: Probe = Field(
        description="Call unshare(2) for the namespaces of the jailer with a flag that it does not take. The "
        "kernel ends that with EINVAL, or with EPERM where kernel.unprivileged_userns_clone is 0; a seccomp "
        "filter that looks at the flags refuses it before."
    )
    mount_nothing: Probe = Field(
        description="Call mount(2) without a path. The kernel ends that with EFAULT for everyone: only a "
        "seccomp filter refuses it in another way."
    )
    proc_unmasked: Probe = Field(
        description="Look for mounts on parts of /proc. With any, a user namespace cannot mount its own /proc."
    )
    socket_folder: Probe = Field(
        description="Look at /tmp/bl-UID, where boxlite puts the sockets of boxes: whether it is a folder of "
        "this user, or can be made."
    )
    own_cgroup: Probe = Field(
        description="Make a control group where boxlite puts those of boxes, and move a process into it. The "
        "kernel refuses that to a user who may not write to a group that contains both this and the process's "
        "present one."
    )
    service_unrestricted: ServiceProbe = Field(
        description="Look for settings of the systemd service that the process is in, if any, that restrict "
        "it. Of SystemCallFilter= it tells which system calls of the jailer are denied."
    )
    start_processes: Probe = Field(
        description="Start as many processes at once as one box has processes and threads, beside those that "
        "the user has already. The kernel refuses one that is too many for the user, for the control group or "
        "for the host."
    )
    exec_home: Probe = Field(description="Execute a script in the user's home.")
    home_allows_exec: Probe = Field(description="Look whether the home's file system is mounted noexec.")

    def by_name(self) -> dict[str, Probe]:
        return dict(self)

    @property
    def ran(self) -> bool:
        return any(probe.status is not None for probe in self.by_name().values())


# Stands for the probes of a cell that none were run in.
NONE_RUN = Probes.model_validate(
    dict.fromkeys(Probes.model_fields, NOT_RUN)
    | {"service_unrestricted": ServiceProbe(**dict(NOT_RUN), settings={})}
)


# What a process is in, by its control group.
SessionKind = Literal["login", "user unit", "system service", "init.scope", "other"]


class UserSession(FactsModel):
    """The session that a process is in, and the service manager of its user."""

    kind: SessionKind = Field(
        description="By the control group: login, a session of logind's; user unit, of the user's service "
        "manager; system service; init.scope, where WSL starts its shell; other, as in a container."
    )
    cgroup: str = Field(
        description="The control group: of version 2, or in systemd's hierarchy of version 1. In place of "
        "names that are not systemd's own, and of the numbers of sessions, it has *."
    )
    login_class: str | None = Field(
        description="Class of logind's session, for example user or background. None: the process is in none."
    )
    runtime_dir: str | None = Field(description="XDG_RUNTIME_DIR; * if not in /run/user. None: not set.")
    manager: bool = Field(description="Whether the user's service manager answers.")
    lingers: bool = Field(description="Whether the user's service manager runs without a login, too.")


class LimitFacts(FactsModel):
    """Limits on what a process of the user may use: the soft ones of setrlimit(2), and one of the hard ones."""

    nproc: int | None = Field(
        description="Processes and threads of this user on the whole host. None: unlimited."
    )
    nofile: int | None = Field(description="Open files. None: unlimited.")
    nofile_hard: int | None = Field(description="What the user may raise that to. None: unlimited.")
    memlock: int | None = Field(description="Bytes that are locked in memory. None: unlimited.")
    fsize: int | None = Field(description="Bytes of a file that it writes. None: unlimited.")
    data: int | None = Field(description="Bytes of its data. None: unlimited.")
    address_space: int | None = Field(description="Bytes of its address space. None: unlimited.")
    cpu: int | None = Field(description="Seconds of the processor. None: unlimited.")


class Context(FactsModel):
    """What confines and limits a user's processes, the session, and what systemd delegated to the user."""

    apparmor: str | None = Field(
        description="AppArmor's label of the process: a profile with its mode, or unconfined. None: not in use."
    )
    selinux: str | None = Field(description="SELinux's context of the process. None: it is not in use.")
    delegated: tuple[str, ...] = Field(description="Controllers that the user's service manager may use.")
    session: UserSession = Field(description="The session that the process is in.")
    limits: LimitFacts = Field(description="Limits of the process.")


class Link(FactsModel):
    """Where a path leads, as the user sees it."""

    target: str | None = Field(description="The target of the symlink. None: it is not a symlink.")
    error: str = Field(description="Why the user cannot reach what is there; empty if the user can.")


class ProcessUser(FactsModel):
    """The user that a suite runs as, seen from a process that is started as the suite is."""

    uid: int = Field(description="The user's number; 0 is root.")
    groups: tuple[int, ...] = Field(description="The user's groups, by their numbers.")
    context: Context = Field(description="What confines the process.")
    seccomp: int = Field(description="Mode of seccomp: 0 none, 1 strict, 2 a filter.")
    container: ContainerEngine | None = Field(
        description="What started the container that the process runs in. None: it runs in none of these."
    )


class SuiteUser(ProcessUser):
    """The user, and what else settings of variants are read back from."""

    links: dict[str, Link] = Field(description="Each path that was asked for.")
    uid_outside: int | None = Field(
        description="The user's number outside of the user namespace that the process is in. None: unmapped."
    )
    service: dict[str, str] | None = Field(
        description="Settings of the systemd service that the process is in, as systemd shows them; empty "
        "outside of a service. None: systemd does not tell them."
    )
    bubblewrap: str | None = Field(
        description="AppArmor's label of a bubblewrap that the user runs. None: it has none, or does not start."
    )
    create_vm: Probe = Field(description="As in the probes.")
    socket_folder: Probe = Field(description="As in the probes.")


class ProbedUser(ProcessUser):
    """The user, and what came of the probes that ran as this user."""

    probes: Probes = Field(description="The probes, each by its name.")


class ProbedSuiteUser(SuiteUser):
    """What a variant is read back from, and what came of the probes, all from one start of the program."""

    probes: Probes = Field(description="The probes, each by its name.")
