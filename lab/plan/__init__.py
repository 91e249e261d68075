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
from lab.plan.choice import Choice, choose
from lab.plan.order import HIGHEST_SEED, shuffled
from lab.plan.shard import Shard, cells_of_shard

__all__ = [
    "BLOCKED_SECONDS",
    "BREAKING_SECONDS",
    "DEFAULT_OPTIONS",
    "HIGHEST_SEED",
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
    "shuffled",
]
