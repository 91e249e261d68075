"""Enumerations whose members have an order."""

from enum import StrEnum


class OrderedEnum(StrEnum):
    """Words in the order in which they are defined. `rank` is the place of each, from 0."""

    @property
    def rank(self) -> int:
        return list(type(self)).index(self)
