"""What a distribution's guest does by itself, and the lab stops while it prepares its image."""

from pathlib import Path

from pydantic import BaseModel

from lab.base.speed import Speed
from lab.guest.programs import checked, program_file, source
from lab.guest.session import Session
from lab.machine.domain import UNCHECKED

# They take the package manager's locks, or run inside a cell: its clock is set in a fork, and timers catch up.
UNITS = (
    *("apt-daily.timer", "apt-daily.service", "apt-daily-upgrade.timer", "apt-daily-upgrade.service"),
    *("unattended-upgrades.service", "motd-news.timer", "motd-news.service", "man-db.timer", "man-db.service"),
    *("update-notifier-download.timer", "update-notifier-download.service"),
    *("update-notifier-motd.timer", "update-notifier-motd.service"),
    *("fwupd-refresh.timer", "fwupd-refresh.service", "snapd.refresh.timer", "snapd.refresh.service"),
    *("dnf-makecache.timer", "dnf-makecache.service", "dnf5-makecache.timer", "dnf5-makecache.service"),
    *("fstrim.timer", "fstrim.service"),
)
# Ubuntu runs them at each login.
SCRIPTS = ("/etc/update-motd.d",)
# Of apt and dpkg, and of dnf 5, which ends at once if another program has it; rpm and dnf 4 wait for their own.
LOCKS = (
    *("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"),
    *("/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"),
    "/run/dnf/rpmtransaction.lock",
)
# Where boot loaders have the kernel's command line, and how its lines begin: GRUB's own entries, and those of
# the Boot Loader Specification, as Fedora has them.
LOADERS = (("/boot/grub*/grub.cfg", "linux"), ("/boot/loader/entries/*.conf", "options"))
# How long packages may be installed by others, under hardware acceleration.
SECONDS = 300.0
PROGRAM = "quiet"
# In the folder of a prepared image: what was changed in the guest, besides packages.
CHANGES = "changes.json"
RECIPE = (*UNITS, *SCRIPTS, *LOCKS, *sum(LOADERS, ()), *UNCHECKED, source(program_file(PROGRAM)))


class Changes(BaseModel):
    """What was changed in a guest besides packages, and the locks that others held to the end of the wait.

    `not_masked` are the units that still run when they like, each with systemctl's reason. `loader_files` are
    those in which the kernel got more arguments.
    """

    masked: list[str]
    not_masked: dict[str, str]
    not_executable: list[str]
    loader_files: list[str] = []
    held: list[str]


def quiet(session: Session, speed: Speed) -> Changes:
    """Stop it, and wait until no other program installs packages.

    `speed` is the machine's. Raises RemoteFailed.
    """
    argument = {
        "units": UNITS,
        "scripts": SCRIPTS,
        "locks": LOCKS,
        "loaders": LOADERS,
        "kernel_arguments": UNCHECKED,
        "seconds": speed.from_kvm(SECONDS),
    }
    return checked(PROGRAM, Changes, session.program(PROGRAM, argument, seconds=SECONDS + 30))


def write(changes: Changes, folder: Path) -> None:
    """Record beside a prepared disk what was changed in it."""
    (folder / CHANGES).write_text(changes.model_dump_json(indent=2) + "\n")
