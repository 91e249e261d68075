"""Whether this host can run the lab: a table of what the lab needs of it, and a line for each need."""

import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import libvirt

from lab.base import architecture, host_table, process
from lab.base.activity import UNWATCHED
from lab.base.errors import LabError
from lab.base.paths import ANOTHER_HOME, Paths
from lab.builds import rootfs, sandbox
from lab.catalog import CloudImage, DebianImage, Firmware, Guest
from lab.images import debian, store
from lab.machine import acceleration, clock, domain, throwaway
from lab.machine.budget import RESERVE_MIB, Memory, measure_available_mib
from lab.machine.connection import NoLibvirt, format_version, hold_connection

SETUP = "./setup.sh doctor installs it"
SSH = f"lab shell, lab exec, lab attach and lab copy need it: {SETUP}"
# What to do where libvirt starts no machine. virtlogd may write only to folders that have the label of
# libvirt's logs: https://github.com/fedora-selinux/selinux-policy, policy/modules/contrib/virt.te.
REFUSED = (
    "see the logs of libvirt, and what AppArmor or SELinux denied: sudo dmesg, sudo journalctl, "
    "/var/log/audit/audit.log\n"
    "if SELinux denied virtlogd_t to write to var_lib_t: ./setup.sh --allow=consoles doctor"
)
# Not on every user's PATH.
ADMINISTRATION = "/usr/sbin:/sbin"
FREE_GIB = 8.0
# For a program to say its version. mmdebstrap needed more than 20 s on a host that was itself emulated.
ANSWER_SECONDS = 60.0
# UEFI without a file for its variables (`stateless`) came with 8.6, and nothing else of a lane's XML is as new;
# only Fedora's firmware needs 9.2. https://libvirt.org/formatdomain.html#bios-bootloader
OLDEST_LIBVIRT = 8_006_000
# Numbers with a dot, also after an underscore: OpenSSH_10.0p2 is version 10.0p2, qemu-system-x86_64 is none.
VERSION = re.compile(r"(?<![^\W_])\d+\.\d[\w.~+]*")


class RequirementState(StrEnum):
    OK = "ok"
    SLOW = "slow"
    UNKNOWN = "not known"
    BROKEN = "broken"
    # Some guests of the plan cannot be run; the others can.
    LIMITED = "limited"
    # It would be broken for guests that are not in the plan.
    NOT_NEEDED = "not needed"


@dataclass(frozen=True)
class RequirementLine:
    """One requirement: its state, what was found, and what to do about it (`mend`), if anything.

    `needed_by` names the guests of the catalog that need it now; None means every guest.
    """

    what: str
    state: RequirementState
    found: str
    mend: str = ""
    needed_by: Sequence[str] | None = None


class NotMet(LabError):
    """A requirement is not met, or not as well as it could be."""

    def __init__(self, state: RequirementState, answer: str, hint: str | None = None) -> None:
        super().__init__(answer, hint=hint)
        self.state = state


@dataclass
class Examination:
    """What the rows ask about: the guests that are to be run, all of the catalog, and libvirt once it answered.

    `again`: KVM is to be tried once more, although the verdict of an earlier time still holds.
    """

    paths: Paths
    guests: Sequence[Guest]
    catalog: Sequence[Guest]
    uri: str
    again: bool = False
    daemon: libvirt.virConnect | None = None
    # Closes the connection at the end.
    closing: ExitStack = field(default_factory=ExitStack)

    @property
    def libvirt(self) -> libvirt.virConnect:
        """The connection. Raises NotMet if there is none."""
        if self.daemon is None:
            raise NotMet(RequirementState.UNKNOWN, "cannot be tried without libvirt", "start libvirt")
        return self.daemon


# -- which guests need something that not every guest needs


Need = Callable[[Paths, Guest], bool]


def nobody(_paths: Paths, _guest: Guest) -> bool:
    """No guest needs this; a command that runs no cells does."""
    return False


