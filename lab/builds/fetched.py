"""Folders of the cache that are fetched once, and verified whenever they are used."""

import shutil
from collections.abc import Callable
from pathlib import Path

from lab.base.files import put_in_place, sha256
from lab.base.locks import locked

# Beside the files: their digests when they were fetched, as `sha256sum` writes them.
SUMS = "SHA256SUMS"


def once(
    folder: Path, what: str, fill: Callable[[Path], None], *, seconds: float, say: Callable[[str], None]
) -> Path:
    """A folder that `fill` has filled with files, now or before; what fails leaves none.

    One whose files are no longer those that were fetched is filled again.

    While another lab or thread fills it, `say` may raise to end the wait. Raises LabError after `seconds`, and
    what `fill` raises.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Both names are known to whoever removes what dead labs left half-made.
    lock, partial = folder.with_name(f"{folder.name}.lock"), folder.with_name(f".partial-{folder.name}")
    with locked(lock, seconds, f"{what} to be fetched", say):
        if not _is_as_fetched(folder):
            say(f"fetching {what}")
            for old in (folder, partial):
                shutil.rmtree(old, ignore_errors=True)
            partial.mkdir()
            try:
                fill(partial)
                (partial / SUMS).write_text(_sums(partial))
                put_in_place(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _is_as_fetched(folder: Path) -> bool:
    sums = folder / SUMS
    return sums.is_file() and sums.read_text(errors="replace") == _sums(folder)


def _sums(folder: Path) -> str:
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    return "".join(f"{sha256(file)}  {file.name}\n" for file in files)
