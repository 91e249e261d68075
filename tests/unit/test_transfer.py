"""Copying out of guests that answer whatever they like, and into guests."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from paramiko import SFTPAttributes

from lab.base.errors import LabError, UsageError
from lab.guest import transfer
from lab.guest.transfer import Copying, HostileAnswer


class Guest:
    """A client of SFTP whose guest is a folder of this host; `answers` are what it says of other paths."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listed: dict[str, list[SFTPAttributes]] = {}
        self.is_listing = False

    def stat(self, remote: str) -> SFTPAttributes:
        if remote in self.listed:
            return entry("", stat.S_IFDIR | 0o755)
        return SFTPAttributes.from_stat(self._here(remote).stat())

    def listdir_iter(self, remote: str) -> Iterator[SFTPAttributes]:
        # Until a list is read to its end, paramiko takes every answer for a part of it.
        assert not self.is_listing
        self.is_listing = True
        if remote in self.listed:
            yield from self.listed[remote]
        else:
            for path in sorted(self._here(remote).iterdir()):
                yield SFTPAttributes.from_stat(path.lstat(), filename=path.name)
        self.is_listing = False

    def open(self, remote: str, _mode: str) -> Any:
        assert not self.is_listing
        stream: Any = Stream(self._here(remote).open("rb"))
        return stream

    def putfo(self, source: IO[bytes], remote: str) -> None:
        self._here(remote).write_bytes(source.read())

    def chmod(self, remote: str, mode: int) -> None:
        self._here(remote).chmod(mode)

    def mkdir(self, remote: str) -> None:
        self._here(remote).mkdir()

    def _here(self, remote: str) -> Path:
        return self.folder / remote.lstrip("/")


class Stream:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def prefetch(self, _size: int, _most: int) -> None:
        pass

    def read(self, size: int) -> bytes:
        return self.file.read(size)


def entry(name: str, mode: int, size: int = 0) -> SFTPAttributes:
    made = SFTPAttributes()
    made.filename, made.st_mode, made.st_size = name, mode, size
    return made


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    (tmp_path / "guest").mkdir()
    return Guest(tmp_path / "guest")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def copying(guest: Guest) -> Copying:
    sftp: Any = guest
    return Copying(sftp, lambda text: None)


def content(folder: Path) -> dict[str, str]:
    """The files of a folder by their paths in it."""
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def tree(folder: Path) -> Path:
    """A folder with files, one of them a program, a link out of it and a pipe."""
    put(folder, {"a": "A", "sub/b.sh": "B"})
    (folder / "sub" / "b.sh").chmod(0o755)
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    return folder


def test_a_folder_of_the_guest_goes_into_a_folder_of_this_host_without_links(guest: Guest, here: Path) -> None:
    tree(guest.folder / "tmp" / "found")
    made = copying(guest)
    assert made.download("/tmp/found", here) == here / "found"
    assert content(here) == {"found/a": "A", "found/sub/b.sh": "B"}
    assert os.access(here / "found" / "sub" / "b.sh", os.X_OK)
    assert not os.access(here / "found" / "a", os.X_OK)
    assert (made.files, made.size, made.left_out) == (2, 2, 2)


def test_a_file_gets_the_name_that_it_is_to_have_and_replaces_what_has_it(guest: Guest, here: Path) -> None:
    (guest.folder / "log").write_text("new")
    victim = here.parent / "victim"
    victim.write_text("untouched")
    (here / "mine").symlink_to(victim)
    assert copying(guest).download("/log", here / "mine") == here / "mine"
    # The link was replaced, and not written through.
    assert ((here / "mine").read_text(), victim.read_text()) == ("new", "untouched")


def test_no_folder_is_copied_over_another(guest: Guest, here: Path) -> None:
    tree(guest.folder / "found")
    # Where a file of the guest would go out of the folder.
    (here / "found").symlink_to("/nowhere")
    with pytest.raises(UsageError, match="found exists"):
        copying(guest).download("/found", here)


