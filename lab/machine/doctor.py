"""Whether this host can run the lab: one line for each requirement, with what to do if it is not met."""

import os
import pwd
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import libvirt

from lab.base import host_table, process
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.builds import rootfs, sandbox
from lab.images import debian, store
from lab.machine import acceleration, clock, firmware, proof
from lab.machine.acceleration import NoMachine
from lab.machine.budget import RESERVE_MIB, Memory, available_mib
from lab.machine.connection import NoLibvirt, connection, version
from lab.machine.needs import Need, Plan, is_built, is_labelled, is_verified, nobody, starts_from_uefi

SETUP = "./setup.sh doctor installs it"
SSH = f"lab shell, lab exec and lab attach need it: {SETUP}"
# Not on every user's PATH.
ADMINISTRATION = "/usr/sbin:/sbin"
FREE_GIB = 8.0
# For a program to say its version. mmdebstrap needed more than 20 s on a host that was itself emulated.
ANSWER_SECONDS = 60.0
BUSY = "try it again when this host has less to do"
# UEFI without a file for its variables (`stateless`) came with 8.6, and nothing else of a lane's XML is as new;
# only Fedora's firmware needs 9.2. https://libvirt.org/formatdomain.html#bios-bootloader
OLDEST_LIBVIRT = 8_006_000
# Numbers with a dot, also after an underscore: OpenSSH_10.0p2 is version 10.0p2, qemu-system-x86_64 is none.
VERSION = re.compile(r"(?<![^\W_])\d+\.\d[\w.~+]*")


class State(StrEnum):
    OK = "ok"
    SLOW = "slow"
    UNKNOWN = "not known"
    BROKEN = "broken"
    # Some guests of the plan cannot be run; the others can.
    LIMITED = "limited"
    # It would be broken for guests that are not in the plan.
    NOT_NEEDED = "not needed"


@dataclass(frozen=True)
class Line:
    """One requirement: its state, what was found, and what to do about it (`mend`), if anything.

    `needed_by` names the guests of the catalog that need it now; None means every guest. `evidence` holds lines
    of this host's logs.
    """

    what: str
    state: State
    found: str
    mend: str = ""
    needed_by: Sequence[str] | None = None
    evidence: Sequence[str] = ()


def examine(plan: Plan, uri: str, *, again: bool = False) -> Iterator[Line]:
    """Check all requirements, one line at a time. What only guests outside the plan need is never broken.

    `again`: KVM is tried, although the verdict of an earlier time still holds.
    """
    paths = plan.paths
    # First, because the lab runs every other program through it.
    yield _program("setpriv", "setpriv", "--version")
    yield _program("QEMU", "qemu-system-x86_64", "--version")
    yield _program("qemu-img", "qemu-img", "--version")
    yield from _libvirt(plan, uri, again)
    yield _for_some(plan, is_built, _program("mmdebstrap", "mmdebstrap", "--version"))
    yield _for_some(plan, is_built, _keyring())
    yield _for_some(plan, is_built, _program("mke2fs", "mke2fs", "-V"))
    yield _for_some(plan, is_verified, _program("gpgv", "gpgv", "--version"))
    yield _for_some(plan, nobody, _program("ssh", "ssh", "-V", mend=SSH))
    yield _for_some(plan, nobody, _sandbox())
    if os.geteuid() != 0:
        yield _for_some(plan, is_built, _subordinate_ids())
        yield _labels(plan)
    yield _busybox()
    yield _disk(paths)
    yield _memory(plan)


def _for_some(plan: Plan, need: Need, line: Line) -> Line:
    """The line of a requirement that not every guest has."""
    names = plan.needing(need)
    if line.state is State.BROKEN and not plan.has_any(names):
        return replace(line, state=State.NOT_NEEDED, needed_by=names)
    return replace(line, needed_by=names)


