"""Copying files and folders between this host and a guest, by OpenSSH's `sftp`.

The guest is hostile. `sftp` writes nothing outside of its target, follows no link in a folder, and escapes what
a guest says in its errors.
"""

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab.base.errors import LabError, UsageError
from lab.base.files import clean_text, cut_text

# OpenSSH's server of SFTP, where Debian and Fedora have it, in root's home.
AS_ROOT = (
    "sudo -n -H sh -c 'cd; for server in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server; "
    "do test -x $server && exec $server; done'"
)
# What `sftp` says of a path that does not exist.
ABSENT = ("not found", "No such file")
# What it says of each link and special file in a folder.
LEFT_OUT = b"not a regular file"


@dataclass(frozen=True)
class Sftp:
    """The command line of `sftp` for a user of one guest; `alive` raises if the guest is gone."""

    command: Sequence[str]
    alive: Callable[[], None]

    def download(self, remote: str, local: Path) -> tuple[Path, int]:
        """Copy a file or a folder from the guest.

        Into an existing folder it is put under its own name. An existing file is replaced, an existing folder
        never. Returns the path that it has here, and how many links and special files were left out. Raises
        UsageError if a path is wrong, LabError if the copy fails; nothing is left of it then.
        """
        # The user's own words alone decide where it goes.
        name = PurePosixPath(remote).name
        if local.is_dir() and name in ("", ".."):
            raise UsageError(
                f"{remote} ends in no name, so its copy in {local} would have none",
                hint="name a target that does not exist yet",
            )
        target = local / name if local.is_dir() else local
        if not target.parent.is_dir():
            raise UsageError(f"{target.parent} is not a folder on this host")
        # What is only half copied never has the target's name.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".lab-copy-") as folder:
            copy = Path(folder) / "copy"
            left_out = self._run("get", remote, str(copy), user_path=remote)
            if copy.is_dir() and os.path.lexists(target):
                hint = "remove it, or name another"
                raise UsageError(f"{target} exists, and the lab copies no folder over it", hint=hint)
            copy.rename(target)
        return target, left_out

    def upload(self, local: Path, remote: str) -> int:
        """Copy a file or a folder into the guest.

        Into an existing folder it is put under its own name. Files that exist are replaced. Returns how many
        links and special files were left out. Raises UsageError if a path is wrong, LabError if the copy fails.
        """
        if not local.exists():
            raise UsageError(f"{local}: no such file or folder on this host")
        return self._run("put", str(local.resolve()), remote, user_path=remote)

    def _run(self, verb: str, source: str, target: str, *, user_path: str) -> int:
        path = cut_text(clean_text(user_path), 200)
        if "\n" in source + target:
            raise UsageError(f"{path} was not copied: its path has a line break")
        line = f"{verb} -r {_quoted(source)} {_quoted(target)}\n"
        ran = subprocess.run(self.command, input=line.encode(), capture_output=True, check=False)
        if ran.returncode == 0:
            return ran.stderr.count(LEFT_OUT)
        self.alive()
        words = clean_text(ran.stderr.decode(errors="replace")).strip()
        if any(absent in words for absent in ABSENT):
            raise UsageError(f"{path}: no such file or folder in the guest")
        raise LabError(f"{path} was not copied: {cut_text(words, 1000) or 'sftp does not say why'}")


def _quoted(path: str) -> str:
    """A path as one word of `sftp`, in which nothing stands for other paths."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
