"""Whether guests run under KVM or under software emulation, and how fast.

KVM is tried by booting a guest and asking it whether a machine of KVM runs in it, because boxlite's boxes are
such machines. That is done once for each kernel and QEMU of this host. How fast the host is, each boot of a
guest shows anew: the newest one counts for later lanes. Limits of time are stretched by how busy the host is
when they are used, so what a boot took is divided by how busy it was then.
"""

import base64
import fcntl
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import libvirt
from pydantic import BaseModel

from lab.base.activity import Task
from lab.base.architecture import AARCH64
from lab.base.data import SMALL_FILE, read_model
from lab.base.errors import LabError
from lab.base.files import write_atomically
from lab.base.locks import hold_lock
from lab.base.paths import Paths
from lab.base.wait import Deadline, DeadlineExpired, Speed, measure_load, wait_for
from lab.images.store import BaseImage
from lab.machine import ask_kvm, clock, console, domain, throwaway
from lab.machine.ask_kvm import RUNS
from lab.machine.clock import REAL, Clock
from lab.machine.connection import NoLibvirt

# What guests run under, as records name it.
KVM, EMULATION = "kvm", "emulation"
KVM_DEVICE = Path("/dev/kvm")
# https://docs.kernel.org/virt/kvm/api.html: whether a machine of arm64 may have EL2, and its guest so KVM.
CHECK_EXTENSION, ARM_EL2 = 0xAE03, 240
# The proof that the verdict rests on, as it is told and, in short, as the key of the verdict has it.
PROVED, PROVED_ON_ARM64 = (
    "a guest kernel ran under KVM, and a machine of KVM in it",
    "a guest kernel ran under KVM",
)
QUESTION = "KVM_RUN"
# What a guest runs while it boots.
SCRIPT = "echo {} | base64 -d | python3 -"
# What nesting takes.
ON_ARM64 = "it takes a processor with FEAT_NV2, Linux 6.16 with kvm-arm.mode=nested, and QEMU 10.1"
ON_X86_64 = "load kvm_intel or kvm_amd with nested=1"
# If the host has nothing else to do. Under emulation a kernel took 8 to 17 s in all, at a load of 7 to 9 on two
# processors, and KVM on an emulated host is as slow.
TRY_SECONDS = 120.0
# The limit, under KVM of ordinary hardware, from there to the guest's answer. An emulated Debian 13 took 84 s
# in all beside other guests, at a load of 9 on two processors.
ANSWER_SECONDS = 60.0
# Longer than another lab can take to find out, also where KVM is as slow as emulation.
LOCK_SECONDS = 3600.0


@dataclass(frozen=True)
class Acceleration:
    """How guests run, and why.

    `kernel_seconds` is what a guest's kernel takes to boot if this host has nothing else to do, in real
    seconds; None: not measured.
    """

    kvm: bool
    reason: str
    kernel_seconds: float | None = None
    clock: Clock = field(default=REAL, compare=False)

    @property
    def name(self) -> str:
        return KVM if self.kvm else EMULATION

    @property
    def speed(self) -> Speed:
        return Speed(not self.kvm, self.kernel_seconds, clock=self.clock.rate)

    def measured(self, boot: str) -> float | None:
        """How long the kernel whose boot, just now, is on this console would have taken on an idle host.

        In real seconds; None if it does not say.
        """
        seconds = console.find_kernel_seconds(boot)
        return None if seconds is None else round(seconds / self.clock.rate / measure_load(), 3)

    def learned(self, boot: str) -> "Acceleration":
        """The same with the boot on this console, if that is the first or was slower than any before it."""
        seconds = self.measured(boot)
        if seconds is None or seconds <= (self.kernel_seconds or 0.0):
            return self
        return replace(self, kernel_seconds=seconds)

    def told(self) -> str:
        """How fast this host is, and what follows from it for limits of time."""
        measured = "" if self.kernel_seconds is None else f", in {self.kernel_seconds:.1f} s"
        return f"{self.speed}{measured}; limits of time are {self.speed.factor:.0f} times those for KVM"

    def processors(self, count: int) -> int:
        """How many processors a machine gets that is to have so many under KVM.

        An emulated one gets one. QEMU runs each processor in a thread of the host, and those of one machine
        wait for each other: with two, a box took 16.6 s instead of 9.0 s (medians of 100,
        docs/measurements/emulated-resets.md).
        """
        return count if self.kvm else 1


class KvmFails(LabError):
    """A guest's kernel does not run under KVM; the message is a clause that says why."""


class GuestDied(KvmFails):
    """The machine ended by itself."""


class AccelerationVerdict(BaseModel):
    """The content of `acceleration.json`; `key` says for which host it holds.

    `slower_clock`: whether QEMU was seen to load what slows the clock of emulated guests.
    """

    key: str
    kvm: bool
    reason: str
    kernel_seconds: float | None = None
    slower_clock: bool = False

    @property
    def acceleration(self) -> Acceleration:
        return Acceleration(self.kvm, self.reason, self.kernel_seconds)