def _program(what: str, program: str, argument: str, *, mend: str = SETUP) -> Line:
    path = _find(program)
    if path is None:
        there = _find(program, os.F_OK)
        said = f"{there} may not be executed" if there else f"{program} is not installed"
        return Line(what, State.BROKEN, said, f"make it executable: chmod a+x {there}" if there else mend)
    try:
        printed = process.run([path, argument], timeout=ANSWER_SECONDS)
    except process.CommandFailed as error:
        if error.late:  # A host that has much to do is slow to start any program.
            return Line(what, State.UNKNOWN, str(error), BUSY)
        return Line(what, State.BROKEN, str(error), mend)
    found = VERSION.search(printed)
    return Line(what, State.OK, f"{found.group(0)} ({path})" if found else path)


def _find(program: str, mode: int = os.F_OK | os.X_OK) -> str | None:
    return shutil.which(program, mode, f"{os.environ.get('PATH', '')}:{ADMINISTRATION}")


def _libvirt(plan: Plan, uri: str, again: bool) -> Iterator[Line]:
    try:
        with connection(uri) as opened:
            number = opened.getLibVersion()
            found = f"{version(number)}, {uri}"
            if number < OLDEST_LIBVIRT:
                yield Line("libvirt", State.BROKEN, found, "the lab needs libvirt 8.6 or newer")
            else:
                yield Line("libvirt", State.OK, found)
            yield _for_some(plan, starts_from_uefi, _uefi(opened))
            if again:
                plan.paths.acceleration.unlink(missing_ok=True)
            yield _acceleration(opened, plan.paths)
            yield _clock(opened, plan.paths)
            yield _network(opened, plan.paths)
    except NoLibvirt as error:
        yield Line("libvirt", State.BROKEN, str(error.args[0]), error.hint or "")
        for what in ("acceleration", "clock", "network"):
            yield Line(what, State.UNKNOWN, "cannot be tried without libvirt", "start libvirt")
    except libvirt.libvirtError as error:
        yield Line("libvirt", State.BROKEN, str(error), "see the daemon's own log")


def _uefi(opened: libvirt.virConnect) -> Line:
    try:
        return Line("UEFI", State.OK, str(firmware.uefi(opened)))
    except firmware.NoFirmware as error:
        return Line("UEFI", State.BROKEN, str(error.args[0]), SETUP)


def _acceleration(opened: libvirt.virConnect, paths: Paths) -> Line:
    verdict = acceleration.cached(opened, paths)
    is_whole = verdict is not None and verdict.kernel_seconds is not None
    if not is_whole and (image := store.any_image(paths)):
        try:
            verdict = acceleration.decide(opened, paths, image, lambda text: None)
        except NoMachine as error:
            return Line("acceleration", State.UNKNOWN, str(error.args[0]), "see the line `network`")
    if verdict is None:
        return Line(
            "acceleration",
            State.UNKNOWN,
            "only booting a guest kernel under KVM can tell, and there is no guest image yet",
            "lab images build debian-13, then lab doctor",
        )
    if verdict.kvm:
        return Line("acceleration", State.OK, f"KVM: {verdict.reason}; {verdict.speed.compared}")
    return Line(
        "acceleration",
        State.SLOW,
        f"software emulation: {verdict.reason}; {verdict.speed.compared}",
        "everything works without KVM; for speed, use a host with /dev/kvm and nested virtualization",
    )


def _clock(opened: libvirt.virConnect, paths: Paths) -> Line:
    """Which clock guests have."""
    verdict = acceleration.cached(opened, paths)
    if verdict is not None and verdict.kvm:
        return Line("clock", State.OK, "guests run under KVM and have this host's clock")
    if not opened.getURI().startswith("qemu"):
        return Line("clock", State.UNKNOWN, "only QEMU can be given another one")
    try:
        found = clock.of_emulated(opened, paths)
    except libvirt.libvirtError as error:
        return Line("clock", State.UNKNOWN, f"libvirt starts no machine: {error}", "see the line `network`")
    if not found.reason:
        return Line(
            "clock",
            State.OK,
            f"an emulated guest's runs {1 / found.rate:.0f} times slower than this host's, like its processor",
        )
    return Line(
        "clock",
        State.SLOW,
        f"emulated guests have this host's clock: {found.reason}; boxes may miss boxlite's limit of 30 s while "
        "this host is busy, and their cells are `error` then",
        "" if clock.library() else SETUP,
    )


