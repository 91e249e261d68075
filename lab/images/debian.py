"""Guests built from Debian's packages: mmdebstrap, and a hook that turns the tree into a disk."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lab.base import process
from lab.base.errors import LabError
from lab.base.paths import definitions
from lab.catalog import DebianImage

PACKAGES = (
    "apparmor",
    "bubblewrap",
    "ca-certificates",
    "cloud-init",
    "dbus",
    "iproute2",
    "linux-image-cloud-amd64",
    "netplan.io",
    "openssh-server",
    "passwd",
    "python3",
    "sudo",
    "systemd-sysv",
    "udev",
)
FILES = ("disk.qcow2", "vmlinuz", "initrd", "packages.tsv")
# mmdebstrap's own words for what it does, and ours.
STAGES = {
    "running apt-get update": "fetching package lists",
    "downloading packages": "downloading packages",
    "extracting archives": "unpacking packages",
    "installing essential": "installing the base system",
    "installing remaining": "installing the guest's packages",
    "running --customize-hook": "making the disk",
}


def inputs(image: DebianImage) -> bytes:
    """All that decides what goes into the image, as bytes to take a digest of."""
    return image.model_dump_json().encode() + " ".join(PACKAGES).encode() + _recipe().read_bytes()


def build(image: DebianImage, out: Path, say: Callable[[str], None], *, timeout: float) -> float:
    """Build the image's files into `out`; the time it took in seconds. Raises LabError.

    As root mmdebstrap works on the real thing; anyone else needs /etc/subuid and a host that allows
    user namespaces, and cannot build a SELinux guest: the kernel lets no one else set `security.selinux`.
    """
    if image.selinux and os.geteuid() != 0:
        raise LabError(
            f"building {image.suite} with SELinux: only root can set SELinux labels on files",
            hint="run the lab as root for this guest, or leave it out",
        )
    started = time.monotonic()
    workspace = _workspace(out)
    try:
        process.run(
            _command(image),
            timeout=timeout,
            env={
                "TMPDIR": str(workspace),
                "LAB_DISK_SIZE": f"{image.disk_gib}G",
                "LAB_SELINUX": image.selinux or "",
            },
            on_line=lambda line: _report(line, say),
        )
        for name in FILES:
            # A copy, because an ordinary user does not own what a subordinate user wrote.
            shutil.copyfile(workspace / name, out / name)
    except process.CommandFailed as error:
        raise _explain(image, error) from error
    finally:
        remove_workspace(workspace)
    return time.monotonic() - started


def remove_workspace(folder: Path) -> None:
    """Remove a build's folder, with what belongs to an ordinary user's subordinate ids."""
    if not folder.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        # The subordinate user may not remove the folder itself: /var/tmp is sticky.
        empty: list[str | Path] = ["find", folder, "-mindepth", "1", "-delete"]
        process.run(["mmdebstrap", "--unshare-helper", *empty], timeout=120)
        shutil.rmtree(folder)


def _recipe() -> Path:
    return definitions() / "images" / "recipes" / "debian.sh"


def _workspace(out: Path) -> Path:
    if os.geteuid() == 0:
        return Path(tempfile.mkdtemp(prefix="build-", dir=out))
    # The subordinate user that mmdebstrap becomes cannot enter a home folder. /var/tmp and not /tmp,
    # which is memory on many distributions.
    folder = Path(tempfile.mkdtemp(prefix="boxlite-lab-build-", dir="/var/tmp"))
    folder.chmod(0o1777)
    return folder


def _command(image: DebianImage) -> list[str | Path]:
    wanted = [f"{name}/{image.suite}-backports" if name in image.backports else name for name in PACKAGES]
    command: list[str | Path] = [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--format=null",
        "--variant=apt",
        f"--include={','.join([*wanted, *image.packages])}",
    ]
    if image.backports:
        # The mirror is mmdebstrap's own choice: add the suite wherever that is, whatever its name.
        command.append(
            "--setup-hook="
            f"sed -n 's| {image.suite} main| {image.suite}-backports main|p' "
            f'"$1/etc/apt/sources.list" > "$1/etc/apt/sources.list.d/backports.list"'
        )
    if not image.security:
        command.append(f"--setup-hook=sed -i '/ {image.suite}-security /d' \"$1/etc/apt/sources.list\"")
    if image.expired:
        command.append("--aptopt=Acquire::Check-Valid-Until false")
    return [*command, f"--customize-hook={_recipe()}", image.suite, "/dev/null"]


def _report(line: str, say: Callable[[str], None]) -> None:
    for words, stage in STAGES.items():
        if line.startswith(f"I: {words}"):
            say(stage)


def _explain(image: DebianImage, error: process.CommandFailed) -> LabError:
    text = error.output
    # The kernel's words, and apt's, which counts first.
    if "No space left on device" in text or "enough free space" in text:
        return LabError(
            f"the disk filled up while building {image.suite}; nothing was kept",
            hint="free some disk space and run the same command again",
        )
    if os.geteuid() != 0 and ("subuid" in text or "newuidmap" in text or "unshare" in text):
        return LabError(
            f"mmdebstrap could not build {image.suite} as an ordinary user\n{text}",
            hint="install uidmap, give your user lines in /etc/subuid and /etc/subgid, or run as root",
        )
    return LabError(f"building {image.suite} failed: {error}", hint="is the package mirror reachable?")
