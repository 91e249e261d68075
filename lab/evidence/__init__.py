"""The evidence of a cell: what was gathered into its folder when its suite did not pass."""

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
from lab.evidence.logs import (
    AUDIT_FILE,
    KERNEL_FILE,
    killed_for_memory,
    matching,
    parse_audit,
    refusals,
    why_not,
)

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
