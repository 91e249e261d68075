"""Kernels other than a guest's own: what names one, what is in a file or folder, and such guests."""

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import catalog, plan
from lab.base.activity import UNWATCHED
from lab.base.errors import LabError, UsageError
from lab.base.paths import Paths, find_definitions
from lab.builds.kinds.wheel import Wheel
from lab.catalog import DebianImage, Guest, Set, kernels
from lab.check import distributions, results
from lab.images import debian, store
from lab.lane import prepare_image
from lab.machine import acceleration
from lab.merge import merge_shards
from lab.record import CellResult, RunOptions, Status, strip_kernel
from lab.report import table
from lab.run import start
from tests.builders.cells import cell as cell_result
from tests.builders.facts import executable, facts
from tests.builders.facts import put as put_texts
from tests.builders.guests import base_image, put_image
from tests.builders.runs import run_of

KNOWN = catalog.load_catalog()
RELEASE = Wheel("0.10.8", "0.10.8")
RT = "linux-image-rt-amd64"
RT_GUEST = f"debian-13@{RT}"
UNAME = "6.17.0-5-generic"


@pytest.fixture(autouse=True)
def forget_contents() -> None:
    kernels.digest_content.cache_clear()


def image_of(release: str) -> bytes:
    """As much of a kernel for x86 as is looked at: the header, and the text that it leads to."""
    header = bytearray(0x400)
    header[0x202:0x206] = b"HdrS"
    header[0x20E:0x210] = (0x200).to_bytes(2, "little")
    return bytes(header) + f"{release} (builder@host) #1 SMP".encode() + b"\0"


def put(folder: Path, *names: str, release: str = UNAME) -> Path:
    """Make the files of a kernel in a folder: images, and modules below a folder of their release."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"{name}".encode() if "/kernel/" in name else image_of(release))
        if "/kernel/" in name:
            (Path(*file.parts[: file.parts.index("kernel")]) / kernels.BUILTIN).touch()
    return folder


MODULE = f"lib/modules/{UNAME}/kernel/fs/ext4.ko"


def arm64_image_of(release: str) -> bytes:
    """As much of a kernel for arm64 as is looked at: the header, and its first message somewhere behind."""
    header = bytearray(b"MZ".ljust(0x400, b"\0"))
    header[0x38:0x3C] = b"ARMd"
    return bytes(header) + f"Linux version {release} (builder@host) #1 SMP\n".encode() + b"\0"


def zboot_of(image: bytes) -> bytes:
    """The image as EFI's compressed one, with gzip."""
    payload = gzip.compress(image)
    sizes = (0x100).to_bytes(4, "little") + len(payload).to_bytes(4, "little")
    return (b"MZ\0\0zimg" + sizes).ljust(0x100, b"\0") + payload + b"the rest"


# -- what names a kernel


