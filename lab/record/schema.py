"""Reader for older `results.json`: turns schema 1 into schema 2 before it is validated.

Each part of the file has its own function. They change the parsed JSON in place and leave damaged parts alone:
validation reports those, with the key.
"""

from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from lab.probes import Context, Facts

# The schema that this lab writes.
SCHEMA: Final = 2
# The schemas that this lab still reads.
OLDER: Final = (1,)

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
    if isinstance(cell.get("facts"), dict):
        _upgrade_facts(cell)


def _upgrade_test(test: dict[str, Any]) -> None:
    if test.get("outcome") == "error" and test.get("message") == DID_NOT_RUN:
        test |= {"outcome": "not-run", "message": ""}


def _rename(parent: dict[str, Any], old: str, new: str) -> None:
    if old in parent:
        parent[new] = parent.pop(old)


def _upgrade_facts(cell: dict[str, Any]) -> None:
    """Make the facts typed, and `suite_context`, which schema 1 keeps among them, the cell's `context`.

    Early labs of schema 1 read fewer facts. What they did not read is not known, so that no value can stand for
    it: their facts stay in `older_facts` as they are, and `facts` is null.
    """
    older: dict[str, Any] = cell["facts"]
    facts = {name: _upgrade_fact(name, value) for name, value in older.items() if name != "suite_context"}
    context = older.get("suite_context")
    cell["facts"], cell["context"] = facts or None, context
    for key, kind, value in (("facts", Facts, facts), ("context", Context, context)):
        if value and _lacks_fields(kind, value):
            cell[key], cell["older_facts"] = None, older


def _upgrade_fact(name: str, value: Any) -> Any:
    match name, value:
        case "os", dict():
            keys = ("ID", "VERSION_ID", "VERSION_CODENAME", "PRETTY_NAME")
            return {key.lower(): value.get(key) for key in keys}
        case "lsm", [""]:  # The kernel's list could not be read.
            return None
        case "apparmor", {"features": dict(features)}:
            files = {
                "namespaces_mask": "namespaces/mask",
                "unconfined_userns": "policy/unconfined_restrictions/userns",
                "policy_versions": "policy/versions",
            }
            known = {key: features[file] for key, file in files.items() if file in features}
            return {**value, "features": known}
        case "bubblewrap", {"version": str(version)} if not version or " " in version:  # An error, or nothing.
            return {**value, "version": None}
    return value


def _lacks_fields(kind: type[BaseModel], value: Any) -> bool:
    """Whether nothing is wrong with a value but that fields are missing."""
    try:
        kind.model_validate(value)
    except ValidationError as error:
        return all(each["type"] == "missing" for each in error.errors())
    return False


def _objects(parent: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    """Yield the objects in the list at `key`."""
    children = parent.get(key)
    if isinstance(children, list):
        yield from (child for child in children if isinstance(child, dict))
