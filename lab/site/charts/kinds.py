"""What a lane spends its time on, and how the steps of the record and of `run.log` are assigned to that."""

from collections.abc import Collection
from enum import StrEnum


class Kind(StrEnum):
    """One kind of work of a lane. The value is its name for readers; `css` names its pattern and colour."""

    IMAGE = "image"
    START = "start of the guest"
    DEPLOY = "deployment"
    SETUP = "fork and variant"
    SUITE = "suite"
    EVIDENCE = "evidence"
    TRIALS = "remedies and experiments"
    WAITING = "waiting"
    OTHER = "other"

    @property
    def css(self) -> str:
        """The name of its class and of its pattern."""
        return f"kind-{self.name.lower()}"


# The steps in `seconds` of a lane and of a cell.
LANE_STEPS = {
    "boot": Kind.START,
    "fetch": Kind.DEPLOY,
    "deploy": Kind.DEPLOY,
    "checkpoint": Kind.DEPLOY,
}
CELL_STEPS = {
    "fork": Kind.SETUP,
    "apply": Kind.SETUP,
    "suite": Kind.SUITE,
    "evidence": Kind.EVIDENCE,
}

# How the lines of `run.log` about a lane begin; a longer one stands before a shorter one.
BEGINNINGS = {
    "image: waiting": Kind.WAITING,
    "image: ": Kind.IMAGE,
    "waiting for ": Kind.WAITING,
    "finding out about KVM": Kind.WAITING,
    "booting": Kind.START,
    "restoring": Kind.START,
    "storing its boot": Kind.START,
    "fetching": Kind.DEPLOY,
    "deploying": Kind.DEPLOY,
    "taking a checkpoint": Kind.DEPLOY,
}


def kind_of(step: str, variants: Collection[str]) -> Kind:
    """Return what a lane does in a step of `run.log`; `variants` are those of the run."""
    for beginning, kind in BEGINNINGS.items():
        if step.startswith(beginning):
            return kind
    variant, _, what = step.partition(": ")
    if variant not in variants:
        return Kind.OTHER
    match what.partition(" ")[0]:
        case "":
            return Kind.SETUP
        case "running":
            return Kind.SUITE
        case "gathering":
            return Kind.EVIDENCE
        case "trying" | "experiment:":
            return Kind.TRIALS
    return Kind.OTHER