@pytest.mark.parametrize(
    ("text", "package", "backports"),
    [
        (RT, RT, False),
        ("linux-image-6.12.57+deb13-amd64", "linux-image-6.12.57+deb13-amd64", False),
        ("linux-image-amd64=6.12.57-1", "linux-image-amd64=6.12.57-1", False),
        ("linux-image-amd64=6.12.43-1~bpo12+1", "linux-image-amd64=6.12.43-1~bpo12+1", True),
        ("linux-image-amd64=backports", "linux-image-amd64/bookworm-backports", True),
    ],
)
def test_a_package_may_have_a_version_or_come_from_backports(text: str, package: str, backports: bool) -> None:
    kernel = kernels.parse_kernel(text)
    assert (kernel.name, kernel.argument, kernel.path, kernel.identity) == (text, text, None, text)
    assert (kernel.package("bookworm"), kernel.from_backports) == (package, backports)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bubblewrap", "is not a package linux-image-.*No such file"),
        ("linux-image-x;reboot", "No such file"),
        ("linux-image-rt-amd64/trixie", "No such file"),
        ("linux-image-x.deb", "No such file"),
        ("a\0b", "not a file or folder that can be read"),
        ("text", "is not a .deb file"),
        ("empty", "has no kernel: neither vmlinuz, bzImage nor Image"),
        ("pipe", "this is not a regular file: .*/pipe"),
        ("has spaces", "cannot be part of a guest's name: 'has spaces'"),
    ],
)
def test_what_names_no_kernel_is_wrong_usage(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    put(tmp_path / "has spaces", "vmlinuz", MODULE)
    with pytest.raises(UsageError, match=expected) as error:
        kernels.parse_kernel(text)
    assert error.value.hint


@pytest.mark.parametrize(
    ("names", "image"),
    [
        (("vmlinuz", MODULE), "vmlinuz"),
        ((f"vmlinuz-{UNAME}", MODULE), f"vmlinuz-{UNAME}"),
        (("bzImage", MODULE), "bzImage"),
        (("arch/x86/boot/bzImage", MODULE), "arch/x86/boot/bzImage"),
        ((f"boot/vmlinuz-{UNAME}", f"usr/{MODULE}"), f"boot/vmlinuz-{UNAME}"),
        ((f"usr/lib/modules/{UNAME}/vmlinuz", f"usr/{MODULE}"), f"usr/lib/modules/{UNAME}/vmlinuz"),
        # The modules of other kernels do not matter.
        (("vmlinuz", MODULE, "lib/modules/6.1/kernel/x.ko"), "vmlinuz"),
    ],
)
def test_a_kernel_is_found_where_builds_put_it(names: Sequence[str], image: str, tmp_path: Path) -> None:
    folder = put(tmp_path, *names)
    files = kernels.find_kernel(folder)
    assert (str(files.image.relative_to(folder)), files.release, files.modules.name) == (image, UNAME, UNAME)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("vmlinuz", "bzImage", MODULE), "has several kernels: vmlinuz, bzImage"),
        (("vmlinuz",), f"has the kernel {UNAME} without its modules$"),
        (
            ("vmlinuz", "lib/modules/6.1/kernel/x.ko"),
            f"has the kernel {UNAME} without its modules; it has those of 6.1",
        ),
    ],
)
def test_a_folder_has_one_kernel_with_its_modules(names: Sequence[str], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        kernels.find_kernel(put(tmp_path, *names), "FOLDER")
    assert re.search(f"^FOLDER {expected}", str(error.value).splitlines()[0])


def test_a_folder_without_the_list_of_what_is_built_in_is_told_as_that(tmp_path: Path) -> None:
    put(tmp_path, "vmlinuz", MODULE)
    (tmp_path / "lib/modules" / UNAME / kernels.BUILTIN).unlink()
    with pytest.raises(UsageError, match=f"without {kernels.BUILTIN}") as error:
        kernels.find_kernel(tmp_path)
    assert f"linux-base-{UNAME}" in (error.value.hint or "")


def test_a_file_that_is_no_kernel_is_told_as_that(tmp_path: Path) -> None:
    put(tmp_path, MODULE)
    whole = arm64_image_of(UNAME)
    damaged = (gzip.compress(whole)[:20], zboot_of(b""), whole[:0x400], arm64_image_of("../x"))
    for content in (b"", b"\x7fELF", image_of(""), image_of("../x"), *damaged):
        (tmp_path / "vmlinuz").write_bytes(content)
        with pytest.raises(UsageError, match=r"vmlinuz of .* is not a kernel for x86"):
            kernels.find_kernel(tmp_path)


@pytest.mark.parametrize(
    ("names", "image"),
    [
        (("Image",), "Image"),
        (("arch/arm64/boot/Image", "arch/arm64/boot/Image.gz"), "arch/arm64/boot/Image"),
        (("arch/arm64/boot/Image.gz",), "arch/arm64/boot/Image.gz"),
        ((f"boot/vmlinuz-{UNAME}",), f"boot/vmlinuz-{UNAME}"),
        (("vmlinuz.efi",), "vmlinuz.efi"),
    ],
)
def test_a_kernel_for_arm64_is_known_by_its_header(names: Sequence[str], image: str, tmp_path: Path) -> None:
    whole = arm64_image_of(UNAME)
    put(tmp_path, *names, MODULE)
    for name in names:
        packed = {".gz": gzip.compress(whole), ".efi": zboot_of(whole)}.get(Path(name).suffix, whole)
        (tmp_path / name).write_bytes(packed)
    files = kernels.find_kernel(tmp_path)
    assert (str(files.image.relative_to(tmp_path)), files.release, files.architecture) == (
        image,
        UNAME,
        "arm64",
    )


def test_a_kernel_with_a_longer_release_is_a_second_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has several kernels: vmlinuz-6\.17, vmlinuz-6\.17\.0"):
        kernels.find_kernel(put(tmp_path, "vmlinuz-6.17", "vmlinuz-6.17.0", MODULE))


def test_one_kernel_under_two_names_is_one(tmp_path: Path) -> None:
    put(tmp_path, f"vmlinuz-{UNAME}", MODULE)
    (tmp_path / "vmlinuz").symlink_to(f"vmlinuz-{UNAME}")
    assert kernels.find_kernel(tmp_path).release == UNAME


def test_a_folder_is_known_by_the_content_of_its_kernel(tmp_path: Path) -> None:
    for place in ("a", "b"):
        put(tmp_path / place / "out", "vmlinuz", MODULE)
    here = kernels.parse_kernel(str(tmp_path / "a/out"))
    assert here.identity == kernels.parse_kernel(str(tmp_path / "b/out")).identity
    assert (here.name, here.argument) == ("out", str(tmp_path / "a/out"))
    # Neither what else is there, nor where the modules were made.
    (tmp_path / "a/out/notes").touch()
    (tmp_path / f"a/out/lib/modules/{UNAME}/build").symlink_to("/")
    assert kernels.hash_content(tmp_path / "a/out") == here.digest
    seen = {here.digest}
    for change in (MODULE, f"{MODULE}.new"):
        (tmp_path / "a/out" / change).write_text("other")
        seen.add(kernels.hash_content(tmp_path / "a/out"))
    assert len(seen) == 3


# -- the guest


def test_a_guest_with_another_kernel_is_a_guest_of_its_own() -> None:
    own, guest = KNOWN.guest("debian-13"), KNOWN.guest(RT_GUEST)
    assert (guest.name, guest.argument, strip_kernel(guest.name)) == (RT_GUEST, RT_GUEST, "debian-13")
    assert own.kernel is None
    assert guest.kernel == kernels.parse_kernel(RT)
    assert RT in guest.title
    assert RT in guest.image.origin
    assert store.compute_inputs_digest(guest) != store.compute_inputs_digest(own)
    # Packages of a run under load are added to it.
    assert guest.with_packages("stress-ng").kernel == guest.kernel


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("debian-99@linux-image-rt-amd64", "no guest is called 'debian-99'"),
        ("debian-13@", "has no kernel: neither"),
        ("debian-13@rt", "the kernel 'rt' is not a package"),
        (f"ubuntu-24.04@{RT}", "ubuntu-24.04 starts the kernel on its distribution's disk"),
    ],
)
def test_a_guest_whose_kernel_cannot_be_chosen_is_wrong_usage(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=expected) as error:
        KNOWN.guest(name)
    assert error.value.exit_status == 2