def _network(opened: libvirt.virConnect, paths: Paths) -> Line:
    if not opened.getURI().startswith("qemu"):
        return Line("network", State.UNKNOWN, "only QEMU has one that can be tried")
    try:
        refusal = proof.prove(opened, paths)
    except NoLibvirt:
        raise
    except LabError as error:
        return Line("network", State.UNKNOWN, str(error.args[0]), error.hint or "")
    if refusal is None:
        return Line("network", State.OK, "libvirt starts a machine, and QEMU opens its port on 127.0.0.1")
    mend = proof.mend(refusal, paths)
    return Line("network", State.BROKEN, refusal.reason, mend, evidence=refusal.denials)


def _subordinate_ids() -> Line:
    name = pwd.getpwuid(os.geteuid()).pw_name
    listed = [
        file
        for file in ("/etc/subuid", "/etc/subgid")
        if Path(file).exists()
        and any(line.split(":")[0] in (name, str(os.geteuid())) for line in Path(file).read_text().splitlines())
    ]
    if len(listed) == 2 and shutil.which("newuidmap"):
        return Line("subordinate ids", State.OK, f"{name} has lines in /etc/subuid and /etc/subgid")
    return Line(
        "subordinate ids",
        State.BROKEN,
        f"newuidmap, or lines for {name} in /etc/subuid and /etc/subgid, are missing: no guest can be built",
        "./setup.sh doctor installs newuidmap, and adds lines with IDs that nobody else has",
    )


def _labels(plan: Plan) -> Line:
    """What only root can do for the guests that have SELinux. All others run without it."""
    line = Line(
        "SELinux labels",
        State.BROKEN,
        f"{pwd.getpwuid(os.geteuid()).pw_name} is not root, and only root can set them in a guest's image",
        "run the lab as root for these guests; their cells are not run otherwise",
    )
    line = _for_some(plan, is_labelled, line)
    others = not all(is_labelled(plan.paths, guest) for guest in plan.guests)
    return replace(line, state=State.LIMITED) if line.state is State.BROKEN and others else line


def _keyring() -> Line:
    if debian.KEYRING.exists():
        return Line("Debian's keys", State.OK, str(debian.KEYRING))
    return Line("Debian's keys", State.BROKEN, f"{debian.KEYRING} is missing", host_table.install("keyring"))


def _sandbox() -> Line:
    try:
        sandbox.check()
        return Line("sandbox", State.OK, "bubblewrap, for builds whose programs are asked on this host")
    except LabError as error:
        return Line("sandbox", State.BROKEN, str(error.args[0]), error.hint or "")


def _busybox() -> Line:
    try:
        return Line("busybox", State.OK, f"static ({rootfs.find_busybox()})")
    except LabError as error:
        return Line("busybox", State.BROKEN, str(error.args[0]), error.hint or "")


def _disk(paths: Paths) -> Line:
    folder = next(p for p in (paths.cache, *paths.cache.parents) if p.exists())
    free = shutil.disk_usage(folder).free / 2**30
    if free < FREE_GIB:
        return Line("disk space", State.BROKEN, f"{free:.1f} GiB free in {folder}", f"free {FREE_GIB:.0f} GiB")
    return Line("disk space", State.OK, f"{free:.0f} GiB free in {folder}")


def _memory(plan: Plan) -> Line:
    free, need = available_mib(), Memory.need_mib(plan.memory_mib) + RESERVE_MIB
    if free < need:
        mend = f"the largest guest needs {need} MiB, {RESERVE_MIB} of them for the host"
        return Line("memory", State.BROKEN, f"{free} MiB free", mend)
    return Line("memory", State.OK, f"{free} MiB free")
