"""Boxes that are there when their host is booted again.

The suite is run twice: each test makes its box and leaves it, and starts it after the boot.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boxlite import SecurityOptions
from traced_boxes import TracedBoxes, run

BOOTED_AGAIN = "LAB_BOOTED_AGAIN" in os.environ
WRITTEN = "written before the reboot"


@pytest.fixture
def lasting(images: str | None, record_property: Callable[[str, object], None]) -> Iterator[TracedBoxes]:
    """Boxes in a home that is there after the boot, too. Those that ran before it run at it."""
    home = Path.home() / "box-reboot"
    home.mkdir(exist_ok=True)
    record_property("home", home.name)
    boxes = TracedBoxes(home, os.environ["LAB_ROOTFS"], images, record_property)
    yield boxes
    if BOOTED_AGAIN:
        boxes.end()


def jailer_disabled_box_starts_after_a_reboot(lasting: TracedBoxes) -> None:
    asyncio.run(check_reboot(lasting, "jailer-off", SecurityOptions.development()))


def detached_box_starts_after_a_reboot(lasting: TracedBoxes) -> None:
    asyncio.run(check_reboot(lasting, "detached", SecurityOptions.standard(), detach=True))


def stopped_box_starts_after_a_reboot(lasting: TracedBoxes) -> None:
    asyncio.run(check_reboot(lasting, "stopped", SecurityOptions.standard()))


async def check_reboot(boxes: TracedBoxes, name: str, security: SecurityOptions, **more: Any) -> None:
    """Make a box and leave it, stopped unless it is detached, or start the box that was left."""
    note = Path.home() / f"reboot-{name}"
    if BOOTED_AGAIN:
        await check_recovery(boxes, note.read_text())
        return
    with boxes.open_runtime() as owned:
        box = await boxes.start(owned, security, **more)
        await run(box, "sh", "-c", f"echo {WRITTEN} >/root/kept; sync")
        note.write_text(str(box.id))
        if not more:
            await box.stop()


async def check_recovery(boxes: TracedBoxes, box_id: str) -> None:
    """A new runtime knows the box and that it does not run, and starts it with what was written there."""
    boxes.ids.append(box_id)
    with boxes.open_runtime() as owned:
        info = await owned.get_info(box_id)
        assert info is not None, "boxlite does not know the box after the reboot"
        assert not info.state.running, f"boxlite says after the reboot that the box is {info.state.status}"
        box = await owned.get(box_id)
        await box.start()
        assert await run(box, "cat", "/root/kept") == WRITTEN
