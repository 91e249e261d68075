"""Reader for older `results.json`: turns schema 1 into schema 2 before it is validated.

Each part of the file has its own function. They change the parsed JSON in place and leave damaged parts alone:
validation reports those, with the key.
"""

from collections.abc import Iterator
from typing import Any, Final

# The schema that this lab writes.
SCHEMA: Final = 2

# The message by which schema 1 tells a test that did not run from one that met an error.
DID_NOT_RUN = "did not run"


def upgrade(raw: Any) -> Any:
    """Return the parsed JSON of a `results.json` in the current schema; one of an unknown schema unchanged."""
    if not isinstance(raw, dict) or raw.get("schema") != 1:
        return raw
    raw["schema"] = SCHEMA
    if isinstance(raw.get("run"), dict):
        _upgrade_run(raw["run"])
    for cell in _objects(raw, "cells"):
        _upgrade_cell(cell)
    return raw


def _upgrade_run(run: dict[str, Any]) -> None:
    _rename(run, "parts", "merged")
    for lane in _objects(run, "lanes"):
        _rename(lane, "way", "fork")
    for merged in _objects(run, "merged"):
        _upgrade_run(merged)


def _upgrade_cell(cell: dict[str, Any]) -> None:
    _rename(cell, "way", "fork")
    for test in _objects(cell, "tests"):
        _upgrade_test(test)


def _upgrade_test(test: dict[str, Any]) -> None:
    if test.get("outcome") == "error" and test.get("message") == DID_NOT_RUN:
        test |= {"outcome": "not-run", "message": ""}


def _rename(parent: dict[str, Any], old: str, new: str) -> None:
    if old in parent:
        parent[new] = parent.pop(old)


def _objects(parent: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    """Yield the objects in the list at `key`."""
    children = parent.get(key)
    if isinstance(children, list):
        yield from (child for child in children if isinstance(child, dict))
