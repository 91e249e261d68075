"""Preparing a distribution's image: it is booted once and given what the suite needs.

The result is kept. Lanes start from it, install nothing and need no network. What only a first boot does
(growing the root, relabelling, a restart that the distribution asks for) is done then, too.
"""

import hashlib
import re
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import libvirt

from lab.base import process
from lab.base.errors import LabError
from lab.base.files import plain
from lab.base.locks import locked
from lab.base.paths import Paths
from lab.catalog import Guest, PackageManager
from lab.guest import ready
from lab.guest.session import ADMIN, SUITE, Session
from lab.images import store
from lab.images.content import DISK
from lab.images.download import Say
from lab.images.store import BaseImage
from lab.lane import quieting, supplies
from lab.machine import opening, seed
from lab.machine.acceleration import Acceleration
from lab.machine.clock import REAL
from lab.machine.domain import Network
from lab.machine.keys import KeyPair
from lab.machine.lane import Lane, LaneDied

# The prefix of prepared images in the store.
PREPARED = "prepared-"

# Programs that the suite, the probes and the gathering of evidence use.
PACKAGES = {
    PackageManager.APT: ("apparmor", "bubblewrap", "procps", "python3"),
    PackageManager.DNF: ("bubblewrap", "procps-ng", "python3"),
}

# By how much a first boot may take longer than later ones: the root grows, keys and caches are made, SELinux
# may relabel the whole disk and restart.
FIRST_BOOT = 4.0
# Limits under hardware acceleration.
INSTALL_SECONDS = 300.0
CLEAN_SECONDS = 10.0
# Flattening and compressing the disk, on the host.
CONVERT_SECONDS = 600.0
# Under emulation another lab may need all of that.
LOCK_SECONDS = 7200.0
# For a moment the guest's overlay and the compressed prepared disk exist side by side.
FREE_GIB = 5.0
LAST_LINES = 20
# How often packages are installed again if another program held a lock.
TRIES = 3
LOCKED = re.compile(r"\block\b", re.IGNORECASE)

# Prints a package's name if it is not installed.
MISSING = {
    PackageManager.APT: "dpkg-query -W -f '${Status}' NAME 2>/dev/null | grep -q ' installed$' || echo NAME",
    PackageManager.DNF: "rpm --quiet -q NAME || echo NAME",
}
FORGET_DOWNLOADS = {
    # Remedies need its lists and one package, which `supplies` keeps.
    PackageManager.APT: "",
    PackageManager.DNF: "dnf -q clean all",
}
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
# Everything that is done in the guest.
RECIPE = (
    *(name for names in PACKAGES.values() for name in names),
    *(*MISSING.values(), INSTALL, *FORGET_DOWNLOADS.values(), CLEAN, *quieting.RECIPE, *supplies.RECIPE),
)


class PackagesMissing(LabError):
    """The guest lacks packages that could not be installed."""


class NotPrepared(LabError):
    """The guest could not be prepared; the evidence shows why."""


@dataclass(frozen=True)
class Preparation:
    """What preparing needs from the lab.

    `say` gets what is done now. `holding` holds a processor for what its text says. `on_lane` gets the lane, so
    that it can be taken down from outside.
    """

    connection: libvirt.virConnect
    paths: Paths
    uri: str
    acceleration: Acceleration
    say: Say
    holding: Callable[[str], AbstractContextManager[None]]
    on_lane: Callable[[Lane], None] = lambda made: None


def find(paths: Paths, guest: Guest, image: BaseImage) -> BaseImage | None:
    """The image that the guest's lanes start from, or None if it still has to be prepared.

    It is `image` itself if the lab built it, because then it has all that is needed, or if it is prepared.
    This host's own prepared image comes before one from another host.
    """
    if image.firmware is None or image.manifest.base:
        return image
    own = _read(_folder(paths, guest, image), image)
    if own or not (received := store.find_received(paths, guest.name, inputs_digest(guest, image))):
        return own
    return _read(received.folder, image)


def is_ready(paths: Paths, guest: Guest) -> bool:
    """Whether the guest's lanes can start at once."""
    try:
        image = store.find(paths, guest)
        return image is not None and find(paths, guest, image) is not None
    except LabError:  # An image that cannot be read: whoever needs it says so.
        return False


def ensure(preparation: Preparation, guest: Guest, image: BaseImage) -> BaseImage:
    """The image that the guest's lanes start from, prepared first if necessary. Two labs at once do it once.

    Raises NotPrepared, LaneDied, or another LabError if the host is at fault; nothing is kept then.
    """
    found = find(preparation.paths, guest, image)
    if found:
        return found
    preparation.paths.make(preparation.paths.images)
    folder = _folder(preparation.paths, guest, image)
    lock = folder.with_name(f"{folder.name}.lock")
    with locked(lock, LOCK_SECONDS, "this image to be prepared", preparation.say):
        return _read(folder, image) or _make(preparation, guest, image, folder)


def inputs_digest(guest: Guest, image: BaseImage) -> str:
    """SHA-256 over everything that decides what is prepared, except the state of the package mirrors."""
    nobody = KeyPair("", "")
    files = seed.render(instance="", hostname=guest.name, client_key=nobody, host_key=nobody)
    parts = [image.manifest.disk_sha256, str(guest.image.disk_gib), *files.values(), *RECIPE]
    parts += guest.image.packages
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _folder(paths: Paths, guest: Guest, image: BaseImage) -> Path:
    return paths.images / f"{PREPARED}{guest.name}-{inputs_digest(guest, image)[:16]}"


