"""Upstream's Linux jailer tests, each under upstream's name, and one test for the strongest preset."""

import asyncio
from pathlib import Path

import pytest
from boxes import Boxes
from boxlite import SecurityOptions
from homes import recorded_security
from outside import ISOLATED
from python_api import JAILER_BY_DEFAULT
from remedies import JAILER_OFF


def default_security_options_enable_jailer_on_supported_platforms(boxes: Boxes, home: Path) -> None:
    # Python cannot see the default options, because `SecurityOptions()` turns every switch off.
    async def create() -> str:
        box = await boxes.create()
        return str(box.id)

    # Upstream's own test asserted what its release had.
    assert recorded_security(home, asyncio.run(create()))["jailer_enabled"] is JAILER_BY_DEFAULT


def development_mode_disables_jailer() -> None:
    assert SecurityOptions.development().jailer_enabled is False


def standard_mode_enables_jailer() -> None:
    assert SecurityOptions.standard().jailer_enabled is True


def jailer_enabled_box_starts_and_executes(boxes: Boxes) -> None:
    asyncio.run(boxes.assert_echoes(SecurityOptions.standard()))


def host_network_grants_off_box_starts_and_executes(boxes: Boxes) -> None:
    security = SecurityOptions.standard()
    security.network_enabled = False
    asyncio.run(boxes.assert_echoes(security))


def jailer_disabled_box_starts_and_executes(boxes: Boxes) -> None:
    asyncio.run(boxes.assert_echoes(SecurityOptions.development()))


def jailer_creates_isolated_mount_namespace(boxes: Boxes) -> None:
    async def check() -> set[str]:
        async with boxes.started(SecurityOptions.standard()) as box:
            await box.exec("sleep", ["30"])
            return boxes.namespaces(box, ISOLATED)

    if JAILER_OFF:
        pytest.skip("the jailer is off, so nothing is isolated")
    assert ISOLATED - asyncio.run(check()) == set()


def maximum_security_box_starts_and_executes(boxes: Boxes) -> None:
    asyncio.run(boxes.assert_echoes(SecurityOptions.maximum()))
