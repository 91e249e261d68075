"""Builds guests from Debian's packages: mmdebstrap makes a tree, and a hook turns the tree into a disk."""

import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from lab.base import archives, host_table, process, scratch
from lab.base.activity import Progress, Task
from lab.base.architecture import X86_64, Architecture
from lab.base.errors import ImageNotAvailable, LabError, UserCannotBuild, format_error
from lab.base.files import open_regular
from lab.base.paths import find_definitions
from lab.catalog import DebianImage, kernels
from lab.catalog.debian_packages import load_debian_packages
from lab.catalog.kernels import Kernel

# The kernel of a guest that has its own, by Debian's word for the architecture.
KERNEL = "linux-image-cloud-{}"
# Where an ordinary user's guest is built: mmdebstrap runs as a subordinate user, who can enter no home folder.
ON_DISK = Path("/var/tmp")  # noqa: S108 - a folder that mkdtemp makes in it
WORKSPACE = "boxlite-lab-build-"
# Where two guests at a time are built, which take 3.2 GiB at most, if the host has room for them. On disk a
# build takes 1.4 to 1.7 times as long, because dpkg waits for each file to be written.
IN_MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30  # noqa: S108 - as above
_memory_places = threading.BoundedSemaphore(2)
# Where the host's apt does not trust Debian's keys, as on Ubuntu, mmdebstrap finds them only with gpg's help.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Everybody can write to an ordinary user's workspace, as the subordinate user has to. So the recipe's files are
# in a folder that this one makes there: `mkdir` fails if somebody else did, and only its owner can write to it.
MADE = "made"
# The recipes are copied there, too: the checkout may be in a home folder, which is closed to other users.
RECIPES, RECIPE = "recipes", "debian.sh"
HOOK = (
    f'made="${{1%/*}}/{MADE}"; mkdir -m 755 "$made" && ln -s "$1" "$made/root" && '
    f'"${{1%/*}}/{RECIPES}/{RECIPE}" "$made/root"'
)
FILES = ("disk.qcow2", "vmlinuz", "initrd", "packages.tsv")
# The recipe for another kernel than a guest's own, and the folder beside the guest's tree that has the files of
# one that is no package of the archive.
KERNEL_RECIPE, KERNEL_FILES = "kernel.sh", "kernel"
CHMOD_SECONDS = 300.0
# What apt says of a package, of a version or of a suite that the archive does not have.
NO_PACKAGE = re.compile(
    r"E: (Unable to locate package .*|Package \S+ has no installation candidate"
    r"|(Version|Release) .{1,200} was not found"
    r"|The repository .{1,200}-backports.{1,200} does not have a Release file)"
)
# What mmdebstrap says on a host that cannot run the programs of another architecture.
FOREIGN = re.compile(
    r"E: (install arch-test|.{1,200} can neither be executed natively nor via qemu user emulation)"
)
# What the recipe says of a kernel that no guest of the lab can boot with.
LACKS = re.compile(r"E: (the kernel .*)")
# mmdebstrap's messages, and the stage that the lab reports for each.
STAGES = {
    "running apt-get update": "fetching package lists",
    "downloading packages": "downloading packages",
    "extracting archives": "unpacking packages",
    "installing essential": "installing the base system",
    "installing remaining": "installing the guest's packages",
    "running --customize-hook": "making the disk",
}


def collect_debian_inputs(image: DebianImage, architecture: Architecture = X86_64) -> bytes:
    """Return everything that determines the image's content, as bytes to be hashed."""
    recipes = find_recipes()
    files = [recipes / RECIPE, *sorted(recipes.glob("apparmor/*"))]
    words = image.model_dump_json() + " ".join(_packages(image, architecture)) + _masked_units()
    if image.kernel:
        words += image.kernel.identity
        files.append(recipes / KERNEL_RECIPE)
    return words.encode() + b"".join(map(Path.read_bytes, files))


def build_image(
    image: DebianImage,
    out: Path,
    task: Task,
    *,
    timeout: float,
    architecture: Architecture = X86_64,
) -> None:
    """Build the image's files in `out`. Raises UserCannotBuild, ImageNotAvailable, LabError.

    An ordinary user needs an entry in /etc/subuid and a host that allows user namespaces. SELinux guests need
    root, because the kernel lets only root set the attribute `security.selinux`.
    """
    if image.selinux and os.geteuid() != 0:
        raise UserCannotBuild(
            f"only root can set SELinux labels on files, so this user cannot build {image.suite} with SELinux",
            hint="run the lab as root for this guest, or leave this guest out",
        )
    try:
        for is_first in (True, False):
            with _workspace(out, in_memory=is_first) as workspace:
                try:
                    _build_in(workspace, image, out, task, timeout=timeout, architecture=architecture)
                except process.CommandFailed as error:
                    # With the end of a user's last session systemd removes what the user has in /dev/shm:
                    # RemoveIPC= in logind.conf(5). And others may have filled it meanwhile.
                    is_there = (workspace / RECIPES / RECIPE).exists()
                    if workspace.parent != IN_MEMORY or (is_there and not _is_full(error)):
                        raise
                else:
                    return
    except process.CommandFailed as error:
        raise _explain(image, architecture, error) from error


