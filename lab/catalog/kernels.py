"""Kernels that a guest can be given instead of its own: a package of its archive, a `.deb` file, or a folder.

A kernel has the name of its package or of its file. A file or a folder is also identified by its content: if
that changes, the guest gets another image, and a run from before is not resumed.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab.base.errors import UsageError
from lab.base.files import sha256

# What --kernel calls the kernel that a guest has by default.
OWN = "own"
# A package of a kernel as apt takes it. `=backports` stands for whatever version the suite's backports have.
PACKAGE = re.compile(r"linux-image-[a-z0-9.+-]+(=[A-Za-z0-9.+~-]+)?(?<!\.deb)")
BACKPORTS = "backports"
# What versions of packages in Debian's backports have in common.
BACKPORTED = "~bpo"
# A name is part of the guest's, and so of folders, of libvirt's machines and of command lines.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~=-]{0,99}")
# Where a folder has its kernel: as `make install` and `make bzImage` leave it, and as packages have it.
MODULES = ("lib/modules", "usr/lib/modules")
IMAGES = (
    *("vmlinuz*", "bzImage", "boot/vmlinuz*", "arch/x86/boot/bzImage"),
    *(f"{modules}/*/vmlinuz*" for modules in MODULES),
)
# What is built in. Without it, a driver that is built in cannot be told from one that is absent.
BUILTIN = "modules.builtin"
DEB = b"!<arch>\n"
# The header of a kernel for x86, and where it says its release: https://docs.kernel.org/arch/x86/boot.html
HEADER, MAGIC_AT, RELEASE_AT, RELEASE_FROM = b"HdrS", 0x202, 0x20E, 0x200
LAYOUT = (
    "a folder has vmlinuz or bzImage, and its modules below lib/modules/RELEASE (make modules_install "
    "INSTALL_MOD_PATH=FOLDER); or the .deb files of one kernel"
)


@dataclass(frozen=True)
class Kernel:
    """A kernel that is not the guest's own.

    `argument` names it on a command line: a package, or the absolute path of a file or folder, whose `digest`
    is that of its content.
    """

    name: str
    argument: str
    digest: str = ""

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
    """The files of a kernel in a folder. `release` is what `uname -r` prints."""

    image: Path
    modules: Path
    release: str


def parse(text: str) -> Kernel:
    """Return the kernel that PACKAGE[=VERSION], a .deb file or a folder names. Raises UsageError."""
    if PACKAGE.fullmatch(text) and NAME.fullmatch(text):
        return Kernel(text, text)
    try:
        path = Path(text).expanduser().resolve()
        digest = _content(path)
    except (OSError, ValueError, RuntimeError) as error:  # An unknown user's home, a null, a loop of links.
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"the kernel {text!r} is no package linux-image-..., and no file or folder that can be read: {why}",
            hint="for example: linux-image-rt-amd64, ./kernel.deb or ./folder",
        ) from error
    if not NAME.fullmatch(path.name):
        raise UsageError(
            f"the kernel {text!r} cannot be part of a guest's name: {path.name!r} has other characters than "
            "letters, digits and ._+~=-",
            hint="rename the file or folder",
        )
    return Kernel(path.name, str(path), digest)


@cache
def _content(path: Path) -> str:
    return content(path)


def content(path: Path) -> str:
    """Return the SHA-256 of a .deb file, or of a folder's kernel. Raises OSError, UsageError."""
    if debs := packages(path):
        files = debs
    else:
        parts = find_in(path)
        files = [parts.image, *sorted(file for file in parts.modules.rglob("*") if _is_file(file))]
    lines = [f"{sha256(file)} {file.relative_to(path.parent)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _is_file(path: Path) -> bool:
    # `build` and `source` lead to where the modules were made.
    return path.is_file() and not path.is_symlink()


def packages(path: Path) -> list[Path]:
    """Return the .deb files that a path stands for; none if it is a folder with a kernel. Raises OSError."""
    if path.is_dir():
        return sorted(path.glob("*.deb"))
    # A pipe, which a record of somebody else may name, would be waited for.
    if path.is_file() or not path.exists():
        with path.open("rb") as file:
            if file.read(len(DEB)) == DEB:
                return [path]
    raise UsageError(f"{path} is no .deb file", hint=LAYOUT)


def find_in(folder: Path, called: str = "") -> KernelFiles:
    """Return the one kernel in a folder. Errors name it `called`. Raises OSError, UsageError."""
    called = called or str(folder)
    images = {file.resolve(): file for pattern in IMAGES for file in sorted(folder.glob(pattern))}
    if len(images) != 1:
        names = ", ".join(str(file.relative_to(folder)) for file in images.values())
        has = f"has several kernels: {names}" if images else "has no kernel: neither vmlinuz nor bzImage"
        raise UsageError(f"{called} {has}", hint=LAYOUT)
    [image] = images.values()
    release = _release(image)
    if not release:
        raise UsageError(f"{image.relative_to(folder)} of {called} is no kernel for x86 (bzImage)", hint=LAYOUT)
    for place in MODULES:
        if (modules := folder / place / release).is_dir():
            if not (modules / BUILTIN).is_file():
                raise UsageError(
                    f"{called} has the modules of {release} without {BUILTIN}, the list of what is built in",
                    hint="`make modules_install` writes it; if it is in another package (in Debian 14 it is in "
                    f"linux-base-{release}), put that package into the folder, too",
                )
            return KernelFiles(image, modules, release)
    there = sorted({entry.name for place in MODULES for entry in (folder / place).glob("*")})
    raise UsageError(
        f"{called} has the kernel {release} without its modules"
        + (f"; it has those of {', '.join(there)}" if there else ""),
        hint=f"{LAYOUT}; some distributions have the modules in a package of their own",
    )


def _release(image: Path) -> str:
    """Return the release of a kernel; empty if the file is no kernel for x86."""
    with image.open("rb") as file:
        head = file.read(1 << 16)
    if head[MAGIC_AT : MAGIC_AT + len(HEADER)] != HEADER:
        return ""
    start = int.from_bytes(head[RELEASE_AT : RELEASE_AT + 2], "little") + RELEASE_FROM
    release = head[start : start + 100].partition(b" ")[0].decode(errors="replace")
    return release if NAME.fullmatch(release) else ""
