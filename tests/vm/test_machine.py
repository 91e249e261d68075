"""A machine without a system: what the lab learns from QEMU itself when it ends."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import libvirt

from lab.base import process
from lab.base.wait import Deadline, wait_for
from lab.machine import domain
from lab.machine.connection import connection_for_lanes, default_uri
from lab.machine.qemu import Watch

# A program for a boot sector. An interrupt without a table of interrupts is a triple fault.
NO_TABLE = bytes.fromhex("fa 0f011e107c cc")


def test_qemu_says_that_a_triple_fault_ended_a_machine(home: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=home))
    folder.chmod(0o711)
    sector, disk = folder / "sector", folder / "disk.qcow2"
    sector.write_bytes(NO_TABLE.ljust(510, b"\0") + b"\x55\xaa" + bytes(2**20 - 512))
    process.run(["qemu-img", "convert", "-O", "qcow2", sector, disk], timeout=60)
    spec = domain.DomainSpec(
        name=f"lab-test-{os.getpid()}",
        kvm=False,
        memory_mib=64,
        cpus=1,
        boot=domain.FirmwareBoot(),
        console=folder / "console",
        disk=disk,
    )
    flags = libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED
    with connection_for_lanes(default_uri()) as opened:
        machine = opened.createXML(domain.to_xml(spec), flags)
        watched = Watch(opened, machine)
        try:
            machine.resume()
            why = wait_for(lambda: watched.why_not_running() or None, Deadline(60, "the triple fault"))
            assert why.endswith("QEMU's reason: guest-reset"), why
            assert watched.was_reset
        finally:
            watched.close()
            with suppress(libvirt.libvirtError):
                machine.destroy()