def _build_in(
    workspace: Path,
    image: DebianImage,
    out: Path,
    task: Task,
    *,
    timeout: float,
    architecture: Architecture,
) -> None:
    """Build the image's files in a folder and copy them to `out`. Raises CommandFailed, LabError, OSError."""
    # It is there for every guest, because the recipe takes whatever it finds there: nobody else can make it
    # later.
    tree = workspace / KERNEL_FILES
    tree.mkdir()
    tree.chmod(0o755)
    if image.kernel and image.kernel.path:
        copy_kernel(image.kernel, image.kernel.path, tree)
    shutil.copytree(find_recipes(), workspace / RECIPES)
    open_to_others(workspace / RECIPES)
    if os.geteuid() != 0:
        workspace.chmod(0o1777)
    process.run_command(
        build_command(image, architecture),
        timeout=timeout,
        env={
            "TMPDIR": str(workspace),
            "LAB_DISK_SIZE": f"{image.disk_gib}G",
            "LAB_SELINUX": image.selinux or "",
            "LAB_MASKED": _masked_units(),
            # The kernel's package makes no initial RAM disk: the recipe makes the only one.
            "INITRD": "No",
        },
        on_line=lambda line: _report(line, task),
        watch=lambda _leader: task.check(),
    )
    for name in FILES:
        # A copy, because an ordinary user does not own what a subordinate user wrote.
        shutil.copyfile(workspace / MADE / name, out / name, follow_symlinks=False)


def remove_workspace(folder: Path) -> None:
    """Delete a build's folder, including files that belong to the user's subordinate IDs."""
    if not folder.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        # The subordinate user may not remove the folder itself: /var/tmp is sticky.
        empty: list[str | Path] = ["find", folder, "-mindepth", "1", "-delete"]
        process.run_command(["mmdebstrap", "--unshare-helper", *empty], timeout=120)
        shutil.rmtree(folder)


def find_recipes() -> Path:
    return find_definitions() / "images" / RECIPES


def open_to_others(tree: Path) -> None:
    """Let other users read a tree: an ordinary user's mmdebstrap runs as one. Raises CommandFailed."""
    process.run_command(["chmod", "-R", "u+w,a+rX", tree], timeout=CHMOD_SECONDS)


def copy_kernel(kernel: Kernel, path: Path, tree: Path) -> None:
    """Copy a kernel from a file or a folder into `tree`, which has the guest's folders. Raises LabError."""
    unpacked = tree.with_name(f"{KERNEL_FILES}-unpacked")
    unpacked.mkdir()
    try:
        if kernels.hash_content(path) != kernel.digest:
            raise LabError(f"{path} was changed after the run began", hint="run the same command again")
        debs, allowance = kernels.list_packages(path), kernels.MOST_BYTES
        for deb in debs:
            allowance -= archives.unpack_deb(deb, unpacked, allowance)
        files = kernels.find_kernel(unpacked if debs else path, called=str(path))
        modules = tree / "usr/lib/modules" / files.release
        copies = {
            file: modules / file.relative_to(files.modules) for file in kernels.list_module_files(files.modules)
        }
        for file, copy in {files.image: tree / "boot" / f"vmlinuz-{files.release}", **copies}.items():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with open_regular(file) as stream, copy.open("wb") as to:
                shutil.copyfileobj(stream, to)
        open_to_others(tree)
        shutil.rmtree(unpacked)
    except archives.DamagedArchive as error:
        raise LabError(
            f"the kernel {path} cannot be unpacked: {error}",
            hint=f"make or fetch it again; if it is too large, {kernels.SMALLER}",
        ) from error
    except (OSError, process.CommandFailed) as error:
        raise LabError(
            f"the kernel {path} cannot be copied: {format_error(error)}",
            hint="is the disk full, or the file incomplete? Then run the same command again",
        ) from error


@contextmanager
def _workspace(out: Path, *, in_memory: bool) -> Iterator[Path]:
    """A folder of this user's own for mmdebstrap, removed after the block; in memory if it may be there."""
    is_in_memory = in_memory and has_memory() and _memory_places.acquire(blocking=False)
    if is_in_memory:
        made = scratch.make_locked_folder(IN_MEMORY, WORKSPACE)
    elif os.geteuid() == 0:
        made = scratch.make_locked_folder(out, "build-")
    else:
        made = scratch.make_locked_folder(ON_DISK, WORKSPACE)
    try:
        with made as folder:
            try:
                yield folder
            finally:
                remove_workspace(folder)
    finally:
        if is_in_memory:
            _memory_places.release()


def has_memory() -> bool:
    """Whether guests can be built in memory, and twice as much is left for what else runs.

    No device works there that root's mmdebstrap makes where it cannot mount any.
    """
    try:
        place = os.statvfs(IN_MEMORY)
    except OSError:
        return False
    return (
        os.access(IN_MEMORY, os.W_OK | os.X_OK)
        and not place.f_flag & os.ST_NOEXEC
        and place.f_bavail * place.f_frsize >= ROOM
        and psutil.virtual_memory().available >= 3 * ROOM
        and (os.geteuid() != 0 or bool(start_with_own_mounts()))
    )