def decide_acceleration(
    connection: libvirt.virConnect, paths: Paths, image: BaseImage, task: Task
) -> Acceleration:
    """Return the verdict for this host kernel and QEMU, or boot the kernel of `image` to get one.

    The kernel of any guest will do; what a kernel shows that is not its guest's own is not kept. `task` may be
    ended while another lab or thread tries KVM.
    Raises LabError if the image's disk cannot be booted at all, and libvirtError if libvirt starts no machine.
    """
    if not image.architecture.is_hosts:
        reason = f"this host has no processor for {image.architecture.name}"
        domain.check_emulator(connection, image.architecture)
        return Acceleration(False, reason, clock=_choose_clock(connection, paths))
    acceleration = read_acceleration(connection, paths)
    if acceleration is None:
        paths.make(paths.cache)
        with hold_lock(paths.acceleration.with_suffix(".lock"), LOCK_SECONDS, "KVM to be tried", task):
            acceleration = read_acceleration(connection, paths) or _find_out(connection, paths, image, task)
    if acceleration.kvm:
        return acceleration
    return replace(acceleration, clock=_choose_clock(connection, paths))


def _choose_clock(connection: libvirt.virConnect, paths: Paths) -> Clock:
    """The clock of emulated guests. Once QEMU had the slower one, only the start of a lane asks again."""
    verdict = read_verdict(paths)
    if verdict is None or verdict.key != identify_host(connection):
        return clock.choose_emulated_clock(connection, paths)
    if verdict.slower_clock and not (slower := clock.find_emulated_clock()).reason:
        return slower
    chosen = clock.choose_emulated_clock(connection, paths)
    if not chosen.reason:
        _keep(paths, verdict.model_copy(update={"slower_clock": True}))
    return chosen


def forget_clock(paths: Paths) -> None:
    """Have the next lane find out about the clock of emulated guests, because one has another than was kept."""
    clock.clocks_by_uri.clear()
    if verdict := read_verdict(paths):
        _keep(paths, verdict.model_copy(update={"slower_clock": False}))


def _keep(paths: Paths, verdict: AccelerationVerdict) -> bool:
    """Keep the verdict for later lanes; False on a full disk: later lanes know less."""
    try:
        write_atomically(paths.acceleration, verdict.model_dump_json() + "\n")
    except OSError:
        return False
    return True


def read_acceleration(connection: libvirt.virConnect, paths: Paths) -> Acceleration | None:
    """Return the verdict of an earlier run under the same host kernel and QEMU, if there is one."""
    verdict = read_verdict(paths)
    return verdict.acceleration if verdict and verdict.key == identify_host(connection) else None


def keep_speed(paths: Paths, acceleration: Acceleration, boot: str) -> bool:
    """Keep for later lanes how long the kernel took whose boot is on this console.

    False if the console does not show it, or if that was known of this host before.
    """
    seconds, verdict = acceleration.measured(boot), read_verdict(paths)
    if seconds is None or verdict is None or verdict.kvm != acceleration.kvm:
        return False
    newer = verdict.model_copy(update={"kernel_seconds": seconds})
    return _keep(paths, newer) and verdict.kernel_seconds is None


def read_verdict(paths: Paths) -> AccelerationVerdict | None:
    try:
        return read_model(AccelerationVerdict, paths.acceleration, SMALL_FILE)
    except (OSError, ValueError):
        return None


def _find_out(connection: libvirt.virConnect, paths: Paths, image: BaseImage, task: Task) -> Acceleration:
    """Try KVM where it can be tried, and keep the verdict. Raises NoLibvirt, LeftBehind, libvirtError.

    If libvirt refuses the machine, that is kept only if it starts one without KVM: it may refuse every machine,
    as where SELinux denies it the folder of the consoles.
    """
    seconds: float | None = None
    is_kvm_to_blame = True
    if not KVM_DEVICE.exists():
        problem = "/dev/kvm does not exist"
    elif not may_open():
        problem = "/dev/kvm may not be opened by this user (join the group kvm)"
    elif not can_nest():
        problem = (
            "KVM works, but without nested virtualization, so boxlite would find no /dev/kvm in a guest "
            f"({ON_ARM64 if AARCH64.is_hosts else ON_X86_64})"
        )
    else:
        problem = ""
        try:
            try:
                seconds = boot_under_kvm(connection, paths, image, task)
            except GuestDied:
                # The verdict is kept. On an emulated host one guest of six died, and the others ran.
                seconds = boot_under_kvm(connection, paths, image, task)
            if seconds is not None:
                seconds = round(seconds / measure_load(), 3)
        except KvmFails as error:
            problem = f"/dev/kvm opens, but under it {error}"
        except libvirt.libvirtError as error:
            if not connection.isAlive():
                raise NoLibvirt(f"libvirt went away while KVM was tried: {error}") from error
            problem = f"/dev/kvm opens, but under it QEMU fails: {str(error).splitlines()[0]}"
            # Starts a machine without KVM, or raises, unless this host has no library for a clock.
            clock.choose_emulated_clock(connection, paths)
            is_kvm_to_blame = clock.find_library() is not None
    acceleration = Acceleration(
        not problem, problem or (PROVED_ON_ARM64 if AARCH64.is_hosts else PROVED), seconds
    )
    verdict = AccelerationVerdict(
        key=identify_host(connection), kvm=acceleration.kvm, reason=acceleration.reason, kernel_seconds=seconds
    )
    if image.has_own_kernel and is_kvm_to_blame:
        write_atomically(paths.acceleration, verdict.model_dump_json() + "\n")
    return acceleration


