"""What the probes alone say of boxlite, before any suite has run, by the rules of the causes.

`lab check` says it to users about their hosts; a run says it of each cell before its suite runs, and counts how
often it was right.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab import causes
from lab.catalog import Suite
from lab.causes.evidence import Evidence, parse_confining_profile
from lab.probes import Facts, Probe, Probes, ProcessUser
from lab.probes.facts import KvmFacts
from lab.record import CellResult, Confidence, Foreseen, FoundCause, Prediction

PERMISSION_DENIED = os.strerror(errno.EACCES)
# In a user namespace: the number of every user and group that it does not map (/proc/sys/kernel/overflowuid).
UNMAPPED = 65534
# The suite of which the probes say whether it passes. Others need more than a box in its sandbox.
PREDICTED_SUITE = "jailer"


@dataclass(frozen=True)
class ProbedHost:
    """What the probes ran on, as whom, and what came of them.

    `boxlite` is the version of the build, empty if nobody knows it. `same_ids`: whether `facts` numbers users
    and groups as the user's own processes do; it does not if a container's facts were read outside of it.
    """

    facts: Facts
    user: ProcessUser
    probes: Probes
    boxlite: str = ""
    same_ids: bool = True

    @property
    def decisive(self) -> Sequence[Probe]:
        """The probes without which no box starts in its sandbox."""
        probes = self.probes
        # Without the system's bubblewrap boxlite uses its own, which was not tried.
        sandbox = probes.bwrap_all if probes.bwrap_all.status is not None else probes.unshare_user_root
        needed = [probes.open_kvm, probes.create_vm, probes.start_processes]
        return [*needed, probes.socket_folder, probes.exec_home, sandbox]

    @property
    def kvm_mode_allows(self) -> bool:
        """Whether the mode of /dev/kvm lets the user open it: what denies it then is a security module."""
        return self.facts.kvm is not None and _mode_allows(self.facts.kvm, self.user, same_ids=self.same_ids)


def _mode_allows(kvm: KvmFacts, user: ProcessUser, *, same_ids: bool) -> bool:
    """Whether these permission bits allow to read and to write. A number that is not mapped is nobody's."""
    shift = 0
    if same_ids and kvm.uid == user.uid != UNMAPPED:
        shift = 6
    elif same_ids and kvm.gid != UNMAPPED and kvm.gid in user.groups:
        shift = 3
    return int(kvm.mode, 8) >> shift & 0o6 == 0o6


def diagnose_probes(host: ProbedHost, *, kvm_mode_allows: bool) -> list[FoundCause]:
    """Return the causes that the probes themselves show, the one that blocks first at the front.

    The rules read probes and sysctls as those of a cell. There is no log, and no suite ran: the control is
    neither passed nor failed, so what either would rule out stays. `kvm_mode_allows`: see `ProbedHost`.
    """
    evidence = Evidence(
        probes=host.probes,
        sysctls={name: value for name, value in host.facts.sysctls.items() if value is not None},
        profile=parse_confining_profile(host.user.context.apparmor),
        container=host.user.container,
        limits=host.user.context.limits,
        boxlite=host.boxlite,
    )
    findings = {
        finding.name: finding
        for failed in (True, False)
        for finding in causes.diagnose_evidence(replace(evidence, control_failed=failed))
    }
    if kvm_mode_allows:
        findings.pop("kvm-denied", None)
    return [findings[name] for name in causes.list_causes() if name in findings]


def foresee(host: ProbedHost, findings: Sequence[FoundCause]) -> Prediction:
    """Say what the probes and the causes that they show lead to; nobody has run a suite."""
    refused = any(probe.failed for probe in host.decisive)
    if findings and (refused or any(finding.confidence is Confidence.PROVED for finding in findings)):
        return Prediction(says=Foreseen.BLOCKED, cause=findings[0].name, reason=findings[0].reason)
    if refused:
        reason = "the kernel refused the probe what boxlite needs; the probe alone does not show the cause"
        return Prediction(says=Foreseen.BLOCKED, reason=reason)
    if host.facts.kvm and host.facts.kvm.lacking:
        lacking = " ".join(host.facts.kvm.lacking)
        reason = f"KVM lacks {lacking}, without which boxlite's machines do not start"
        return Prediction(says=Foreseen.BLOCKED, reason=reason)
    reason = "the probe was refused nothing that boxlite needs"
    says = Foreseen.UNKNOWN
    bubblewrap, bwrap_all = host.facts.bubblewrap, host.probes.bwrap_all
    is_executable = bubblewrap is not None and bool(int(bubblewrap.mode, 8) & 0o111)
    if findings:
        reason = f"{findings[0].name} is suspected, yet the probe was refused nothing"
    elif is_executable and bwrap_all.status is None and PERMISSION_DENIED in bwrap_all.stderr:
        reason = "something denies executing bubblewrap, and may deny boxlite's own bubblewrap too"
    elif any(probe.status is None for probe in host.decisive):
        reason = "not everything that boxlite needs could be tried on this host"
    else:
        says = Foreseen.WORKS
    return Prediction(says=says, reason=reason)


def predict_suite(host: ProbedHost, suite: Suite) -> Prediction:
    """Say what the probes expect of a suite.

    A cause that breaks nothing which the suite needs says nothing about it. Nor do probes that were refused
    nothing, if the suite needs more than a box in its sandbox.
    """
    rows = causes.list_causes()
    findings = [
        finding
        for finding in diagnose_probes(host, kvm_mode_allows=host.kvm_mode_allows)
        if suite.needing(rows[finding.name].breaks)
    ]
    prediction = foresee(host, findings)
    if prediction.says is Foreseen.WORKS and suite.name != PREDICTED_SUITE:
        reason = f"{prediction.reason}, and the suite {suite.name} needs more than the probe tries"
        return Prediction(says=Foreseen.UNKNOWN, reason=reason)
    return prediction


def judge_prediction(cell: CellResult) -> bool | None:
    """Whether the prediction of a cell was right; None if it said nothing, or if no suite decided the cell.

    A cause is right if it is the first one that the cell's evidence shows. `blocked` alone is right if the cell
    failed, whatever blocked it.
    """
    prediction = cell.prediction
    if prediction is None or prediction.says is Foreseen.UNKNOWN or not cell.status.is_decisive:
        return None
    if prediction.says is Foreseen.WORKS:
        return cell.status.passed
    return cell.status.failed and prediction.cause in (None, cell.cause)
