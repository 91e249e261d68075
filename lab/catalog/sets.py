"""The definition of a set: a file in `images/sets/`."""

from pydantic import Field

from lab.catalog.toml import Definition


class Set(Definition):
    """A named selection of cells: each of its guests with each of its variants."""

    name: str
    title: str
    guests: list[str]
    variants: list[str]
    remedies: bool = Field(True, description="Whether remedies are tried on the cells that fail.")
