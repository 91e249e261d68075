"""What a knob is: one kind of setting that a variant can apply to a guest."""

from abc import ABC, abstractmethod
from functools import reduce
from typing import Any, Self

from pydantic import ConfigDict, RootModel

from lab.catalog.toml import Definition
from lab.probes import Facts, SuiteUser


class Conflict(ValueError):
    """Two settings exclude each other. The text names the difference."""


class Knob(ABC):
    """One kind of setting, with a variant's values.

    `KINDS` in `lab/catalog/knobs.py` names its table in the TOML. A subclass is a pydantic model too. What puts
    it on in the guest is the function of that name in `lab/guest/remote/knobs.py`.
    """

    def why_not(self, facts: Facts) -> str | None:
        """Why this setting makes no sense on a guest with these facts; None if it makes sense."""
        return None

    @abstractmethod
    def settings(self) -> dict[str, Any] | None:
        """What the knob's function in the guest gets, as JSON; None if nothing has to be done in the guest."""

    @abstractmethod
    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        """Every way in which the guest, read afterwards, does not show this setting."""

    @abstractmethod
    def combined(self, other: Self) -> Self:
        """One setting that does what this one and another of the same kind do. Raises Conflict."""

    @abstractmethod
    def parts(self) -> list[Self]:
        """The smallest settings that this one consists of. All of them combined are this setting."""

    @abstractmethod
    def given(self) -> dict[str, Any]:
        """What a variant gave, by the keys of its table."""

    def words(self) -> str:
        """What it sets, in a few words."""
        return ", ".join(f"{key}={value}" for key, value in self.given().items())

    def joined(self, other: Self) -> dict[str, Any]:
        """What this and another of the same kind gave. Raises Conflict if a key has two values."""
        values, other_values = self.given(), other.given()
        for key in sorted(values.keys() & other_values.keys()):
            if values[key] != other_values[key]:
                raise Conflict(f"{key} is {values[key]} and {other_values[key]}")
        return {**values, **other_values}

    def less(self, other: Self) -> Self | None:
        """The setting without what another of the same kind sets; None if nothing is left."""
        parts = self._compatible_parts(other)
        return reduce(type(self).combined, parts) if parts else None

    def giving_way_to(self, other: Self) -> Self:
        """The setting with another of the same kind. What contradicts the other gives way to it."""
        return reduce(type(self).combined, [*self._compatible_parts(other), other])

    def _compatible_parts(self, other: Self) -> list[Self]:
        return [part for part in self.parts() if part != other and not part.contradicts(other)]

    def contradicts(self, other: Self) -> bool:
        """Whether both cannot hold at once."""
        try:
            self.combined(other)
        except Conflict:
            return True
        return False

    @classmethod
    def leading(cls, facts: Facts, goal: Facts) -> list[Self]:
        """Settings of this kind that make a guest with these facts more like one with the facts `goal`."""
        return []

    @property
    def is_run_by_root(self) -> bool:
        """Whether the suite runs with the number 0, be it root's or, in a user namespace, another user's."""
        return False

    @property
    def belongs_to_user(self) -> str:
        """Why the suite must be run by its usual user; empty if root may run it, too."""
        return ""

    def kernel_arguments(self) -> list[str]:
        """What this setting adds to the kernel's command line."""
        return []

    def sysctls(self) -> list[str]:
        """The sysctls that must be read in the guest before `why_not` and `differences` can be asked."""
        return []

    def links(self) -> list[str]:
        """The paths that must be looked at for symlinks before `differences` can be asked."""
        return []

    def under(self) -> list[str]:
        """The words to put before a command so that it runs as this setting says."""
        return []

    def units(self) -> list[str]:
        """The systemd units, or patterns of their names, whose journal says why `under` fails."""
        return []


class TableKnob(Definition, Knob):
    """A knob whose keys are all declared. Two can be combined if no key has two values."""

    def settings(self) -> dict[str, Any] | None:
        return self.model_dump()

    def given(self) -> dict[str, Any]:
        # Declaration order: the order of `model_fields_set` differs between processes.
        return {key: getattr(self, key) for key in type(self).model_fields if key in self.model_fields_set}

    def combined(self, other: Self) -> Self:
        return self.model_copy(update=self.joined(other))

    def giving_way_to(self, other: Self) -> Self:
        return self.model_copy(update={**self.given(), **other.given()})

    def parts(self) -> list[Self]:
        return [self]


class MapKnob(RootModel[dict[Any, Any]], Knob):
    """A knob whose keys are names in the guest. Two can be combined if no name has two values.

    A subclass says in `root` what names and values there are.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    def settings(self) -> dict[str, Any] | None:
        return self.root

    def given(self) -> dict[str, Any]:
        return self.root

    def combined(self, other: Self) -> Self:
        return self.model_validate(self.joined(other))

    def parts(self) -> list[Self]:
        return [self.model_validate({name: value}) for name, value in self.root.items()]