@pytest.fixture
def kernels_of_both(tmp_path: Path) -> dict[str, str]:
    """What names a kernel, with Debian's word for its architecture."""
    put(tmp_path / "amd64", "vmlinuz", MODULE)
    put(tmp_path / "arm64", "Image", MODULE)
    (tmp_path / "arm64/Image").write_bytes(arm64_image_of(UNAME))
    made = {str(tmp_path / word): word for word in ("amd64", "arm64")}
    for number, (word, others) in enumerate([("amd64", []), ("arm64", ["all"]), ("arm64", ["riscv64"])]):
        for architecture in (word, *others):
            make_deb(put(tmp_path / f"debs-{number}/x", "boot/vmlinuz"), f"linux-{architecture}", architecture)
        made[str(tmp_path / f"debs-{number}")] = " and ".join([word, *(o for o in others if o != "all")])
    return {
        RT: "amd64",
        "linux-image-6.12.57+deb13-amd64=6.12.57-1": "amd64",
        "linux-image-arm64-16k": "arm64",
        "linux-image-cloud-arm64=backports": "arm64",
        **made,
        str(tmp_path / "debs-0/linux-amd64.deb"): "amd64",
    }


def test_a_kernel_for_another_architecture_than_the_guests_is_wrong_usage(
    kernels_of_both: dict[str, str],
) -> None:
    for text, word in kernels_of_both.items():
        for guest, own in (("debian-13", "amd64"), ("debian-13-arm64", "arm64")):
            if word == own:
                assert KNOWN.guest(f"{guest}@{text}").kernel == kernels.parse_kernel(text)
                continue
            with pytest.raises(UsageError) as error:
                KNOWN.guest(f"{guest}@{text}")
            assert f"is a kernel for {word}, and {guest} is a guest of {own}" in str(error.value)
            assert error.value.exit_status == 2
    assert {"amd64", "arm64", "arm64 and riscv64"} == set(kernels_of_both.values())


