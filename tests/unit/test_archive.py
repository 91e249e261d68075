"""Unpacking what a guest packed, which may be anything."""

import gzip
import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.guest import archive
from lab.guest.archive import HostileArchive, unpack

Pack = Callable[[tarfile.TarFile], None]


def add(name: str, content: bytes = b"x", **about: object) -> Pack:
    def pack(tar: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        for key, value in about.items():
            setattr(entry, key, value)
        tar.addfile(entry, io.BytesIO(content))

    return pack


def packed(folder: Path, *packs: Pack) -> Path:
    file = folder / "evidence.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        for pack in packs:
            pack(tar)
    return file


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "cell"
    folder.mkdir(parents=True)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_files_are_unpacked_with_their_folders_and_the_last_of_a_name_counts(
    tmp_path: Path, into: Path
) -> None:
    packs = [
        add("kernel.log", b"the suite's"),
        add("boxlite/box-a/logs/boxlite.log"),
        add("kernel.log", b"the lab's"),
    ]
    unpack(packed(tmp_path, *packs), into)
    assert files(into) == {"kernel.log": b"the lab's", "boxlite/box-a/logs/boxlite.log": b"x"}


def test_links_pipes_devices_and_sparse_files_are_left_out(tmp_path: Path, into: Path) -> None:
    kinds: dict[str, dict[str, object]] = {
        "absolute": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
        "upwards": {"type": tarfile.SYMTYPE, "linkname": "../../x", "size": 0},
        "hard": {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd", "size": 0},
        "pipe": {"type": tarfile.FIFOTYPE, "size": 0},
        "device": {"type": tarfile.CHRTYPE, "size": 0},
        "sparse": {"pax_headers": {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**50)}},
    }
    packs = [add(name, b"x", **about) for name, about in kinds.items()]
    unpack(packed(tmp_path, *packs, add("absolute/file"), add("suite.log")), into)
    assert files(into) == {"absolute/file": b"x", "suite.log": b"x"}


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../outside",
        "a/../../outside",
        "x" * 300,
        "a/" * 30 + "b",
        "red\x1b[31m",
        "two\nlines",
        "\u202eb",
    ],
)
def test_a_name_that_no_file_of_evidence_has_is_refused(tmp_path: Path, into: Path, name: str) -> None:
    with pytest.raises(HostileArchive, match="has a file with the name") as refused:
        unpack(packed(tmp_path, add(name)), into)
    assert "\x1b" not in str(refused.value)
    assert [each.name for each in tmp_path.iterdir()] == ["evidence.tar.gz", "run"] or files(
        tmp_path / "run"
    ) == {}


@pytest.mark.parametrize("packs", [[add("a"), add("a/b")], [add("a/b"), add("a")]], ids=["below", "above"])
def test_a_file_and_a_folder_of_one_name_are_refused(tmp_path: Path, into: Path, packs: list[Pack]) -> None:
    with pytest.raises(HostileArchive, match="a file and a folder of one name"):
        unpack(packed(tmp_path, *packs), into)


def test_no_more_is_unpacked_than_the_bounds_say(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    with pytest.raises(HostileArchive, match="more than 3 files"):
        unpack(packed(tmp_path, *[add(str(number)) for number in range(4)]), into)
    monkeypatch.setattr(archive, "MOST_BYTES", 2**20)
    with pytest.raises(HostileArchive, match="larger than 1 MiB"):
        unpack(packed(tmp_path, add("zeros", bytes(2**20))), into)


def test_a_header_is_not_read_into_memory_beyond_the_bound(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 2**20)
    with pytest.raises(HostileArchive, match="larger than 1 MiB"):
        unpack(packed(tmp_path, add("a", pax_headers={"comment": "x" * 2**21})), into)


def test_headers_that_announce_headers_without_an_end_are_damage(tmp_path: Path, into: Path) -> None:
    entry = tarfile.TarInfo("long")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1
    block = entry.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")
    file = tmp_path / "evidence.tar.gz"
    file.write_bytes(gzip.compress(block * 5000))
    with pytest.raises(HostileArchive, match="cannot be unpacked"):
        unpack(file, into)


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b""), gzip.compress(b"no tar" * 500)],
    ids=["nothing", "no archive", "nothing packed", "no tar archive"],
)
def test_what_is_no_archive_is_damage(tmp_path: Path, into: Path, content: bytes) -> None:
    file = tmp_path / "evidence.tar.gz"
    file.write_bytes(content)
    with pytest.raises(HostileArchive):
        unpack(file, into)


def test_whatever_is_damaged_is_told_as_damage(tmp_path: Path, into: Path) -> None:
    whole = packed(
        tmp_path, add("a", os.urandom(2000)), add("b", pax_headers={"comment": "x" * 500})
    ).read_bytes()
    plain, chance = gzip.decompress(whole), random.Random(1)
    file = tmp_path / "damaged.tar.gz"
    for number in range(300):
        damaged = bytearray(whole if number % 2 else plain)
        for _ in range(chance.randrange(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        damaged = damaged[: chance.randrange(len(damaged))] if number % 3 else damaged
        file.write_bytes(bytes(damaged) if number % 2 else gzip.compress(bytes(damaged), 1))
        try:
            unpack(file, into)
        except HostileArchive:
            continue
    assert all(each.is_relative_to(into) for each in (tmp_path / "run").rglob("*") if each.is_file())
