"""Kernels that a guest can be given instead of its own: a package of its archive, a `.deb` file, or a folder.

A kernel has the name of its package or of its file. A file or a folder is also identified by its content: if
that changes, the guest gets another image, and a run from before is not resumed.
"""

import hashlib
import re
import stat
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab.base.architecture import AARCH64, ARCHITECTURES, X86_64
from lab.base.errors import UsageError
from lab.base.files import hash_file, open_regular, read_regular

# What --kernel calls the kernel that a guest has by default.
OWN = "own"
# A package of a kernel as apt takes it. `=backports` stands for whatever version the suite's backports have.
PACKAGE = re.compile(r"linux-image-[a-z0-9.+-]+(=[A-Za-z0-9.+~-]+)?(?<!\.deb)")
# The architecture is a word of the name: linux-image-6.12.57+deb13-arm64-16k.
OF_PACKAGE = re.compile(rf"-({'|'.join(arch.debian for arch in ARCHITECTURES.values())})(?![a-z0-9])")
BACKPORTS = "backports"
# What versions of packages in Debian's backports have in common.
BACKPORTED = "~bpo"
# A name is part of the guest's, and so of folders, of libvirt's machines and of command lines.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~=-]{0,99}")
# Where a folder has its kernel: as `make install`, `make bzImage` and `make Image.gz` leave it, and as packages
# have it.
MODULES = ("lib/modules", "usr/lib/modules")
IMAGES = (
    *("vmlinuz*", "bzImage", "boot/vmlinuz*", "arch/x86/boot/bzImage"),
    *("Image", "Image.gz", "arch/arm64/boot/Image", "arch/arm64/boot/Image.gz"),
    *(f"{modules}/*/vmlinuz*" for modules in MODULES),
)
# What is built in. Without it, a driver that is built in cannot be told from one that is absent.
BUILTIN = "modules.builtin"
DEB = b"!<arch>\n"
DEB_SECONDS = 60.0
# Prints what a package says of itself, and writes no file. The text comes with the digests of all files, which
# take 0.4 MiB in Debian's largest kernel.
CONTROL = 'dpkg-deb --ctrl-tarfile "$1" | head -c 10M | tar -xO --no-anchored control | head -c 64K'
FOR_ARCHITECTURE = re.compile(r"^Architecture:[ \t]*(\S+)", re.MULTILINE)
# The header of a kernel for x86, and where it says its release: https://docs.kernel.org/arch/x86/boot.html
HEADER, MAGIC_AT, RELEASE_AT, RELEASE_FROM = b"HdrS", 0x202, 0x20E, 0x200
# That of one for arm64 says no release, which is in the kernel's first message:
# https://docs.kernel.org/arch/arm64/booting.html
ARM64_HEADER, ARM64_AT, BANNER = b"ARM\x64", 0x38, re.compile(rb"Linux version (\S{1,100}) \(")
# Where EFI's compressed image has what it unpacks (drivers/firmware/efi/libstub/zboot-header.S).
ZBOOT, ZBOOT_AT, PAYLOAD_AT, SIZE_AT = b"zimg", 4, 8, 12
GZIP = b"\x1f\x8b"
# Bytes. Debian's kernels for arm64 have 40 MB, and QEMU unpacks no more than this.
LARGEST = 256 << 20
# What a kernel and its modules may have, unpacked: bytes, and files and folders. Debian's
# linux-image-6.12.118+deb13-amd64 has 112 MB in 5,210; one whose modules have symbols for debuggers has 1 GiB.
MOST_BYTES, MOST_FILES = 2 << 30, 100_000
LAYOUT = (
    "a folder has vmlinuz, bzImage or Image, and its modules below lib/modules/RELEASE (make modules_install "
    "INSTALL_MOD_PATH=FOLDER); or the .deb files of one kernel"
)
SMALLER = "leave out symbols for debuggers: packages with -dbg; or make modules_install INSTALL_MOD_STRIP=1"


