"""Copying into guests, and out of guests that answer whatever they like, with OpenSSH's client."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from paramiko import SFTPAttributes

from lab.base.errors import LabError, UsageError
from lab.guest.transfer import Sftp
from tests.fleet.server import User, environment, paramiko_server


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "user")


@pytest.fixture
def sftp(user: User) -> Iterator[Sftp]:
    """A guest whose files are those of this host."""
    with paramiko_server(user, environment(user)) as port:
        key, known_hosts = user.home / ".ssh" / "id_ed25519", user.known_hosts
        words = ["-F", os.devnull, "-i", str(key), "-o", f"UserKnownHostsFile={known_hosts}", "-P", str(port)]
        yield Sftp(["sftp", "-b", "-", *words, "lab@127.0.0.1"], alive=lambda: None)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def content(folder: Path) -> dict[str, str]:
    """The files of a folder by their paths in it."""
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def tree(folder: Path) -> Path:
    """A folder with files, one of them a program, a link out of it and a pipe."""
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("A")
    (folder / "sub" / "b.sh").write_text("B")
    (folder / "sub" / "b.sh").chmod(0o755)
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    return folder


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> SFTPAttributes:
    made = SFTPAttributes()
    made.filename, made.st_mode, made.st_size = name, mode, 1
    return made


def test_a_folder_of_the_guest_is_copied_here_without_links(sftp: Sftp, there: Path, here: Path) -> None:
    assert sftp.download(str(tree(there / "found")), here) == (here / "found", 2)
    assert content(here) == {"found/a": "A", "found/sub/b.sh": "B"}
    assert os.access(here / "found" / "sub" / "b.sh", os.X_OK)
    assert not os.access(here / "found" / "a", os.X_OK)
    # No folder is copied over another, nor to where a link would lead it.
    with pytest.raises(UsageError, match="found exists"):
        sftp.download(str(there / "found"), here)
    (here / "found").rename(here / "other")
    (here / "found").symlink_to("/nowhere")
    with pytest.raises(UsageError, match="found exists"):
        sftp.download(str(there / "found"), here)
    assert {path.name for path in here.iterdir()} == {"found", "other"}


@pytest.mark.parametrize("name", ["log", 'a "b" \\c*[d]? e'])
def test_a_file_gets_its_name_and_replaces_what_has_it(sftp: Sftp, there: Path, here: Path, name: str) -> None:
    (there / name).write_text("new")
    victim = here.parent / "victim"
    victim.write_text("untouched")
    (here / "mine").symlink_to(victim)
    assert sftp.download(str(there / name), here / "mine") == (here / "mine", 0)
    # The link was replaced, and not written through.
    assert ((here / "mine").read_text(), victim.read_text()) == ("new", "untouched")
    assert sftp.upload(here / "mine", str(there / f"{name} again")) == 0
    assert content(there) == {name: "new", f"{name} again": "new"}


def test_nothing_that_a_guest_names_leaves_the_target(sftp: Sftp, user: User, there: Path, here: Path) -> None:
    (there / "f").mkdir()
    (there / "f" / "good").write_text("g")
    (there / "escaped").write_text("x")
    hostile = ["../escaped", f"{here.parent}/escaped", "a/b", "sub/../../escaped", "../\x1b[2J"]
    folders = [entry(name, stat.S_IFDIR | 0o755) for name in (".", "..")]
    user.listed[str(there / "f")] = [*folders, *(entry(name) for name in [*hostile, "good"])]
    assert sftp.download(str(there / "f"), here) == (here / "f", 0)
    assert content(here) == {"f/good": "g"}
    user.listed[str(there / "f")] = [entry("..")]
    with pytest.raises(LabError, match="was not copied"):
        sftp.download(str(there / "f"), here / "other")
    assert [path.name for path in here.iterdir()] == ["f"]
    assert {path.name for path in here.parent.iterdir()} == {"user", "there", "here"}


def test_of_a_folder_without_an_end_nothing_is_left(sftp: Sftp, user: User, there: Path, here: Path) -> None:
    (there / "f").mkdir()
    (there / "f" / "f").symlink_to(".")
    user.listed |= {str(there / "/".join("f" * deep)): [entry("f", stat.S_IFDIR)] for deep in range(1, 90)}
    with pytest.raises(LabError, match="was not copied"):
        sftp.download(str(there / "f"), here)
    assert list(here.iterdir()) == []


def test_what_has_no_name_of_its_own_needs_one(sftp: Sftp, there: Path, here: Path) -> None:
    (there / "tmp").mkdir()
    for remote in ("/", f"{there}/tmp/.."):
        with pytest.raises(UsageError, match="ends in no name"):
            sftp.download(remote, here)
    assert sftp.download(f"{there}/tmp/..", here / "all") == (here / "all", 0)


def test_wrong_paths_are_named_with_the_side_they_are_on(sftp: Sftp, there: Path, here: Path) -> None:
    with pytest.raises(UsageError, match=r"^/nothing: no such file or folder in the guest"):
        sftp.download("/nothing", here)
    (there / "log").write_text("")
    with pytest.raises(UsageError, match="nowhere is not a folder on this host"):
        sftp.download(str(there / "log"), here / "nowhere" / "log")
    with pytest.raises(UsageError, match="nothing: no such file or folder on this host"):
        sftp.upload(here / "nothing", "/tmp")
    with pytest.raises(UsageError, match=r"^/no/such: no such file or folder in the guest"):
        sftp.upload(there / "log", "/no/such")
    with pytest.raises(UsageError, match="its path has a line break"):
        sftp.download("/tmp/a\nrm b", here)


def test_a_folder_of_this_host_goes_into_a_folder_of_the_guest(sftp: Sftp, there: Path, here: Path) -> None:
    for text in ("A", "A2"):
        suite = here / "suite" if (here / "suite").exists() else tree(here / "suite")
        (suite / "a").write_text(text)
        assert sftp.upload(suite, str(there)) == 2
        assert content(there) == {"suite/a": text, "suite/sub/b.sh": "B"}
    assert os.access(there / "suite" / "sub" / "b.sh", os.X_OK)
