"""Ubuntu's restriction of user namespaces: the right cause in each of its states, and no false second one."""

import pytest

from lab.causes import diagnose_evidence
from lab.causes.evidence import Evidence
from lab.record import Confidence
from tests.builders import evidence as examples
from tests.builders.facts import probe
from tests.builders.ubuntu import REFUSED_EACCES, STATES, UID_MAP_EACCES, disconnected, evidence

NOCAPS, DENY, DISCONNECTED = "apparmor-userns-nocaps", "apparmor-userns-deny", "apparmor-disconnected"
MOUNT_DENY = "apparmor-mount-deny"
CAUSES = {
    "as installed": NOCAPS,
    "profile not loaded": DENY,
    "complain": DISCONNECTED,
    "enforced, attach_disconnected": NOCAPS,
}
INSTALLED, EXEMPT = STATES["as installed"], STATES["bwrap unconfined"]
COMPLAINS = examples.DENIED_CREATE.replace("DENIED", "ALLOWED") + disconnected(
    "bwrap", "ALLOWED", "lab-bwrap-without-userns"
)
NO_RULE = STATES["bwrap unconfined, profile not loaded"]
NO_MOUNT, NO_PIVOT = "Failed to make / slave: Permission denied", "pivot_root: Permission denied"
NOEXEC = {name: examples.HOME_NOEXEC.probes.by_name()[name] for name in ("exec_home", "home_allows_exec")}
NO_KVM = {"open_kvm": probe(13, "Permission denied: '/dev/kvm'")}


def switched_off(name: str, seen: Evidence) -> Evidence:
    """A sysctl at 0: the kernel refuses the namespace before it asks AppArmor."""
    sysctls = {name: "0", "kernel.apparmor_restrict_unprivileged_userns": "1"}
    return evidence(STATES["restriction off"], sysctls=sysctls, probes=seen.probes.by_name())


# The lab's variants on a host whose policy is on: what they log and stop there, and the causes.
VARIANTS: dict[str, tuple[Evidence, list[str]]] = {
    "apparmor-mount-deny": (evidence(EXEMPT, examples.DENIED_MOUNT, bwrap=NO_MOUNT), [MOUNT_DENY]),
    "apparmor-mount-deny, no profile": (evidence(NO_RULE, examples.DENIED_MOUNT, bwrap=NO_MOUNT), [MOUNT_DENY]),
    "apparmor-pivot-root-deny": (evidence(EXEMPT, examples.DENIED_PIVOT_ROOT, bwrap=NO_PIVOT), [MOUNT_DENY]),
    "apparmor-userns-deny": (evidence(EXEMPT, examples.DENIED_CREATE, bwrap=REFUSED_EACCES), [DENY]),
    "apparmor-userns-deny, no profile": (
        evidence(NO_RULE, examples.DENIED_CREATE, bwrap=REFUSED_EACCES),
        [DENY],
    ),
    "apparmor-bwrap-complain": (evidence(EXEMPT, COMPLAINS, bwrap=UID_MAP_EACCES), [DISCONNECTED]),
    "bwrap-setuid": (evidence(EXEMPT, bwrap="setuid use of bubblewrap is not supported"), ["bwrap-setuid"]),
    "userns-clone-off": (
        switched_off("kernel.unprivileged_userns_clone", examples.USERNS_SYSCTL),
        ["userns-sysctl"],
    ),
    "max-userns-zero": (switched_off("user.max_user_namespaces", examples.USERNS_LIMIT), ["userns-limit"]),
    # The probes meet the policy as well: where the first cause is cured, it blocks.
    "home-noexec": (evidence(INSTALLED, probes=NOEXEC, control_failed=True), ["home-noexec", NOCAPS]),
    "home-noexec, bwrap exempt": (evidence(EXEMPT, probes=NOEXEC, control_failed=True), ["home-noexec"]),
    "kvm-denied": (evidence(INSTALLED, probes=NO_KVM, control_failed=True), ["kvm-denied", NOCAPS]),
    "kvm-denied, bwrap exempt": (evidence(EXEMPT, probes=NO_KVM, control_failed=True), ["kvm-denied"]),
}


def diagnosed(gathered: Evidence) -> list[tuple[str, Confidence]]:
    return [(finding.name, finding.confidence) for finding in diagnose_evidence(gathered)]


@pytest.mark.parametrize("bundled", [False, True], ids=["system's bwrap", "boxlite's bwrap"])
@pytest.mark.parametrize("first", [True, False], ids=["first cell", "later cell"])
@pytest.mark.parametrize("name", STATES)
def test_each_state_of_the_policy_has_its_cause_and_no_other(name: str, *, first: bool, bundled: bool) -> None:
    gathered = evidence(STATES[name], first=first, bundled=bundled)
    assert diagnosed(gathered) == ([(CAUSES[name], Confidence.PROVED)] if name in CAUSES else [])


@pytest.mark.parametrize("name", STATES)
def test_without_a_log_the_words_of_bubblewrap_make_the_cause_likely(name: str) -> None:
    gathered = evidence(STATES[name], logged=False)
    assert diagnosed(gathered) == ([(CAUSES[name], Confidence.LIKELY)] if name in CAUSES else [])


@pytest.mark.parametrize("name", VARIANTS)
def test_what_the_policy_does_to_other_programs_is_no_cause_of_another_failure(name: str) -> None:
    gathered, causes = VARIANTS[name]
    assert diagnosed(gathered) == [(cause, Confidence.PROVED) for cause in causes]
