"""Folders of the host in a box, more of them and in other places than boxlite 0.10.8 can mount."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from boxlite import SecurityOptions
from traced_boxes import TracedBoxes, run


def jailer_disabled_box_has_a_volume(boxes: TracedBoxes, host_folder: Path) -> None:
    asyncio.run(check_volumes(boxes, SecurityOptions.development(), [make_folder(host_folder / "one")]))


def three_volumes_are_mounted_without_a_network(boxes: TracedBoxes, host_folder: Path) -> None:
    security = SecurityOptions.standard()
    security.network_enabled = False
    asyncio.run(check_volumes(boxes, security, make_three(host_folder)))


def three_volumes_are_mounted_beside_the_network(boxes: TracedBoxes, host_folder: Path) -> None:
    asyncio.run(check_volumes(boxes, SecurityOptions.standard(), make_three(host_folder)))


def volume_behind_a_symlink_is_mounted(boxes: TracedBoxes, host_folder: Path) -> None:
    link = host_folder / "link"
    link.symlink_to(make_folder(host_folder / "one"))
    asyncio.run(check_volumes(boxes, SecurityOptions.standard(), [link]))


def make_three(parent: Path) -> list[Path]:
    return [make_folder(parent / name) for name in ("one", "two", "three")]


def make_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "given").write_text(folder.name)
    return folder


async def check_volumes(boxes: TracedBoxes, security: SecurityOptions, folders: Sequence[Path]) -> None:
    """A box reads in each of these folders what the host wrote there."""
    volumes = [(str(folder), f"/{folder.name}", False) for folder in folders]
    with boxes.open_runtime() as owned:
        box = await boxes.start(owned, security, volumes=volumes)
        printed = await run(box, "cat", *(f"/{folder.name}/given" for folder in folders))
        assert printed == "".join(folder.resolve().name for folder in folders)
        await box.stop()
