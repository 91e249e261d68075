"""A set's definition: one file of `images/sets/`."""

from pydantic import Field

from lab.catalog.toml import Definition


class Set(Definition):
    """A named choice of cells: each of its guests in each of its variants."""

    name: str
    title: str
    guests: list[str]
    variants: list[str]
    remedies: bool = Field(True, description="Whether remedies are tried on the cells that fail.")
