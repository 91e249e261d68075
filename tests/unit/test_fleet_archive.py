import hashlib
import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from lab.fleet import archive
from lab.fleet.archive import DamagedResult
from lab.fleet.receiving import MOST_CHUNK, Receiver
from tests.unit.run_examples import SMALL, begin, finish

CELLS = [cell.folder for cell in SMALL]
FILE = f"{CELLS[0]}/kernel.log"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    finish(tmp_path / "run", begin(tmp_path / "run", SMALL))
    archive.pack(tmp_path / "run", tmp_path / "packed", CELLS)
    return tmp_path / "packed"


def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def made(tmp_path: Path, *entries: tarfile.TarInfo | str) -> Path:
    """An archive with these entries, a text for those that are only named."""
    with (
        (tmp_path / "made").open("wb") as raw,
        zstandard.ZstdCompressor().stream_writer(raw) as stream,
        tarfile.open(fileobj=stream, mode="w|") as tar,
    ):
        for entry in entries:
            info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            info.size = 4 if info.isreg() else 0
            tar.addfile(info, io.BytesIO(b"text") if info.isreg() else None)
    return tmp_path / "made"


def entry(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_record_and_evidence_arrive_as_they_were(tmp_path: Path, packed: Path) -> None:
    where = target(tmp_path)
    result = archive.unpack(packed, where, CELLS)
    assert [cell.folder for cell in result.cells] == CELLS
    assert sorted(file.relative_to(where) for file in where.rglob("*") if file.is_file()) == sorted(
        [Path("results.json"), *(folder / "kernel.log" for folder in CELLS)]
    )
    assert (where / FILE).read_text() == (tmp_path / "run" / FILE).read_text()


def test_only_regular_files_are_packed(tmp_path: Path) -> None:
    finish(tmp_path / "run", begin(tmp_path / "run", SMALL))
    (tmp_path / "run" / CELLS[0] / "link").symlink_to("/etc/passwd")
    archive.pack(tmp_path / "run", tmp_path / "packed", CELLS)
    archive.unpack(tmp_path / "packed", target(tmp_path), CELLS)
    assert not (tmp_path / "target" / CELLS[0] / "link").exists()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_one_that_is_cut_off_is_damaged(tmp_path: Path, packed: Path, kept: float) -> None:
    content = packed.read_bytes()
    packed.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DamagedResult, match=r"cut off or damaged|cannot be read"):
        archive.unpack(packed, target(tmp_path), CELLS)


@pytest.mark.parametrize(
    "bad",
    [
        "/etc/cron.d/job",
        "../outside",
        f"{CELLS[0]}/../../../../../outside",
        "cells/other-guest/stock/0.10.8/kernel.log",
        str(CELLS[0]),
        "run.log",
        f"{CELLS[0]}/a\nb",
        f"{CELLS[0]}/a\u202eb",
        f"{CELLS[0]}//kernel.log",
        f"{CELLS[0]}/{'x' * 300}",
        f"{CELLS[0]}/{'deep/' * 1000}kernel.log",
        entry(FILE, tarfile.SYMTYPE, "/etc/passwd"),
        entry(FILE, tarfile.LNKTYPE, "results.json"),
        entry(FILE, tarfile.FIFOTYPE),
        entry(FILE, tarfile.CHRTYPE),
        entry(f"{CELLS[0]}/folder", tarfile.DIRTYPE),
    ],
    ids=str,
)
def test_nothing_but_files_of_the_part_s_cells_is_unpacked(tmp_path: Path, bad: tarfile.TarInfo | str) -> None:
    where = target(tmp_path)
    with pytest.raises(DamagedResult, match="which is no file of a cell of the part"):
        archive.unpack(made(tmp_path, bad), where, CELLS)
    assert list(where.iterdir()) == []
    assert not (tmp_path / "outside").exists()


def test_one_that_would_fill_the_disk_is_not_unpacked(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 100)
    with pytest.raises(DamagedResult, match="larger than"):
        archive.unpack(packed, target(tmp_path), CELLS)