def test_a_package_that_names_no_architecture_is_left_to_apt() -> None:
    for text in ("linux-image-686-pae", "linux-image-amd64x"):
        assert KNOWN.guest(f"debian-13-arm64@{text}").kernel == kernels.parse_kernel(text)


def chosen(**more: Any) -> list[str]:
    return [guest.name for guest in plan.choose_cells(KNOWN, **more).guests]


def test_each_guest_has_each_kernel() -> None:
    assert chosen(guests=["debian-12", "debian-13"], kernels=["own", RT, RT]) == [
        "debian-12",
        f"debian-12@{RT}",
        "debian-13",
        RT_GUEST,
    ]
    assert chosen(guests=["debian-13"]) == ["debian-13"]


def test_a_set_names_kernels_which_the_command_line_replaces() -> None:
    made = Set(
        name="rt", title="", guests=["debian-13"], variants=["stock"], kernels=["own", RT], remedies=True
    )
    with_set = replace(KNOWN, sets={"rt": made})
    for more, names in (({}, ["debian-13", RT_GUEST]), ({"kernels": ["own"]}, ["debian-13"])):
        choice = plan.choose_cells(with_set, set_name="rt", **more)
        assert [guest.name for guest in choice.guests] == names


def test_a_second_kernel_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names its kernel"):
        chosen(guests=[RT_GUEST], kernels=["linux-image-amd64"])
    paths = [str(put(tmp_path / place / "out", "vmlinuz", MODULE)) for place in ("a", "b")]
    with pytest.raises(UsageError, match="would both be called debian-13@out"):
        chosen(guests=["debian-13"], kernels=paths)
    # One path, written in two ways.
    assert chosen(guests=["debian-13"], kernels=[paths[0], f"{tmp_path}/b/../a/out"]) == ["debian-13@out"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return put(tmp_path / "out", "vmlinuz", MODULE)


def cell_of(kernel: str) -> plan.Cell:
    [cell] = plan.choose_cells(KNOWN, guests=["debian-13"], variants=["stock"], kernels=[kernel]).cells(
        [RELEASE]
    )
    return cell


def test_a_cell_says_which_kernel_was_asked_for_and_how_to_run_it_again(folder: Path) -> None:
    for kernel, name in ((RT, RT_GUEST), (str(folder), "debian-13@out")):
        cell = cell_of(kernel)
        result = cell.result(Status.PASS)
        assert (result.guest, result.kernel, str(result.folder)) == (name, kernel, f"cells/{name}/stock/0.10.8")
        assert result.guest_argument == f"debian-13@{kernel}"
        words = cell.rerun(RunOptions()).split()
        assert words[words.index("-g") + 1] == result.guest_argument
        assert KNOWN.guest(result.guest_argument) == KNOWN.guest(result.guest, result.kernel) == cell.guest
    own = (
        plan.choose_cells(KNOWN, guests=["debian-13"], variants=["stock"])
        .cells([RELEASE])[0]
        .result(Status.PASS)
    )
    assert (own.guest, own.kernel, own.guest_argument) == ("debian-13", "", "debian-13")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (None, ""),
        (lambda folder: (folder / MODULE).write_text("rebuilt"), "changed since: guest debian-13@out"),
        (shutil.rmtree, "the kernel '.*/out' is not a package .*No such file"),
    ],
)
def test_a_run_is_resumed_with_the_same_file_only(
    change: Callable[[Path], object] | None, expected: str, folder: Path, tmp_path: Path
) -> None:
    cell, options = cell_of(str(folder)), RunOptions()
    begun = start.begin_run(tmp_path / "run", [cell], command="lab matrix", options=options)
    begun.folder.mkdir()
    run = run_of(cell.result(Status.NOT_RUN), builds=begun.info.builds, definitions=begun.info.definitions)
    kernels.digest_content.cache_clear()
    if change is None:
        resumed = start.resume_run(begun.folder, run, KNOWN)
        assert resumed.cells_to_run == [cell]
        return
    change(folder)
    with pytest.raises(UsageError, match=expected):
        start.resume_run(begun.folder, run, KNOWN)


