"""Reads TOML files into models. Errors name the file, the key and what was expected."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from lab.base.data import SMALL_FILE
from lab.base.errors import MOST_ERRORS, UsageError
from lab.base.files import check_values, read_regular
from lab.base.formats import KEY, check_version

NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")

# Measured: a baseline of 1,500 cells has 0.5 MB, and no other file 30,000 bytes.
MOST_BYTES = SMALL_FILE
IMAGE_KINDS = ("debian", "cloud")


class Definition(BaseModel):
    """A table of a TOML file. Undeclared keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def load_folder[D: BaseModel](folder: Path, model: type[D]) -> dict[str, D]:
    """Return the definitions in a folder's TOML files, by name. Raises UsageError for the first wrong file."""
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise UsageError(f"no definitions in {folder}", hint="run the lab from a complete checkout")
    return {file.stem: load_file(file, model, name=file.stem) for file in files}


def load_file[D: BaseModel](file: Path, model: type[D], *, name: str) -> D:
    if not NAME.fullmatch(name):
        raise UsageError(f"{file}: the file's name may only have lower-case letters, digits, '.' and '-'")
    table = read_versioned(file, "definition")
    if "name" in table:
        raise UsageError(f"{file}: name: not allowed, because the file's name is the name")
    return validate_table(file, {**table, "name": name}, model)


def read_table(file: Path) -> dict[str, Any]:
    """Return the table in a TOML file. Raises UsageError if it cannot be read or is not valid TOML."""
    try:
        text = read_toml_text(file)
        check_values(text, "=[{,.")
        return tomllib.loads(text)
    except ValueError as error:  # Also a number of more digits than Python reads.
        raise UsageError(f"{file}: not valid TOML: {error}") from error
    except RecursionError:
        raise UsageError(f"{file}: not valid TOML: it is nested too deeply") from None


def read_versioned(file: Path, form: str) -> dict[str, Any]:
    """Return the table in a TOML file of this format, without its version.

    Raises UsageError as `read_table` does, and for a version that this lab does not read.
    """
    table = read_table(file)
    check_version(form, table, file)
    return {key: value for key, value in table.items() if key != KEY}


def read_toml_text(file: Path) -> str:
    """Return the text of a TOML file, with every line's end as a line feed. Raises UsageError."""
    try:
        return read_regular(file, MOST_BYTES).decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not valid TOML: {error}") from error
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


def validate_table[D: BaseModel](file: Path, table: Mapping[str, Any], model: type[D]) -> D:
    """Make a model of a file's table. Raises UsageError with everything that is wrong in it."""
    try:
        # JSON, because strict models accept enum values as text only from JSON.
        return model.model_validate_json(json.dumps(table, default=_no_text))
    except ValidationError as error:
        if (count := error.error_count()) > MOST_ERRORS:
            raise UsageError(f"{file}: {count} errors: this is not a {model.__name__}") from None
        raise UsageError("\n".join(_explain(file, detail) for detail in error.errors())) from error


def _no_text(value: object) -> dict[str, str]:
    """Convert TOML's dates and times, which no key accepts, to a value that no key accepts either."""
    return {"date or time": str(value)}


def _explain(file: Path, detail: ErrorDetails) -> str:
    """Describe a validation error: the file, the key's path, what was expected and what was found."""
    parts = [str(part) for part in detail["loc"]]
    if parts[:1] == ["image"]:
        # pydantic puts the chosen kind into the path; the file has no such key.
        parts[1:2] = [part for part in parts[1:2] if part not in IMAGE_KINDS]
    expected = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        expected = "unknown key"
    elif detail["type"].startswith("union_tag"):
        parts.append("kind")
        expected = f"one of {', '.join(IMAGE_KINDS)}, found {detail['input'].get('kind')!r}"
    elif detail["type"] not in ("missing", "value_error"):
        expected = f"{expected}, found {detail['input']!r}"
    return f"{file}: {'.'.join(parts) or '(whole file)'}: {expected}"
