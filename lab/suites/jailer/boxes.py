"""Starting boxes with the security options of a test."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import outside
from boxlite import Boxlite, SecurityOptions
from python_api import allowed, options, requested


@dataclass
class Boxes:
    """Starts boxes of one runtime. `record` keeps what was seen of them in the test's result."""

    runtime: Boxlite
    home: Path
    rootfs: str
    record: Callable[[str, object], None]

    async def create(self, security: SecurityOptions | None = None) -> Any:
        """A box that was not started. If `security` is None, boxlite chooses the security options."""
        return await self.runtime.create(options(self.rootfs, allowed(security)))

    @asynccontextmanager
    async def started(self, security: SecurityOptions) -> AsyncIterator[Any]:
        """A running box. What confines it is recorded when the test is content with it."""
        used = allowed(security)
        box = await self.runtime.create(options(self.rootfs, used))
        async with box:
            yield box
            outside.record(self.record, self.home, str(box.id), requested(used))

    async def assert_echoes(self, security: SecurityOptions) -> None:
        """Assert that a box with these options starts, runs a command and returns what it printed."""
        async with self.started(security) as box:
            execution = await box.exec("echo", ["jailer-test"])
            output = "".join([str(chunk) async for chunk in execution.stdout()])
            result = await execution.wait()
            assert (result.exit_code, output.strip()) == (0, "jailer-test")

    def namespaces(self, box: Any, kinds: set[str]) -> set[str]:
        """The kinds of namespace that a process of a running box has for itself; waits for these."""
        return outside.most_confined(outside.shim_pid(self.home, str(box.id)), kinds)[1]