def test_the_cells_of_a_lost_shard_have_their_kernels(folder: Path, tmp_path: Path) -> None:
    cells = plan.choose_cells(
        KNOWN, guests=["debian-13"], variants=["stock", "userns-clone-off"], kernels=[RT, str(folder)]
    ).cells([RELEASE])
    shard = plan.Shard(2, 2)
    made = start.begin_run(tmp_path / "shard", cells, command="lab matrix", options=RunOptions(), shard=shard)
    here = [made.cells[-1].result(Status.PASS)]
    lost = run_of(*here, builds=made.info.builds, shard=made.info.shard)
    assert lost.run.shard
    lost.run.shard.sizes[:] = [len(cells) - 1, 1]
    merged = merge_shards([(tmp_path / "shard", lost)], tmp_path / "whole", partial=True)
    assert [(cell.guest, cell.kernel) for cell in merged.cells] == [
        *[(RT_GUEST, RT)] * 2,
        *[("debian-13@out", str(folder))] * 2,
    ]
    assert f"-g debian-13@{folder} " in merged.cells[2].rerun


# -- the image


def call_for(guest: Guest) -> list[str]:
    assert isinstance(guest.image, DebianImage)
    return [str(word) for word in debian.build_command(guest.image, guest.architecture)]


@pytest.mark.parametrize(
    ("name", "package", "archives"),
    [
        ("debian-13", "linux-image-cloud-amd64", 0),
        (RT_GUEST, RT, 0),
        ("debian-12@linux-image-amd64=backports", "linux-image-amd64/bookworm-backports", 1),
        ("debian-13-backports@linux-image-amd64", "linux-image-amd64", 1),
        ("debian-13-arm64", "linux-image-cloud-arm64", 0),
        ("debian-13-arm64@linux-image-arm64-16k", "linux-image-arm64-16k", 0),
    ],
)
def test_a_guest_gets_the_package_of_its_kernel_alone(name: str, package: str, archives: int) -> None:
    call = call_for(KNOWN.guest(name))
    [include] = [word for word in call if word.startswith("--include=")]
    names = include.removeprefix("--include=").split(",")
    assert [word for word in names if word.startswith("linux-image")] == [package]
    assert sum("backports.list" in word for word in call) == archives
    hooks = [word for word in call if word.startswith("--customize-hook=")]
    assert [debian.KERNEL_RECIPE in hook for hook in hooks] == ([True, False] if "@" in name else [False])


def test_a_guest_with_a_file_gets_no_package_of_a_kernel(folder: Path) -> None:
    [include] = [word for word in call_for(KNOWN.guest(f"debian-13@{folder}")) if "--include=" in word]
    assert "linux-image" not in include


def make_deb(folder: Path, name: str, architecture: str = "all") -> None:
    """Make a package of the files in a folder, beside the folder."""
    (folder / "DEBIAN").mkdir()
    (folder / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: {architecture}\nMaintainer: x <x@example.org>\n"
        "Description: x\n"
    )
    executable(folder / "DEBIAN" / "postinst", "#!/bin/sh\nexit 1\n")
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", folder, folder.with_name(f"{name}.deb")],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(folder)


