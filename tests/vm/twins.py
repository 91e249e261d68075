"""Twins: disks of Debian's packages with the traits of Ubuntu's, Fedora's and AlmaLinux's cloud images.

A twin is a guest of its own, `twin-NAME`, defined by the tests alone: its definition is the distribution's,
with another server, another key, and a title that says what it is. What it shows is never shown under the
distribution's name.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.base import process
from lab.catalog import TWIN, Pin, loading
from lab.record import Confidence, Status
from tests.builders.mirror import SigningKey, definitions, guest, key_ring, serving
from tests.vm import cloud_disk
from tests.vm.cloud_disk import CloudDisk, Recipe

# Seconds. Public logs show up to 210 s for snapd. Fewer do here, where everything else takes longer, too.
# cloud-init gives up on dpkg's lock after 30 s.
SEEDED, LOCKED = 10, 60
# The first line of the file in the ESP that says where the guest's packages are.
PLACE = b"# repository\n"
PLACE_SIZE = 512


Expected = tuple[Status, str | None, Confidence | None]
PASS: Expected = (Status.PASS, None, None)
NOT_APPLICABLE: Expected = (Status.NOT_APPLICABLE, None, None)
# For the checks: sh, run as root in the twin.
ROOT_GREW = "test $(df --output=size -BG / | tail -1 | tr -dc 0-9) -ge 8"


@dataclass(frozen=True)
class Twin:
    """A guest with the traits of another, `original`.

    `pin` is the build that is published. `cells` says what is expected of each variant, `masked` and
    `not_executable` what preparing has to stop, `checks` what must hold in the guest, and `remedies` those that
    must work without a network, each with a variant.
    """

    original: str
    recipe: Recipe
    pin: Pin
    cells: Mapping[str, Expected]
    checks: Mapping[str, str]
    masked: tuple[str, ...] = ()
    not_executable: tuple[str, ...] = ()
    remedies: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{TWIN}{self.original}"

    def define(self, images: Path) -> None:
        """Write its definition beside the original's."""
        text = (images / f"{self.original}.toml").read_text()
        title, _, rest = text.partition("\n")
        original = title.removeprefix('title = "').removesuffix('"')
        title = f'title = "A twin of {original}: Debian 13 packages with its traits"'
        # What the original's own kernel restricts, Debian's does not.
        lines = [line for line in rest.splitlines() if not line.startswith(("expect =", "because ="))]
        (images / f"{self.name}.toml").write_text("\n".join([title, *lines, ""]))


UBUNTU_CHECKS = {
    "the root grew": ROOT_GREW,
    "snapd was seeded": "systemctl is-active snapd.seeded.service",
    "apt's locks were held after cloud-init's end": "test -e /var/lib/twin-held-apt",
    "no login ran update-motd": "test ! -e /run/update-motd-ran",
    "no timer ran": "test ! -e /run/motd-news-ran && test ! -e /run/fwupd-refresh-ran",
    "apt-daily stays masked": "test $(systemctl is-enabled apt-daily.timer) = masked",
    "package lists are there": "apt-cache madison bubblewrap | grep Packages",
}


def _recipe(release: str, *packages: str) -> Recipe:
    settings = {"TWIN_RELEASE": release, "TWIN_SEEDED": str(SEEDED), "TWIN_LOCKED": str(LOCKED)}
    return Recipe("ubuntu", (*cloud_disk.PACKAGES, "gdisk", *packages), settings)


NOBLE = Twin(
    "ubuntu-24.04",
    _recipe("24.04"),
    Pin(build="release-20261101", date="2026-11-26", mirrors=[]),
    {
        "stock": PASS,
        "userns-clone-off": (Status.XFAIL, "userns-sysctl", Confidence.PROVED),
        "apparmor-userns-nocaps": (Status.XFAIL, "apparmor-userns-nocaps", Confidence.PROVED),
    },
    UBUNTU_CHECKS,
    masked=(
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "fwupd-refresh.timer",
        "man-db.timer",
        "motd-news.timer",
    ),
    not_executable=("/etc/update-motd.d/10-uname", "/etc/update-motd.d/50-landscape-sysinfo"),
    remedies={"install-bubblewrap": "bwrap-absent", "bwrap-userns-restrict": "stock"},
)
RESOLUTE = Twin(
    "ubuntu-26.04",
    _recipe("26.04", "sudo-rs", "rust-coreutils"),
    Pin(build="release-20261102", date="2026-11-26", mirrors=[]),
    {
        "stock": PASS,
        "userns-clone-off": (Status.XFAIL, "userns-sysctl", Confidence.PROVED),
        # Its denials are not logged, so only an experiment would prove the cause.
        "apparmor-mount-deny-quiet": (Status.XFAIL, "apparmor-mount-deny", Confidence.LIKELY),
        # Beside the profile that bubblewrap has already they would do something else, or nothing.
        "apparmor-userns-deny": NOT_APPLICABLE,
        "apparmor-userns-nocaps": NOT_APPLICABLE,
    },
    UBUNTU_CHECKS,
    masked=NOBLE.masked,
    not_executable=NOBLE.not_executable,
    remedies={"bwrap-userns-restrict": "stock"},
)

