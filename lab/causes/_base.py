"""What a cause is: something of the host that blocks boxlite, and the rule over the evidence that shows it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from lab.evidence import Evidence
from lab.record import Confidence, Needs

# What boxlite starts, and what else the probes start to make a namespace.
BUBBLEWRAP, PROBE = "bwrap", "unshare"
# strerror(3) of EPERM, EACCES, ENOENT and ENOSPC.
NOT_PERMITTED = "Operation not permitted"
PERMISSION_DENIED = "Permission denied"
NOT_THERE = "No such file or directory"
NO_SPACE = "No space left on device"


@dataclass(frozen=True)
class Shown:
    """How well the evidence shows a cause, and the piece of evidence in a sentence."""

    confidence: Confidence
    why: str


class Cause(ABC):
    """One cause. Its module's name, with `-` for `_`, is the cause's name.

    No rule rests on a text that bubblewrap has for several causes.
    """

    # Its place among the causes: boxlite meets the lower number first. Why is said beside each number.
    order: ClassVar[int]
    # The tests that need this much of the host fail.
    breaks: ClassVar[Needs]
    # In two sentences for a user: what blocks boxlite, and where that comes from.
    explanation: ClassVar[str]
    # boxlite's own words, any of them, where it blames this cause; none where it knows of no such cause.
    blamed_by: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def shown(self, evidence: Evidence) -> Shown | None:
        """What the evidence has to show for this cause, or None where it shows nothing."""


def makers(evidence: Evidence) -> tuple[str, ...]:
    """The programs of which a denial tells something of bubblewrap; that of another explains nothing.

    What was denied to a probe without bubblewrap tells of it only where that was tried, too, and failed.
    """
    return (BUBBLEWRAP, PROBE) if evidence.probe("bwrap_user").failed else (BUBBLEWRAP,)


def proved_if(proof: bool, why: str, proof_why: str) -> Shown:
    """Proved, with the proof said too, or only likely."""
    return Shown(Confidence.PROVED, why + proof_why) if proof else Shown(Confidence.LIKELY, why)
