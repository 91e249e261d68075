"""The plan: which cells to run."""

from lab.plan.cell import (
    AS_EVER,
    BLOCKED_SECONDS,
    BREAKING_SECONDS,
    PASS_SECONDS,
    REMEDIES_SECONDS,
    TURNING_SECONDS,
    Cell,
    Machine,
    rerun,
)
from lab.plan.choice import Choice, choose
from lab.plan.shard import Part, of_part

__all__ = [
    "AS_EVER",
    "BLOCKED_SECONDS",
    "BREAKING_SECONDS",
    "PASS_SECONDS",
    "REMEDIES_SECONDS",
    "TURNING_SECONDS",
    "Cell",
    "Choice",
    "Machine",
    "Part",
    "choose",
    "of_part",
    "rerun",
]
