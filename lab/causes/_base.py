"""The base class of causes: a property of the host that blocks boxlite, and the rule that detects it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from lab.evidence import Evidence
from lab.record import Confidence, Needs

# What bubblewrap says if it made its user namespace and may not write the map of its users.
UID_MAP = "setting up uid map"
# The switch of Ubuntu's restriction of user namespaces, which other kernels do not have. It is 1 on Ubuntu as
# installed, also where boxlite works.
RESTRICTION = "kernel.apparmor_restrict_unprivileged_userns"
# The profile into which Ubuntu's kernel moves an unconfined program that makes a user namespace.
RESTRICTED = "unprivileged_userns"
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


def own(lines: Iterable[dict[str, str]], evidence: Evidence) -> list[dict[str, str]]:
    """Return the audit lines of bubblewrap itself: only these say what stopped it.

    Ubuntu's kernel also logs lines of boxlite's thread and of the probe `unshare`, even if bubblewrap works.
    """
    return [line for line in lines if line.get("comm") in evidence.programs]


def bubblewrap_says(text: str, evidence: Evidence) -> bool:
    """Return whether bubblewrap failed with this text: the host's, or boxlite's own, as boxlite says."""
    bwrap = evidence.probes.bwrap_user
    return bwrap.failed_with(text) or (bwrap.status is None and evidence.boxlite_says(text))


def proved_if(proof: bool, why: str, proof_why: str) -> Shown:
    """Return a proved cause, with the proof added to its sentence, or else a likely one."""
    return Shown(Confidence.PROVED, why + proof_why) if proof else Shown(Confidence.LIKELY, why)
