"""Runs a program under test on this host, to ask it what it is: in bubblewrap's sandbox, or not at all.

The program sees /usr, a few devices and one folder, and can change none of them. It has no network, no home, no
variables and no processes of the host's, and no identity of the lab's: where the lab is root, it is nobody.
Programs for another processor than the host's are not started, even where QEMU would run them.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from lab.base import process, scratch
from lab.base.architecture import of_host
from lab.base.errors import LabError, UsageError
from lab.base.files import plain
from lab.builds import elf

# Bytes that a program may print, or keep in its /tmp. The names of 10,000 tests take 3 MB in nextest's JSON.
MOST_OUTPUT = 16 << 20
MOST_FILES = 256 << 20
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
)
VARIABLES = {"PATH": "/usr/bin:/bin", "HOME": TMP, "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
# Root makes namespaces without a user namespace, and then gives its identity up.
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder for what a program is to see. Other users of this host cannot enter it."""
    with scratch.temporary() as outer:
        inner = outer / "visible"
        inner.mkdir()
        yield inner


def run(visible: Path, command: Sequence[str | Path], *, timeout: float) -> str:
    """Run a program that sees one folder, at its own path. Every file in it can be read and executed.

    Returns what it prints. Raises CommandFailed if it fails, takes longer than `timeout` seconds or prints too
    much; UsageError if the folder has a program for another processor than the host's; LabError if this host
    makes no sandbox.
    """
    check()
    host = of_host().elf
    for path in (visible, *visible.rglob("*")):
        path.chmod(0o755)
        if path.is_file() and (processor := elf.processor(path)) not in (None, host):
            raise UsageError(
                f"{path.name} is for the processor {processor}, and this host's is {host}: the lab does not "
                "start it here to ask for its version or its tests",
                hint=f"run the lab on a host with the processor {processor}",
            )
    # A program that prints more is ended by that.
    limited = ["bash", "-o", "pipefail", "-c", f'"$@" 2>&1 | head -c {MOST_OUTPUT}', "sandbox"]
    try:
        return process.run([*limited, *_sandbox(visible), *command], timeout=timeout)
    except process.CommandFailed as error:
        why = f"it took {timeout:.0f} s" if error.late else "it failed in its sandbox"
        raise process.CommandFailed(command, why, plain(error.output)[-MOST_SHOWN:]) from None


@cache
def check() -> None:
    """Raise LabError if this host makes no sandbox."""
    try:
        process.run([*_sandbox(), "true"], timeout=CHECK_SECONDS)
    except process.CommandFailed as error:
        forbidden = "`lab check` says what forbids it here, and what cures that; or run the lab as root"
        raise LabError(
            "a program under test is asked for its version or its tests in a sandbox, and bubblewrap makes "
            f"none on this host: {error.output.strip() or error}",
            hint=forbidden if shutil.which("bwrap") else "install bubblewrap, as ./setup.sh does",
        ) from error


def _sandbox(visible: Path | None = None) -> list[str | Path]:
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
    return [*command, "--"]
