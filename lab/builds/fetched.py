"""Folders of the cache that are fetched once."""

import shutil
from collections.abc import Callable
from pathlib import Path

from lab.base.locks import locked


def once(
    folder: Path, what: str, fill: Callable[[Path], None], *, seconds: float, say: Callable[[str], None]
) -> Path:
    """A folder that `fill` has filled, now or before; what fails leaves none.

    While another lab or thread fills it, `say` may raise to end the wait. Raises LabError after `seconds`, and
    what `fill` raises.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Both names are known to whoever removes what dead labs left half-made.
    lock, partial = folder.with_name(f"{folder.name}.lock"), folder.with_name(f".partial-{folder.name}")
    with locked(lock, seconds, f"{what} to be fetched", say):
        if not folder.exists():
            say(f"fetching {what}")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                fill(partial)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder
