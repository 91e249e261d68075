"""The sockets at which a process can be reached."""

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil


def reachable(process: psutil.Process) -> set[tuple[str, int]]:
    """Where a process takes what comes, in IPv4 and IPv6: TCP that listens, and UDP without one peer."""
    return {
        (opened.laddr.ip, opened.laddr.port)
        for opened in process.net_connections("inet")
        if (
            opened.status == psutil.CONN_LISTEN
            if opened.type == socket.SOCK_STREAM
            else bool(opened.laddr) and not opened.raddr
        )
    }


def is_loopback(address: str) -> bool:
    """Whether only this host can reach an address; one of IPv4 within IPv6 counts as what it is."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if parsed.version == 6 else None
    return (mapped or parsed).is_loopback


@contextmanager
def watched(kind: Callable[[list[str]], str]) -> Iterator[dict[str, set[str]]]:
    """Look each second where processes can be reached, until the block ends.

    `kind` tells from the words of a command what the process is; empty if it is not meant. What is found are
    the addresses of each kind of process that was seen.
    """
    addresses: dict[str, set[str]] = {}
    done = threading.Event()

    def look() -> None:
        for process in psutil.process_iter(["cmdline"]):
            with suppress(psutil.NoSuchProcess):
                if name := kind(process.info["cmdline"] or []):
                    addresses.setdefault(name, set()).update(address for address, _ in reachable(process))

    def watch() -> None:
        while not done.wait(1.0):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield addresses
    finally:
        done.set()
        thread.join()
