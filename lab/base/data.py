"""JSON that others wrote: read within limits, and given up at its first error.

Two bytes of JSON can become 200 bytes in Python, and each error that pydantic tells takes 700. So bytes and
values are counted before anything is parsed, and a model stops at the first wrong element of a list or mapping.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, from_json

from lab.base.files import check_values, read_regular
from lab.base.formats import check_version

# More than any model has fields.
MOST_KEYS = 100
# The most bytes of a file about one thing: a lane, an image, a cell's probes. They have fewer than 20,000.
SMALL_FILE = 1 << 20


def _fail_fast(schema: Any) -> None:
    """Have every list and dictionary in a schema stop at its first wrong element."""
    if isinstance(schema, dict):
        if schema.get("type") in ("list", "tuple", "set", "frozenset", "dict"):
            schema["fail_fast"] = True
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for part in schema:
            _fail_fast(part)


class FailFastModel(BaseModel):
    """A model of data that others wrote: the first wrong element of a list or dictionary is its only error."""

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MOST_KEYS:
            raise ValueError(f"expected at most {MOST_KEYS} keys, found {len(value)}")
        return value

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _fail_fast(handler.resolve_ref_schema(schema))
        return schema


def parse_json(text: bytes | str) -> Any:
    """The value that a JSON text has. Raises ValueError if it has none, or too many values."""
    check_values(text)
    try:
        return from_json(text)
    except ValueError as error:
        raise ValueError(f"Invalid JSON: {error}") from None


def read_model[M: BaseModel](model: type[M], path: Path, most: int, form: str = "") -> M:
    """Read a JSON file of at most `most` bytes that others may have put there. Raises OSError, ValueError.

    `form` is the name of its format if it has one; raises UsageError for a version that this lab does not read.
    """
    content = parse_json(read_regular(path, most))
    if form:
        check_version(form, content, path)
    return model.model_validate(content)