def is_built(paths: Paths, guest: Guest) -> bool:
    """Whether the guest's image still has to be built from Debian's packages."""
    return isinstance(guest.image, DebianImage) and store.find_image(paths, guest) is None


def is_labelled(paths: Paths, guest: Guest) -> bool:
    """Whether the guest's image still has to be built with SELinux labels."""
    return is_built(paths, guest) and isinstance(guest.image, DebianImage) and guest.image.selinux is not None


def is_verified(paths: Paths, guest: Guest) -> bool:
    """Whether the guest's disk still has to be downloaded and its signature verified."""
    image = guest.image
    return (
        isinstance(image, CloudImage) and image.checksums is not None and store.find_image(paths, guest) is None
    )


def starts_from_uefi(_paths: Paths, guest: Guest) -> bool:
    return isinstance(guest.image, CloudImage) and guest.image.firmware is Firmware.UEFI


def starts_from_own_uefi(paths: Paths, guest: Guest) -> bool:
    return guest.architecture.is_hosts and starts_from_uefi(paths, guest)


def is_foreign(_paths: Paths, guest: Guest) -> bool:
    """Whether the guest has another architecture than this host, so that it is always emulated."""
    return not guest.architecture.is_hosts


# -- what is asked: each returns what is there, and raises LabError if the need is not met


Ask = Callable[[Examination], str]


def _program(program: str, argument: str) -> Ask:

    def ask(_examination: Examination) -> str:
        path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{ADMINISTRATION}")
        if path is None:
            raise LabError(f"{program} is not installed")
        try:
            printed = process.run_command([path, argument], timeout=ANSWER_SECONDS)
        except process.CommandFailed as error:
            if error.late:  # A machine that has much to do is slow to start any program.
                raise NotMet(
                    RequirementState.UNKNOWN, str(error), "try it again when this host has less to do"
                ) from error
            raise
        match = VERSION.search(printed)
        return f"{match.group(0)} ({path})" if match else path

    return ask


def _qemu(examination: Examination) -> str:
    return _program(f"qemu-system-{architecture.get_host_architecture().name}", "--version")(examination)


def _uefi(examination: Examination) -> str:
    return str(domain.find_uefi(examination.libvirt, architecture.get_host_architecture()))


def _foreign(examination: Examination) -> str:
    """What guests of the other architecture need; none of them is broken for others of the plan."""
    paths, daemon, answers = examination.paths, examination.libvirt, []
    foreign = [guest for guest in examination.guests if is_foreign(paths, guest)]
    [other] = (
        arch for arch in architecture.ARCHITECTURES.values() if arch is not architecture.get_host_architecture()
    )
    try:
        domain.check_emulator(daemon, other)
        answers.append(f"QEMU emulates {other.name}")
        if any(starts_from_uefi(paths, guest) for guest in foreign):
            answers.append(f"its UEFI is {domain.find_uefi(daemon, other)}")
        if any(is_built(paths, guest) for guest in foreign):
            process.run_command(["arch-test", other.debian], timeout=ANSWER_SECONDS)
            answers.append("this host runs its programs")
    except LabError as error:
        state = RequirementState.LIMITED if len(foreign) < len(examination.guests) else RequirementState.BROKEN
        raise NotMet(state, str(error.args[0]), f"{other.setup} installs it") from error
    return ", ".join(answers)


def _libvirt(examination: Examination) -> str:
    examination.daemon = examination.closing.enter_context(hold_connection(examination.uri))
    number = examination.daemon.getLibVersion()
    text = f"{format_version(number)}, {examination.uri}"
    if number < OLDEST_LIBVIRT:
        raise LabError(text, hint="the lab needs libvirt 8.6 or newer")
    return text


