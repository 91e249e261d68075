"""Where certificates are kept, and how a file with a private key is read: only if nobody else can read it."""

import os
import stat
from pathlib import Path

from lab.base.errors import UsageError
from lab.base.paths import Paths

# A file that is longer than this holds no certificates of the lab's, in bytes.
LONGEST = 64 * 1024


def coordinator_file(paths: Paths) -> Path:
    """The coordinator's bundle."""
    return paths.hosts / "coordinator.pem"


def authority_file(paths: Paths) -> Path:
    """The CA: its key and its certificate."""
    return paths.hosts / "ca.pem"


def worker_file(paths: Paths, name: str) -> Path:
    """A worker's bundle on the coordinator's host."""
    return paths.hosts / "workers" / f"{name}.pem"


def installed_file(paths: Paths) -> Path:
    """A worker's bundle on its own host."""
    return paths.hosts / "worker.pem"


def read_secret(file: Path, missing: str) -> str:
    """The text of a file that only its owner may read. Raises UsageError.

    `missing` is the next step where there is no such file.
    """
    try:
        with file.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            text = stream.read(LONGEST + 1)
    except FileNotFoundError as error:
        raise UsageError(f"there is no certificate {file}", hint=missing) from error
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", hint="it has to be a file of yours, mode 0600") from error
    if mode & 0o077:
        raise UsageError(
            f"{file}: others can use the private key in it (mode {mode:04o}, expected 0600)",
            hint=f"chmod 600 {file}; renew the certificate if somebody else may have read it",
        )
    if len(text) > LONGEST:
        raise UsageError(f"{file}: longer than {LONGEST} bytes, so it holds no certificate")
    return text.decode(errors="replace")
