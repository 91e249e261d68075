"""`boxlite run` with and without its sandbox, and what separates a box from this user's other processes."""

from __future__ import annotations

from pathlib import Path

import outside
import pytest
from boxes import Boxes, boxlite
from homes import recorded_security
from outside import ISOLATED
from remedies import JAILER_OFF


def version_is_told() -> None:
    assert boxlite("--version").startswith("boxlite ")


def box_is_created_with_security_by_default(boxes: Boxes, home: Path) -> None:
    assert recorded_security(home, boxes.create())["jailer_enabled"] is True


def default_box_runs(boxes: Boxes) -> None:
    boxes.assert_runs(None)


def security_enabled_box_runs(boxes: Boxes) -> None:
    boxes.assert_runs("enable")


def security_disabled_box_runs(boxes: Boxes) -> None:
    boxes.assert_runs("disable")


def security_isolates_namespaces(boxes: Boxes, home: Path) -> None:
    if JAILER_OFF:
        pytest.skip("the jailer is off, so nothing is isolated")
    with boxes.in_background("enable") as box_id:
        namespaces = outside.most_confined(outside.shim_pid(home, box_id), ISOLATED)[1]
        assert ISOLATED - namespaces == set()
