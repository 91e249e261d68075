"""Runs in the guest: a suite that does not end."""

import signal
import time


def ends() -> None:
    assert True


def hangs() -> None:
    # Like a native call that never returns: neither pytest-timeout nor a polite signal ends it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})
    time.sleep(100_000)


def is_never_reached() -> None:
    assert True