def test_one_of_too_many_files_is_not_unpacked(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    with pytest.raises(DamagedResult, match="more than 3 files"):
        archive.unpack(packed, target(tmp_path), CELLS)


def test_a_header_that_would_fill_the_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LARGEST_HEADER", 1000)
    long = entry(FILE, tarfile.REGTYPE)
    long.pax_headers = {"comment": "x" * 2000}
    with pytest.raises(DamagedResult, match="has a header of"):
        archive.unpack(made(tmp_path, long), target(tmp_path), CELLS)


def test_a_file_s_time_is_not_taken_from_the_archive(tmp_path: Path, packed: Path) -> None:
    timeless = entry(FILE, tarfile.REGTYPE)
    timeless.pax_headers = {"mtime": "inf"}
    with pytest.raises(DamagedResult, match="its record cannot be read"):
        archive.unpack(made(tmp_path, timeless), target(tmp_path), CELLS)


def test_headers_that_name_one_file_after_another_are_damage(tmp_path: Path) -> None:
    header = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "made").write_bytes(zstandard.compress(header * 1500))
    with pytest.raises(DamagedResult, match="cut off or damaged"):
        archive.unpack(tmp_path / "made", target(tmp_path), CELLS)


def test_a_few_bytes_that_become_hundreds_of_megabytes_are_damage(tmp_path: Path) -> None:
    content = zstandard.compress(b"\0" * (archive.MOST_BYTES + 1))
    (tmp_path / "made").write_bytes(content)
    assert len(content) < 64 * 1024
    with pytest.raises(DamagedResult, match="larger than 256 MiB"):
        archive.unpack(tmp_path / "made", target(tmp_path), CELLS)


def test_a_file_and_a_folder_of_one_name_are_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedResult, match="a file and a folder of one name"):
        archive.unpack(made(tmp_path, FILE, f"{FILE}/deeper"), target(tmp_path), CELLS)


@pytest.mark.parametrize("record", ["", "{}", "[1]"])
def test_without_a_record_it_is_no_result(tmp_path: Path, record: str) -> None:
    with pytest.raises(DamagedResult, match="its record cannot be read"):
        archive.unpack(made(tmp_path, "results.json" if record else FILE), target(tmp_path), CELLS)


def sent(receiver: Receiver, content: bytes, *, piece: int = 5) -> None:
    for offset in range(0, len(content), piece):
        receiver.add("token", offset, content[offset : offset + piece])


DIGEST = hashlib.sha256(b"a result in pieces").hexdigest()


def test_what_arrives_whole_is_there_and_then_forgotten(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    sent(receiver, b"a result in pieces")
    file = receiver.whole("token", 18, DIGEST)
    assert file is not None
    assert file.read_bytes() == b"a result in pieces"
    receiver.forget("token")
    assert list(tmp_path.iterdir()) == []
    assert receiver.whole("token", 0, "") is None


def test_what_is_cut_off_out_of_order_or_changed_is_damaged(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    sent(receiver, b"a result in pie")
    with pytest.raises(DamagedResult, match="cut off: 15 of 18 bytes arrived"):
        receiver.whole("token", 18, DIGEST)
    sent(receiver, b"once more")
    with pytest.raises(DamagedResult, match="for byte 0 came after 15 bytes"):
        receiver.whole("token", 18, DIGEST)
    receiver.forget("token")
    sent(receiver, b"a result in PIECES")
    with pytest.raises(DamagedResult, match="its SHA-256 is"):
        receiver.whole("token", 18, DIGEST)
    with pytest.raises(DamagedResult, match="none of its 5 bytes arrived"):
        receiver.whole("other", 5, "")


def test_a_piece_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    receiver.add("token", 0, b"x" * (MOST_CHUNK + 1))
    with pytest.raises(DamagedResult):
        receiver.whole("token", MOST_CHUNK + 1, "")
    assert list(tmp_path.iterdir()) == []