@dataclass(frozen=True)
class Kernel:
    """A kernel that is not the guest's own.

    `argument` names it on a command line: a package, or the absolute path of a file or folder, whose `digest`
    is that of its content. `architecture` is Debian's word for what it runs on; empty if nothing says it.
    """

    name: str
    argument: str
    digest: str = ""
    architecture: str = ""

    @property
    def path(self) -> Path | None:
        """The file or folder; None for a package."""
        return Path(self.argument) if self.digest else None

    @property
    def identity(self) -> str:
        """What decides which kernel it is, wherever its file is."""
        return f"{self.name} {self.digest}".rstrip()

    @property
    def from_backports(self) -> bool:
        _, _, version = self.argument.partition("=")
        return not self.digest and (version == BACKPORTS or BACKPORTED in version)

    def package(self, suite: str) -> str:
        """The package as apt takes it."""
        name, _, version = self.argument.partition("=")
        return f"{name}/{suite}-{BACKPORTS}" if version == BACKPORTS else self.argument


@dataclass(frozen=True)
class KernelFiles:
    """The files of a kernel in a folder. `release` is what `uname -r` prints; `architecture` as in Kernel."""

    image: Path
    modules: Path
    release: str
    architecture: str


def parse_kernel(text: str) -> Kernel:
    """Return the kernel that PACKAGE[=VERSION], a .deb file or a folder names. Raises UsageError."""
    if PACKAGE.fullmatch(text) and NAME.fullmatch(text):
        word = OF_PACKAGE.search(text.partition("=")[0])
        return Kernel(text, text, architecture=word[1] if word else "")
    try:
        path = Path(text).expanduser().resolve()
        digest, architecture = digest_content(path), _architecture(path)
    except (OSError, ValueError, RuntimeError) as error:  # An unknown user's home, a null, a loop of links.
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else error
        raise UsageError(
            f"the kernel {text!r} is not a package linux-image-..., and not a file or folder that can be read: "
            f"{reason}",
            hint="for example: linux-image-rt-amd64, ./kernel.deb or ./folder",
        ) from error
    if not NAME.fullmatch(path.name):
        raise UsageError(
            f"the kernel {text!r} cannot be part of a guest's name: {path.name!r} has other characters than "
            "letters, digits and ._+~=-",
            hint="rename the file or folder",
        )
    return Kernel(path.name, str(path), digest, architecture)


@cache
def digest_content(path: Path) -> str:
    return hash_content(path)


