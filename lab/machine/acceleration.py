"""Whether guests run under KVM or under software emulation, and how fast: a kernel is booted to find out."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import libvirt
from pydantic import BaseModel

from lab.base.errors import LabError
from lab.base.files import write_atomically
from lab.base.locks import locked
from lab.base.paths import Paths
from lab.base.speed import Speed
from lab.images.store import BaseImage
from lab.machine import clock, throwaway
from lab.machine.clock import REAL, Clock

# What guests run under, as records name it.
KVM, EMULATION = "kvm", "emulation"
KVM_DEVICE = Path("/dev/kvm")
# Longer than another lab can take to find out: one boot under KVM, one under emulation.
LOCK_SECONDS = 4 * throwaway.LIMIT_SECONDS
# A host that had much to do when it was measured gets limits that are too long, which only costs time, and one
# that had nothing to do gets limits that may be too short. Neither lasts longer than this.
MEASURED_FOR = timedelta(days=1)
# A time at which whatever was measured has to be measured again.
LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Acceleration:
    """How guests run, and why.

    `kernel_seconds` is what a guest's kernel took to boot, in real seconds; None: not measured.
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

    def learned(self, console: str) -> "Acceleration":
        """The same with the boot on this console, if that is the first or was slower than any before it."""
        told = throwaway.seconds_of(console)
        if told is None or told / self.clock.rate <= (self.kernel_seconds or 0.0):
            return self
        return replace(self, kernel_seconds=round(told / self.clock.rate, 3))

    def told(self) -> str:
        """How fast this host is, and what follows from it for limits of time."""
        measured = "" if self.kernel_seconds is None else f", in {self.kernel_seconds:.1f} s"
        return f"{self.speed}{measured}; limits of time are {self.speed.factor:.0f} times those for KVM"

    def processors(self, count: int) -> int:
        """How many processors a machine gets that is to have so many under KVM.

        An emulated one gets one. QEMU runs each processor in a thread of the host, and those of one machine
        wait for each other: with two, a box took 16.6 s instead of 9.0 s (benchmarks/boxes.py, medians of 100).
        """
        return count if self.kvm else 1


class NoMachine(LabError):
    """libvirt starts no machine on this host, so nothing is known of KVM; no verdict is kept."""


class Verdict(BaseModel):
    """The content of `acceleration.json`; `key` says for which host it holds.

    `measured` is when the speed was measured; None if it was not yet.
    """

    key: str
    kvm: bool
    reason: str
    kernel_seconds: float | None = None
    measured: datetime | None = None

    def suffices(self, *, unmeasured: bool) -> bool:
        """Whether the speed was measured lately; if `unmeasured`, also whether it was not measured yet."""
        if self.measured is None:
            return unmeasured
        return timedelta(0) <= datetime.now(UTC) - self.measured < MEASURED_FOR

    @property
    def acceleration(self) -> Acceleration:
        return Acceleration(self.kvm, self.reason, self.kernel_seconds)


def decide(
    connection: libvirt.virConnect,
    paths: Paths,
    image: BaseImage,
    say: Callable[[str], None],
    *,
    unmeasured: bool = False,
) -> Acceleration:
    """Return the cached verdict for this host kernel and QEMU, or boot the kernel of `image` to get one.

    The clock of emulated guests is found out each time.

    The kernel of any guest will do. If only the speed has to be measured again, one boot does that. With
    `unmeasured` no kernel is booted to measure emulation for the first time: the caller is about to boot a
    guest, which shows it, and passes it to `keep_speed`. While another lab or thread boots one, `say` may raise
    to end the wait. Raises LabError if the image's disk cannot be booted at all, and NoMachine.
    """
    decided = _decide(connection, paths, image, say, unmeasured=unmeasured)
    return decided if decided.kvm else replace(decided, clock=clock.of_emulated(connection, paths))


