"""Chunks of images that the coordinator asked hosts for."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from lab.base.errors import LabError
from lab.base.files import bounded, plain

# How long a host may take to send a chunk.
ANSWER_SECONDS = 120.0
# What is kept of a host's reason not to send one, in characters.
LONGEST_ERROR = 300


class Asked:
    """What was asked for and has not arrived. All of it is called in one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[str, asyncio.Future[bytes]]] = {}

    async def answer(self, host: str, send: Callable[[str], None]) -> bytes:
        """Ask a host by `send`, which gets a token, and wait for its answer. Raises LabError."""
        token = secrets.token_hex(16)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[token] = host, future
        try:
            send(token)
            async with asyncio.timeout(ANSWER_SECONDS):
                return await future
        except TimeoutError as error:
            raise LabError(f"{host} did not send a chunk within {ANSWER_SECONDS:.0f} s") from error
        finally:
            del self._waiting[token]

    def arrived(self, token: Any, data: Any, error: Any) -> None:
        """A host answers; an answer that nobody waits for is dropped."""
        _, future = self._waiting.get(token, ("", None)) if isinstance(token, str) else ("", None)
        if future is None or future.done():
            return
        if isinstance(data, bytes):
            future.set_result(data)
        else:
            future.set_exception(LabError(bounded(plain(str(error)), LONGEST_ERROR)))

    def host_has_gone(self, host: str) -> None:
        for name, future in self._waiting.values():
            if name == host and not future.done():
                future.set_exception(LabError(f"{host} has gone"))
