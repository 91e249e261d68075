"""What QEMU itself says of the lab's machines, beside libvirt: their processes, and whether they answer.

The process of a machine has the machine's name on its command line.
"""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import libvirt
import libvirt_qemu
import psutil

from lab.base.wait import Deadline, DeadlineExpired, call_within

# How long a QEMU may take to end when it is asked to.
END_SECONDS = 5.0
# QEMU answers within milliseconds. One that is silent for so long stands still: it was stopped, or its host has
# no memory for it.
ANSWER_SECONDS = 30.0
# How often it is asked at most.
ASK_SECONDS = 5.0

FAILED_WRITE = "stopped at a failed write"
RUNNING = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED)


def find_processes(machine: str) -> Iterator[psutil.Process]:
    """The QEMU of the machine with this name; none if it has ended."""
    for process in psutil.process_iter():
        # Processes end at any time.
        with suppress(psutil.Error):
            words = process.cmdline() if process.name().startswith("qemu") else ()
            if any(f"guest={machine}," in word for word in words):
                yield process


def measure_processor_seconds(machine: str) -> float:
    """The seconds of processor time that a machine's QEMU has taken so far; 0 without a process.

    They include the time of the guest, under KVM too.
    """
    total = 0.0
    for process in find_processes(machine):
        with suppress(psutil.Error):
            spent = process.cpu_times()
            total += spent.user + spent.system
    return round(total, 2)


def end_qemu(machine: str) -> None:
    """End a machine's QEMU, as far as this user may."""
    for process in find_processes(machine):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(END_SECONDS)


class Watch:
    """One machine under watch, from its start to its end."""

    def __init__(self, machine: libvirt.virDomain) -> None:
        self.machine = machine
        self._asked = time.monotonic()
        self._silent = False

    def why_not_running(self) -> str:
        """What libvirt says of a machine that no longer runs; empty if it does."""
        try:
            state, reason = self.machine.state()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                return f"can no longer be asked about: {error}"
            return "is gone"
        if state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
            # QEMU stops the machine instead of telling the guest that a write failed.
            return FAILED_WRITE
        if state not in RUNNING:
            return f"stopped (state {state}, reason {reason})"
        return ""

    def why_not_answering(self) -> str:
        """What is wrong with a machine that runs but does not answer; empty if it answers.

        It is asked now and then. One that was silent once stays so.
        """
        if not self._silent and time.monotonic() - self._asked >= ASK_SECONDS:
            self._asked = time.monotonic()
            # An error is no silence: libvirt has answered, and knows whether the machine runs.
            with suppress(DeadlineExpired, libvirt.libvirtError):
                self.ask("query-status", ANSWER_SECONDS)
        return f"did not answer for {ANSWER_SECONDS:.0f} s: QEMU stands still" if self._silent else ""

    def ask(self, command: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """What QEMU's monitor answers. Raises libvirtError, or DeadlineExpired if it does not."""
        request = json.dumps({"execute": command, "arguments": arguments})
        deadline = Deadline(seconds, f"QEMU's answer to {command}")
        try:
            text = call_within(lambda: libvirt_qemu.qemuMonitorCommand(self.machine, request, 0), deadline)
        except DeadlineExpired:
            self._silent = True
            raise
        answer: dict[str, Any] = json.loads(text)
        return answer
