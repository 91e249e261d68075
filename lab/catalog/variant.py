"""A variant's definition: one file of `cloud-init/variants/`."""

from functools import cache
from typing import Any

from pydantic import create_model, model_validator

from lab import causes
from lab.catalog.toml import Definition
from lab.knobs import Conflict, Knob
from lab.record import Expectation

# Between the names of variants that are put on a guest together.
AND = "+"


class Variant(Definition):
    """One named set of security settings put on a guest.

    Beside these keys it has one for each kind of setting in `lab.knobs`, under its name: see `variant_file`.
    """

    name: str
    title: str
    expect: Expectation = Expectation()

    @property
    def knobs(self) -> dict[str, Knob]:
        """Its settings, by the names of their kinds."""
        return {name: value for name, value in self if isinstance(value, Knob)}

    @property
    def kernel_arguments(self) -> list[str]:
        """What it adds to the kernel's command line: a guest has to be booted for it."""
        return [word for knob in self.knobs.values() for word in knob.kernel_arguments()]

    @model_validator(mode="after")
    def _expectation_is_whole(self) -> "Variant":
        cause = self.expect.cause
        if (self.expect.status == "xfail") != (cause is not None):
            raise ValueError('expect.cause must be given with status "xfail", and only with it')
        if cause is not None and cause not in causes.known():
            raise ValueError(f"expect.cause must be one of {', '.join(causes.known())}; found {cause!r}")
        return self

    def combined(self, other: "Variant") -> "Variant":
        """Both on one guest. Raises Conflict for settings that exclude each other.

        It is expected to fail where one of them is, for the cause that boxlite meets first.
        """
        knobs = self.knobs
        for name, theirs in other.knobs.items():
            mine = knobs.get(name)
            try:
                knobs[name] = mine.combined(theirs) if mine else theirs
            except Conflict as why:
                raise Conflict(f"{name}: {why}") from None
        expected = [cause for cause in causes.known() if cause in (self.expect.cause, other.expect.cause)]
        update = {
            "name": f"{self.name}{AND}{other.name}",
            "title": f"{self.title}; {other.title}",
            "expect": Expectation(status="xfail", cause=expected[0]) if expected else Expectation(),
        }
        return self.model_copy(update={**update, **knobs})


@cache  # Variants of different classes are never equal.
def variant_file(kinds: tuple[tuple[str, type[Knob]], ...]) -> type[Variant]:
    """What a variant's file holds: its own keys, and a table for each kind of setting that it makes."""
    tables: dict[str, Any] = {name: (kind | None, None) for name, kind in kinds}
    return create_model("VariantFile", __base__=Variant, **tables)
