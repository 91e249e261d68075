"""The base class of causes: a property of the host that blocks boxlite, and the rule that detects it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from lab.evidence import Evidence
from lab.record import Confidence, Needs

# The program with which the probes make namespaces; boxlite starts those of `Evidence.programs`.
PROBE = "unshare"
# What bubblewrap says if it made its user namespace and may not write the map of its users.
UID_MAP = "setting up uid map"
# strerror(3) for EPERM, EACCES, ENOENT and ENOSPC.
NOT_PERMITTED = "Operation not permitted"
PERMISSION_DENIED = "Permission denied"
NOT_THERE = "No such file or directory"
NO_SPACE = "No space left on device"


@dataclass(frozen=True)
class Shown:
    """How sure a cause is, and one sentence that states the evidence."""

    confidence: Confidence
    why: str


class Cause(ABC):
    """One cause. Its name is its module's name, with `-` for `_`.

    No rule relies on a message that bubblewrap prints for several causes.
    """

    # Position among the causes: boxlite meets lower numbers first. A comment beside each number says why.
    order: ClassVar[int]
    # Tests that need this part of the host fail.
    breaks: ClassVar[Needs]
    # Two sentences for users: what blocks boxlite, and where that comes from.
    explanation: ClassVar[str]
    # Messages with which boxlite blames this cause; empty if boxlite does not know this cause.
    blamed_by: ClassVar[tuple[str, ...]] = ()
    # Whether it is chance which program meets the cause first, so that one host says other words the next time.
    met_by_chance: ClassVar[bool] = False

    @abstractmethod
    def shown(self, evidence: Evidence) -> Shown | None:
        """Return what the evidence shows for this cause, or None if it shows nothing."""


def relevant_programs(evidence: Evidence) -> tuple[str, ...]:
    """Return the programs whose denials say something about bubblewrap.

    A denial to the probe's `unshare` counts only if bubblewrap was tried as well and failed.
    """
    return (*evidence.programs, PROBE) if bubblewrap_failed(evidence) else evidence.programs


def bubblewrap_failed(evidence: Evidence) -> bool:
    """Return whether bubblewrap ran and failed. Without a system's one, boxlite's words about its own count."""
    bwrap = evidence.probes.bwrap_user
    return bwrap.failed or (bwrap.status is None and evidence.boxlite_says(UID_MAP))


def proved_if(proof: bool, why: str, proof_why: str) -> Shown:
    """Return a proved cause, with the proof added to its sentence, or else a likely one."""
    return Shown(Confidence.PROVED, why + proof_why) if proof else Shown(Confidence.LIKELY, why)
