"""The images of a worker's host: what it has, how it gets one from the coordinator, and how it gives one."""

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from distributed import Worker

from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.images import store, transfer
from lab.images.content import CONTENTS, Content
from lab.images.store import BaseImage

# How long the coordinator may take to answer with a chunk.
ANSWER_SECONDS = 120.0


class HostImages:
    """The image store of this host, as its coordinators see it."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._known: dict[str, BaseImage] = {}

    def offer(self) -> str:
        """What this host has, as JSON. Nothing if its store cannot be read: parts will tell why."""
        try:
            return CONTENTS.dump_json(transfer.offered(self._paths)).decode()
        except (LabError, OSError):
            return "[]"

    async def bring(self, worker: Worker, content: Content, say: Callable[[str], None]) -> None:
        """Have an image in the store, from the coordinator if need be. `say` may raise to end that.

        Raises LabError; nothing is stored then.
        """
        loop = asyncio.get_running_loop()

        async def ask(name: str, offset: int) -> dict[str, Any]:
            answer: dict[str, Any] = await worker.scheduler.lab_image(
                digest=content.digest, name=name, offset=offset
            )
            return answer

        def fetch(name: str, offset: int) -> bytes:
            say("")
            try:
                answer = asyncio.run_coroutine_threadsafe(ask(name, offset), loop).result(ANSWER_SECONDS)
            except (OSError, TimeoutError, CancelledError) as error:
                raise LabError(
                    f"the image of {content.guest} was cut off at byte {offset} of {name}: "
                    f"{str(error) or type(error).__name__}"
                ) from error
            if "data" not in answer:
                raise LabError(f"the coordinator does not send the image of {content.guest}: {answer['error']}")
            return bytes(answer["data"])

        await asyncio.to_thread(
            transfer.receive, self._paths, content, fetch, say, check=None, origin="a run's coordinator"
        )

    async def send(self, worker: Worker, token: str, digest: str, name: str, offset: int) -> None:
        """Send a chunk of an image to the coordinator, or why that cannot be done."""
        try:
            said: dict[str, Any] = {"data": await asyncio.to_thread(self._chunk, digest, name, offset)}
        except LabError as error:
            said = {"error": str(error.args[0])}
        await worker.scheduler.lab_image_sent(token=token, **said)

    def _chunk(self, digest: str, name: str, offset: int) -> bytes:
        image = self._known.get(digest) or store.by_content(self._paths, digest)
        if image is None:
            raise LabError("this host has no such image any more")
        self._known[digest] = image
        return transfer.read_chunk(image, name, offset)
