"""What is tried on cells, and what can change on one: a setting of its variant left out, or others added."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

from lab.base.files import plain
from lab.catalog import Catalog, Variant, knobs
from lab.catalog.knob import Conflict, Knob
from lab.catalog.remedies import Remedy
from lab.probes import Facts
from lab.record import ExperimentPolicy


@dataclass(frozen=True)
class Policy:
    """Which remedies are tried on failing cells, on which cells experiments are made, and how often a try is
    repeated after a fault of the lab.
    """

    remedies: Mapping[str, Remedy] = field(default_factory=dict)
    experiments: ExperimentPolicy = ExperimentPolicy.NEVER
    retries: int = 0


@dataclass(frozen=True)
class Change:
    """Settings, by the names of their kinds, that are added to a variant, or left out of it (`without`)."""

    name: str
    settings: Mapping[str, Knob]
    without: bool = False

    def __str__(self) -> str:
        # A name may come from a guest.
        return plain(f"{'without' if self.without else 'with'} {self.name}")

    @property
    def wants_own_machine(self) -> bool:
        """Whether a machine has to be booted for it."""
        return any(knob.kernel_arguments() for knob in self.settings.values())

    def on(self, variant: Variant) -> Variant:
        """The changed variant, under its own name. Its settings that contradict the change give way."""
        update: dict[str, Knob | None] = {}
        for kind, knob in self.settings.items():
            own = variant.knobs[kind].parts() if kind in variant.knobs else []
            kept = [part for part in own if part != knob and not _contradict(part, knob)]
            parts = kept if self.without else [*kept, knob]
            update[kind] = reduce(type(knob).combined, parts) if parts else None
        return variant.model_copy(update=update)


def undoing(variant: Variant) -> list[Change]:
    """One change for each of the variant's settings: that setting left out."""
    return [
        Change(f"{kind} {part.words()}", {kind: part}, without=True)
        for kind, knob in variant.knobs.items()
        for part in knob.parts()
    ]


def leading(variant: Variant, here: Facts, there: Facts) -> list[Change]:
    """The single changes that make a cell with facts `here` more like one with facts `there`.

    They are limited to what a knob can set, and leave out what the variant itself sets: see `undoing`.
    """
    made = []
    for kind, knob in knobs.KINDS.items():
        own = variant.knobs[kind].parts() if kind in variant.knobs else []
        for setting in knob.leading(here, there):
            if not any(_contradict(part, setting) for part in own):
                made.append(Change(f"{kind} {setting.words()}", {kind: setting}))
    return made


def of_catalog(catalog: Catalog) -> list[Change]:
    """The variants with a single kind of setting; those that are expected to pass come first."""
    single = [variant for variant in catalog.variants.values() if len(variant.knobs) == 1]
    single.sort(key=lambda variant: variant.expect.cause is not None)
    return [Change(variant.name, variant.knobs) for variant in single]


def _contradict(part: Knob, other: Knob) -> bool:
    try:
        part.combined(other)
    except Conflict:
        return True
    return False
