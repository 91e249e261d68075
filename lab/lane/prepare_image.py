"""Preparing a distribution's image: it is booted once and given what the suite needs.

The result is kept. Lanes start from it, install nothing and need no network. What only a first boot does
(growing the root, relabelling, a restart that the distribution asks for) is done then, too.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import libvirt

from lab.base import process
from lab.base.activity import Progress, Task
from lab.base.errors import LabError
from lab.base.files import clean_text
from lab.base.locks import hold_lock
from lab.base.paths import Paths
from lab.catalog import CloudImage, Guest, PackageManager
from lab.guest import ready
from lab.guest.programs import read_sources
from lab.guest.session import ADMIN, SUITE, Session
from lab.images import cloud, download, store
from lab.images.store import DISK, BaseImage
from lab.machine import seed
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Processors, occupy_processor
from lab.machine.clock import REAL
from lab.machine.domain import Network, list_usual_arguments
from lab.machine.lane import Lane, LaneDied, open_lane
from lab.machine.seed import KeyPair

# The prefix of prepared images in the store.
PREPARED = "prepared-"

# Why a guest's lanes cannot start with --offline, by whether its image is stored, and the next step.
OFFLINE = {
    True: "it is not prepared yet, and --offline forbids installing packages in it",
    False: "it is not in the store, and --offline forbids fetching it",
}
WHEN_ABSENT = (
    "lab images pull fetches images beforehand, lab images import FILE --as GUEST takes a disk that you have; "
    "with --offline no server is asked"
)

# Programs that the suite, the probes and the gathering of evidence use.
PACKAGES = {
    PackageManager.APT: ("apparmor", "bubblewrap", "procps", "python3"),
    PackageManager.DNF: ("bubblewrap", "procps-ng", "python3"),
    PackageManager.PACMAN: ("bubblewrap", "procps-ng", "python"),
}

# By how much a first boot may take longer than later ones: the root grows, keys and caches are made, SELinux
# may relabel the whole disk and restart.
FIRST_BOOT = 4.0
# Limits under hardware acceleration. Other programs may install packages for so long; each thing that remedies
# need is fetched within so long.
INSTALL_SECONDS = 300.0
OTHERS_SECONDS = 300.0
FETCH_SECONDS = 120.0
CLEAN_SECONDS = 10.0
# Flattening and compressing the disk, on the host.
CONVERT_SECONDS = 600.0
# Under emulation another lab may need all of that.
LOCK_SECONDS = 7200.0
# For a moment the guest's overlay and the compressed prepared disk exist side by side.
FREE_BYTES = 5 << 30
LAST_LINES = 20

# Prints a package's name if it is not installed.
MISSING = {
    PackageManager.APT: "dpkg-query -W -f '${Status}' NAME 2>/dev/null | grep -q ' installed$' || echo NAME",
    PackageManager.DNF: "rpm --quiet -q NAME || echo NAME",
    PackageManager.PACMAN: "pacman -Q NAME >/dev/null 2>&1 || echo NAME",
}
FORGET_DOWNLOADS = {
    # Remedies need its lists and one package, which SUPPLIES fetches.
    PackageManager.APT: "",
    PackageManager.DNF: "dnf -q clean all",
    PackageManager.PACMAN: "rm -rf /var/cache/pacman/pkg/*",
}
# Where the suite's user finds another Python first. The system's programs go on with its own.
PYTHON = "/usr/local/bin/python3"
# Among cloud-init's own files, because its option for another file differs between versions.
CONFIG = "/etc/cloud/cloud.cfg.d/99-lab-packages.cfg"
INSTALL = "cloud-init single --name package_update_upgrade_install --frequency always"
# Back to the image as it was, apart from what was installed: no identity, no key, no log. Trimming only makes
# the stored disk smaller; not every file system supports it.
CLEAN = f"""
cloud-init clean --logs
rm -rf {CONFIG} /etc/ssh/ssh_host_* /home/{ADMIN}/.ssh /home/{SUITE}/.ssh
: >/etc/machine-id
fstrim / || :
sync
systemctl poweroff --no-block
"""

# What a guest does by itself, and the lab stops. These units take the package manager's locks, or run inside a
# cell: its clock is set in a fork, and timers catch up.
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
# The program that stops it.
QUIET = "quiet"
# In the folder of a prepared image: what was changed in the guest besides packages, as the program prints it.
CHANGES = "changes.json"

# AppArmor's own profile for bubblewrap: on Debian and Ubuntu 24.04 only the package apparmor-profiles has it.
ALLOW_LIST = "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict"
# What remedies need besides packages, and how it is fetched, in this order. A lane has no network, so what is
# not there then cannot be tried. None of it changes how the guest behaves. The package lists and the package
# stay, because the remedy install-bubblewrap installs from them. Of apparmor-profiles one file is taken: its
# other profiles would be loaded at every boot.
SUPPLIES = {
    PackageManager.APT: {
        "the package lists": "apt-get clean; apt-get -q update",
        "the package bubblewrap": "apt-get -q install --reinstall --download-only --yes bubblewrap",
        "the profile bwrap-userns-restrict": f"""