def _acceleration(examination: Examination) -> str:
    paths, daemon = examination.paths, examination.libvirt
    if examination.again:
        paths.acceleration.unlink(missing_ok=True)
    verdict = acceleration.read_acceleration(daemon, paths)
    if verdict is None and (image := store.find_any_image(paths)):
        verdict = acceleration.decide_acceleration(daemon, paths, image, UNWATCHED)
    if verdict is None:
        raise NotMet(
            RequirementState.UNKNOWN,
            "only booting a guest kernel under KVM can tell, and there is no guest image yet",
            f"lab images build debian-13{'-arm64' if architecture.AARCH64.is_hosts else ''}, then lab doctor",
        )
    if not verdict.kvm:
        raise NotMet(RequirementState.SLOW, f"software emulation: {verdict.reason}; {verdict.speed.compared}")
    return f"KVM: {verdict.reason}; {verdict.speed.compared}"


def _clock(examination: Examination) -> str:
    paths, daemon = examination.paths, examination.libvirt
    verdict = acceleration.read_acceleration(daemon, paths)
    if verdict is not None and verdict.kvm:
        return "guests run under KVM and have this host's clock"
    if not daemon.getURI().startswith("qemu"):
        raise NotMet(RequirementState.UNKNOWN, "only QEMU can be given another one", "")
    emulated = clock.choose_emulated_clock(daemon, paths)
    if emulated.reason:
        raise NotMet(
            RequirementState.SLOW,
            f"emulated guests have this host's clock: {emulated.reason}; boxes may miss boxlite's limit of "
            "30 s while this host is busy, and their cells are `error` then",
            "" if clock.find_library() else SETUP,
        )
    return f"an emulated guest's runs {1 / emulated.rate:.0f} times slower than this host's, like its processor"


def _machine(examination: Examination) -> str:
    paths, daemon = examination.paths, examination.libvirt
    if not daemon.getURI().startswith("qemu"):
        raise NotMet(RequirementState.UNKNOWN, "only QEMU has one that can be tried")
    # Without an image KVM was not tried.
    verdict = acceleration.read_acceleration(daemon, paths)
    try:
        with throwaway.open_machine(
            daemon, paths, kvm=verdict is not None and verdict.kvm, image=store.find_any_image(paths)
        ):
            return "libvirt starts a machine, and QEMU opens its port on 127.0.0.1"
    except libvirt.libvirtError as error:
        if not daemon.isAlive():
            raise NoLibvirt(f"libvirt went away while a machine was tried: {error}") from error
        raise NotMet(
            RequirementState.BROKEN, str(error).strip(), domain.choose_start_hint(error, REFUSED)
        ) from error


def _keyring(_examination: Examination) -> str:
    if not debian.KEYRING.exists():
        raise LabError(f"{debian.KEYRING} is missing", hint=host_table.suggest_packages("keyring"))
    return str(debian.KEYRING)


def _sandbox(_examination: Examination) -> str:
    sandbox.check_sandbox()
    return "bubblewrap, for builds whose programs are asked on this host"


def _subordinate_ids(_examination: Examination) -> str:
    name = pwd.getpwuid(os.geteuid()).pw_name
    files_with_user = [
        file
        for file in ("/etc/subuid", "/etc/subgid")
        if Path(file).exists()
        and any(line.split(":")[0] in (name, str(os.geteuid())) for line in Path(file).read_text().splitlines())
    ]
    if len(files_with_user) < 2 or not shutil.which("newuidmap"):
        files = "/etc/subuid and /etc/subgid"
        raise LabError(f"newuidmap, or lines for {name} in {files}, are missing: no guest can be built")
    return f"{name} has lines in /etc/subuid and /etc/subgid"


def _labels(examination: Examination) -> str:
    name = pwd.getpwuid(os.geteuid()).pw_name
    has_other_guests = not all(is_labelled(examination.paths, guest) for guest in examination.guests)
    raise NotMet(
        RequirementState.LIMITED if has_other_guests else RequirementState.BROKEN,
        f"{name} is not root, and only root can set them in a guest's image",
    )


