"""dask is an extra: only runs on several hosts need it."""

from collections.abc import Iterator
from contextlib import contextmanager

from lab.base.errors import UsageError


@contextmanager
def needs_dask(what: str) -> Iterator[None]:
    """Import what needs dask in this block. Raises UsageError if it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("dask", "distributed", "msgpack"):
            raise
        raise UsageError(
            f"{what} needs dask.distributed, which is not installed",
            hint=f"./setup.sh installs it with: ./setup.sh {what.removeprefix('lab ')} ...; "
            "or: pip install --require-hashes -r requirements/hosts.txt",
        ) from error