def _read(folder: Path, image: BaseImage) -> BaseImage | None:
    found = store.read(folder)
    if found is None:
        return None
    store.check(found)
    return replace(found, firmware=image.firmware)


def _make(preparation: Preparation, guest: Guest, image: BaseImage, folder: Path) -> BaseImage:
    started = time.monotonic()
    _check_room(preparation.paths, guest)

    def fill(partial: Path) -> float:
        _boot_and_install(preparation, guest, image, partial / DISK)
        return time.monotonic() - started

    source = f"prepared from sha256 {image.manifest.disk_sha256[:16]}"
    base = image.manifest.disk_sha256
    made = store.place(folder, guest.name, inputs_digest(guest, image), source, fill, base=base)
    return replace(made, firmware=image.firmware)


def _check_room(paths: Paths, guest: Guest) -> None:
    free = shutil.disk_usage(paths.images).free / 2**30
    if free < FREE_GIB:
        raise LabError(
            f"preparing {guest.name} needs {FREE_GIB:.0f} GiB free in {paths.images}; there are {free:.1f}",
            hint="free some disk space and run the same command again",
        )


def _boot_and_install(preparation: Preparation, guest: Guest, image: BaseImage, disk: Path) -> None:
    """Boot the image on a lane of its own, complete the guest, and write its disk to `disk`."""
    # The host's clock: package managers and their servers have limits of their own, and QEMU's user network
    # counts the time of its connections by QEMU's clock.
    how, say = replace(preparation.acceleration, clock=REAL), preparation.say
    with opening.open_lane(
        preparation.connection,
        preparation.paths,
        guest=guest,
        image=image,
        acceleration=how,
        uri=preparation.uri,
        network=Network.OPEN,
        nameservers=seed.host_nameservers(),
    ) as made:
        preparation.on_lane(made)
        try:
            changes = _complete(made, preparation)
        except LaneDied:
            raise
        except LabError as error:
            raise NotPrepared(
                f"{guest.name} could not be prepared: {error.args[0]}",
                hint=error.hint,
                evidence={"console.log": made.console_text(), **error.evidence},
            ) from error
        say("storing the prepared disk")
        process.run(
            ["qemu-img", "convert", "-O", "qcow2", "-c", "-o", "compression_type=zstd", made.overlay, disk],
            timeout=CONVERT_SECONDS,
        )
        quieting.write(changes, disk.parent)


def _complete(made: Lane, preparation: Preparation) -> quieting.Changes:
    """Boot the guest for the first time, install what it lacks, and power it off.

    Returns what was changed in it besides packages.
    """
    manager = store.cloud_image(made.guest).package_manager
    speed = replace(made.speed, more=FIRST_BOOT)
    session = Session(made.endpoint, alive=made.check_alive, speed=speed)
    try:
        with preparation.holding("first boot"):
            made.start(may_restart=True)
            ready.wait_up(session, made)
        changes = quieting.quiet(session, made.speed)
        # A guest that has everything needs no network.
        wanted = [*PACKAGES[manager], *made.guest.image.packages]
        if lacks := _missing(session, manager, wanted):
            with preparation.holding(f"installing {', '.join(lacks)}"):
                _install(session, made, manager, wanted, lacks)
        with preparation.holding("fetching what remedies need"):
            supplies.fetch(session, manager, made.speed, preparation.say)
        script = shlex.quote(f"{FORGET_DOWNLOADS[manager]}\n{CLEAN}")
        session.run(f"sudo -n sh -ec {script}", seconds=CLEAN_SECONDS)
    finally:
        session.close()
    made.wait_until_off(CLEAN_SECONDS * FIRST_BOOT)
    return changes


def _missing(session: Session, manager: PackageManager, wanted: Sequence[str]) -> list[str]:
    """Which of these packages are not installed in the guest."""
    script = "\n".join(MISSING[manager].replace("NAME", name) for name in wanted)
    return session.run(script, seconds=10).stdout.split()


def _install(
    session: Session, made: Lane, manager: PackageManager, wanted: Sequence[str], lacks: list[str]
) -> None:
    """Have cloud-init install what the guest lacks of what is wanted. Raises PackagesMissing.

    `packages` in the seed would not do: with it cloud-init needs the network even if nothing is missing.
    """
    write = f"printf %s {shlex.quote(seed.packages(lacks))} >{CONFIG}"
    # The limit is set inside the guest, so that its output is not lost with the connection.
    install = f"timeout {made.speed.from_kvm(INSTALL_SECONDS):.0f} {INSTALL}"
    script = shlex.quote(f"{write}; {install} 2>&1")
    for _ in range(TRIES):
        printed = session.run(f"sudo -n sh -c {script}", seconds=INSTALL_SECONDS + 30, check=False).stdout
        missing = _missing(session, manager, wanted)
        if not missing or not LOCKED.search(printed):
            break
        quieting.quiet(session, made.speed)
    if missing:
        lines = [line for line in plain(printed).splitlines() if line.strip()][-LAST_LINES:]
        name = made.guest.name
        raise PackagesMissing(
            f"{name} lacks {', '.join(missing)}, which could not be installed in it; cloud-init says:\n"
            + "\n".join(f"  | {line}" for line in lines),
            hint="the guest needs its own package sources once, through this host's network: check that it has "
            f"one; or bring an image with these packages in it: lab images import FILE --as {name}",
        )