test ! -e {ALLOW_LIST} || exit 0
cd "$(mktemp -d)"
apt-get -q -o APT::Sandbox::User=root download apparmor-profiles
dpkg-deb --extract apparmor-profiles_*.deb .
if test -e .{ALLOW_LIST}; then install -D --mode=0644 .{ALLOW_LIST} {ALLOW_LIST}; fi
rm -r "$PWD"
""",
    },
    PackageManager.DNF: {},
    PackageManager.PACMAN: {},
}

# Everything that is done in the guest.
RECIPE = (
    *(name for names in PACKAGES.values() for name in names),
    *(*MISSING.values(), INSTALL, *FORGET_DOWNLOADS.values(), CLEAN),
    *(*UNITS, *SCRIPTS, *LOCKS, *sum(LOADERS, ()), read_sources()[QUIET]),
    *(script for scripts in SUPPLIES.values() for script in scripts.values()),
)


class NotPrepared(LabError):
    """The guest could not be prepared; the evidence shows why."""


@dataclass(frozen=True)
class Preparation:
    """What preparing needs from the lab.

    `task` sees what is done now. What keeps a processor busy holds one of `processors`. `on_lane` gets the
    lane, so that it can be taken down from outside.
    """

    connection: libvirt.virConnect
    paths: Paths
    acceleration: Acceleration
    task: Task
    processors: Processors
    on_lane: Callable[[Lane], None] = lambda lane: None


def find_prepared_image(paths: Paths, guest: Guest, image: BaseImage) -> BaseImage | None:
    """The image that the guest's lanes start from, or None if it still has to be prepared.

    It is `image` itself if the lab built it, because then it has all that is needed, or if it is prepared.
    Raises ImageNotAvailable for a prepared image that was changed.
    """
    if image.firmware is None or image.manifest.base:
        return image
    prepared = store.find_made_image(paths, guest.name, inputs_digest(guest, image))
    if prepared is None:
        return None
    store.check_image(prepared)
    return replace(prepared, firmware=image.firmware)


def find_ready_image(paths: Paths, guest: Guest) -> BaseImage | None:
    """Return the image that the guest's lanes can start from at once, if there is one."""
    try:
        image = store.find_image(paths, guest)
        return find_prepared_image(paths, guest, image) if image else None
    except LabError:  # A prepared image that was changed: whoever needs it says so.
        return None


def explain_absent_images(paths: Paths, guests: Iterable[Guest], *, offline: bool) -> dict[str, str]:
    """Say why lanes of these guests cannot start, by the names of those that have no image and get none.

    Takes a few seconds at most, none if all images are stored. `offline` forbids the use of a network.
    Otherwise only the servers of published disks are asked whether they can be reached: whether a guest can be
    built shows when it is.
    """
    reasons: dict[str, str] = {}
    addresses: dict[str, str] = {}
    for guest in guests:
        is_stored = store.find_image(paths, guest) is not None
        if offline:
            # Preparing an image needs a network, too.
            if find_ready_image(paths, guest) is None:
                reasons[guest.name] = OFFLINE[is_stored]
        elif not is_stored and isinstance(guest.image, CloudImage):
            if unpinned := cloud.explain_unpinned(guest.image):
                reasons[guest.name] = unpinned
            else:
                addresses[guest.name] = str(guest.image.address)
    unreachable = download.find_unreachable_hosts(addresses.values()) if addresses else {}
    for name, address in addresses.items():
        if (host := urlsplit(address).netloc) in unreachable:
            reasons[name] = f"{host} cannot be reached: {unreachable[host]}"
    return reasons


def ensure_prepared_image(preparation: Preparation, guest: Guest, image: BaseImage) -> BaseImage:
    """The image that the guest's lanes start from, prepared first if necessary. Two labs at once do it once.

    Raises NotPrepared, LaneDied, or another LabError if the host is at fault; nothing is kept then.
    """
    paths = preparation.paths
    if prepared := find_prepared_image(paths, guest, image):
        return prepared
    inputs, base = inputs_digest(guest, image), image.manifest.disk_sha256
    folder = paths.make(paths.images) / f"{PREPARED}{guest.name}-{inputs[:16]}"
    lock = folder.with_name(f"{folder.name}.lock")
    with hold_lock(lock, LOCK_SECONDS, "this image to be prepared", preparation.task):
        if prepared := find_prepared_image(paths, guest, image):
            return prepared
        download.check_room(paths.images, FREE_BYTES, f"preparing {guest.name}")

        def fill(partial: Path) -> None:
            prepare_disk(preparation, guest, image, partial / DISK)

        stored_image = store.place_image(
            folder, guest.name, inputs, f"prepared from sha256 {base[:16]}", fill, arch=guest.arch, base=base
        )
    return replace(stored_image, firmware=image.firmware)


