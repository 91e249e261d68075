"""What a folder or a package that is named as a kernel may hold to harm the host which reads it."""

import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import catalog
from lab.base.activity import UNWATCHED
from lab.base.errors import LabError, UsageError
from lab.catalog import DebianImage, kernels
from lab.images import debian
from tests.builders import packages
from tests.builders.facts import executable
from tests.unit.builds.test_hostile_builds import member
from tests.unit.catalog.test_kernels import MODULE, RT_GUEST, UNAME, image_of, put

TREE = f"lib/modules/{UNAME}"
pytestmark = pytest.mark.timeout(120)  # What is waited for is waited for without an end.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return put(tmp_path / "out", "vmlinuz", MODULE)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the host, with files that no guest is to get."""
    outside = put(tmp_path / "outside", "vmlinuz", MODULE)
    (outside / "secret").write_text("secret")
    (outside / "x.deb").write_bytes(packages.deb(bytes(1024)))
    return outside


def replace(file: Path, make: Callable[[Path], object]) -> None:
    if file.is_dir():
        file.rename(file.with_name("aside"))
    file.unlink(missing_ok=True)
    make(file)


def make_sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 40)


def link_to_outside(name: str) -> Callable[[Path], None]:
    """Makes a link to a path in `outside`, which is beside the folder `out`."""

    def make(link: Path) -> None:
        out = next(parent for parent in link.parents if parent.name == "out")
        link.symlink_to(out.with_name("outside") / name)

    return make


def make_device(file: Path) -> None:
    try:
        os.mknod(file, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root makes devices")


# fmt: off
FOLDERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a pipe as the kernel": ("vmlinuz", os.mkfifo, "this is not a regular file: .*/vmlinuz"),
    "a device as the kernel": ("vmlinuz", make_device, "this is not a regular file: .*/vmlinuz"),
    "an endless kernel": ("vmlinuz", make_sparse, "larger than 256 MiB"),
    "a link to a kernel": ("vmlinuz", link_to_outside("vmlinuz"), "vmlinuz of .*/out is a link that leads out"),
    "a link in a circle": ("vmlinuz", lambda file: file.symlink_to("vmlinuz"), "not a file or folder"),
    "a link to lib": ("lib", link_to_outside("lib"), f"{TREE} of .*/out is a link that leads out of it"),
    "a link to modules": (TREE, link_to_outside(TREE), f"{TREE} of .*/out is a link that leads out of it"),
    "a pipe among modules": (f"{TREE}/kernel/x.ko", os.mkfifo, r"x\.ko is neither a file nor a folder"),
    "a device among modules": (f"{TREE}/kernel/x.ko", make_device, r"x\.ko is neither a file nor a folder"),
    "an endless module": (f"{TREE}/kernel/x.ko", make_sparse, "more than 100000 files or 2 GiB"),
    "a link as the list": (f"{TREE}/{kernels.BUILTIN}", link_to_outside("secret"), "without modules.builtin"),
    "a pipe as a package": ("x.deb", os.mkfifo, r"x\.deb is neither a file nor a folder"),
    "an endless package": ("x.deb", make_sparse, "more than 100000 files or 2 GiB"),
    "a link to a package": ("x.deb", link_to_outside("x.deb"), r"x\.deb of .*/out is a link that leads"),
}
# fmt: on


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("case", FOLDERS)
def test_a_hostile_folder_is_refused_when_it_is_named(case: str, folder: Path) -> None:
    name, make, expected = FOLDERS[case]
    replace(folder / name, make)
    with pytest.raises(UsageError, match=expected) as error:
        kernels.parse_kernel(str(folder))
    assert error.value.hint


def test_a_folder_of_too_many_files_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "MOST_FILES", 50)
    for number in range(60):
        (folder / TREE / f"{number}").mkdir()
    with pytest.raises(UsageError, match="more than 50 files"):
        kernels.parse_kernel(str(folder))


def copied(path: Path, workspace: Path) -> dict[str, Path]:
    """What is copied of a kernel, by its path in the guest."""
    kernel = kernels.parse_kernel(str(path))
    assert kernel.path
    workspace.mkdir()
    tree = workspace / debian.KERNEL_FILES
    debian.copy_kernel(kernel, kernel.path, tree)
    return {
        str(file.relative_to(tree)): file for file in tree.rglob("*") if not file.is_dir() or file.is_symlink()
    }


WHOLE = {f"boot/vmlinuz-{UNAME}", f"usr/{MODULE}", f"usr/{TREE}/{kernels.BUILTIN}"}


def test_links_among_modules_are_left_out(folder: Path, outside: Path, tmp_path: Path) -> None:
    own = kernels.hash_content(folder)
    for name, target in {"again": ".", "up": "..", "etc": "/etc", "x.ko": str(outside / "secret")}.items():
        (folder / TREE / name).symlink_to(target)
        (folder / TREE / "kernel" / name).symlink_to(target)
    assert kernels.hash_content(folder) == own
    files = copied(folder, tmp_path / "workspace")
    assert set(files) == WHOLE
    assert not [file for file in files.values() if file.is_symlink()]