@pytest.mark.parametrize(
    "name",
    ["../escaped", "/tmp/escaped", "..", ".", "", "a/b", "a\0b", "x" * 256, "../\x1b[2J" + "x" * 500],
    ids=lambda name: repr(name)[:20],
)
def test_a_name_that_would_leave_the_target_ends_the_copy(guest: Guest, here: Path, name: str) -> None:
    (guest.folder / "f").mkdir()
    (guest.folder / "escaped").write_text("x")
    guest.listed["/f"] = [entry(name, stat.S_IFREG | 0o644)]
    with pytest.raises(HostileAnswer, match="no folder can hold") as raised:
        copying(guest).download("/f", here)
    assert "\x1b" not in str(raised.value)
    assert len(str(raised.value)) < 400
    assert list(here.iterdir()) == []
    assert {path.name for path in here.parent.iterdir()} == {"guest", "here"}


def endless_links() -> Iterator[SFTPAttributes]:
    while True:
        yield entry("link", stat.S_IFLNK)


def undecodable() -> Iterator[SFTPAttributes]:
    yield entry(b"\xff".decode(), stat.S_IFREG)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (lambda: [entry("a", stat.S_IFREG), entry("a", stat.S_IFREG)], "File exists"),
        # It says that it is small, or larger than anything.
        (lambda: [entry("large", stat.S_IFREG, 1)], "more than"),
        (lambda: [entry("a", stat.S_IFREG, 2**63)], "more than"),
        (lambda: [entry("d", stat.S_IFDIR)], "levels"),
        (endless_links, "more than 50 files"),
        (undecodable, "not UTF-8(.|\n)*pack it in the guest"),
    ],
    ids=["one name twice", "a larger file", "a huge file", "endless folders", "an endless list", "undecodable"],
)
def test_of_a_folder_that_cannot_be_copied_nothing_is_left(
    guest: Guest,
    here: Path,
    listed: Callable[[], Iterable[SFTPAttributes]],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "MOST_BYTES", 10)
    monkeypatch.setattr(transfer, "MOST_ENTRIES", 50)
    monkeypatch.setattr(transfer, "MOST_LEVELS", 20)
    put(guest.folder / "f", {"a": "x", "large": "x" * 11})
    monkeypatch.setattr(guest, "stat", lambda _remote: entry("", stat.S_IFDIR | 0o755))
    monkeypatch.setattr(guest, "listdir_iter", lambda _remote: iter(listed()))
    with pytest.raises(LabError, match=message):
        copying(guest).download("/f", here)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(("remote", "named"), [("/", "/"), ("/tmp/..", "/tmp/..")])
def test_what_has_no_name_of_its_own_needs_one(guest: Guest, here: Path, remote: str, named: str) -> None:
    (guest.folder / "tmp").mkdir()
    with pytest.raises(UsageError, match=f"{named} has no name"):
        copying(guest).download(remote, here)
    assert copying(guest).download(remote, here / "all") == here / "all"


def test_wrong_paths_are_named_with_the_side_they_are_on(guest: Guest, here: Path) -> None:
    with pytest.raises(UsageError, match=r"^/nothing: no such file or folder in the guest"):
        copying(guest).download("/nothing", here)
    (guest.folder / "log").write_text("")
    with pytest.raises(UsageError, match="nowhere is no folder on this host"):
        copying(guest).download("/log", here / "nowhere" / "log")
    with pytest.raises(UsageError, match="nothing: no such file or folder on this host"):
        copying(guest).upload(here / "nothing", "/tmp")
    with pytest.raises(UsageError, match=r"^/no/such: no such file or folder in the guest"):
        copying(guest).upload(guest.folder / "log", "/no/such")


def test_a_folder_of_this_host_goes_into_a_folder_of_the_guest(guest: Guest, here: Path) -> None:
    (guest.folder / "tmp").mkdir()
    made = copying(guest)
    assert made.upload(tree(here / "suite"), "/tmp") == "/tmp/suite"
    assert content(guest.folder) == {"tmp/suite/a": "A", "tmp/suite/sub/b.sh": "B"}
    assert os.access(guest.folder / "tmp" / "suite" / "sub" / "b.sh", os.X_OK)
    assert (made.files, made.left_out) == (2, 2)
    # Once more, after a change.
    (here / "suite" / "a").write_text("A2")
    copying(guest).upload(here / "suite", "/tmp")
    assert content(guest.folder)["tmp/suite/a"] == "A2"


def test_a_file_of_this_host_gets_the_name_that_it_is_to_have(guest: Guest, here: Path) -> None:
    (here / "a.whl").write_text("wheel")
    assert copying(guest).upload(here / "a.whl", "/b.whl") == "/b.whl"
    assert content(guest.folder) == {"b.whl": "wheel"}
