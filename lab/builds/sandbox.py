"""Runs a program under test on this host, to ask it what it is: in bubblewrap's sandbox, or not at all.

The program sees /usr, a few devices and one folder, and can change none of them. It has no network, no home, no
variables and no processes of the host's, and no identity of the lab's: where the lab is root, it is nobody.
What it may take of the host is limited, too.
Programs for another processor than the host's are not started, even where QEMU would run them.
"""

import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil

from lab.base import process, scratch
from lab.base.architecture import get_host_architecture
from lab.base.errors import LabError, UsageError
from lab.base.files import clean_text
from lab.builds import elf

# Bytes that a program may print, or keep in its /tmp. The names of 10,000 tests take 3 MB in nextest's JSON.
MOST_OUTPUT = 16 << 20
MOST_FILES = 256 << 20
# Bytes of memory that all its processes may hold together; nextest lists tests in 64 MiB. One process may
# reserve twice as much, in case the lab looks too late: stacks of threads are reserved and hardly used.
MOST_MEMORY = 1 << 30
# Processes and threads. nextest has a thread and a test binary at work for each of the host's processors.
MOST_PROCESSES = 512
MOST_OPEN = 1024
RESIDENT = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)
# Characters of its last lines that an error shows.
MOST_SHOWN = 4_000
NOBODY = 65534
TMP = "/tmp"  # noqa: S108 - the sandbox's own
CHECK_SECONDS = 30.0
# All that is unshared but user namespaces: root needs none, and some hosts have none for others.
APART = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
# Every host of hosts.table has merged /usr.
SYSTEM = (
    *("--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
    *("--symlink", "usr/lib64", "/lib64", "--perms", "0755", "--dir", "/etc"),
    *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
    *("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(MOST_FILES), "--tmpfs", TMP),
    # An ordinary user owns /dev and its /dev/shm, which may take half of the host's memory.
    *("--remount-ro", "/dev"),
)
VARIABLES = {"PATH": "/usr/bin:/bin", "HOME": TMP, "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
# Root makes namespaces without a user namespace, and then gives its identity up.
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")


@contextmanager
def make_sandbox_folder() -> Iterator[Path]:
    """A temporary folder for what a program is to see. Other users of this host cannot enter it."""
    with scratch.make_temporary_folder() as outer:
        inner = outer / "visible"
        inner.mkdir()
        yield inner


def run_in_sandbox(visible: Path, command: Sequence[str | Path], *, timeout: float) -> str:
    """Run a program that sees one folder, at its own path. Every file in it can be read and executed.

    Returns what it prints. Raises CommandFailed if it fails, prints too much or takes longer than `timeout`
    seconds or too much memory; UsageError if the folder has a program for another processor than the host's;
    LabError if this host makes no sandbox.
    """
    check_sandbox()
    host = get_host_architecture().elf
    for path in (visible, *visible.rglob("*")):
        path.chmod(0o755)
        if path.is_file() and (processor := elf.read_processor(path)) not in (None, host):
            raise UsageError(
                f"{path.name} is for the processor {processor}, and this host's is {host}: the lab does not "
                "start it here to ask for its version or its tests",
                hint=f"run the lab on a host with the processor {processor}",
            )
    # A program that prints more is ended by that. If the host's memory ends, it is the first that has to go.
    script = f'echo 1000 2>/dev/null >/proc/$$/oom_score_adj; "$@" 2>&1 | head -c {MOST_OUTPUT}'
    limited: list[str | Path] = ["bash", "-o", "pipefail", "-c", script, "sandbox"]
    try:
        return process.run_command(
            [*limited, *_sandbox(visible, timeout), *command], timeout=timeout, watch=_check_memory
        )
    except _TooMuchMemory:
        raise process.CommandFailed(
            command, f"it took more than {MOST_MEMORY >> 20} MiB of memory", ""
        ) from None
    except process.CommandFailed as error:
        reason = f"it took longer than {timeout:.0f} s" if error.late else "it failed in its sandbox"
        raise process.CommandFailed(command, reason, clean_text(error.output)[-MOST_SHOWN:]) from None


class _TooMuchMemory(Exception):
    """The processes of a sandbox hold more memory than they may."""


def _check_memory(leader: int) -> None:
    """Raise _TooMuchMemory if what a process started holds too much, files of the disk not counted.

    A limit of the kernel's holds for each process alone; one for all of them needs a control group, which an
    ordinary user and a container may not make.
    """
    total = 0
    with suppress(psutil.Error):
        for child in psutil.Process(leader).children(recursive=True):
            with suppress(OSError):
                total += sum(map(int, RESIDENT.findall(Path(f"/proc/{child.pid}/status").read_text())))
    if total << 10 > MOST_MEMORY:
        raise _TooMuchMemory


@cache
def check_sandbox() -> None:
    """Raise LabError if this host makes no sandbox."""
    try:
        process.run_command([*_sandbox(), "true"], timeout=CHECK_SECONDS)
    except process.CommandFailed as error:
        forbidden = "`lab check` says what forbids it and what cures it; or run the lab as root"
        raise LabError(
            "the lab asks a program under test for its version or its tests in a sandbox, and bubblewrap "
            f"cannot make one on this host: {error.output.strip() or error}",
            hint=forbidden if shutil.which("bwrap") else "install bubblewrap, as ./setup.sh does",
        ) from error


def _sandbox(visible: Path | None = None, seconds: float = CHECK_SECONDS) -> list[str | Path]:
    is_root = os.geteuid() == 0
    command: list[str | Path] = ["bwrap", *APART, *(() if is_root else ("--unshare-user",))]
    command += ["--cap-drop", "ALL", "--new-session", "--die-with-parent", "--clearenv", *SYSTEM]
    if visible:
        # bubblewrap would make them for their owner alone.
        for parent in reversed(visible.parents):
            command += ["--perms", "0755", "--dir", parent]
        command += ["--ro-bind", visible, visible]
    # What bubblewrap makes as / belongs to the user who calls it.
    command += ["--remount-ro", "/"]
    for name, value in VARIABLES.items():
        command += ["--setenv", name, value]
    command += ["--chdir", "/"]
    if is_root:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--", *AS_NOBODY]
    command += ["--", "prlimit", "--core=0", f"--cpu={math.ceil(seconds)}", f"--data={2 * MOST_MEMORY}"]
    # Of processes, the kernel counts an ordinary user's in the sandbox alone, because it has a user namespace.
    command += [f"--fsize={MOST_FILES}", f"--nofile={MOST_OPEN}", f"--nproc={MOST_PROCESSES}"]
    return [*command, "--"]