def boot_under_kvm(
    connection: libvirt.virConnect,
    paths: Paths,
    image: BaseImage,
    task: Task,
    *,
    kvm: bool = True,
    arguments: str = "",
) -> float | None:
    """Boot the image, and ask its guest whether a machine of KVM runs in it; nothing of it is left.

    Returns how long its kernel took until it started user space, on its own clock, if it says so. `task` may be
    ended meanwhile. A test asks an emulated guest, without `kvm`, and gives its kernel more `arguments`. Raises
    KvmFails, LeftBehind, and libvirtError if the machine is refused or the daemon goes away.
    """
    boot = domain.choose_boot(connection, image, arguments)
    script = "" if image.architecture is AARCH64 else SCRIPT.format(read_question())
    with throwaway.open_machine(connection, paths, boot=boot, kvm=kvm, image=image, script=script) as (
        started,
        console_file,
    ):

        def wait_until(find: Callable[[str], str], subject: str, deadline: Deadline) -> str:
            """Wait until `find` finds something on the console, and return that."""

            def look() -> str | None:
                task.check()
                # Asked first: what the guest wrote before its end is on the console.
                is_running = _is_running(connection, started)
                found = find(console.read_console(console_file))
                if not found and not is_running:
                    raise GuestDied(f"{subject} dies")
                return found or None

            return wait_for(look, deadline)

        def find_kernel(text: str) -> str:
            # A kernel that was told to be quiet does not say that it ran; its guest's answer does.
            return text if console.KERNEL_RAN in text or console.find_kvm_answer(text) else ""

        limit = TRY_SECONDS * measure_load()
        try:
            text = wait_until(find_kernel, "a guest kernel", Deadline(limit, "a guest kernel"))
        except DeadlineExpired as error:
            raise KvmFails(f"a guest kernel did not start within {limit:.0f} s") from error
        seconds = console.find_kernel_seconds(text)
        if image.architecture is AARCH64:
            if console.KVM_WORKS not in text:
                raise KvmFails("a guest kernel has no KVM for boxlite")
            return seconds
        limit = Speed(not kvm, seconds, busy=measure_load()).from_kvm(ANSWER_SECONDS)
        try:
            answer = wait_until(console.find_kvm_answer, "a guest", Deadline(limit, "its answer"))
        except DeadlineExpired as error:
            raise KvmFails(
                f"a guest did not say within {limit:.0f} s whether KVM runs a machine in it"
            ) from error
        if answer != RUNS:
            raise KvmFails(f"a guest has no KVM that runs a machine for boxlite: {answer}")
        return seconds


def _is_running(connection: libvirt.virConnect, started: libvirt.virDomain) -> bool:
    try:
        return bool(started.state()[0] == libvirt.VIR_DOMAIN_RUNNING)
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return False


def read_question() -> str:
    """The program that asks a guest about KVM, in base64."""
    return base64.b64encode(Path(ask_kvm.__file__).read_bytes()).decode()


def identify_host(connection: libvirt.virConnect) -> str:
    """What a verdict depends on. Without a reboot nesting can change, and who may open the device."""
    mode = oct(KVM_DEVICE.stat().st_mode) if KVM_DEVICE.exists() else "absent"
    if mode != "absent" and not may_open():
        mode += " not for this user"
    host = f"{platform.release()} {connection.getVersion()} {connection.getURI()} {mode} {can_nest()}"
    # Verdicts of labs that did not ask this of a guest do not count.
    return f"{host} {QUESTION}"


def may_open() -> bool:
    """Whether QEMU may open the device. Under root's daemon it runs with an account that may."""
    return os.geteuid() == 0 or os.access(KVM_DEVICE, os.R_OK | os.W_OK)


def can_nest() -> bool:
    if AARCH64.is_hosts:
        # KVM is no module there, so that it has no parameter to read.
        try:
            with KVM_DEVICE.open("rb", buffering=0) as device:
                return fcntl.ioctl(device, CHECK_EXTENSION, ARM_EL2) > 0
        except OSError:
            return False
    for module in ("kvm_intel", "kvm_amd"):
        parameter = Path(f"/sys/module/{module}/parameters/nested")
        if parameter.exists():
            return parameter.read_text().strip() in ("Y", "1")
    # The module is built into the kernel: only a boot can tell.
    return True
