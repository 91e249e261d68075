"""A clock that is off, for one process and those that it starts: Debian's libfaketime, which libc loads first.

OpenSSL, which judges certificates, and the kernel's times of files are seen through it too.
"""

from datetime import timedelta
from pathlib import Path

LIBRARY = "faketime/libfaketimeMT.so.1"


def library() -> Path | None:
    """The library, if this host has it."""
    places = [*Path("/usr/lib").glob(f"*/{LIBRARY}"), *Path("/usr").glob(f"lib*/{LIBRARY}")]
    return next(iter(places), None)


class Clock:
    """A clock that is set while its process runs."""

    def __init__(self, folder: Path, loaded: Path) -> None:
        self._file = folder / "clock"
        self.environment = {
            "LD_PRELOAD": str(loaded),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.off_by(timedelta())

    def off_by(self, time: timedelta) -> None:
        """Set it. The file is read at any moment, so it is never half written."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{time.total_seconds():+.0f}")
        new.replace(self._file)


def off_by(time: timedelta, loaded: Path) -> dict[str, str]:
    """The environment of a process whose clock is off by so much; what it waits for takes as long as ever."""
    return {
        "LD_PRELOAD": str(loaded),
        "FAKETIME": f"{time.total_seconds():+.0f}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
