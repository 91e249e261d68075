"""The statements of boxlite's documentation, each judged by cells in which it can come out."""

from pathlib import Path
from typing import Any

import pytest

from lab import catalog
from lab.record import CellResult, Expectation, Outcome, RemedyOutcome, Status, TestResult
from lab.report import judgements
from lab.verdict import claims
from lab.verdict.claims import Answer
from tests.builders import evidence as evidence_examples
from tests.builders.cells import cell
from tests.builders.claims import blocked, gathered, with_remedies
from tests.builders.facts import facts
from tests.builders.runs import run_of

HOLDS, DOES_NOT, NOT_JUDGED = Answer.HOLDS, Answer.DOES_NOT_HOLD, Answer.NOT_JUDGED
VERIFIED, NO_HELP, CANNOT = RemedyOutcome.VERIFIED, RemedyOutcome.DOES_NOT_HELP, RemedyOutcome.CANNOT
AVOIDS = RemedyOutcome.AVOIDS
SUITE = catalog.load().suite
JAILED = "jailer_enabled_box_starts_and_executes"
NOBLE = {"id": "ubuntu", "version_id": "24.04", "pretty_name": "Ubuntu 24.04.3 LTS"}
RESOLUTE = {"id": "ubuntu", "version_id": "26.04", "pretty_name": "Ubuntu 26.04 LTS"}
BWRAP_FILE = "/etc/apparmor.d/bwrap-userns-restrict"
TIMEOUT = "Timeout waiting for guest ready (30s)"
ALLOW_LIST = ("bwrap", "bwrap-userns-restrict", "unpriv_bwrap")
LOG_OF_8 = (
    '[ 1.0] audit: type=1400 audit(1795536999.471:105): apparmor="DENIED" operation="capable" class="cap" '
    'profile="unprivileged_userns" pid=1 comm="bwrap" capability=8 capname="setpcap"\n'
)


def outcomes(*failed: str, message: str = "it failed") -> list[TestResult]:
    return [
        TestResult(name=name, outcome=Outcome.FAIL, message=message, seconds=31)
        if name in failed
        else TestResult(name=name, outcome=Outcome.PASS)
        for name in SUITE.tests
    ]


def passing(**more: Any) -> CellResult:
    wanted: dict[str, Any] = {"tests": outcomes(), "facts": facts()}
    return cell(**(wanted | more))


def denied(*tests: str, message: str = "no KVM", **more: Any) -> CellResult:
    return blocked("kvm-denied", tests=outcomes(*(tests or (JAILED, SUITE.control)), message=message), **more)


def on_ubuntu(os: dict[str, str], *files: str, **more: Any) -> CellResult:
    return passing(facts=facts(os=os, apparmor={"profile_files": list(files)}), **more)


def failed_on(os: dict[str, str]) -> CellResult:
    return on_ubuntu(os, status=Status.FAIL, tests=outcomes(JAILED))


def loaded(*profiles: str) -> CellResult:
    return passing(facts=facts(apparmor={"profiles": dict.fromkeys(profiles, "enforce")}))