def hash_content(path: Path) -> str:
    """Return the SHA-256 of a .deb file, or of a folder's kernel. Raises OSError, UsageError."""
    if debs := list_packages(path):
        files = _within_limits(debs, path)
    else:
        parts = find_kernel(path)
        files = [parts.image, *list_module_files(parts.modules)]
    lines = [f"{hash_file(file)} {file.relative_to(path.parent)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def list_module_files(modules: Path) -> list[Path]:
    """Return the files of a kernel's modules; links are left out. Raises OSError, UsageError.

    `build` and `source` are links to where the modules were made, on the host that made them.
    """
    return sorted(_within_limits(modules.rglob("*"), modules))


def _within_limits(paths: Iterable[Path], of: Path) -> list[Path]:
    """The regular files among these paths; folders and links are left out. Raises OSError, UsageError."""
    files, size = [], 0
    for count, path in enumerate(paths, 1):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            files.append(path)
            size += status.st_size
        elif not (stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise UsageError(f"{path} is neither a file nor a folder", hint=LAYOUT)
        if count > MOST_FILES or size > MOST_BYTES:
            raise UsageError(
                f"{of} has more than {MOST_FILES} files or {MOST_BYTES >> 30} GiB, the limit for a kernel",
                hint=SMALLER,
            )
    return files


@cache
def _architecture(path: Path) -> str:
    """What a .deb file, or a folder's kernel, runs on; every word if packages have several. Raises as above."""
    from lab.base import process  # It imports psutil, and each command that reads a catalog imports this.

    debs = list_packages(path)
    if not debs:
        return find_kernel(path).architecture
    words: set[str] = set()
    for deb in debs:
        # What is damaged is told when it is unpacked.
        with suppress(process.CommandFailed):
            printed = process.run_command(
                ["bash", "-o", "pipefail", "-c", CONTROL, "bash", deb], timeout=DEB_SECONDS
            )
            words.update(FOR_ARCHITECTURE.findall(printed)[:1])
    return " and ".join(sorted(words - {"all", ""}))


def list_packages(path: Path) -> list[Path]:
    """Return the .deb files that a path stands for; none if it is a folder with a kernel.

    Raises OSError, UsageError.
    """
    if path.is_dir():
        debs = [_inside(path, file) for file in sorted(path.glob("*.deb"))]
        return [file for file in debs if not file.is_symlink()]
    with open_regular(path) as file:
        if file.read(len(DEB)) == DEB:
            return [path]
    raise UsageError(f"{path} is not a .deb file", hint=LAYOUT)


def _inside(folder: Path, path: Path, called: str = "") -> Path:
    """A path in a folder that no link leads out of it. Raises OSError, UsageError.

    Otherwise a folder of somebody else could bring any file of this host into a guest.
    """
    if not path.resolve(strict=True).is_relative_to(folder.resolve()):
        raise UsageError(
            f"{path.relative_to(folder)} of {called or folder} is a link that leads out of it",
            hint="put the files themselves into the folder",
        )
    return path


def find_kernel(folder: Path, called: str = "") -> KernelFiles:
    """Return the one kernel in a folder. Errors name it `called`. Raises OSError, UsageError."""
    called = called or str(folder)
    files = [_inside(folder, file, called) for pattern in IMAGES for file in sorted(folder.glob(pattern))]
    # A build tree has both Image and what was compressed of it.
    images = {
        file.resolve(): file for file in files if file.with_suffix("") not in files or file.suffix != ".gz"
    }
    if len(images) != 1:
        names = ", ".join(str(file.relative_to(folder)) for file in images.values())
        has = f"has several kernels: {names}" if images else "has no kernel: neither vmlinuz, bzImage nor Image"
        raise UsageError(f"{called} {has}", hint=LAYOUT)
    [image] = images.values()
    release, architecture = _identify(image)
    if not NAME.fullmatch(release):
        raise UsageError(
            f"{image.relative_to(folder)} of {called} is not a kernel for x86-64 (bzImage) or arm64 (Image, "
            "also with gzip)",
            hint=LAYOUT,
        )
    for place in MODULES:
        if (modules := folder / place / release).is_dir():
            _inside(folder, modules, called)
            builtin = modules / BUILTIN
            if builtin.is_symlink() or not builtin.is_file():
                raise UsageError(
                    f"{called} has the modules of {release} without {BUILTIN}, the list of what is built in",
                    hint="`make modules_install` writes it; if it is in another package (in Debian 14 it is in "
                    f"linux-base-{release}), put that package into the folder, too",
                )
            return KernelFiles(image, modules, release, architecture)
    releases = sorted({entry.name for place in MODULES for entry in (folder / place).glob("*")})
    raise UsageError(
        f"{called} has the kernel {release} without its modules"
        + (f"; it has those of {', '.join(releases)}" if releases else ""),
        hint=f"{LAYOUT}; some distributions have the modules in a package of their own",
    )


def _identify(image: Path) -> tuple[str, str]:
    """The release of a kernel, and Debian's word for its architecture; both empty if the file is no kernel."""
    content = read_regular(image, LARGEST)
    if content.startswith(HEADER, MAGIC_AT):
        start = int.from_bytes(content[RELEASE_AT : RELEASE_AT + 2], "little") + RELEASE_FROM
        return content[start : start + 100].partition(b" ")[0].decode(errors="replace"), X86_64.debian
    if content.startswith(ZBOOT, ZBOOT_AT):
        start, size = (int.from_bytes(content[at : at + 4], "little") for at in (PAYLOAD_AT, SIZE_AT))
        content = content[start : start + size]
    if content.startswith(GZIP):
        with suppress(zlib.error):
            content = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(content, LARGEST)
    if content.startswith(ARM64_HEADER, ARM64_AT) and (banner := BANNER.search(content)):
        return banner[1].decode(errors="replace"), AARCH64.debian
    return "", ""
