"""The sockets at which a process can be reached."""

import ipaddress
import socket

import psutil


def reachable(process: psutil.Process) -> set[tuple[str, int]]:
    """Where a process takes what comes, in IPv4 and IPv6: TCP that listens, and UDP without one peer."""
    found = process.net_connections("inet")
    return {
        (each.laddr.ip, each.laddr.port)
        for each in found
        if (
            each.status == psutil.CONN_LISTEN
            if each.type == socket.SOCK_STREAM
            else bool(each.laddr) and not each.raddr
        )
    }


def is_loopback(address: str) -> bool:
    """Whether only this host can reach an address; one of IPv4 within IPv6 counts as what it is."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if found.version == 6 else None
    return (mapped or found).is_loopback
