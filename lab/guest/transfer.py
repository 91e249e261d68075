"""Copying files and folders between this host and a guest, over SFTP.

The guest is hostile. Nothing that it names is written outside the target, none of its links is made or followed
on this host, and what is taken from it is bounded.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from paramiko import SFTPAttributes, SFTPClient, SSHException

from lab.base.errors import LabError, UsageError
from lab.base.files import bounded, plain

MOST_BYTES = 4 * 2**30
MOST_ENTRIES = 100_000
MOST_LEVELS = 100
LONGEST_NAME = 255
BLOCK = 2**18
# Requests that are under way at once: what the guest sends before it is written is kept in memory.
AHEAD = 64


class HostileAnswer(LabError):
    """The guest named what no folder can hold, or has more than is taken from it."""


@dataclass
class Copying:
    """One copy, and what was copied so far. `left_out` counts links and special files, which are not copied."""

    sftp: SFTPClient
    say: Callable[[str], None]
    files: int = 0
    size: int = 0
    left_out: int = 0
    _entries: int = 0

    def download(self, remote: str, local: Path) -> Path:
        """Copy a file or a folder from the guest; returns the path that it has here.

        Into an existing folder it is put under its own name. An existing file is replaced, an existing folder
        never. Raises UsageError if a path is wrong, LabError if the copy fails; nothing is left of it then.
        """
        with _named_errors(remote):
            attributes = self.sftp.stat(remote)
            # The user's own words alone decide where it goes.
            name = PurePosixPath(remote).name
            if local.is_dir() and name in ("", ".."):
                raise UsageError(
                    f"{remote} has no name that its copy could have in {local}",
                    hint="name a target that does not exist yet",
                )
            target = local / name if local.is_dir() else local
            if not target.parent.is_dir():
                raise UsageError(f"{target.parent} is no folder on this host")
            if stat.S_ISDIR(attributes.st_mode or 0) and os.path.lexists(target):
                raise UsageError(
                    f"{target} exists, and no folder is copied over it",
                    hint="remove it, or name another",
                )
            # What is only half copied never has the target's name.
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".lab-copy-") as folder:
                made = Path(folder) / "copy"
                self._fetch(remote, attributes, made, 0)
                if not made.exists():
                    raise UsageError(f"{remote} is neither a file nor a folder")
                made.rename(target)
        return target

    def upload(self, local: Path, remote: str) -> str:
        """Copy a file or a folder into the guest; returns the path that it has there.

        Into an existing folder it is put under its own name. Files that exist are replaced. Raises UsageError
        if a path is wrong, LabError if the copy fails.
        """
        if not local.exists():
            raise UsageError(f"{local}: no such file or folder on this host")
        with _named_errors(remote):
            target = str(PurePosixPath(remote, local.resolve().name)) if self._is_folder(remote) else remote
            self._send(local, target)
        return target

    def _fetch(self, remote: str, attributes: SFTPAttributes, target: Path, level: int) -> None:
        """Copy one entry of the guest, with all that is in it, to a path that does not exist."""
        if level > MOST_LEVELS:
            raise HostileAnswer(f"its folders are more than {MOST_LEVELS} levels deep")
        mode = attributes.st_mode or 0
        if stat.S_ISREG(mode):
            size = attributes.st_size or 0
            self.files += 1
            self._check_size(size)
            # Exclusive: nothing that is there is written through.
            with self.sftp.open(remote, "rb") as source, target.open("xb") as sink:
                source.prefetch(size, AHEAD)
                while block := source.read(BLOCK):
                    self._count(len(block))
                    sink.write(block)
            if mode & stat.S_IXUSR:
                target.chmod(target.stat().st_mode | 0o111)
        elif stat.S_ISDIR(mode):
            target.mkdir()
            # Read to its end: paramiko asks ahead, and would take another answer for one of the list.
            entries = []
            for entry in self.sftp.listdir_iter(remote):
                self._entries += 1
                if self._entries > MOST_ENTRIES:
                    raise HostileAnswer(f"more than {MOST_ENTRIES} files and folders")
                name = entry.filename
                if name in ("", ".", "..") or "/" in name or "\0" in name or len(name) > LONGEST_NAME:
                    shown = bounded(plain(name), 100)
                    raise HostileAnswer(f"the guest names a file {shown!r}, which no folder can hold")
                entries.append(entry)
            for entry in entries:
                self._fetch(f"{remote}/{entry.filename}", entry, target / entry.filename, level + 1)
        else:
            self.left_out += 1

    def _send(self, local: Path, remote: str) -> None:
        """Copy one entry of this host, with all that is in it."""
        mode = local.stat().st_mode
        if stat.S_ISREG(mode):
            self.files += 1
            with local.open("rb") as source:
                self.sftp.putfo(source, remote)
            self.sftp.chmod(remote, stat.S_IMODE(mode))
            self._count(local.stat().st_size)
        elif stat.S_ISDIR(mode):
            if not self._is_folder(remote):
                self.sftp.mkdir(remote)
            for entry in sorted(local.iterdir()):
                if entry.is_symlink():
                    self.left_out += 1
                else:
                    self._send(entry, f"{remote}/{entry.name}")
        else:
            self.left_out += 1

    def _is_folder(self, remote: str) -> bool:
        try:
            return stat.S_ISDIR(self.sftp.stat(remote).st_mode or 0)
        except FileNotFoundError:
            return False

    def _count(self, size: int) -> None:
        self.size += size
        self._check_size(0)
        self.say(f"copying: {self.files} files, {self.size / 2**20:.0f} MiB")

    def _check_size(self, more: int) -> None:
        if self.size + more > MOST_BYTES:
            raise HostileAnswer(f"more than {MOST_BYTES / 2**30:.0f} GiB", hint="copy a part of it")


@contextmanager
def _named_errors(remote: str) -> Iterator[None]:
    """Turn what SFTP and the file system say into errors that name the path."""
    path = bounded(plain(remote), 200)
    try:
        yield
    except HostileAnswer as error:
        raise HostileAnswer(f"{path} was not copied: {error.args[0]}", hint=error.hint) from error
    except UnicodeDecodeError as error:
        raise LabError(
            f"{path} was not copied: a name in it is not UTF-8", hint="pack it in the guest, copy the archive"
        ) from error
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file or folder in the guest") from error
    except (OSError, EOFError, SSHException) as error:
        raise LabError(f"{path} was not copied: {str(error) or 'SFTP broke'}") from error