def test_the_kernel_of_a_file_or_a_folder_is_put_where_the_guest_has_it(folder: Path, tmp_path: Path) -> None:
    (folder / f"lib/modules/{UNAME}/build").symlink_to("/usr/src")
    (folder / "vmlinuz").chmod(0o600)  # As Ubuntu's package has it.
    make_deb(put(tmp_path / "one/x", f"boot/vmlinuz-{UNAME}", MODULE), "linux-image")
    make_deb(put(tmp_path / "two/x", f"boot/vmlinuz-{UNAME}"), "linux-image")
    make_deb(put(tmp_path / "two/y", f"usr/{MODULE}"), "linux-modules")
    for number, path in enumerate((folder, tmp_path / "one/linux-image.deb", tmp_path / "two")):
        kernel = kernels.parse_kernel(str(path))
        assert kernel.path
        workspace = tmp_path / f"workspace-{number}"
        workspace.mkdir()
        tree = workspace / debian.KERNEL_FILES
        debian.copy_kernel(kernel, kernel.path, tree)
        files = {str(file.relative_to(tree)): file for file in tree.rglob("*") if not file.is_dir()}
        builtin = f"usr/lib/modules/{UNAME}/{kernels.BUILTIN}"
        assert set(files) == {f"boot/vmlinuz-{UNAME}", f"usr/{MODULE}", builtin}
        assert all(file.stat().st_mode & 0o444 == 0o444 for file in files.values())
        assert [entry.name for entry in workspace.iterdir()] == [debian.KERNEL_FILES]


def test_a_package_without_modules_is_told_as_that(tmp_path: Path) -> None:
    make_deb(put(tmp_path / "x", f"boot/vmlinuz-{UNAME}"), "linux-image")
    kernel = kernels.parse_kernel(str(tmp_path / "linux-image.deb"))
    assert kernel.path
    with pytest.raises(UsageError, match=f"linux-image.deb has the kernel {UNAME} without its modules"):
        debian.copy_kernel(kernel, kernel.path, tmp_path / "tree")


