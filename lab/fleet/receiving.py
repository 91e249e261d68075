"""The results of parts while they arrive, each in a file of its own until it is whole."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.fleet.archive import MOST_BYTES, DamagedResult

# Largest piece in which a result is sent, in bytes.
MOST_CHUNK = 4 << 20


@dataclass
class _Arriving:
    file: Path
    size: int = 0
    fault: str = ""


class Receiver:
    """Keeps what hosts send, by the tokens of their attempts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arriving: dict[str, _Arriving] = {}

    def add(self, token: str, offset: int, data: bytes) -> None:
        """Add a piece. One that does not follow the last damages the result."""
        arriving = self._arriving.setdefault(
            token, _Arriving(self._folder / f"result-{len(self._arriving)}-{token[:8]}")
        )
        if arriving.fault:
            return
        if offset != arriving.size or len(data) > MOST_CHUNK or offset + len(data) > MOST_BYTES:
            arriving.fault = f"a piece of it for byte {offset} came after {arriving.size} bytes"
            return
        try:
            with arriving.file.open("ab") as stream:
                stream.write(data)
        except OSError as error:
            arriving.fault = f"it cannot be kept: {error.strerror}"
        arriving.size += len(data)

    def whole(self, token: str, size: int, digest: str) -> Path | None:
        """The file with a result of this size and SHA-256; None if nothing was sent. Raises DamagedResult."""
        arriving = self._arriving.get(token)
        if arriving is None:
            if size:
                raise DamagedResult(f"none of its {size} bytes arrived")
            return None
        if arriving.fault:
            raise DamagedResult(arriving.fault)
        if size != arriving.size:
            raise DamagedResult(f"it is cut off: {arriving.size} of {size} bytes arrived")
        with arriving.file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != digest:
            raise DamagedResult(f"its SHA-256 is {found[:12]}, not {digest[:12]}")
        return arriving.file

    def forget(self, token: str) -> None:
        """Delete what arrived of a result."""
        if arriving := self._arriving.pop(token, None):
            with suppress(OSError):
                arriving.file.unlink(missing_ok=True)
