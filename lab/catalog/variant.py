"""The definition of a variant: a file in `cloud-init/variants/`."""

from functools import cache
from typing import Any

from pydantic import Field, create_model, model_validator

from lab import causes
from lab.catalog.toml import Definition
from lab.knobs import Conflict, Knob
from lab.record import Expectation

# Joins the names of variants that are combined on a guest.
AND = "+"
PASS = "pass"


def check_expectation(expect: Expectation) -> None:
    """Raise ValueError if its cause is missing, not needed or unknown."""
    if (expect.status == "xfail") != (expect.cause is not None):
        raise ValueError('expect.cause must be given with status "xfail", and only with it')
    if expect.cause is not None and expect.cause not in causes.known():
        raise ValueError(f"expect.cause must be one of {', '.join(causes.known())}; found {expect.cause!r}")


def first_expected(*expectations: Expectation) -> Expectation:
    """Return the one whose cause boxlite meets first; a pass if none has a cause."""
    by_cause = {each.cause: each for each in expectations}
    return next((by_cause[cause] for cause in causes.known() if cause in by_cause), Expectation())


class Variant(Definition):
    """A named set of security settings for a guest.

    Besides these keys it has one for each kind of setting in `lab.knobs`: see `variant_file`.
    """

    name: str
    title: str
    expect: Expectation = Expectation()
    # What becomes of a cause that a guest has by itself: a pass, or another cause.
    turns: dict[str, str] = Field(default_factory=dict)
    # Remedies of which a cell with this variant cannot tell what they do on a real host, each with the reason.
    not_judged: dict[str, str] = Field(default_factory=dict)
    # In what a guest with this variant differs from the host that the variant stands for, by that host's name.
    differs: dict[str, list[str]] = Field(default_factory=dict)

    @property
    def knobs(self) -> dict[str, Knob]:
        """The variant's settings, by the name of their kind."""
        return {name: value for name, value in self if isinstance(value, Knob)}

    @property
    def kernel_arguments(self) -> list[str]:
        """Arguments that it adds to the kernel's command line; they require a boot."""
        return [word for knob in self.knobs.values() for word in knob.kernel_arguments()]

    @property
    def sysctls(self) -> list[str]:
        """The sysctls that must be read in a guest to tell whether the variant makes sense and is in effect."""
        return [name for knob in self.knobs.values() for name in knob.sysctls()]

    @model_validator(mode="after")
    def _expectation_is_whole(self) -> "Variant":
        check_expectation(self.expect)
        known = {*causes.known(), PASS}
        if unknown := [name for pair in self.turns.items() for name in pair if name not in known]:
            raise ValueError(f"turns must hold causes and {PASS!r}; found {unknown[0]!r}")
        return self

    def combined(self, other: "Variant") -> "Variant":
        """Combine both variants on one guest. Raises Conflict if their settings exclude each other.

        The result is expected to fail if one of them is, for the cause that boxlite meets first.
        """
        knobs = self.knobs
        for name, theirs in other.knobs.items():
            mine = knobs.get(name)
            try:
                knobs[name] = mine.combined(theirs) if mine else theirs
            except Conflict as why:
                raise Conflict(f"{name}: {why}") from None
        update = {
            "name": f"{self.name}{AND}{other.name}",
            "title": f"{self.title}; {other.title}",
            "expect": first_expected(self.expect, other.expect),
            "turns": self.turns | other.turns,
            "not_judged": self.not_judged | other.not_judged,
            "differs": self.differs | other.differs,
        }
        return self.model_copy(update={**update, **knobs})


@cache  # Variants are equal only if they have the same class.
def variant_file(kinds: tuple[tuple[str, type[Knob]], ...]) -> type[Variant]:
    """Build the model of a variant's file: its own keys, and a table for each kind of setting."""
    tables: dict[str, Any] = {name: (kind | None, None) for name, kind in kinds}
    return create_model("VariantFile", __base__=Variant, **tables)
