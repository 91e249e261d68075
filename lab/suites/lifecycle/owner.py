"""A process that owns a runtime: it starts a box, prints the box's ID, and lives until its input ends."""

import asyncio
import os
import sys
from pathlib import Path

from boxlite import SecurityOptions
from python_api import allowed, options, runtime


async def start(home: Path, registry: str | None, *, detach: bool) -> object:
    """A runtime with this home, after it started a box."""
    of_box = options(
        os.environ["LAB_ROOTFS"], allowed(SecurityOptions.standard()), auto_remove=False, detach=detach
    )
    owned = runtime(home, registry)
    box = await owned.create(of_box)
    await box.start()
    print(box.id, flush=True)
    return owned


if __name__ == "__main__":
    owned = asyncio.run(start(Path(sys.argv[1]), sys.argv[2] or None, detach=sys.argv[3] == "detach"))
    sys.stdin.read()
