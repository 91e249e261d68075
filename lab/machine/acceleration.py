"""Whether guests run under KVM or under software emulation: a kernel is booted to find out."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import libvirt
from pydantic import BaseModel

from lab.base import scratch
from lab.base.files import write_atomically
from lab.base.locks import locked
from lab.base.paths import Paths
from lab.base.wait import Deadline, DeadlineExpired, wait_for
from lab.images.store import BaseImage
from lab.machine import domain, firmware, leftovers, overlay
from lab.machine.connection import NoLibvirt
from lab.machine.domain import DomainSpec, KernelBoot

KVM_DEVICE = Path("/dev/kvm")
# The kernel prints this when it starts the init of the initial RAM disk: all of its own start-up has run.
KERNEL_RAN = "Run /init as init process"
PROBE_SECONDS = 30.0
PROBE_FOLDER = "kvm-probe-"
# Longer than another lab can take to find out.
LOCK_SECONDS = 4 * PROBE_SECONDS
# Enough for the initial RAM disk of any distribution.
PROBE_MIB = 1024
# Measured boots take 21-36 s under software emulation and 2-4 s under KVM.
EMULATION_FACTOR = 10.0


@dataclass(frozen=True)
class Acceleration:
    """How guests run, and why."""

    kvm: bool
    reason: str

    @property
    def name(self) -> str:
        return "kvm" if self.kvm else "emulation"

    @property
    def factor(self) -> float:
        """The factor for a time limit that is meant for KVM."""
        return 1.0 if self.kvm else EMULATION_FACTOR

    def processors(self, wanted: int) -> int:
        """How many processors a machine gets that is to have so many under KVM.

        An emulated one gets one. QEMU runs each processor in a thread of the host, and those of one machine
        wait for each other: with two, a box took 16.6 s instead of 9.0 s (benchmarks/boxes.py, medians of 100).
        """
        return wanted if self.kvm else 1


class Verdict(BaseModel):
    """The content of `acceleration.json`; `key` says for which host it holds."""

    key: str
    kvm: bool
    reason: str


def decide(
    connection: libvirt.virConnect, paths: Paths, image: BaseImage, say: Callable[[str], None]
) -> Acceleration:
    """Return the cached verdict for this host kernel and QEMU, or boot `image` under KVM to get one.

    The kernel of any guest will do. While another lab or thread boots one, `say` may raise to end the wait.
    Raises LabError if the image's disk cannot be booted at all.
    """
    known = cached(connection, paths)
    if known is not None:
        return known
    paths.make(paths.cache)
    lock = paths.acceleration.with_suffix(".lock")
    with locked(lock, LOCK_SECONDS, "KVM to be tried", say):
        known = cached(connection, paths)
        if known is not None:
            return known
        decided = _refused_without_trying() or _try(connection, paths, image)
        verdict = Verdict(key=_key(connection), kvm=decided.kvm, reason=decided.reason)
        write_atomically(paths.acceleration, verdict.model_dump_json() + "\n")
        return decided


def cached(connection: libvirt.virConnect, paths: Paths) -> Acceleration | None:
    """Return the verdict of an earlier run under the same host kernel and QEMU, if there is one."""
    try:
        verdict = Verdict.model_validate_json(paths.acceleration.read_bytes())
    except (OSError, ValueError):
        return None
    return Acceleration(verdict.kvm, verdict.reason) if verdict.key == _key(connection) else None


def _key(connection: libvirt.virConnect) -> str:
    """What a verdict depends on. Nested virtualization and the device's mode can change without a reboot."""
    mode = oct(KVM_DEVICE.stat().st_mode) if KVM_DEVICE.exists() else "absent"
    return f"{platform.release()} {connection.getVersion()} {connection.getURI()} {mode} {_nested()}"


def _nested() -> bool:
    for module in ("kvm_intel", "kvm_amd"):
        parameter = Path(f"/sys/module/{module}/parameters/nested")
        if parameter.exists():
            return parameter.read_text().strip() in ("Y", "1")
    # The module is built into the kernel, or of another architecture: only a boot can tell.
    return True


def _refused_without_trying() -> Acceleration | None:
    if not KVM_DEVICE.exists():
        return Acceleration(False, "/dev/kvm does not exist")
    if os.geteuid() != 0 and not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return Acceleration(False, "/dev/kvm may not be opened by this user (join the group kvm)")
    if not _nested():
        return Acceleration(
            False,
            "KVM works, but without nested virtualization, so boxlite would find no /dev/kvm in a guest "
            "(load kvm_intel or kvm_amd with nested=1)",
        )
    return None


def _try(connection: libvirt.virConnect, paths: Paths, image: BaseImage) -> Acceleration:
    """Boot a guest's kernel under KVM until it starts user space. Raises NoLibvirt, LeftBehind."""
    uri = connection.getURI()
    with scratch.make_in(paths.make(paths.state), PROBE_FOLDER) as folder:
        folder.chmod(0o711)
        console = folder / "console.log"
        machine: libvirt.virDomain | None = None
        try:
            spec = _probe(connection, image, folder, console)
            machine = connection.createXML(domain.to_xml(spec), libvirt.VIR_DOMAIN_START_AUTODESTROY)
            return _watch(connection, machine, console)
        except libvirt.libvirtError as error:
            _check_daemon(connection, error)
            return Acceleration(False, f"/dev/kvm opens, but QEMU fails under it: {_first_line(error)}")
        finally:
            _remove(machine, uri, folder)


def _probe(connection: libvirt.virConnect, image: BaseImage, folder: Path, console: Path) -> DomainSpec:
    boot = firmware.boot_of(connection, image)
    disk = None
    if isinstance(boot, KernelBoot):
        boot = replace(boot, arguments="console=ttyS0 panic=-1 break=top")
    else:
        disk = folder / "overlay.qcow2"
        overlay.create(disk, image.disk)
    name = f"lab-kvm-probe-{os.getpid()}"
    return DomainSpec(
        name=name, lane=name, kvm=True, memory_mib=PROBE_MIB, cpus=1, boot=boot, console=console, disk=disk
    )


def _check_daemon(connection: libvirt.virConnect, error: libvirt.libvirtError) -> None:
    """Raise NoLibvirt if the daemon went away: that says nothing of KVM, and no verdict is kept."""
    if not connection.isAlive():
        raise NoLibvirt(f"libvirt went away while KVM was tried: {error}") from error


def _watch(connection: libvirt.virConnect, machine: libvirt.virDomain, console: Path) -> Acceleration:
    def verdict() -> Acceleration | None:
        text = console.read_text(errors="replace") if console.exists() else ""
        if KERNEL_RAN in text:
            return Acceleration(True, "a guest kernel ran under KVM")
        try:
            state, _ = machine.state()
        except libvirt.libvirtError as error:
            _check_daemon(connection, error)
            state = libvirt.VIR_DOMAIN_SHUTOFF
        if state != libvirt.VIR_DOMAIN_RUNNING:
            return Acceleration(False, "/dev/kvm opens, but a guest kernel dies under it")
        return None

    try:
        return wait_for(verdict, Deadline(PROBE_SECONDS, "a guest kernel under KVM"))
    except DeadlineExpired:
        return Acceleration(
            False, f"/dev/kvm opens, but a guest kernel did not start within {PROBE_SECONDS:.0f} s"
        )


def _remove(machine: libvirt.virDomain | None, uri: str, folder: Path) -> None:
    if machine is not None:
        try:
            machine.destroy()
        except libvirt.libvirtError:
            # It died under KVM already, which is then the answer, or its daemon died.
            leftovers.end_machine(machine.name(), uri, port=0)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
