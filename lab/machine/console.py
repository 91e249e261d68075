"""What a guest writes to its serial console."""

import re
import shutil
from pathlib import Path

from lab.base.files import clean_text, join_lines
from lab.machine.ask_kvm import ANSWER, RUNS

LAST_LINES = 30
# The kernel prints this when it starts the init of the initial RAM disk: all of its own start-up has run.
KERNEL_RAN = "Run /init as init process"
# Before that a kernel of arm64 prints this, whichever mode it is, if processes of its guest will find /dev/kvm.
KVM_WORKS = "mode initialized successfully"
# With the kernel's own clock before it, which does not count how long QEMU and a boot loader took.
RAN_AT = re.compile(rf"\[ *(\d{{1,6}}\.\d{{1,9}})\] {KERNEL_RAN}")

# What is quoted of an answer.
LONGEST_ANSWER = 200

# What systemd writes when OpenSSH's server or its socket is up: since Debian 12, in older ones and in Ubuntu
# 22.04, in Ubuntu's with a socket, and in Fedora.
SSH_WORDS = re.compile(
    r"Started (sshd?\.service|OpenBSD Secure Shell|OpenSSH)|Listening on (ssh\.socket|OpenBSD)"
)

# What systemd writes when it gives up as the first process (src/core/crash-handler.c); nothing starts after it.
FROZEN = "systemd[1]: Freezing execution"


def read_console(file: Path) -> str:
    """The console's output as plain text; empty if there is none."""
    try:
        return clean_text(file.read_text(errors="replace"))
    except OSError:
        return ""


def find_kernel_seconds(text: str) -> float | None:
    """How long the newest boot took until the kernel started user space, on its own clock.

    None if the console does not show it, as with a kernel that was told to be quiet.
    """
    times = RAN_AT.findall(text)
    return float(times[-1]) if times else None


def find_kvm_answer(text: str) -> str:
    """What a guest says of KVM in it, by `lab/machine/ask_kvm.py`; empty as long as it has not said it."""
    answers = re.findall(rf"^{ANSWER} (\S.*)$", text, re.MULTILINE)
    return RUNS if RUNS in answers else join_lines(answers[-1], LONGEST_ANSWER) if answers else ""


def shows_ssh(text: str) -> bool:
    return SSH_WORDS.search(text) is not None


def cut_last_words(text: str) -> str:
    """The console's last lines, as the end of an error message."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "its console stayed empty"
    return "its console ends:\n" + "\n".join(f"  | {line}" for line in lines[-LAST_LINES:])


def keep_console(file: Path, destination: Path) -> None:
    """Copy the console's output to where evidence is kept, if there is any. Raises OSError."""
    if file.exists():
        shutil.copyfile(file, destination)
