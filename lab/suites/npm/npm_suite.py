"""Boxes with and without the jailer, started from Node, and what separates them from other processes."""

from pathlib import Path

import outside
import pytest
from boxes import JAILED, UNJAILED, Boxes, run
from homes import recorded_security
from outside import ISOLATED
from remedies import JAILER_OFF


def package_loads() -> None:
    assert run("load") == [{"loaded": "function"}]


def box_is_created_with_jailer_by_default(boxes: Boxes, home: Path) -> None:
    assert recorded_security(home, boxes.create())["jailer_enabled"] is True


def default_box_starts_and_executes(boxes: Boxes) -> None:
    with boxes.started(None):
        pass


def box_with_jailer_starts_and_executes(boxes: Boxes) -> None:
    with boxes.started(JAILED):
        pass


def box_without_jailer_starts_and_executes(boxes: Boxes) -> None:
    with boxes.started(UNJAILED):
        pass


def jailer_isolates_namespaces(boxes: Boxes, home: Path) -> None:
    if JAILER_OFF:
        pytest.skip("the jailer is off, so nothing is isolated")
    with boxes.started(JAILED) as box_id:
        namespaces = outside.most_confined(outside.shim_pid(home, box_id), ISOLATED)[1]
        assert ISOLATED - namespaces == set()
