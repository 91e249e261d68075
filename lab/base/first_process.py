"""The first process of a container, to which every process comes whose parent has ended."""

import os
import signal

# What somebody outside sends to the first process alone.
FORWARDED = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}


def leave_first_process() -> None:
    """Go on in a child if this is the first process of its container, and wait for what ends.

    libvirtd's parent is the first process, and so is QEMU's. Until that has waited for a QEMU that has ended,
    libvirt takes it for one that cannot be killed: 40 s for each try (libvirt 11.3, 2 December 2026).
    The first process ends as the child does, and so does the container.
    """
    if os.getpid() != 1:
        return
    handled = {*FORWARDED, signal.SIGCHLD}
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
        return
    while True:
        received = signal.sigwaitinfo(handled)
        if received.si_signo == signal.SIGCHLD:
            _wait_for_ended(child)
        # The kernel sends the signals of a terminal to the child, too; what is below is from a process.
        elif received.si_code <= 0:
            os.kill(child, received.si_signo)


def _wait_for_ended(child: int) -> None:
    """Wait for all processes that have ended; end as the child if it has."""
    while True:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process == 0:
            return
        if process == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
