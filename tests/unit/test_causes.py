import json
from pathlib import Path

import pytest

from lab.diagnosis import causes
from lab.diagnosis.causes import RULES, diagnose
from lab.diagnosis.evidence import Evidence, Probe, read
from lab.results import Cause, Confidence
from tests.unit import evidence_examples as examples
from tests.unit.evidence_examples import gathered

SEEN = [
    (examples.USERNS_SYSCTL, Cause.USERNS_SYSCTL, "kernel.unprivileged_userns_clone is 0"),
    (examples.USERNS_LIMIT, Cause.USERNS_LIMIT, "user.max_user_namespaces is 0"),
    (examples.APPARMOR_DENY, Cause.APPARMOR_USERNS_DENY, "profile lab-bwrap-without-userns"),
    (examples.APPARMOR_NOCAPS, Cause.APPARMOR_USERNS_NOCAPS, "denied sys_admin to bwrap"),
]
NOT_RUN = {name: Probe(None, "not run") for name in examples.ALL_WORK}


def found(evidence: Evidence) -> list[Cause]:
    return [finding.cause for finding in diagnose(evidence, control_passed=True)]


@pytest.mark.parametrize(("evidence", "cause", "why"), SEEN, ids=[cause for _, cause, _ in SEEN])
def test_what_was_seen_on_real_guests_proves_its_cause_and_no_other(
    evidence: Evidence, cause: Cause, why: str
) -> None:
    [finding] = diagnose(evidence, control_passed=True)
    assert (finding.cause, finding.confidence) == (cause, Confidence.PROVED)
    assert why in finding.why


@pytest.mark.parametrize(("evidence", "cause", "why"), SEEN, ids=[cause for _, cause, _ in SEEN])
def test_no_cause_is_named_where_the_control_failed_too(evidence: Evidence, cause: Cause, why: str) -> None:
    assert diagnose(evidence, control_passed=False) == []


@pytest.mark.parametrize(
    "evidence",
    [
        examples.CLEAN,
        Evidence(),
        gathered(probes={"bwrap_user": examples.BWRAP_REFUSED, "bwrap_all": examples.BWRAP_REFUSED}),
        gathered(probes={"bwrap_all": examples.BWRAP_EACCES}),
        gathered(probes=NOT_RUN),
    ],
    ids=["clean", "nothing gathered", "bwrap's text alone", "bwrap's other text", "no probe ran"],
)
def test_evidence_that_shows_no_cause_proves_none(evidence: Evidence) -> None:
    assert found(evidence) == []


@pytest.mark.parametrize(
    "kernel",
    [
        examples.DENIED_CAP_BOXLITE,
        examples.DENIED_CAP_BWRAP.replace("bwrap", "firefox"),
        examples.DENIED_CREATE.replace("bwrap", "firefox"),
        examples.DENIED_CAP_BWRAP.replace("DENIED", "ALLOWED"),
        examples.DENIED_CREATE.replace("DENIED", "AUDIT"),
        examples.DENIED_CAP_BWRAP.replace("capability=21", "capability=12"),
    ],
)
def test_what_happens_to_other_programs_or_by_other_rules_proves_nothing(kernel: str) -> None:
    assert found(gathered(kernel)) == []


def test_denied_setpcap_counts_as_denied_sys_admin_does() -> None:
    kernel = examples.DENIED_CAP_BWRAP.replace("capability=21", "capability=8").replace("sys_admin", "setpcap")
    [finding] = diagnose(gathered(kernel), control_passed=True)
    assert finding.cause is Cause.APPARMOR_USERNS_NOCAPS
    assert "denied setpcap to bwrap" in finding.why


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (
            gathered(
                examples.DENIED_CREATE,
                probes=examples.USERNS_SYSCTL.probes,
                sysctls={"kernel.unprivileged_userns_clone": "0"},
            ),
            [Cause.USERNS_SYSCTL, Cause.APPARMOR_USERNS_DENY],
        ),
        (
            gathered(
                probes=examples.USERNS_SYSCTL.probes,
                sysctls={"kernel.unprivileged_userns_clone": "0", "user.max_user_namespaces": "0"},
            ),
            [Cause.USERNS_SYSCTL, Cause.USERNS_LIMIT],
        ),
        (
            gathered(examples.DENIED_CAP_BWRAP + examples.DENIED_CREATE, probes=examples.APPARMOR_DENY.probes),
            [Cause.APPARMOR_USERNS_DENY, Cause.APPARMOR_USERNS_NOCAPS],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_two_causes_are_named_in_the_order_in_which_they_block(
    evidence: Evidence, expected: list[Cause]
) -> None:
    assert found(evidence) == expected


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (gathered(sysctls={"kernel.unprivileged_userns_clone": "0"}), Cause.USERNS_SYSCTL),
        (gathered(sysctls={"user.max_user_namespaces": "0"}), Cause.USERNS_LIMIT),
        (gathered(probes={"unshare_user": examples.ENOSPC}), Cause.USERNS_LIMIT),
        (gathered(examples.DENIED_CREATE), Cause.APPARMOR_USERNS_DENY),
        (gathered(examples.DENIED_CAP_BWRAP), Cause.APPARMOR_USERNS_NOCAPS),
    ],
)
def test_half_of_the_evidence_makes_a_cause_likely_and_no_more(evidence: Evidence, cause: Cause) -> None:
    [finding] = diagnose(evidence, control_passed=True)
    assert (finding.cause, finding.confidence) == (cause, Confidence.LIKELY)


def test_every_cause_of_the_closed_list_has_its_rule() -> None:
    known = {cause for _, cause, _ in SEEN}
    assert known == set(Cause) - {Cause.UNKNOWN}
    assert len(RULES) == len(known)


def test_the_capabilities_are_those_of_the_kernel() -> None:
    assert (causes.SYS_ADMIN, causes.SETPCAP) == ("21", "8")


def test_a_denial_of_boxlites_own_thread_counts_in_the_profile_that_confined_the_suite(tmp_path: Path) -> None:
    # Recorded on a debian-13 whose kernel did not repeat the denial for bwrap.
    (tmp_path / "kernel.log").write_text(
        '[   93.6] audit: type=1400 audit(1795543620.643:105): apparmor="DENIED" operation="capable" '
        'class="cap" profile="unprivileged_userns" pid=704 comm="tokio-rt-worker" capability=21  '
        'capname="sys_admin"\n'
    )
    probes = {
        "unshare_user": {"status": 0, "stderr": ""},
        "unshare_user_root": {"status": 1, "stderr": "unshare: write failed /proc/self/uid_map"},
    }
    for context, expected in (
        ("unprivileged_userns (enforce)", ["apparmor-userns-nocaps"]),
        ("unconfined", []),
        (None, []),
    ):
        known = {"context": {"apparmor": context}, "probes": probes}
        (tmp_path / "probes.json").write_text(json.dumps(known))
        assert found(read(tmp_path)) == expected
