"""Boxes with and without the jailer, started from Node, and what separates them from other processes."""

import json
import sqlite3
from pathlib import Path

import outside
import pytest
from boxes import JAILED, UNJAILED, Boxes, run
from outside import ISOLATED
from remedies import JAILER_OFF


def package_loads() -> None:
    assert run("load") == [{"loaded": "function"}]


def box_is_created_with_jailer_by_default(boxes: Boxes, home: Path) -> None:
    # boxlite records the options of a box that was created without any.
    box_id = boxes.create()
    [database] = home.glob("db/*.db")
    with sqlite3.connect(database) as connection:
        [text] = connection.execute("SELECT json FROM box_config WHERE id = ?", [box_id]).fetchone()
    assert json.loads(text)["options"]["advanced"]["security"]["jailer_enabled"] is True


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
        seen = outside.most_confined(outside.shim_pid(home, box_id), ISOLATED)[1]
        assert ISOLATED - seen == set()
