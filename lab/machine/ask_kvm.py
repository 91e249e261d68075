"""Runs in a guest of x86-64, as root: whether KVM runs a machine there, as boxlite's boxes need it.

The machine halts at its first instruction. That KVM makes one proves less: where the host's virtualization does
not nest, it is made and does not run. https://docs.kernel.org/virt/kvm/api.html
"""

import ctypes
import fcntl
import mmap
import os
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

# The answer on the console: after these words RUNS, or why no machine runs.
ANSWER, RUNS = "boxlite-lab: KVM in this guest:", "a machine ran"
# Both, because a line of the kernel's may cut one of the two copies in two.
CONSOLES = ("/dev/ttyS0", "/dev/console")

KVM_CREATE_VM, KVM_GET_VCPU_MMAP_SIZE, KVM_CREATE_VCPU, KVM_RUN = 0xAE01, 0xAE04, 0xAE41, 0xAE80
KVM_SET_USER_MEMORY_REGION, KVM_SET_TSS_ADDR, KVM_SET_REGS = 0x4020AE46, 0xAE47, 0x4090AE82
KVM_GET_SREGS, KVM_SET_SREGS = 0x8138AE83, 0x4138AE84
# Of struct kvm_sregs, which begins with the code segment: its base, limit and selector.
SREGS_BYTES, SEGMENT = 312, "<QIH"
# 16 registers, the instruction pointer, and the flags, whose second bit is always set.
REGISTERS = struct.pack("<18Q", *([0] * 17 + [2]))
# Of struct kvm_run: where the reason is why the machine stopped, and the one of a processor that halted.
EXIT_REASON, KVM_EXIT_HLT = 8, 5
HLT, PAGE = 0xF4, 4096
# Three pages that older processors of Intel's need for 16-bit code, where the machine has no memory.
TSS_ADDRESS = 0x1000000


def run_machine(device: str = "/dev/kvm") -> int:
    """Return why a machine stopped whose only instruction is `hlt`. Raises OSError."""
    kvm = os.open(device, os.O_RDWR)
    machine = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
    fcntl.ioctl(machine, KVM_SET_TSS_ADDR, TSS_ADDRESS)
    memory = mmap.mmap(-1, PAGE)
    memory[0] = HLT
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(machine, KVM_SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, PAGE, address))
    processor = fcntl.ioctl(machine, KVM_CREATE_VCPU, 0)
    state = mmap.mmap(processor, fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0))
    segments = bytearray(SREGS_BYTES)
    fcntl.ioctl(processor, KVM_GET_SREGS, segments)
    struct.pack_into(SEGMENT, segments, 0, 0, 0xFFFF, 0)
    fcntl.ioctl(processor, KVM_SET_SREGS, bytes(segments))
    fcntl.ioctl(processor, KVM_SET_REGS, REGISTERS)
    fcntl.ioctl(processor, KVM_RUN, 0)
    return int(struct.unpack_from("<I", state, EXIT_REASON)[0])


def load_modules() -> None:
    """Load KVM's modules, of which only that of the processor can be loaded."""
    for module in ("kvm_intel", "kvm_amd"):
        try:
            subprocess.call(["modprobe", module], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except OSError:  # Without modprobe the modules are there already, or they are none.
            return


def ask() -> str:
    try:
        reason = run_machine()
    except OSError as error:
        return str(error)
    return RUNS if reason == KVM_EXIT_HLT else f"a machine was made and stopped with exit reason {reason}"


if __name__ == "__main__":
    load_modules()
    text = f"\n{ANSWER} {ask()}\n"
    for name in CONSOLES:
        with suppress(OSError):
            Path(name).write_text(text)
