"""The processor architectures of guests, and what each is called by those who name it."""

import platform
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """One architecture. `name` is what the kernel, libvirt, QEMU and wheels call it.

    `debian` is Debian's word, and that of OCI images; `elf` is what pyelftools calls its processor, and `audit`
    its number in the kernel's audit lines (`linux/audit.h`). `machine_type` is what QEMU calls the machines of
    its guests, and `console` their serial device. `arguments` are what the kernels of its guests are told.
    `processor` is the model of an emulated one.
    """

    name: str
    debian: str
    elf: str
    audit: str
    machine_type: str
    console: str
    processor: str
    arguments: tuple[str, ...] = ()

    @property
    def is_hosts(self) -> bool:
        """Whether this host has it."""
        return self.name == platform.machine()

    @property
    def setup(self) -> str:
        """The command that installs here what its guests need."""
        return "./setup.sh doctor" if self.is_hosts else f"./setup.sh --with={self.debian} doctor"


# Not q35: each PCI bridge that firmware and kernel set up is a chance for emulated processors to trip over
# a change of the memory map (QEMU's assertion in iotlb_to_section), and q35 has many.
# The kernel counts a timer's interrupts against the processor's counter, gets too few of them where the clock
# of an emulated guest is slower, and panics now and then: "IO-APIC + timer doesn't work!". It compares the
# counter with another clock, and gives the counter up if its processor had to wait between the two reads.
X86_64 = Architecture(
    "x86_64", "amd64", "EM_X86_64", "c000003e", "pc", "ttyS0", "max", ("no_timer_check", "tsc=nowatchdog")
)
# A processor without VHE (Armv8.1). With it a kernel uses the timers of EL2, which QEMU 10.0 leaves out when it
# saves a machine's state, so that the guest gets no more interrupts from them after a fork. A Cortex-A35 also
# has pages of 16 KiB, which the A53, A57 and A72 lack in QEMU.
AARCH64 = Architecture("aarch64", "arm64", "EM_AARCH64", "c00000b7", "virt", "ttyAMA0", "cortex-a35")
ARCHITECTURES = {architecture.name: architecture for architecture in (X86_64, AARCH64)}


def get_host_architecture() -> Architecture:
    """The architecture of this host. One that no guest has is taken for x86-64."""
    return ARCHITECTURES.get(platform.machine(), X86_64)


def get_guest_architecture(name: str) -> Architecture:
    """Return the architecture that a guest's name tells: x86_64, unless another one's word is in it."""
    words = re.split("[-@]", name)
    return next(
        (architecture for architecture in ARCHITECTURES.values() if architecture.debian in words), X86_64
    )
