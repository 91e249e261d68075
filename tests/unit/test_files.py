from pathlib import Path

import pytest

from lab.base import files


def test_write_replaces_the_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("a much longer old content")
    files.write_atomically(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(path, "new, up to here: \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert files.sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_text_from_a_guest_keeps_no_marks_for_the_direction_of_text_and_no_separators() -> None:
    assert files.plain("allow\u202eynedd\u202c \u2066x\u2069 a\u2028b \u200fc\u061c") == "allowynedd x ab c"
    assert files.plain("ü ✓ עברית") == "ü ✓ עברית"
