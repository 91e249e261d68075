"""The plan: the cells that a run is to run."""

from lab.plan.cell import (
    BLOCKED_SECONDS,
    BREAKING_SECONDS,
    DEFAULT_OPTIONS,
    PASS_SECONDS,
    REMEDIES_SECONDS,
    TURNING_SECONDS,
    Cell,
    Machine,
    rerun,
)
from lab.plan.choice import Choice, Shard, cells_of_shard, choose

__all__ = [
    "BLOCKED_SECONDS",
    "BREAKING_SECONDS",
    "DEFAULT_OPTIONS",
    "PASS_SECONDS",
    "REMEDIES_SECONDS",
    "TURNING_SECONDS",
    "Cell",
    "Choice",
    "Machine",
    "Shard",
    "cells_of_shard",
    "choose",
    "rerun",
]
