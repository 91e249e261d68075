# ruff: noqa: E501
"""Evidence of hosts whose kernel has Ubuntu's restriction of user namespaces, in each of its states.

Put together from what was measured on a debian-13 guest whose kernel had Ubuntu's mediation (28 November 2026,
AppArmor 4.1.0, bubblewrap 0.12.0, boxlite 0.10.8). Ubuntu's own kernels were not run. The kernel logs the lines of
boxlite's thread and of the probe `unshare` on every such host, also where boxlite works.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lab.causes.evidence import Evidence
from lab.probes import Probe
from tests.builders import evidence as examples
from tests.builders.facts import probe

RESTRICT = "kernel.apparmor_restrict_unprivileged_userns"
POLICY = "unprivileged_userns"
EACCES, EPERM = "Permission denied", "Operation not permitted"
UID_MAP_EACCES = f"setting up uid map: {EACCES}"
UID_MAP_EPERM = f"setting up uid map: {EPERM}"
REFUSED_EACCES = f"Creating new namespace failed: {EACCES}"

THREAD, UNSHARE, BWRAP = "tokio-rt-worker", "unshare", "bwrap"
# What makes user namespaces in a cell, in this order: boxlite's own test and its bubblewrap, then the probes.
PROGRAMS = (THREAD, BWRAP, UNSHARE, UNSHARE, BWRAP, BWRAP)


def line(fields: str) -> str:
    return f"[  263.579386] audit: type=1400 audit(1795825072.874:104): {fields}\n"


def moved(comm: str) -> str:
    return line(
        'apparmor="AUDIT" operation="userns_create" class="namespace" info="Userns create - transitioning profile" '
        f'profile="unconfined" pid=645 comm="{comm}" requested="userns_create" target="{POLICY}"'
    )


def refused(comm: str) -> str:
    return line(
        'apparmor="DENIED" operation="userns_create" class="namespace" info="Userns create restricted - failed to '
        f'find {POLICY} profile" error=-13 profile="unconfined" pid=647 comm="{comm}" requested="userns_create" '
        f'denied="userns_create" target="{POLICY}"'
    )


def capability(comm: str, number: int, name: str, verdict: str = "DENIED") -> str:
    return line(
        f'apparmor="{verdict}" operation="capable" class="cap" profile="{POLICY}" pid=646 comm="{comm}" '
        f'capability={number}  capname="{name}"'
    )


def disconnected(comm: str, verdict: str = "DENIED", profile: str = POLICY) -> str:
    return line(
        f'apparmor="{verdict}" operation="open" class="file" info="Failed name lookup - disconnected path" error=-13 '
        f'profile="{profile}" name="proc/646/uid_map" pid=646 comm="{comm}" requested_mask="wr" denied_mask="wr" '
        "fsuid=1001 ouid=1001"
    )


@dataclass(frozen=True)
class State:
    """A state of the policy, and how bubblewrap fares: `bwrap` is what it says, None if it works.

    `exempt`: bubblewrap has a profile of its own, so that the kernel does not move it.
    """

    bwrap: str | None = None
    restrict: str = "1"
    loaded: bool = True
    complain: bool = False
    attach: bool = False
    exempt: bool = False

    @property
    def unshare(self) -> str | None:
        """What `unshare -U` says."""
        return None if self.restrict == "0" or self.loaded else f"unshare failed: {EACCES}"

    @property
    def unshare_root(self) -> str | None:
        """What `unshare -Ur` says."""
        if self.unshare or self.restrict == "0" or self.complain:
            return self.unshare
        return f"write failed /proc/self/uid_map: {EPERM}"

    def log(self, *, first: bool) -> Iterator[str]:
        """The kernel's lines. The denial of a capability is logged once for a profile and a program: `first`."""
        if self.restrict == "0":
            return
        verdict = "ALLOWED" if self.complain else "DENIED"
        for number, comm in enumerate(PROGRAMS):
            if comm == BWRAP and self.exempt:
                continue
            if not self.loaded:
                yield refused(comm)
                continue
            yield moved(comm)
            if first and comm not in PROGRAMS[:number] and comm == BWRAP:
                yield capability(comm, 8, "setpcap", verdict)
            elif first and comm not in PROGRAMS[:number]:
                yield capability(comm, 21, "sys_admin", verdict)
            if comm == BWRAP and not self.attach:
                yield disconnected(comm, verdict)


STATES = {
    "as installed": State(UID_MAP_EACCES),
    "profile not loaded": State(REFUSED_EACCES, loaded=False),
    "restriction off": State(restrict="0"),
    "restriction off, profile not loaded": State(restrict="0", loaded=False),
    "bwrap unconfined": State(exempt=True),
    "bwrap-userns-restrict": State(exempt=True),
    "bwrap unconfined, profile not loaded": State(exempt=True, loaded=False),
    "complain": State(UID_MAP_EACCES, complain=True),
    "complain, attach_disconnected": State(complain=True, attach=True),
    "enforced, attach_disconnected": State(UID_MAP_EPERM, attach=True),
    # ..._complain=1 and ..._force=1 changed nothing, other sysctls than these are not read.
}


def probe_of(program: str, text: str | None) -> Probe:
    return probe(1, f"{program}: {text}") if text else examples.OK


def evidence(
    state: State,
    kernel: str = "",
    *,
    bwrap: str | None = None,
    first: bool = True,
    logged: bool = True,
    bundled: bool = False,
    sysctls: dict[str, str] | None = None,
    probes: dict[str, Probe] | None = None,
    control_failed: bool = False,
) -> Evidence:
    """Evidence of a host in this state; `kernel` and `bwrap` are what something else there logs and stops.

    `bundled`: the host has no bubblewrap, and boxlite's own met the same.
    """
    words = bwrap or state.bwrap
    tried = examples.NO_PROGRAM if bundled else probe_of(BWRAP, words)
    return examples.gathered(
        examples.NOISE + ("".join(state.log(first=first)) + kernel if logged else ""),
        probes={
            "unshare_user": probe_of(UNSHARE, state.unshare),
            "unshare_user_root": probe_of(UNSHARE, state.unshare_root),
            "bwrap_user": tried,
            "bwrap_all": tried,
            **(probes or {}),
        },
        sysctls={RESTRICT: state.restrict, **(sysctls or {})},
        logs=(f"bwrap --unshare-user failed (bwrap)\nbwrap stderr: bwrap: {words}\n",) if words else (),
        control_failed=control_failed,
    )
