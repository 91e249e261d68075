"""The evidence of a cell: what was gathered into its folder when its suite did not pass."""

from lab.evidence.audit import AUDIT_FILE, KERNEL_FILE, parse_audit, refusals
from lab.evidence.cell import (
    PROBES_FILE,
    SCRIPT_FILE,
    SYSCTLS_FILE,
    Evidence,
    confining_profile,
    parse_sysctls,
    read,
    read_probes,
)
from lab.evidence.files import matching, why_not
from lab.evidence.memory import killed_for_memory

__all__ = [
    "AUDIT_FILE",
    "KERNEL_FILE",
    "PROBES_FILE",
    "SCRIPT_FILE",
    "SYSCTLS_FILE",
    "Evidence",
    "confining_profile",
    "killed_for_memory",
    "matching",
    "parse_audit",
    "parse_sysctls",
    "read",
    "read_probes",
    "refusals",
    "why_not",
]