FEDORA_CHECKS = {
    "the root grew": ROOT_GREW,
    "SELinux enforces": "test $(getenforce) = Enforcing",
    "dnf's lock was held after cloud-init's end": "test -e /var/lib/twin-held-dnf",
    "no timer ran": "test ! -e /run/dnf-makecache-ran",
    "timers stay masked": 'test "$(systemctl is-enabled dnf-makecache.timer fstrim.timer | sort -u)" = masked',
}

# As installed, boxlite 0.10.8 starts no box under the jailer on btrfs and XFS, which is no variant's doing.
SHIM_NOT_EXECUTABLE: Expected = (Status.FAIL, "shim-not-executable", Confidence.PROVED)


def _rpm_recipe(system: str, release: str, *packages: str) -> Recipe:
    return Recipe(
        "fedora",
        (
            *(name for name in cloud_disk.PACKAGES if name not in ("apparmor", "netplan.io")),
            *("auditd", "dracut", "network-manager", "python3-selinux"),
            *("selinux-policy-default", "selinux-utils", "zstd", *packages),
        ),
        {"TWIN_SYSTEM": system, "TWIN_RELEASE": release, "TWIN_LOCKED": str(LOCKED)},
        for_root="only root can set SELinux's labels on the files of a disk",
    )


FEDORA = Twin(
    "fedora-44",
    _rpm_recipe("fedora", "44", "btrfs-progs", "systemd-zram-generator"),
    Pin(build="44-1.7", date="2026-11-26", mirrors=[]),
    {
        "stock": SHIM_NOT_EXECUTABLE,
        "selinux-userns-deny": (Status.XFAIL, "selinux-userns-deny", Confidence.PROVED),
        "max-userns-zero": (Status.XFAIL, "userns-limit", Confidence.PROVED),
        "apparmor-userns-deny": NOT_APPLICABLE,
    },
    FEDORA_CHECKS,
    masked=("dnf-makecache.timer", "fstrim.timer"),
)
ALMALINUX = Twin(
    "almalinux-10",
    _rpm_recipe("almalinux", "10", "xfsprogs"),
    Pin(build="10.2-20260526.0", date="2026-11-30", mirrors=[]),
    {
        "stock": SHIM_NOT_EXECUTABLE,
        "max-userns-zero": (Status.XFAIL, "userns-limit", Confidence.PROVED),
    },
    {**FEDORA_CHECKS, "the root is XFS": "test $(findmnt -n -o FSTYPE /) = xfs"},
    masked=FEDORA.masked,
)
TWINS = (NOBLE, RESOLUTE, FEDORA, ALMALINUX)


def with_twins(root: Path, url: str, key: SigningKey) -> Path:
    """The lab's definitions with the twins among them, all published at this URL and signed with this key."""
    definitions(root, url, key)
    for twin in TWINS:
        twin.define(root / "images")
    # Their builds are found by `lab images pull --update`.
    return root


@contextmanager
def published(twin: Twin, built: CloudDisk, folder: Path, patched: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve a twin in its distribution's layout, and the packages that it may install.

    The lab's definitions are those in `folder`/definitions, for as long as `patched` holds.
    """
    with key_ring() as ring, serving() as mirror, cloud_disk.served(built.repository) as packages:
        key = SigningKey(ring, "good@example.org")
        root = with_twins(folder / "definitions", mirror.url, key)
        patched.setattr(loading, "find_definitions", lambda: root)
        loading.load_catalog.cache_clear()
        disk = with_sources(built, folder / "disk.qcow2", packages.url)
        mirror.publish(guest(twin.name).pinned(twin.pin), disk.read_bytes(), key)
        disk.unlink()
        yield


def with_sources(built: CloudDisk, to: Path, url: str) -> Path:
    """A copy of a twin's disk that knows where its packages are."""
    raw = to.with_name("disk.raw")
    process.run_command(["qemu-img", "convert", "-O", "raw", built.disk, raw], timeout=300)
    line = f"deb [trusted=yes] {url} ./\n".encode()
    with raw.open("r+b") as disk:
        # The ESP is among the first partitions of every twin.
        start = disk.read(256 << 20).index(PLACE)
        disk.seek(start)
        disk.write(line.ljust(PLACE_SIZE, b"#"))
    process.run_command(["qemu-img", "convert", "-O", "qcow2", raw, to], timeout=300)
    raw.unlink()
    return to