@pytest.mark.parametrize("content", ["!<arch>\nand no more", None])
def test_a_file_that_is_damaged_or_changed_is_no_image(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "x.deb"
    file.write_text(content or "!<arch>\n")
    kernel = kernels.parse_kernel(str(file))
    assert kernel.path
    if content is None:
        file.write_text("!<arch>\nanother")
    with pytest.raises(LabError, match="cannot be unpacked" if content else "was changed after the run began"):
        debian.copy_kernel(kernel, kernel.path, tmp_path / "tree")


RECIPE = find_definitions() / "images" / "recipes" / debian.KERNEL_RECIPE
# In place of chroot: depmod works, and modprobe knows these modules.
CHROOT = """#!/bin/sh
shift
case $1 in modprobe) for last; do :; done; case " $HAS " in *" $last "*) ;; *) exit 1 ;; esac ;; esac
"""
ALL = "virtio_pci virtio_blk virtio_net virtio_console ext4 isofs"


@pytest.mark.parametrize(
    ("images", "has", "expected"),
    [
        ([f"vmlinuz-{UNAME}"], ALL, ""),
        (
            [f"vmlinuz-{UNAME}"],
            ALL.replace("virtio_blk ", "").replace("isofs", ""),
            f"E: the kernel {UNAME} has neither built in nor as modules: virtio_blk isofs\n",
        ),
        ([], ALL, "E: the kernel has to be one file"),
        (["vmlinuz-1", "vmlinuz-2"], ALL, "E: the kernel has to be one file"),
    ],
)
def test_the_recipe_names_what_a_kernel_lacks(
    images: list[str], has: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "bin/chroot", CHROOT)
    put_texts(tmp_path, {f"kernel/boot/{image}": "" for image in images})
    (tmp_path / "root/boot").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HAS", has)
    ran = subprocess.run([RECIPE, tmp_path / "root"], capture_output=True, text=True, check=False)
    assert ran.stderr.startswith(expected)
    assert bool(ran.returncode) == bool(expected)
    assert debian.LACKS.search(ran.stderr) if expected else not ran.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (f"E: Unable to locate package {RT}", f"Debian trixie has no kernel {RT}"),
        ("E: Version '1' for 'linux-image-rt-amd64' was not found", "Version '1' for"),
        ("E: The repository 'x sid-backports Release' does not have a Release file.", "x sid-backports"),
        (f"E: the kernel {UNAME} has neither built in nor as modules: ext4", "nor as modules: ext4"),
    ],
)
def test_a_kernel_that_cannot_be_used_is_named_with_a_next_step(
    words: str, expected: str, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = executable(tmp_path / "bin" / "mmdebstrap", f'#!/bin/sh\necho "{words}" >&2\nexit 100\n')
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(debian, "ON_DISK", tmp_path)
    monkeypatch.setattr(debian, "IN_MEMORY", tmp_path / "no-memory")
    with pytest.raises(LabError) as error:
        store.ensure_image(paths, KNOWN.guest(RT_GUEST), UNWATCHED)
    assert expected in str(error.value.args[0])
    assert error.value.hint
    assert "mirror" not in error.value.hint


def test_a_stored_image_with_another_kernel_is_found_by_its_guest_alone(paths: Paths) -> None:
    guest = KNOWN.guest(RT_GUEST)
    image = put_image(paths, guest)
    assert store.find_image(paths, guest) == image
    assert store.find_image(paths, KNOWN.guest("debian-13")) is None
    assert prepare_image.find_ready_image(paths, guest)
    # It says nothing about this host.
    assert store.find_any_image(paths) is None
    assert not image.has_own_kernel


@pytest.mark.parametrize("guest", ["debian-13", RT_GUEST])
def test_whether_kvm_runs_another_kernel_is_not_kept(
    guest: str, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> float:
        raise acceleration.KvmFails("a guest kernel dies")

    monkeypatch.setattr(acceleration, "KVM_DEVICE", tmp_path)
    for name, answer in (("may_open", True), ("can_nest", True), ("identify_host", "this host")):
        monkeypatch.setattr(acceleration, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(acceleration, "boot_under_kvm", fail)
    image = base_image(tmp_path)
    image = replace(image, manifest=image.manifest.model_copy(update={"guest": guest}))
    paths.make(paths.cache)
    assert not acceleration.decide_acceleration(None, paths, image, UNWATCHED).kvm
    assert paths.acceleration.exists() == (guest == "debian-13")


# -- reports


def recorded(guest: str, **more: Any) -> CellResult:
    return cell_result(guest, kernel=guest.partition("@")[2], **({"facts": facts()} | more))


def test_the_rows_of_a_guest_stand_together() -> None:
    run = run_of(recorded("debian-13"), recorded("debian-12"), recorded(RT_GUEST), recorded("debian-12@x"))
    assert list(table.arrange_rows(run)) == ["debian-13", RT_GUEST, "debian-12", "debian-12@x"]
    assert table.describe_run(run).endswith("on 2 guests of x86_64, with 2 other kernels")
    assert table.describe_run(run_of(recorded("debian-13"))).endswith("on 1 guest of x86_64")


def test_a_distribution_is_judged_by_its_own_kernel(tmp_path: Path) -> None:
    run = run_of(recorded(RT_GUEST), recorded("debian-sid@x", facts=None))
    loaded = distributions.load_distributions(results.choose_newest_results([results.Source(run, tmp_path)]))
    by_name = {distribution.name: distribution for distribution in loaded}
    debian_13 = by_name["debian-13"]
    assert debian_13.answer.guest == "debian-13"
    assert debian_13.answer.kind is results.AnswerKind.UNTESTED
    assert debian_13.guests[RT_GUEST] == f"{KNOWN.guest('debian-13').title} with the kernel {RT} on x86_64"
    assert not [name for name in by_name if "@" in name]
