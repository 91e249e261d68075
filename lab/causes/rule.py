"""What a cause is, and what the rules of all causes share.

`before_sandbox` and `sandbox` hold the causes, in the order in which boxlite meets them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from packaging.version import Version

from lab.causes.evidence import Evidence
from lab.probes.facts import parse_version
from lab.record import Confidence, Needs

# strerror(3) for EPERM, EACCES, ENOENT, ENOSPC, and both ENODEV and ENXIO.
NOT_PERMITTED = "Operation not permitted"
PERMISSION_DENIED = "Permission denied"
NOT_THERE = "No such file or directory"
NO_SPACE = "No space left on device"
NO_DEVICE = "No such device"


@dataclass(frozen=True)
class CauseEvidence:
    """How sure a cause is, and one sentence that states the evidence."""

    confidence: Confidence
    reason: str


# Returns what the evidence shows for one cause, or None if it shows nothing.
Rule = Callable[[Evidence], CauseEvidence | None]


@dataclass(frozen=True)
class Cause:
    """A property of the host that blocks boxlite, and the rule that detects it.

    Tests that need the part of the host that it `breaks` fail. `blamed_by` are messages with which boxlite
    blames it; none if boxlite does not know it. `met_by_chance`: whether it is chance which program meets the
    cause first, so that one host says other words the next time. `until` is the first version of boxlite that
    cannot have the cause; None if every version so far can.
    """

    name: str
    breaks: Needs
    rule: Rule
    blamed_by: Sequence[str] = ()
    met_by_chance: bool = False
    until: Version | None = None

    def can_affect(self, boxlite: str) -> bool:
        """Whether this version of boxlite can have the cause; any can whose version is not known."""
        version = parse_version(boxlite)
        return self.until is None or version is None or version < self.until

    @property
    def explanation(self) -> str:
        """The cause in two sentences for users."""
        return " ".join((self.rule.__doc__ or "").split())


CAUSES: list[Cause] = []


def add_cause(
    name: str,
    breaks: Needs,
    *,
    blamed_by: Sequence[str] = (),
    met_by_chance: bool = False,
    until: Version | None = None,
) -> Callable[[Rule], Rule]:
    """Make a function the rule of the next cause: see `Cause`."""

    def add(rule: Rule) -> Rule:
        CAUSES.append(Cause(name, breaks, rule, blamed_by, met_by_chance, until))
        return rule

    return add


def prove_if(proof: bool, reason: str, proof_why: str = "") -> CauseEvidence:
    """Return a proved cause, with the proof added to its sentence, or else a likely one."""
    return (
        CauseEvidence(Confidence.PROVED, reason + proof_why)
        if proof
        else CauseEvidence(Confidence.LIKELY, reason)
    )
