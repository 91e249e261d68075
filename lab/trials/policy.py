"""What is tried on the cells of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.record import ExperimentPolicy
from lab.remedies import Remedy


@dataclass(frozen=True)
class Policy:
    """Which remedies are tried on failing cells, on which cells experiments are made, and how often a try is
    repeated after a fault of the lab.
    """

    remedies: Mapping[str, Remedy] = field(default_factory=dict)
    experiments: ExperimentPolicy = ExperimentPolicy.NEVER
    retries: int = 0
