"""The sockets at which a process can be reached."""

import ipaddress
import socket

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
