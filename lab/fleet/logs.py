"""What dask logs: nothing reaches the terminal, and the handshakes that failed are told."""

import logging
from collections.abc import Callable

# What dask's listener logs when a peer has no certificate, or one that is refused.
HANDSHAKE = "TLS handshake failed with remote"


class _Handshakes(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self.tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        _, found, peer = record.getMessage().partition(HANDSHAKE)
        if found:
            self.tell(f"a TLS handshake with {peer.strip()}")


def quiet(refused: Callable[[str], None] = lambda what: None) -> None:
    """Show none of dask's logs from now on; `refused` is told of each peer that is no host of this lab's."""
    for name in ("distributed", "tornado", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    tcp = logging.getLogger("distributed.comm.tcp")
    tcp.handlers = [_Handshakes(refused)]
