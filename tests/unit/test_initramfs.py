import lzma
import os
import platform
import subprocess
from pathlib import Path

import pytest

from lab.base.paths import Paths
from lab.builds import rootfs
from lab.host import initramfs
from lab.host.initramfs import Kernel, NoKernel
from lab.images import store
from lab.machine.domain import KernelBoot
from tests.unit.examples import base_image


@pytest.fixture(autouse=True)
def busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "busybox"
    program.write_bytes(b"a static program")
    monkeypatch.setattr(rootfs, "find_busybox", lambda: program)
    return program


def unpacked(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """The mode and content of each file of archives that follow each other, as the kernel reads them."""
    found, at = {}, 0
    while at < len(archive):
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = archive[at + 110 : at + 110 + fields[11] - 1].decode()
        start = at + (110 + fields[11] + 3) // 4 * 4
        found[name] = (fields[1], archive[start : start + fields[6]])
        at = start + (fields[6] + 3) // 4 * 4
    return found


def test_the_guest_has_a_busybox_and_a_script_that_says_its_word(tmp_path: Path) -> None:
    boot = initramfs.write(Kernel(tmp_path / "vmlinuz"), tmp_path / "made", "the-word")
    assert boot == KernelBoot(tmp_path / "vmlinuz", tmp_path / "made", initramfs.ARGUMENTS)
    files = unpacked((tmp_path / "made").read_bytes())
    assert list(files) == ["lab", "lab/busybox", "lab/init", "lab/say", "TRAILER!!!"]
    assert files["lab"] == (0o040755, b"")
    assert files["lab/busybox"] == (0o100755, b"a static program")
    assert files["lab/say"] == (0o100755, b"#!/lab/busybox sh\necho the-word\n")
    assert "rdinit=/lab/init" in boot.arguments


def test_its_first_program_is_a_shell_script_without_mistakes(tmp_path: Path) -> None:
    script = tmp_path / "init"
    script.write_text(initramfs.INIT)
    done = subprocess.run(["sh", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_module_is_loaded_after_those_it_needs() -> None:
    # `modinfo -F depends` in Debian 12's kernel 6.1; later kernels have more of it built in.
    needs: dict[str, list[str]] = {
        "virtio_ring": [],
        "virtio": ["virtio_ring"],
        "virtio_pci_legacy_dev": [],
        "virtio_pci_modern_dev": [],
        "virtio_pci": ["virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio"],
        "failover": [],
        "net_failover": ["failover"],
        "virtio_net": ["virtio_ring", "virtio", "net_failover"],
    }
    assert sorted(initramfs.MODULES) == sorted(needs)
    for place, name in enumerate(initramfs.MODULES):
        assert set(needs[name]) <= set(initramfs.MODULES[:place]), name


@pytest.mark.parametrize("length", [4, 5])
def test_an_image_s_own_files_come_first_and_the_lab_s_begin_at_a_multiple_of_four_bytes(
    tmp_path: Path, length: int
) -> None:
    (tmp_path / "initrd").write_bytes(b"x" * length)
    initramfs.write(Kernel(tmp_path / "vmlinuz", initrd=tmp_path / "initrd"), tmp_path / "made", "word")
    made = (tmp_path / "made").read_bytes()
    assert made.startswith(b"x" * length)
    assert "lab/init" in unpacked(made[made.index(b"070701") :])
    assert made.index(b"070701") % 4 == 0


def test_the_host_s_kernel_gets_the_modules_that_busybox_can_load(tmp_path: Path) -> None:
    drivers = tmp_path / "modules/kernel/drivers"
    drivers.mkdir(parents=True)
    (drivers / "virtio_net.ko.xz").write_bytes(lzma.compress(b"a driver"))
    (drivers / "failover.ko").write_bytes(b"plain")
    (drivers / "virtio_pci.ko.zst").write_bytes(b"busybox cannot unpack it")
    (drivers / "e1000.ko").write_bytes(b"another device's")
    initramfs.write(Kernel(tmp_path / "vmlinuz", modules=tmp_path / "modules"), tmp_path / "made", "word")
    files = unpacked((tmp_path / "made").read_bytes())
    assert {name: content for name, (_, content) in files.items() if name.endswith(".ko")} == {
        "lab/failover.ko": b"plain",
        "lab/virtio_net.ko": b"a driver",
    }


def test_the_kernel_of_an_image_is_preferred_to_the_host_s(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initramfs, "BOOT", tmp_path)
    monkeypatch.setattr(initramfs, "MODULE_TREE", tmp_path / "modules")
    with pytest.raises(
        NoKernel, match="no guest image yet, and no kernel of this host that this user may read"
    ):
        initramfs.find_kernel(paths)
    own = tmp_path / f"vmlinuz-{platform.release()}"
    own.touch()
    tree = tmp_path / "modules" / platform.release()
    assert initramfs.find_kernel(paths) == Kernel(own, modules=tree)
    image = base_image(paths.images)
    monkeypatch.setattr(store, "any_image", lambda _paths: image)
    found = initramfs.find_kernel(paths)
    assert (found.kernel, found.initrd, found.disk) == (image.kernel, image.initrd, image.disk)


def test_a_kernel_that_only_root_may_read_is_none(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initramfs, "BOOT", tmp_path)
    monkeypatch.setattr(initramfs, "MODULE_TREE", tmp_path / "modules")
    (tmp_path / f"vmlinuz-{platform.release()}").touch(0o600)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NoKernel) as raised:
        initramfs.find_kernel(paths)
    assert raised.value.hint == "lab images build debian-13, then lab doctor"