def _disk(examination: Examination) -> str:
    cache = examination.paths.cache
    folder = next(path for path in (cache, *cache.parents) if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise LabError(f"{cache} cannot be written", hint=ANOTHER_HOME)
    free = shutil.disk_usage(folder).free / 2**30
    if free < FREE_GIB:
        raise LabError(f"{free:.1f} GiB free in {folder}")
    return f"{free:.0f} GiB free in {folder}"


def _memory(examination: Examination) -> str:
    largest = max((guest.memory_mib for guest in examination.guests), default=0)
    free, need = measure_available_mib(), Memory.need_mib(largest) + RESERVE_MIB
    if free < need:
        hint = f"the largest guest needs {need} MiB, {RESERVE_MIB} of them for the host"
        raise LabError(f"{free} MiB free", hint=hint)
    return f"{free} MiB free"


# -- the table


@dataclass(frozen=True)
class Requirement:
    """One row: how it is asked, and what to do where the error has no hint of its own.

    `need` says which guests need it, None that all do. `of_users`: root does not need it.
    """

    subject: str
    ask: Ask
    mend: str = SETUP
    need: Need | None = None
    of_users: bool = False


REQUIREMENTS = (
    # First, because the lab runs every other program through it.
    Requirement("setpriv", _program("setpriv", "--version")),
    Requirement("QEMU", _qemu),
    Requirement("qemu-img", _program("qemu-img", "--version")),
    Requirement("libvirt", _libvirt, ""),
    Requirement("UEFI", _uefi, SETUP, starts_from_own_uefi),
    Requirement("foreign guests", _foreign, "", is_foreign),
    Requirement(
        "acceleration",
        _acceleration,
        "everything works without KVM; for speed, use a host with /dev/kvm and nested virtualization",
    ),
    Requirement("clock", _clock),
    Requirement("machine", _machine, ""),
    Requirement("mmdebstrap", _program("mmdebstrap", "--version"), SETUP, is_built),
    Requirement("Debian's keys", _keyring, SETUP, is_built),
    Requirement("mke2fs", _program("mke2fs", "-V"), SETUP, is_built),
    Requirement("gpgv", _program("gpgv", "--version"), SETUP, is_verified),
    Requirement("ssh", _program("ssh", "-V"), SSH, nobody),
    Requirement("sandbox", _sandbox, SETUP, nobody),
    Requirement(
        "subordinate ids",
        _subordinate_ids,
        "./setup.sh doctor installs newuidmap, and adds lines with IDs that nobody else has",
        is_built,
        of_users=True,
    ),
    Requirement(
        "SELinux labels",
        _labels,
        "run the lab as root for these guests; their cells are n/a otherwise",
        is_labelled,
        of_users=True,
    ),
    Requirement("busybox", lambda _: f"static ({rootfs.find_busybox()})"),
    Requirement("disk space", _disk, f"free {FREE_GIB:.0f} GiB"),
    Requirement("memory", _memory),
)


def examine_host(examination: Examination) -> Iterator[RequirementLine]:
    """Check all requirements, one line at a time. What only guests need that are not run is never broken."""
    with examination.closing:
        for requirement in REQUIREMENTS:
            if not (requirement.of_users and os.geteuid() == 0):
                yield line_of(requirement, examination)


def line_of(requirement: Requirement, examination: Examination) -> RequirementLine:
    """Ask for one requirement, and judge the answer by the guests that are to be run."""
    subject, need = requirement.subject, requirement.need
    needed_by = None
    if need:
        needed_by = [guest.name for guest in examination.catalog if need(examination.paths, guest)]
    try:
        return RequirementLine(subject, RequirementState.OK, requirement.ask(examination), needed_by=needed_by)
    except libvirt.libvirtError as error:
        return RequirementLine(
            subject, RequirementState.UNKNOWN, f"libvirt starts no machine: {error}", "see the line `machine`"
        )
    except LabError as error:
        mend = requirement.mend if error.hint is None else error.hint
        state = error.state if isinstance(error, NotMet) else RequirementState.BROKEN
        is_needed = needed_by is None or any(guest.name in needed_by for guest in examination.guests)
        if not is_needed and state in (RequirementState.BROKEN, RequirementState.LIMITED):
            state = RequirementState.NOT_NEEDED
        return RequirementLine(subject, state, str(error.args[0]), mend, needed_by)
