"""A system that nobody named, told by words that only its kernel writes."""

import re
from collections.abc import Iterator, Sequence

from lab.repro.report import AuditLine, Kernel, Place, Quote, Statement, System

# How Ubuntu's kernels say that they move a program into another profile.
UBUNTU_INFO = re.compile(r"transitioning\s*profile")
# What the kernels of distributions are called: pattern, id, and name. A group is the version.
KERNELS = (
    (re.compile(r"-(?:generic|lowlatency|aws|azure|gcp|oracle|oem)$"), "ubuntu", "Ubuntu"),
    (re.compile(r"\+deb(\d\d)|-amd64$|-cloud-(?:amd64|arm64)$"), "debian", "Debian"),
    (re.compile(r"\.fc(\d\d)\b"), "fedora", "Fedora"),
    (re.compile(r"\.el(\d\d?)"), "rhel", "Red Hat Enterprise Linux"),
    (re.compile(r"\.amzn(\d{4})"), "amzn", "Amazon Linux"),
    (re.compile(r"-arch\d"), "arch", "Arch Linux"),
    (re.compile(r"-pve$"), "pve", "Proxmox VE"),
    (re.compile(r"WSL2"), "windows", "Windows (WSL2)"),
)


def inferred(statements: Sequence[Statement]) -> list[Statement]:
    """Return the system that the kernel's words tell, if no statement names the host's; else nothing."""
    if any(isinstance(each, System) and each.place is Place.HOST for each in statements):
        return []
    return list(_told(statements))[:1]


def _told(statements: Sequence[Statement]) -> Iterator[Statement]:
    for each in statements:
        if isinstance(each, AuditLine) and UBUNTU_INFO.search(each.fields.get("info", "")):
            yield _system(each.quote, "ubuntu", "Ubuntu", None)
    for each in statements:
        if isinstance(each, Kernel) and (found := of_kernel(each.release)):
            yield _system(each.quote, *found)


def of_kernel(release: str) -> tuple[str, str, str | None] | None:
    """Return the id, the name and the version of the distribution that calls its kernels like this one."""
    for pattern, name, title in KERNELS:
        if found := pattern.search(release):
            return name, title, found[1] if found.re.groups else None
    return None


def _system(quote: Quote, name: str, title: str, version: str | None) -> System:
    # The same kernels run on what derives from a distribution.
    return System(quote, name, version, title, or_derivative=True, inferred=True)