def test_a_link_within_the_folder_is_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "usr").mkdir()
    (folder / "lib").rename(folder / "usr/lib")
    (folder / "lib").symlink_to("usr/lib")
    (folder / "vmlinuz").rename(folder / "kernel")
    (folder / "vmlinuz").symlink_to(folder / "kernel")
    assert set(copied(folder, tmp_path / "workspace")) == WHOLE


def tar_of(*more: bytes, image: bytes = image_of(UNAME)) -> bytes:
    files = {"./vmlinuz": image, f"./{MODULE}": b"module", f"./{TREE}/{kernels.BUILTIN}": b""}
    return b"".join([*more, *(member(*file) for file in files.items()), bytes(1024)])


def link(name: str, target: object, kind: bytes = tarfile.SYMTYPE) -> bytes:
    return member(name, kind=kind, linkname=str(target))


def test_links_in_a_package_are_left_out(outside: Path, tmp_path: Path) -> None:
    names = ("./lib", "./usr", f"./{TREE}/build", "./boot", f"./{TREE}/kernel/fs/x.ko")
    (tmp_path / "x.deb").write_bytes(packages.deb(tar_of(*(link(name, outside) for name in names))))
    before = sorted(outside.rglob("*"))
    assert set(copied(tmp_path / "x.deb", tmp_path / "workspace")) == WHOLE
    assert sorted(outside.rglob("*")) == before


PACKAGES = {
    "a pipe": (
        member("./boot/vmlinuz", kind=tarfile.FIFOTYPE),
        "it holds './boot/vmlinuz'; expected only files",
    ),
    "a device": (
        member("./x", kind=tarfile.CHRTYPE, devmajor=1, devminor=5),
        "it holds './x'; expected only files",
    ),
    "another file": (link("./x", "/etc/passwd", tarfile.LNKTYPE), "it holds './x'; expected only files"),
    "above": (member("../above"), "it holds '../above'"),
    "root": (member("/above"), "it holds '/above'"),
    "many": (b"".join(member(f"./{number}") for number in range(60)), "it holds more than 50 files"),
    "large": (member("./large", bytes(8 << 20)), "it holds more than 0.00391 GiB"),
}


@pytest.mark.parametrize("case", PACKAGES)
def test_a_hostile_package_is_not_unpacked(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, expected = PACKAGES[case]
    monkeypatch.setattr("lab.base.archives.MOST_FILES", 50)
    monkeypatch.setattr(kernels, "MOST_BYTES", 4 << 20)
    (tmp_path / "x.deb").write_bytes(packages.deb(content + tar_of()))
    with pytest.raises(LabError, match=f"the kernel .* cannot be unpacked: {expected}") as error:
        copied(tmp_path / "x.deb", tmp_path / "workspace")
    assert error.value.hint
    assert not (tmp_path / "above").exists()
    sizes = [file.lstat().st_blocks * 512 for file in (tmp_path / "workspace").rglob("*") if not file.is_dir()]
    assert sum(sizes) <= 4 << 20


def test_all_packages_of_a_kernel_have_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "MOST_BYTES", 4 << 20)
    (tmp_path / "debs").mkdir()
    for number in range(2):
        content = packages.deb(member(f"./{number}", bytes(3 << 20)) + tar_of())
        (tmp_path / f"debs/{number}.deb").write_bytes(content)
    with pytest.raises(LabError, match="it holds more than"):
        copied(tmp_path / "debs", tmp_path / "workspace")


def test_a_package_that_says_without_end_what_it_is_says_nothing(tmp_path: Path) -> None:
    endless = member("./control", b"Architecture: riscv64\n".ljust(64 << 20, b"x")) + bytes(1024)
    (tmp_path / "x.deb").write_bytes(packages.deb(tar_of(), endless))
    assert kernels.parse_kernel(str(tmp_path / "x.deb")).architecture == ""


def test_what_a_package_is_for_is_read_without_unpacking_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    (tmp_path / "x.deb").write_bytes(packages.deb(tar_of()))
    assert kernels.parse_kernel(str(tmp_path / "x.deb")).architecture == "amd64"


FOREIGN = """
mkdir "$TMPDIR/kernel" && mkdir -p "$TMPDIR/kernel/etc" && echo taken
stat -c '%a %u' "$TMPDIR" "$TMPDIR/kernel" >"$SEEN"
exit 1
"""


def test_nobody_else_makes_the_folder_of_the_kernels_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody can write to an ordinary user's workspace, and the recipe takes whatever is in that folder."""
    executable(tmp_path / "bin/mmdebstrap", f"#!/bin/sh{FOREIGN}")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.setattr(debian, "ON_DISK", tmp_path)
    monkeypatch.setattr(debian, "IN_MEMORY", tmp_path / "no-memory")
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user or 1000)
    image = catalog.load_catalog().guest(RT_GUEST).image
    assert isinstance(image, DebianImage)
    with pytest.raises(LabError, match="File exists") as error:
        debian.build_image(image, tmp_path, UNWATCHED, timeout=60)
    assert "taken" not in str(error.value)
    assert (tmp_path / "seen").read_text() == f"1777 {user}\n755 {user}\n"