# The claim, one cell, its evidence, the answer, a word of what is seen or of why it is not judged.
CASES: list[tuple[str, CellResult, dict[str, Any], Answer, str]] = [
    ("kvm-is-all", passing(), {}, HOLDS, "every test passes"),
    ("kvm-is-all", blocked(tests=outcomes(JAILED)), {}, DOES_NOT, "1 tests fail for the cause apparmor-userns"),
    ("kvm-is-all", denied(), {}, NOT_JUDGED, "only a cell in which a box without the jailer starts"),
    ("kvm-group", with_remedies(("kvm-group", VERIFIED), name="kvm-denied"), {}, HOLDS, "kvm-group: verified"),
    ("kvm-group", with_remedies(("kvm-group", NO_HELP), name="kvm-denied"), {}, DOES_NOT, "does not help"),
    ("kvm-group", denied(), {}, NOT_JUDGED, "no such remedy was tried"),
    ("kvm-timeout", denied(message=TIMEOUT), {}, HOLDS, "it says: Timeout waiting"),
    ("kvm-timeout", denied(), {}, DOES_NOT, "it says: no KVM"),
    ("kvm-mode", passing(), {}, HOLDS, "mode 0o660, owner root, group kvm"),
    ("kvm-mode", passing(facts=facts(kvm={"mode": "0o666"})), {}, DOES_NOT, "mode 0o666"),
    ("kvm-mode", passing(facts=facts(kvm=None)), {}, NOT_JUDGED, "it has no /dev/kvm"),
    ("policy-timeout", blocked(tests=outcomes(JAILED, message=TIMEOUT)), {}, HOLDS, "Timeout waiting"),
    ("policy-timeout", blocked(tests=outcomes(JAILED)), {}, DOES_NOT, "after 31 s it says: it failed"),
    ("works-with-sudo", on_ubuntu(NOBLE, variant="as-root"), {}, HOLDS, "every test passes"),
    ("works-with-sudo", passing(variant="as-root"), {}, NOT_JUDGED, "could only be judged on Ubuntu 24.04"),
    ("works-on-newer", on_ubuntu(RESOLUTE), {}, HOLDS, "every test passes"),
    ("works-on-newer", failed_on(RESOLUTE), {}, DOES_NOT, f"fail: {JAILED}"),
    ("works-on-newer", on_ubuntu(NOBLE), {}, NOT_JUDGED, "could only be judged on Ubuntu 25.04 or newer"),
    ("profile-is-missing", on_ubuntu(NOBLE), {}, HOLDS, "it has not"),
    ("profile-is-missing", on_ubuntu(NOBLE, BWRAP_FILE), {}, DOES_NOT, "it has /etc"),
    ("profile-is-missing", passing(), {}, NOT_JUDGED, "could only be judged on Ubuntu 24.04"),
    ("capability-8", blocked(), {"kernel": LOG_OF_8}, HOLDS, "it denied capability 8 to bwrap"),
    ("capability-8", blocked(), {}, NOT_JUDGED, "it denied capability 21 to bwrap; Ubuntu's kernel"),
    ("capability-8", blocked(facts=facts(os=NOBLE)), {}, DOES_NOT, "it denied capability 21 to bwrap"),
    ("capability-8", blocked(), {"kernel": evidence_examples.NOISE}, NOT_JUDGED, "it denied no capability"),
    ("aa-status", loaded("bwrap", "unpriv_bwrap"), {}, DOES_NOT, "bwrap, unpriv_bwrap"),
    ("aa-status", loaded(*ALLOW_LIST), {}, HOLDS, ", ".join(ALLOW_LIST)),
    ("aa-status", passing(variant="bwrap-allow-list"), {}, NOT_JUDGED, "no profile for bubblewrap was seen"),
    ("option-a", with_remedies(("bwrap-userns-restrict", VERIFIED)), {}, HOLDS, "restrict: verified"),
    ("option-a", with_remedies(("bwrap-userns-restrict", NO_HELP)), {}, DOES_NOT, "does not help"),
    ("option-b", with_remedies(("apparmor-restrict-off", VERIFIED)), {}, HOLDS, "verified"),
    ("option-b", with_remedies(("apparmor-restrict-off", CANNOT)), {}, NOT_JUDGED, "cannot be tried here"),
    ("option-c", with_remedies(("jailer-off", AVOIDS)), {}, HOLDS, "jailer-off: avoids it"),
    ("reinstall-bubblewrap", with_remedies(("install-bubblewrap", NO_HELP)), {}, DOES_NOT, "does not help"),
    ("security-layers", passing(), {}, NOT_JUDGED, "only a look into a running box's processes"),
]


@pytest.mark.parametrize(("name", "result", "evidence", "answer", "word"), CASES)
def test_each_statement_is_judged_by_what_a_cell_shows(
    tmp_path: Path, name: str, result: CellResult, evidence: dict[str, Any], answer: Answer, word: str
) -> None:
    finished = gathered(tmp_path, result, **evidence)
    judged = claims.judge(claims.known("docs")[name], result.guest, [finished])
    assert judged.answer is answer
    assert word in (judged.seen[0].sight.what if judged.seen else judged.reason)


def test_every_statement_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(claims.known("docs"))


def test_its_page_is_no_bug_report_and_asks_for_the_cells_of_its_own_set(tmp_path: Path) -> None:
    page = judgements.render_claims(run_of(passing()), tmp_path, "docs")
    assert page.startswith("# The documentation of boxlite 0.10.8, judged by run ")
    assert "| kvm-is-all | holds |" in page
    known = catalog.load()
    words = {word.strip("()") for claim in claims.known("docs").values() for word in claim.where.only.split()}
    named = words & known.variants.keys()
    assert named >= {"kvm-denied", "apparmor-userns-nocaps"}
    assert named <= set(known.set("docs").variants)


def test_what_a_variant_is_expected_to_do_is_no_statement_of_it(tmp_path: Path) -> None:
    never = blocked(status=Status.NOT_APPLICABLE, expected=Expectation(), cause=None, reason="no AppArmor")
    judged = claims.judge(claims.known("docs")["option-a"], "debian-13", [gathered(tmp_path, never)])
    assert judged.answer is NOT_JUDGED
