"""libvirt's event loop. It brings QEMU's events, and notices a daemon that no longer answers."""

import threading
from contextlib import suppress

import libvirt

# libvirt is asked whenever it was silent for so many seconds. If it is silent so many times in a row, the
# connection is closed, and whatever waits for an answer on it fails.
ASK_SECONDS, TIMES = 10, 5

_lock = threading.Lock()
_threads: list[threading.Thread] = []


def run_loop() -> None:
    """Run the loop in a thread for as long as this process lives. Connections opened from now on use it.

    The process must not fork after this.
    """
    with _lock:
        if _threads:
            return
        libvirt.virEventRegisterDefaultImpl()
        _threads.append(threading.Thread(target=_loop, name="libvirt's events", daemon=True))
        _threads[0].start()


def keep_alive(connection: libvirt.virConnect) -> None:
    """Have a connection fail, instead of waiting for ever, when its daemon no longer answers."""
    with suppress(libvirt.libvirtError):  # A driver without a daemon has nothing to ask.
        connection.setKeepAlive(ASK_SECONDS, TIMES)


def _loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
