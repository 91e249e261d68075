"""Programs that a guest's kernel killed because the guest had no memory left, read from a cell's kernel log."""

import re
from pathlib import Path

from lab.base.files import bounded, plain
from lab.evidence.audit import KERNEL_FILE
from lab.evidence.files import read_text

# `__oom_kill_process` in Linux's mm/oom_kill.c. Where only a control group had no memory left, the message is
# "Memory cgroup out of memory".
KILLED = re.compile(
    r"^(?:\[ *\d+\.\d+\] )?Out of memory(?: \(oom_kill_allocating_task\))?: "
    r"Killed process \d+ \((.{1,64}?)\) total-vm:",
    re.MULTILINE,
)
MOST_NAMES = 5


def killed_for_memory(folder: Path) -> list[str]:
    """The names of these programs, each once; at most five."""
    found = dict.fromkeys(bounded(plain(name), 40) for name in KILLED.findall(read_text(folder, KERNEL_FILE)))
    return list(found)[:MOST_NAMES]