def _decide(
    connection: libvirt.virConnect,
    paths: Paths,
    image: BaseImage,
    say: Callable[[str], None],
    *,
    unmeasured: bool,
) -> Acceleration:
    verdict = _read(connection, paths)
    if verdict is not None and verdict.suffices(unmeasured=unmeasured):
        return verdict.acceleration
    paths.make(paths.cache)
    lock = paths.acceleration.with_suffix(".lock")
    with locked(lock, LOCK_SECONDS, "KVM to be tried", say):
        verdict = _read(connection, paths)
        if verdict is None or not verdict.suffices(unmeasured=unmeasured):
            measure = not unmeasured or verdict is not None
            decided = _find_out(connection, paths, image, verdict, measure=measure)
            verdict = Verdict(
                key=_key(connection),
                kvm=decided.kvm,
                reason=decided.reason,
                kernel_seconds=decided.kernel_seconds,
                measured=datetime.now(UTC) if decided.kvm or measure else None,
            )
            write_atomically(paths.acceleration, verdict.model_dump_json() + "\n")
        return verdict.acceleration


def keep_speed(connection: libvirt.virConnect, paths: Paths, booted: Acceleration) -> bool:
    """Keep the speed that a guest's boot showed. False if the boot did not show it, or it was known before."""
    verdict = _read(connection, paths)
    if booted.kernel_seconds is None or verdict is None or verdict.measured is not None:
        return False
    measured = {"kernel_seconds": booted.kernel_seconds, "measured": datetime.now(UTC)}
    write_atomically(paths.acceleration, verdict.model_copy(update=measured).model_dump_json() + "\n")
    return True


def cached(connection: libvirt.virConnect, paths: Paths) -> Acceleration | None:
    """Return the verdict of an earlier run under the same host kernel and QEMU, if there is one."""
    verdict = _read(connection, paths)
    return verdict.acceleration if verdict else None


def measure_again(paths: Paths) -> None:
    """Have the next lane measure the speed again: a guest did not come up in the time that it was given."""
    try:
        verdict = Verdict.model_validate_json(paths.acceleration.read_bytes())
    except (OSError, ValueError):
        return
    again = verdict.model_copy(update={"measured": LONG_AGO})
    write_atomically(paths.acceleration, again.model_dump_json() + "\n")


def _read(connection: libvirt.virConnect, paths: Paths) -> Verdict | None:
    try:
        verdict = Verdict.model_validate_json(paths.acceleration.read_bytes())
    except (OSError, ValueError):
        return None
    return verdict if verdict.key == _key(connection) else None


def _find_out(
    connection: libvirt.virConnect, paths: Paths, image: BaseImage, verdict: Verdict | None, *, measure: bool
) -> Acceleration:
    """`measure`: whether to boot a kernel under emulation, too. Raises NoLibvirt, LeftBehind, NoMachine."""
    # What keeps guests from KVM is part of the key, so that only a verdict for KVM is tried again.
    emulated = verdict.acceleration if verdict and not verdict.kvm else _refused_without_trying()
    if emulated and not measure:
        return emulated
    if emulated:
        booted = throwaway.boot_kernel(connection, paths, image, kvm=False)
        return replace(emulated, kernel_seconds=booted.seconds)
    tried = throwaway.boot_kernel(connection, paths, image, kvm=True)
    if not tried.failure:
        return Acceleration(True, "a guest kernel ran under KVM", tried.seconds)
    why = f"/dev/kvm opens, but under it {tried.failure}"
    if not measure and not tried.refused:
        return Acceleration(False, why)
    ran = throwaway.boot_kernel(connection, paths, image, kvm=False)
    if tried.refused and ran.refused:
        raise NoMachine(
            f"KVM could not be tried, because libvirt starts no machine, emulated or not: {ran.failure}",
            hint="lab doctor shows what denies it",
        )
    return Acceleration(False, why, ran.seconds)


def _key(connection: libvirt.virConnect) -> str:
    """What a verdict depends on. Without a reboot nesting can change, and who may open the device."""
    mode = oct(KVM_DEVICE.stat().st_mode) if KVM_DEVICE.exists() else "absent"
    if mode != "absent" and not _may_open():
        mode += " not for this user"
    return f"{platform.release()} {connection.getVersion()} {connection.getURI()} {mode} {_nested()}"


def _may_open() -> bool:
    """Whether QEMU may open the device. Under root's daemon it runs with an account that may."""
    return os.geteuid() == 0 or os.access(KVM_DEVICE, os.R_OK | os.W_OK)


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
    if not _may_open():
        return Acceleration(False, "/dev/kvm may not be opened by this user (join the group kvm)")
    if not _nested():
        return Acceleration(
            False,
            "KVM works, but without nested virtualization, so boxlite would find no /dev/kvm in a guest "
            "(load kvm_intel or kvm_amd with nested=1)",
        )
    return None