def build_command(image: DebianImage, architecture: Architecture = X86_64) -> list[str | Path]:
    kernel = image.kernel
    packages = [
        f"{name}/{image.suite}-backports" if name in image.backports else name
        for name in _packages(image, architecture)
    ]
    if kernel:
        position = _packages(image, architecture).index(KERNEL.format(architecture.debian))
        packages[position : position + 1] = [] if kernel.path else [kernel.package(image.suite)]
    command: list[str | Path] = [
        *start_with_own_mounts(),
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--format=null",
        "--variant=apt",
        f"--architectures={architecture.debian}",
        f"--include={','.join([*packages, *image.packages])}",
    ]
    if KEYRING.exists():
        command.append(f"--keyring={KEYRING}")
    if image.backports or (kernel and kernel.from_backports):
        # mmdebstrap chooses the mirror: copy its line and change the suite.
        command.append(
            "--setup-hook="
            f"sed -n 's| {image.suite} main| {image.suite}-backports main|p' "
            f'"$1/etc/apt/sources.list" > "$1/etc/apt/sources.list.d/backports.list"'
        )
    if not image.security:
        command.append(f"--setup-hook=sed -i '/ {image.suite}-security /d' \"$1/etc/apt/sources.list\"")
    if image.expired:
        command.append("--aptopt=Acquire::Check-Valid-Until false")
    if kernel:
        command.append(f'--customize-hook="${{1%/*}}/{RECIPES}/{KERNEL_RECIPE}" "$1"')
    command.append(f"--customize-hook={HOOK}")
    return [*command, image.suite, "/dev/null"]


def _packages(image: DebianImage, architecture: Architecture) -> list[str]:
    """The packages of every guest of the image's suite, its own kernel's among them."""
    return sorted([*load_debian_packages().list_installed(image.suite), KERNEL.format(architecture.debian)])


def _masked_units() -> str:
    return " ".join(load_debian_packages().list_masked())


def start_with_own_mounts() -> list[str]:
    """What starts a program with mounts of its own, which end with its last process, even if that is killed.

    An ordinary user's mmdebstrap does so by itself. Root's mounts /proc and /sys in the workspace, and devices,
    for the whole host to see. Empty where that may not be: mmdebstrap can mount nothing there either.
    """
    apart = ["unshare", "--mount", "--"]
    if os.geteuid() != 0:
        return []
    try:
        process.run_command([*apart, "true"], timeout=20)
    except process.CommandFailed:
        return []
    return apart


def _report(line: str, task: Task) -> None:
    for words, stage in STAGES.items():
        if line.startswith(f"I: {words}"):
            task.show(Progress(stage))


def _is_full(error: process.CommandFailed) -> bool:
    # The kernel's message, and the one of apt, which checks the free space beforehand.
    return "No space left on device" in error.output or "enough free space" in error.output


def _explain(image: DebianImage, architecture: Architecture, error: process.CommandFailed) -> LabError:
    text, default_kernel = error.output, KERNEL.format(architecture.debian)
    if _is_full(error):
        return LabError(
            f"the disk filled up while building {image.suite}; the partial image was deleted",
            hint="free some disk space and run the same command again",
        )
    if not architecture.is_hosts and FOREIGN.search(text):
        return ImageNotAvailable(
            f"this host runs no programs of {architecture.debian}, so it cannot build {image.suite} for it",
            hint=f"{host_table.suggest_packages(f'programs.{architecture.debian}')}; {architecture.setup} "
            "does it",
        )
    if image.kernel and (lacks := LACKS.search(text)):
        return LabError(
            f"{image.kernel.argument} cannot be used: {lacks[1]}",
            hint=f"compare its configuration with that of {default_kernel}, the guests' own kernel",
        )
    if image.kernel and (missing := NO_PACKAGE.search(text)):
        return LabError(
            f"Debian {image.suite} has no kernel {image.kernel.argument}: {missing[0].removeprefix('E: ')}",
            hint=f"name one that this suite has, as {default_kernel}, or "
            f"{default_kernel}={kernels.BACKPORTS} for the suite's "
            "backports; an archive has the newest versions only",
        )
    if os.geteuid() != 0 and ("subuid" in text or "newuidmap" in text or "unshare" in text):
        return LabError(
            f"mmdebstrap could not build {image.suite} as an ordinary user\n{text}",
            hint="install uidmap and add your user to /etc/subuid and /etc/subgid, or run as root",
        )
    if "NO_PUBKEY" in text or "is not signed" in text:
        return LabError(
            f"building {image.suite} failed: {error}",
            hint=f"{host_table.suggest_packages('keyring')}, which has Debian's keys; ./setup.sh doctor "
            "does it",
        )
    return LabError(f"building {image.suite} failed: {error}", hint="is the package mirror reachable?")
