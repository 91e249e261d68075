"""Facts about a host, and what the kernel allows its user; the programs that read them run in the guest."""

from pathlib import Path

# Each is run by itself with the standard library alone, and prints JSON.
PROGRAMS = Path(__file__).parent / "programs"
