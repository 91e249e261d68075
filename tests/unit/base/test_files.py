import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from lab.base import files, locks
from lab.base.activity import UNWATCHED
from lab.base.errors import LabError
from lab.base.locks import hold_lock
from tests.builders.guests import task_to
from tests.builders.processes import LOCK_HOLDER, other_process


def test_write_replaces_the_whole_content_or_leaves_the_old_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("a much longer old content")
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(path, "new, up to here: \ud800")
    assert path.read_text() == "a much longer old content"
    assert list(tmp_path.iterdir()) == [path]
    files.write_atomically(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to a pipe"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "results.json"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case _:
            os.mkfifo(tmp_path / "pipe")
            path.symlink_to("pipe")
    with pytest.raises(OSError, match="not a regular file") as refused:
        files.read_regular(path, 10)
    assert refused.value.filename == str(path)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b"x" * 10)
    assert files.read_regular(path, 10) == b"x" * 10
    with pytest.raises(OSError, match="larger than") as refused:
        files.read_regular(path, 9)
    assert refused.value.filename == str(path)


def test_a_file_is_on_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / ".partial"
    (made / "cells").mkdir(parents=True)
    for name in ("wheel", "cells/log"):
        (made / name).write_text(name)
    synced = synced_paths(monkeypatch)
    files.put_in_place(made, tmp_path / "whole")
    *before, last = synced
    assert set(before) == {made, made / "wheel", made / "cells", made / "cells/log"}
    assert last == tmp_path and (tmp_path / "whole/cells/log").read_text() == "cells/log"


def test_a_replaced_file_survives_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = synced_paths(monkeypatch)
    files.write_atomically(tmp_path / "results.json", "new")
    assert [path.parent for path in synced] == [tmp_path, tmp_path.parent]


def synced_paths(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is synced to disk from now on, by the names that it has then."""
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink()))
    return synced


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tab\tand\nline", "tab\tand\nline"),
        ("\x1b[31mred\x1b[0m", "red"),
        # A title, and a link, with both ends that such a sequence can have.
        ("\x1b]0;title\x07a \x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "a link"),
        # C1 controls, as one character each.
        ("\x9b31mred\x9d0;title\x9c\x85", "31mred0;title"),
        ("\r\x00\x08\x7f\x0b\x0c", ""),
        # The order in which text is shown: overrides, embeddings, isolates, marks.
        ("\u202agpj\u202e.exe\u202c \u2066a\u2069\u200e\u200f\u061c", "gpj.exe a"),
        # Characters without width, a soft hyphen, the byte order mark.
        ("a\u200bb\u200cc\u200dd\u2060e\ufefff\u00adg", "abcdefg"),
        ("line\u2028separator\u2029", "lineseparator"),
        # Tags spell out words that nobody sees.
        ("x\U000e0041\U000e0042\U000e007f", "x"),
        # What no UTF-8 or XML file can hold.
        ("\ud800\udfff\ufffe\uffff\ufdd0", ""),
        ("\ufffd", "\ufffd"),
        ("Grüße, 語, עברית", "Grüße, 語, עברית"),
    ],
)
def test_plain_text_controls_nothing_and_hides_nothing(text: str, expected: str) -> None:
    assert files.clean_text(text) == expected


def test_a_megabyte_of_unfinished_escapes_is_cleaned_in_time() -> None:
    for piece in ("\x1b]", "\x1b[", "\x1b[0;", "\u202e", "x"):
        cleaned = files.clean_text(piece * (1_000_000 // len(piece)))
        assert set(cleaned) <= {"x", "0", ";"}


def test_a_text_is_cut_and_says_how_much_is_missing() -> None:
    assert files.cut_text("12345", 5) == "12345"
    assert files.cut_text("1234567", 5) == "12345... (2 more characters)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::error::x", "\\::error::x"),
        ("a\n  ::set-output name=x::y", "a\n  \\::set-output name=x::y"),
        ("a ##[add-path]x", "a ##\\[add-path]x"),
        ("std::env at 10:00::1", "std::env at 10:00::1"),
        ("## [link]", "## [link]"),
    ],
)
def test_inert_text_has_no_command_to_github(text: str, expected: str) -> None:
    assert files.escape_commands(text) == expected


# -- locks


def test_a_lock_that_is_never_given_back_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "INTERVAL_SECONDS", 0.01)
    texts: list[str] = []
    lock = tmp_path / "an image.lock"
    with (
        other_process(LOCK_HOLDER, lock),
        pytest.raises(LabError) as late,
        hold_lock(lock, 0.05, "this image to be built", task_to(texts)),
    ):
        raise AssertionError("it was not waited for")
    assert set(texts) == {"waiting for this image to be built"}
    assert str(late.value).startswith("waited 0 s for this image to be built\n")
    assert late.value.hint == f"lslocks shows which process holds {lock}; end it if it hangs"


def test_a_lock_leaves_no_file(tmp_path: Path) -> None:
    lock = tmp_path / "an image.lock"
    for _ in range(2):
        with hold_lock(lock, 0, "this image", UNWATCHED):
            assert locks.is_locked(lock)
        assert list(tmp_path.iterdir()) == []


def test_asking_for_a_lock_that_was_removed_meanwhile_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda _path: True)
    assert not locks.is_locked(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_a_file_that_was_removed_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it, its holder removes it and a third one takes the new file."""
    lock, real = tmp_path / "an image.lock", fcntl.flock
    third: list[Any] = []

    def late(handle: int, operation: int) -> None:
        if not third and operation & fcntl.LOCK_EX:
            lock.unlink()
            third.append(lock.open("w"))
            real(third[0], fcntl.LOCK_EX)
        real(handle, operation)

    lock.touch()
    monkeypatch.setattr(fcntl, "flock", late)
    with (
        pytest.raises(LabError, match="waited 0 s for this image"),
        hold_lock(lock, 0, "this image", UNWATCHED),
    ):
        raise AssertionError("two hold the lock")
    third[0].close()


def test_one_thread_at_a_time_holds_a_lock_that_goes_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "INTERVAL_SECONDS", 0.0)
    lock, inside, together, rounds = tmp_path / "lock", [], [], []

    def hold() -> None:
        for _ in range(50):
            with hold_lock(lock, 60, "the others", UNWATCHED):
                inside.append(1)
                together.append(len(inside))
                rounds.append(1)
                inside.pop()

    threads: list[Any] = [threading.Thread(target=hold) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert (len(rounds), set(together)) == (200, {1})
    assert list(tmp_path.iterdir()) == []
