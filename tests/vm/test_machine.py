"""Machines without a system: what the lab learns from QEMU itself when they end or stand still."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import libvirt
import psutil
import pytest

from lab.base import process
from lab.base.wait import Deadline, wait_for
from lab.machine import domain, qemu
from lab.machine.connection import connection_for_lanes, default_uri
from lab.machine.qemu import Watch

# Programs for a boot sector. An interrupt without a table of interrupts is a triple fault.
NO_TABLE = bytes.fromhex("fa 0f011e107c cc")
LOOP_FOR_EVER = bytes.fromhex("eb fe")

Start = Callable[[bytes], tuple[libvirt.virDomain, Watch]]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Start a machine that does nothing but run this program, and watch it."""
    folder = Path(tempfile.mkdtemp(dir=home))
    folder.chmod(0o711)
    made: list[tuple[libvirt.virDomain, Watch]] = []
    with connection_for_lanes(default_uri()) as opened:

        def run(program: bytes) -> tuple[libvirt.virDomain, Watch]:
            sector, disk = folder / "sector", folder / "disk.qcow2"
            sector.write_bytes(program.ljust(510, b"\0") + b"\x55\xaa" + bytes(2**20 - 512))
            process.run(["qemu-img", "convert", "-O", "qcow2", sector, disk], timeout=60)
            name = f"lab-test-{os.getpid()}"
            spec = domain.DomainSpec(
                name=name,
                kvm=False,
                memory_mib=64,
                cpus=1,
                boot=domain.FirmwareBoot(),
                console=folder / "console",
                disk=disk,
            )
            flags = libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED
            machine = opened.createXML(domain.to_xml(spec), flags)
            watched = Watch(opened, machine)
            made.append((machine, watched))
            machine.resume()
            return machine, watched

        try:
            yield run
        finally:
            for machine, watched in made:
                watched.close()
                with suppress(libvirt.libvirtError):
                    machine.destroy()


def test_qemu_says_that_a_triple_fault_ended_a_machine(start: Start) -> None:
    _machine, watched = start(NO_TABLE)
    why = wait_for(lambda: watched.why_not_running() or None, Deadline(60, "the triple fault"))
    assert why.endswith("QEMU's reason: guest-reset"), why
    assert watched.was_reset


def test_a_stopped_qemu_is_noticed_and_can_be_taken_down(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(qemu, "ASK_SECONDS", 0.0)
    machine, watched = start(LOOP_FOR_EVER)
    assert watched.ask("query-status", 30)["return"]["status"] == "running"
    [process_of_qemu] = [
        running
        for running in psutil.process_iter(["name", "cmdline"])
        if any(word.startswith(f"guest={machine.name()},") for word in running.info["cmdline"] or [])
    ]
    process_of_qemu.suspend()
    assert watched.why_not_running() == ""
    assert watched.why_not_answering() == "did not answer for 2 s: QEMU stands still"
    machine.destroy()
    psutil.wait_procs([process_of_qemu], timeout=10)
    assert not process_of_qemu.is_running()