def inputs_digest(guest: Guest, image: BaseImage) -> str:
    """SHA-256 over everything that decides what is prepared, except the state of the package mirrors."""
    nobody = KeyPair("", "")
    files = seed.render(instance="", hostname=guest.name, client_key=nobody, host_key=nobody)
    parts = [image.manifest.disk_sha256, str(guest.image.disk_gib), *files.values(), *RECIPE]
    parts += list_usual_arguments(guest.architecture)
    parts += guest.image.packages
    if isinstance(guest.image, CloudImage) and guest.image.python:
        parts.append(guest.image.python)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def prepare_disk(preparation: Preparation, guest: Guest, image: BaseImage, disk: Path) -> None:
    """Boot the image on a lane of its own, complete the guest, and write its disk to `disk`."""
    with open_lane(
        preparation.connection,
        preparation.paths,
        guest=guest,
        image=image,
        # The host's clock: package managers and their servers have limits of their own, and QEMU's user network
        # counts the time of its connections by QEMU's clock.
        acceleration=replace(preparation.acceleration, clock=REAL),
        network=Network.OPEN,
    ) as lane:
        preparation.on_lane(lane)
        try:
            changes = complete_guest(lane, preparation)
        except LaneDied:
            raise
        except LabError as error:
            raise NotPrepared(
                f"{guest.name} could not be prepared: {error.args[0]}",
                hint=error.hint,
                evidence={"console.log": lane.console_text(), **error.evidence},
            ) from error
        preparation.task.check()
        preparation.task.show(Progress("storing the prepared disk"))
        process.run_command(
            ["qemu-img", "convert", "-O", "qcow2", "-c", "-o", "compression_type=zstd", lane.overlay, disk],
            timeout=CONVERT_SECONDS,
        )
        (disk.parent / CHANGES).write_text(json.dumps(changes, indent=2) + "\n")


def complete_guest(lane: Lane, preparation: Preparation) -> dict[str, Any]:
    """Boot the guest for the first time, install what it lacks, and power it off.

    Returns what was changed in it besides packages. Raises LabError.
    """
    guest, published = lane.guest, store.get_cloud_image(lane.guest)
    manager, python = published.package_manager, published.python
    packages = [*PACKAGES[manager], *published.packages, *([python] if python else [])]
    session = Session(lane.endpoint, alive=lane.check_alive, speed=replace(lane.speed, more=FIRST_BOOT))
    show = preparation.task.show
    hold_processor = partial(
        occupy_processor, preparation.processors, acceleration=preparation.acceleration, show=show
    )

    def run_within(seconds: float, script: str) -> tuple[bool, list[str]]:
        """Run a script as root; whether it went well, and the last lines of what it printed."""
        # The limit is set inside the guest, so that its output is not lost with the connection.
        limited = f"timeout {lane.speed.from_kvm(seconds):.0f} sh -ec {shlex.quote(script)} 2>&1"
        output = session.run(f"sudo -n {limited}", seconds=seconds + 30, check=False)
        lines = [line for line in clean_text(output.stdout).splitlines() if line.strip()]
        return output.status == 0, lines[-LAST_LINES:]

    def missing() -> list[str]:
        script = "\n".join(MISSING[manager].replace("NAME", name) for name in packages)
        return session.run(script, seconds=10).stdout.split()

    try:
        with hold_processor(Progress("first boot")):
            lane.start(may_restart=True)
            ready.wait_for_boot(session, lane)
        # What the guest does by itself is stopped, and no other program installs packages from here on.
        changes: dict[str, Any] = session.program(
            QUIET,
            {
                "units": UNITS,
                "scripts": SCRIPTS,
                "locks": LOCKS,
                "loaders": LOADERS,
                "kernel_arguments": list_usual_arguments(guest.architecture),
                "seconds": lane.speed.from_kvm(OTHERS_SECONDS),
            },
            seconds=OTHERS_SECONDS + 30,
        )
        # A guest that has everything needs no network. With `packages` in its seed cloud-init would need one.
        if lacks := missing():
            with hold_processor(Progress(f"installing {', '.join(lacks)}")):
                configure = f"printf %s {shlex.quote(seed.render_packages(lacks))} >{CONFIG}"
                _, printed = run_within(INSTALL_SECONDS, f"{configure}; {INSTALL}")
                lacks = missing()
            if lacks:
                raise LabError(
                    f"{guest.name} lacks {', '.join(lacks)}, which could not be installed in it; "
                    + "\n  | ".join(["cloud-init says:", *printed]),
                    hint="the guest needs its own package sources once, through this host's network: check "
                    "the network, or import an image with these packages: lab images import FILE "
                    f"--as {guest.name}",
                )
        if python:
            session.run(f"sudo -n ln -sf /usr/bin/{python} {PYTHON}", seconds=10)
        with hold_processor(Progress("fetching what remedies need")):
            for supply, script in SUPPLIES[manager].items():
                went_well, printed = run_within(FETCH_SECONDS, script)
                if not went_well:
                    reason = printed[-1] if printed else "nothing was said"
                    show(Progress(f"{supply} could not be fetched, so what needs it cannot be tried: {reason}"))
        script = shlex.quote(f"{FORGET_DOWNLOADS[manager]}\n{CLEAN}")
        session.run(f"sudo -n sh -ec {script}", seconds=CLEAN_SECONDS)
    finally:
        session.close()
    lane.wait_until_off(CLEAN_SECONDS * FIRST_BOOT)
    return changes
