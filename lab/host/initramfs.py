"""A tiny guest without an operating system: a kernel, the host's static busybox, a script that says a word."""

import gzip
import lzma
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.builds import rootfs
from lab.images import store
from lab.machine import seed
from lab.machine.domain import KernelBoot

LISTENS = "lab-proof: listening"
NO_DEVICE = "lab-proof: no network device"
# What a virtio network device needs, in the order of loading. What is built into the kernel has no file.
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
)
BOOT = Path("/boot")
MODULE_TREE = Path("/lib/modules")
ARGUMENTS = "console=ttyS0 panic=-1 rdinit=/lab/init"

# It pings the gateway once, so that passt learns the guest's hardware address before anybody connects.
INIT = f"""#!/lab/busybox sh
PATH=/lab
cd /lab
busybox mkdir -p /proc /sys /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
for name in {" ".join(MODULES)}; do
    for file in $(busybox find /lab /usr/lib/modules /lib/modules -name "$name.ko*"); do
        busybox insmod "$file" && break
    done
done 2>/dev/null
tries=0
until [ -e /sys/class/net/eth0 ]; do
    tries=$((tries + 1))
    [ $tries -lt 50 ] || {{ echo "{NO_DEVICE}"; busybox sleep 1000000; }}
    busybox usleep 100000
done
busybox ip link set lo up
busybox ip link set eth0 up
busybox ip addr add {seed.ADDRESS}/{seed.PREFIX} dev eth0
busybox ip route add default via {seed.GATEWAY}
busybox ping -c 1 -W 1 {seed.GATEWAY} >/dev/null 2>&1
echo "{LISTENS}"
exec busybox nc -ll -p 22 -e /lab/say
"""


class NoKernel(LabError):
    """There is nothing to boot a tiny guest from; the hint says what to do."""


@dataclass(frozen=True)
class Kernel:
    """A kernel and what has its modules: the initial RAM disk of an image, or the host's tree.

    `disk` is the disk of the image, which a lane would have too.
    """

    kernel: Path
    initrd: Path | None = None
    modules: Path | None = None
    disk: Path | None = None


def find_kernel(paths: Paths) -> Kernel:
    """The kernel of an image in the store, or else this host's own. Raises NoKernel."""
    image = store.any_image(paths)
    if image:
        return Kernel(image.kernel, initrd=image.initrd, disk=image.disk)
    modules = MODULE_TREE / platform.release()
    for kernel in (BOOT / f"vmlinuz-{platform.release()}", modules / "vmlinuz"):
        if kernel.exists() and os.access(kernel, os.R_OK):
            return Kernel(kernel, modules=modules)
    raise NoKernel(
        "there is no guest image yet, and no kernel of this host that this user may read",
        hint="lab images build debian-13, then lab doctor",
    )


def write(kernel: Kernel, initrd: Path, word: str) -> KernelBoot:
    """Write a tiny guest's initial RAM disk to `initrd`, and say how to boot it. It answers with `word`.

    Raises LabError if the host has no static busybox, OSError.
    """
    files = {
        "lab/busybox": rootfs.find_busybox().read_bytes(),
        "lab/init": INIT.encode(),
        "lab/say": f"#!/lab/busybox sh\necho {word}\n".encode(),
        **{f"lab/{name}.ko": content for name, content in _modules(kernel.modules)},
    }
    # The kernel unpacks all archives that follow each other, each at a multiple of four bytes:
    # https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
    first = kernel.initrd.read_bytes() if kernel.initrd else b""
    initrd.write_bytes(first + bytes(-len(first) % 4) + _archive(files))
    return KernelBoot(kernel.kernel, initrd, ARGUMENTS)


def _modules(tree: Path | None) -> Iterator[tuple[str, bytes]]:
    """The modules of the host's kernel, unpacked. Those compressed by zstd are left out.

    busybox cannot unpack them.
    """
    for name in MODULES if tree else ():
        assert tree is not None
        for file in sorted(tree.rglob(f"{name}.ko*")):
            content = file.read_bytes()
            if file.suffix == ".xz":
                yield name, lzma.decompress(content)
            elif file.suffix == ".gz":
                yield name, gzip.decompress(content)
            elif file.suffix == ".ko":
                yield name, content


def _archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive in the format `newc`, which the kernel unpacks: one folder, and programs in it."""
    members = [_member("lab", 0o040755, b"")]
    members += [_member(name, 0o100755, content) for name, content in files.items()]
    return b"".join([*members, _member("TRAILER!!!", 0, b"")])


def _member(name: str, mode: int, content: bytes) -> bytes:
    # inode, mode, owner, group, links, time, size, device, device of a node, length of the name, checksum
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
