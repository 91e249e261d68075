"""What bug reports claim, judged by what cells recorded."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from lab import catalog, causes
from lab.catalog import remedies
from lab.probes import Facts
from lab.record import CellResult, Confidence, Expectation, Outcome, RemedyOutcome, Status, TestResult
from lab.report import judgements
from lab.verdict import claims
from lab.verdict.claims import Answer
from lab.verdict.words import FinishedCell
from tests.builders import evidence as evidence_examples
from tests.builders import messages
from tests.builders.cells import box, cell
from tests.builders.claims import (
    FAIL,
    POLICY,
    RESTRICTION,
    TESTS,
    UBUNTU,
    blocked,
    gathered,
    ran,
    ubuntu,
    with_remedies,
)
from tests.builders.facts import context, facts
from tests.builders.runs import run_of

REPORT = "issue-468"
REPORTS = [claims.load(name) for name in claims.names()]
CLAIMS = {name: report for report in REPORTS for name in report.claims}
DENIED = "bwrap-exec-denied"
JAILED = "jailer_enabled_box_starts_and_executes"
PROFILE_FILE = "/etc/apparmor.d/unprivileged_userns"
NO_SWITCH = f"its kernel has no {RESTRICTION}"

PASS = ran(Outcome.PASS, Outcome.PASS)
KILLED = [
    TestResult(name=TESTS[0], outcome=Outcome.FAIL, message="was running when the suite was killed"),
    TestResult(name=TESTS[1], outcome=Outcome.NOT_RUN),
]
ONE_PASSED = ran(Outcome.FAIL, Outcome.PASS)
OTHER = TestResult(name="x", outcome=Outcome.FAIL)


def judged(name: str, *cells: FinishedCell, guest: str = "debian-13") -> claims.Judgement:
    return claims.judge(CLAIMS[name], name, guest, cells)


def section_of(name: str, run: Path, *cells: CellResult) -> str:
    """What the page of a run says about one claim."""
    page = judgements.render_claims(run_of(*cells), run, REPORT)
    return page.split(f"\n## {name}\n")[1].split("\n## ")[0]


def stock(**more: Any) -> CellResult:
    """A cell as installed, on a guest with this AppArmor and these facts."""
    defaults: dict[str, Any] = {"tests": PASS, "facts": enforcing(), "context": context()}
    return cell(**(defaults | more))


def enforcing(**changes: Any) -> Facts:
    """The facts of a guest that enforces the profile, unless they are changed."""
    defaults = {"kernel": "6.12", "apparmor": {"profiles": {"unprivileged_userns": "enforce"}}}
    return facts(**(defaults | changes))


def apparmor(version: str | None, *files: str) -> Facts:
    return facts(apparmor={"version": version, "profile_files": list(files), "profiles": {}})


def noble(restriction: str | None = None, **changes: Any) -> Facts:
    sysctls = {"sysctls": {RESTRICTION: restriction}} if restriction else {}
    return enforcing(os=UBUNTU, **sysctls, **changes)


def container(outcome: RemedyOutcome) -> CellResult:
    return with_remedies(("privileged-container", outcome))


def profiles(outcome: RemedyOutcome, **more: Any) -> CellResult:
    """The allow list cannot be tried, and a profile for bubblewrap alone had this outcome."""
    return with_remedies(("bwrap-userns-restrict", CANNOT), ("bwrap-profile", outcome), **more)


NOT_ASKED = facts().model_copy(update={"sysctls": {}})
PASSES: dict[str, Any] = {"status": Status.XPASS, "cause": None}


def clone(value: str | None) -> Facts:
    return facts(sysctls={"kernel.unprivileged_userns_clone": value})


HOLDS, DOES_NOT, NOT_JUDGED = Answer.HOLDS, Answer.DOES_NOT_HOLD, Answer.NOT_JUDGED
VERIFIED, NO_HELP, CANNOT = RemedyOutcome.VERIFIED, RemedyOutcome.DOES_NOT_HELP, RemedyOutcome.CANNOT
AVOIDS = RemedyOutcome.AVOIDS
NOCAPS, ELSE = messages.APPARMOR_NOCAPS, messages.HOME_NOEXEC
LIBCONTAINER = NOCAPS.replace("sandbox::bwrap:", "libcontainer:")
NOT_EXECUTED = NOCAPS.replace(
    "bwrap --unshare-user failed (system bwrap at bwrap)",
    "failed to run bwrap: Permission denied (os error 13)",
)
INSTALLED = ubuntu("1", "unprivileged_userns")
UID_MAP: dict[str, Any] = {"said": "bwrap: setting up uid map: Permission denied"}


def on_ubuntu(variant: str = "stock", of_guest: Facts | None = INSTALLED, **more: Any) -> CellResult:
    """A cell of ubuntu-24.04, blocked as installed unless that is changed."""
    return blocked(**{"guest": "ubuntu-24.04", "variant": variant, "facts": of_guest} | more)


# A cell whose variant lifts the restriction, or changes what blocks.
LIFTED = {"status": Status.PASS, "cause": None, "expected": Expectation(), "tests": PASS}
WORSE = {"cause": "apparmor-userns-deny", "expected": Expectation(status="xfail", cause="apparmor-userns-deny")}
LIFTING, SETTINGS = "apparmor-restrict-off", "issue-468-settings"
MISSING, REMOVED = "apparmor-userns-profile-missing", "apparmor-userns-profile-removed"
THREAD = evidence_examples.DENIED_CAP_BOXLITE
UNSHARE = THREAD.replace("tokio-rt-worker", "unshare")
IN_VAIN = "and the preflight fails all the same: the evidence in a sentence"

# The claims about Ubuntu's own policy, each on its kernel. What holds there: docs/ubuntu-policy.md.
ON_UBUNTU: list[tuple[str, CellResult, dict[str, Any], Answer, str]] = [
    ("three-settings", on_ubuntu(SETTINGS, ubuntu("0"), **LIFTED), {}, DOES_NOT, "every test passes"),
    ("three-settings", on_ubuntu(SETTINGS, ubuntu("0")), {}, HOLDS, IN_VAIN),
    ("three-settings", on_ubuntu(SETTINGS, ubuntu("0")), {"log": ELSE}, NOT_JUDGED, "not the preflight"),
    ("three-settings", on_ubuntu(SETTINGS), {}, NOT_JUDGED, "that is not in effect here"),
    ("setting-restrict", on_ubuntu(LIFTING, ubuntu("0"), **LIFTED), {}, DOES_NOT, f"{RESTRICTION} is 0"),
    ("setting-restrict", on_ubuntu(LIFTING, ubuntu("0")), {}, HOLDS, IN_VAIN),
    # From 25.04 on bubblewrap is exempt in any case.
    ("setting-restrict", on_ubuntu(LIFTING, ubuntu("0", "bwrap"), **LIFTED), {}, NOT_JUDGED, "profile bwrap"),
    ("setting-profile", on_ubuntu(MISSING, ubuntu("1"), **WORSE), {}, HOLDS, IN_VAIN),
    ("setting-profile", on_ubuntu(REMOVED, ubuntu("1"), **WORSE), {}, HOLDS, IN_VAIN),
    ("setting-profile", on_ubuntu(REMOVED, ubuntu("1"), **LIFTED), {}, DOES_NOT, "is not loaded"),
    ("setting-profile", on_ubuntu(REMOVED, ubuntu("0"), **LIFTED), {}, NOT_JUDGED, "not in effect here"),
    ("bwrap-alone", on_ubuntu(), UID_MAP, DOES_NOT, "it fails: bwrap: setting up uid map"),
    ("bwrap-alone", on_ubuntu(), {"bwrap": 0}, HOLDS, "it works"),
    ("bwrap-alone", on_ubuntu(), {"bwrap": None}, NOT_JUDGED, "was not tried"),
    ("bwrap-alone", on_ubuntu(), {"bwrap": 0, "command": ["bwrap", "--version"]}, NOT_JUDGED, "not tried"),
    ("audit-line", on_ubuntu(), {"kernel": THREAD}, HOLDS, "for tokio-rt-worker, which says nothing"),
    ("audit-line", on_ubuntu(), {}, HOLDS, "it did, for bwrap"),
    # The line of the lab's own probe.
    ("audit-line", on_ubuntu(), {"kernel": UNSHARE}, DOES_NOT, "did not"),
    ("audit-line", on_ubuntu(cause="unknown", confidence=None), {"kernel": ""}, DOES_NOT, "did not"),
    ("capability-denied", on_ubuntu(), {}, HOLDS, "`unshare -Ur` does not; the evidence in a sentence"),
    ("capability-denied", on_ubuntu(), UID_MAP, HOLDS, "attach_disconnected"),
    ("capability-denied", on_ubuntu(), {"stripped": False}, NOT_JUDGED, "does not prove it"),
    ("capability-denied", on_ubuntu(confidence=Confidence.LIKELY), {}, NOT_JUDGED, "does not prove it"),
    ("capability-denied", on_ubuntu(status=Status.XPASS, cause=None), {}, DOES_NOT, "passes all the same"),
]
# A cell of each that is no example of Ubuntu's own policy.
ELSEWHERE = {
    "three-settings": SETTINGS,
    "setting-restrict": LIFTING,
    "setting-profile": REMOVED,
    "bwrap-alone": POLICY,
    "audit-line": POLICY,
    "capability-denied": POLICY,
}

# The claim, one cell, how its evidence differs from that of a cell under the policy, the answer, a word of why.
ONE_CELL: list[tuple[str, CellResult, dict[str, Any], Answer, str]] = [
    ("blocked-tests", blocked("userns-sysctl"), {}, HOLDS, "both fail, and no other"),
    ("blocked-tests", blocked(tests=[*FAIL, OTHER]), {}, HOLDS, "so do: x"),
    ("blocked-tests", blocked(tests=ONE_PASSED), {}, DOES_NOT, f"passed: {TESTS[1]}"),
    ("blocked-tests", blocked(tests=KILLED), {}, NOT_JUDGED, f"did not run, or were skipped: {TESTS[1]}"),
    ("preflight-fails", blocked("userns-limit"), {}, HOLDS, "in its log; its caller gets: boxlite.errors"),
    ("preflight-fails", blocked(), {"log": ELSE}, DOES_NOT, "could not be initialized"),
    ("error-text", blocked(DENIED), {}, DOES_NOT, "bwrap --unshare-user failed (system bwrap at bwrap)"),
    ("error-text", blocked(DENIED), {"log": NOT_EXECUTED}, HOLDS, "it says 'failed to run"),
    ("error-text", blocked(DENIED), {"log": ELSE}, NOT_JUDGED, "not gathered"),
    ("one-cause", blocked(), {}, DOES_NOT, "bubblewrap does start"),
    ("one-cause", blocked(DENIED), {"log": NOT_EXECUTED, "kernel": ""}, DOES_NOT, "did not even start"),
    ("one-cause", blocked(), {"log": NOT_EXECUTED}, HOLDS, "the kernel logs the other"),
    ("libcontainer", blocked(), {}, DOES_NOT, "it says: bwrap --unshare-user failed"),
    ("libcontainer", blocked(), {"log": LIBCONTAINER}, HOLDS, "libcontainer"),
    ("profile-ships", stock(), {}, HOLDS, "4.1.0 has the profile unprivileged_userns, loaded in enforce mode"),
    ("profile-ships", stock(facts=apparmor("4.0.1")), {}, DOES_NOT, "4.0.1 has no profile unprivileged_userns"),
    ("profile-ships", stock(facts=apparmor("4.0.1", PROFILE_FILE)), {}, HOLDS, "not loaded"),
    ("profile-ships", stock(facts=apparmor("3.0.8")), {}, NOT_JUDGED, "3.0.8 may be older than 4"),
    ("profile-ships", stock(facts=enforcing(apparmor=None)), {}, NOT_JUDGED, "no AppArmor"),
    ("profile-ships", stock(facts=apparmor(None)), {}, NOT_JUDGED, "of an unknown version may be older"),
    ("fresh-ubuntu", stock(facts=noble(), status=Status.FAIL, tests=FAIL), {}, HOLDS, "with kernel 6.12"),
    ("fresh-ubuntu", stock(facts=noble()), {}, DOES_NOT, "it passes"),
    ("ubuntu-default", stock(facts=noble("1")), {}, HOLDS, f"{RESTRICTION}: 1"),
    ("ubuntu-default", stock(facts=noble("0")), {}, DOES_NOT, f"{RESTRICTION}: 0"),
    ("ubuntu-default", stock(facts=noble(apparmor=None)), {}, DOES_NOT, "not loaded"),
    ("ubuntu-default", stock(facts=None, guest="ubuntu-24.04"), {}, NOT_JUDGED, "its facts were not read"),
    ("setting-userns-clone", blocked(facts=clone("1")), {}, HOLDS, "is 1, and the preflight fails"),
    ("setting-userns-clone", blocked(facts=clone("1"), **PASSES), {}, DOES_NOT, "every test passes"),
    ("option-preflight", with_remedies(("preflight", AVOIDS)), {}, HOLDS, "preflight: avoids it"),
    ("option-preflight", blocked(), {}, NOT_JUDGED, "no such remedy was tried"),
    ("option-container", container(VERIFIED), {}, HOLDS, "verified"),
    ("option-container", container(NO_HELP), {}, DOES_NOT, "does not help"),
    ("option-container", container(CANNOT), {}, NOT_JUDGED, "cannot be tried"),
    ("option-container", container(RemedyOutcome.NOT_JUDGED), {}, NOT_JUDGED, "not judged here"),
    ("option-allow-list", profiles(VERIFIED, cause="apparmor-userns-deny"), {}, HOLDS, "profile: verified"),
    ("option-allow-list", profiles(NO_HELP), {}, DOES_NOT, "bwrap-profile: does not help"),
]


# -- of the documentation

SUITE = catalog.load().suite
BWRAP_FILE = "/etc/apparmor.d/bwrap-userns-restrict"
TIMEOUT = "Timeout waiting for guest ready (30s)"
ALLOW_LIST = ("bwrap", "bwrap-userns-restrict", "unpriv_bwrap")


def outcomes(*failed: str, message: str = "it failed") -> list[TestResult]:
    return [
        TestResult(name=name, outcome=Outcome.FAIL, message=message)
        if name in failed
        else TestResult(name=name, outcome=Outcome.PASS)
        for name in SUITE.tests
    ]


def passing(**more: Any) -> CellResult:
    defaults: dict[str, Any] = {"tests": outcomes(), "facts": facts()}
    return cell(**(defaults | more))


def denied(message: str = "no KVM") -> CellResult:
    return blocked("kvm-denied", tests=outcomes(JAILED, SUITE.control, message=message))


def passing_on(os: dict[str, str], *files: str, **more: Any) -> CellResult:
    return passing(facts=facts(os=os, apparmor={"profile_files": list(files)}), **more)


def loaded(*profiles: str) -> CellResult:
    return passing(facts=facts(apparmor={"profiles": dict.fromkeys(profiles, "enforce")}))


def boxed(*namespaces: str, asked: bool = True) -> CellResult:
    """A cell whose witness saw a box with these namespaces; `asked`: whether it was given the jailer."""
    seen = box(namespaces=list(namespaces), asked={"jailer_enabled": asked})
    witness = TestResult(name=SUITE.witness, outcome=Outcome.PASS, protection=seen)
    return passing(tests=[witness])


FAILING: dict[str, Any] = {"status": Status.FAIL, "tests": outcomes(JAILED)}

# The claim, one cell, its evidence, the answer, a word of what is seen or of why it is not judged.
OF_DOCS: list[tuple[str, CellResult, dict[str, Any], Answer, str]] = [
    ("kvm-is-all", passing(), {}, HOLDS, "every test passes"),
    ("kvm-is-all", blocked(tests=outcomes(JAILED)), {}, DOES_NOT, "; for the cause apparmor-userns"),
    ("kvm-timeout", denied(TIMEOUT), {}, HOLDS, "it says 'Timeout waiting"),
    ("kvm-timeout", denied(), {}, DOES_NOT, "it says: no KVM"),
    ("kvm-mode", passing(), {}, HOLDS, "mode 0o660, owner root, group kvm"),
    ("kvm-mode", passing(facts=facts(kvm={"mode": "0o666"})), {}, DOES_NOT, "mode 0o666"),
    ("kvm-mode", passing(facts=facts(kvm=None)), {}, NOT_JUDGED, "it has no /dev/kvm"),
    ("kvm-newgrp", with_remedies(("kvm-group", VERIFIED), name="kvm-denied"), {}, HOLDS, "kvm-group: verified"),
    ("kvm-chmod", with_remedies(("kvm-everyone", NO_HELP), name="kvm-denied"), {}, DOES_NOT, "does not help"),
    ("namespaces", boxed("mnt", "pid", "net", "user"), {}, HOLDS, "of their own: mnt, net, pid, user"),
    ("namespaces", boxed("mnt", "pid", "user"), {}, DOES_NOT, "shared with the test: net"),
    ("namespaces", boxed("mnt", asked=False), {}, NOT_JUDGED, "was not read"),
    ("policy-timeout", blocked(tests=outcomes(JAILED, message=TIMEOUT)), {}, HOLDS, "Timeout waiting"),
    ("works-with-sudo", passing_on(UBUNTU, variant="as-root"), {}, HOLDS, "every test passes"),
    ("works-with-sudo", passing_on(UBUNTU, variant="as-root", **FAILING), {}, DOES_NOT, f"fail: {JAILED}"),
    ("works-on-newer", passing_on(UBUNTU), {}, NOT_JUDGED, "could only be judged on Ubuntu 25.04 or newer"),
    ("profile-is-missing", passing_on(UBUNTU), {}, HOLDS, "has no profile bwrap-userns-restrict"),
    ("profile-is-missing", passing_on(UBUNTU, BWRAP_FILE), {}, DOES_NOT, "has the profile bwrap-userns"),
    ("capability-8", blocked(), {"kernel": evidence_examples.UBUNTU_SETPCAP}, HOLDS, "capability 8 to bwrap"),
    ("capability-8", blocked(), {}, NOT_JUDGED, "it denied capability 21 to bwrap; Ubuntu's kernel"),
    ("capability-8", blocked(facts=facts(os=UBUNTU)), {}, DOES_NOT, "it denied capability 21 to bwrap"),
    ("capability-8", blocked(), {"kernel": evidence_examples.NOISE}, NOT_JUDGED, "it denied no capability"),
    ("aa-status", loaded("bwrap", "unpriv_bwrap"), {}, DOES_NOT, "bwrap, unpriv_bwrap"),
    ("aa-status", loaded(*ALLOW_LIST), {}, HOLDS, ", ".join(ALLOW_LIST)),
]
CASES = ONE_CELL + ON_UBUNTU + OF_DOCS


@pytest.mark.parametrize(("name", "result", "evidence", "answer", "why"), CASES)
def test_a_claim_is_judged_by_what_a_cell_recorded(
    tmp_path: Path, name: str, result: CellResult, evidence: dict[str, Any], answer: Answer, why: str
) -> None:
    judgement = judged(name, gathered(tmp_path, result, **evidence), guest=result.guest)
    assert judgement.answer is answer
    assert why in (judgement.seen[0].what if judgement.seen else judgement.reason)


@pytest.mark.parametrize(
    ("of_guest", "why"),
    [
        (facts(), f"{NO_SWITCH}: only Ubuntu's kernel tells"),
        (NOT_ASKED, f"it was not asked for {RESTRICTION}"),
        (None, "its facts were not read"),
        (ubuntu("1"), "its variant imitates the policy, and differs from it"),
    ],
)
@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_policy_needs_ubuntus_kernel(tmp_path: Path, name: str, of_guest: Facts | None, why: str) -> None:
    result = blocked(
        variant=ELSEWHERE[name], facts=of_guest, differs={"Ubuntu 24.04": ["bubblewrap starts in it"]}
    )
    judgement = judged(name, gathered(tmp_path, result))
    assert (judgement.answer, [seen.what for seen in judgement.seen]) == (NOT_JUDGED, [why])


def test_the_set_has_a_cell_for_each_claim_about_ubuntus_own_policy() -> None:
    named = catalog.load().sets[REPORT]
    assert "ubuntu-24.04" in named.guests
    assert {"stock", SETTINGS, LIFTING, MISSING} <= set(named.variants)


def test_each_look_can_come_out_either_way() -> None:
    looks = {(CLAIMS[name].claims[name].look, answer) for name, _, _, answer, _ in CASES}
    assert looks >= {(look, answer) for look in claims.LOOKS for answer in (HOLDS, DOES_NOT)}


def test_what_claims_name_exists_and_their_looks_take_their_arguments() -> None:
    definitions, tried = catalog.load(), remedies.load()
    for report in REPORTS:
        for claim in report.claims.values():
            inspect.signature(claims.LOOKS[claim.look]).bind(None, **claim.arguments)
            assert set(claim.arguments.get("remedies", [])) <= tried.keys()
            assert claim.arguments.get("result", VERIFIED) in list(RemedyOutcome)
        places = report.places.values()
        assert {name for place in places for name in place.variants} <= definitions.variants.keys()
        assert {name for place in places for name in place.blocked_by} <= causes.known().keys()
        assert {place.passed for place in places if place.passed} <= SUITE.tests.keys()
        assert report.places.keys() == {claim.place for claim in report.claims.values()}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_guest_without_a_cell_that_could_show_it_is_not_judged(tmp_path: Path, name: str) -> None:
    judgement = judged(name, gathered(tmp_path, blocked("kvm-absent", guest="fedora-44")), guest="fedora-44")
    assert (judgement.answer, judgement.seen) == (NOT_JUDGED, ())
    report = CLAIMS[name]
    assert judgement.reason == report.places[report.claims[name].place].only


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("audit-line", blocked(status=Status.NOT_APPLICABLE, cause=None, reason="no AppArmor")),
        ("three-settings", cell(variant="issue-468-settings", status=Status.NOT_APPLICABLE, reason=NO_SWITCH)),
        ("fresh-ubuntu", cell(guest="ubuntu-24.04", status=Status.NOT_RUN, reason="image not available: x")),
        ("ubuntu-default", cell(guest="ubuntu-26.04", status=Status.ERROR, reason="no SSH")),
        ("blocked-tests", blocked(status=Status.FLAKY)),
    ],
)
def test_a_cell_without_a_stable_result_tells_nothing(tmp_path: Path, name: str, result: CellResult) -> None:
    judgement = judged(name, gathered(tmp_path, result), guest=result.guest)
    assert judgement.answer is NOT_JUDGED
    assert [seen.what for seen in judgement.seen] == [f"{result.status}: {result.reason}"]


def test_one_cell_against_it_outweighs_those_that_show_it(tmp_path: Path) -> None:
    cells = [
        gathered(tmp_path, blocked("userns-sysctl")),
        gathered(tmp_path, blocked("userns-limit", tests=ran(Outcome.FAIL, Outcome.PASS))),
        gathered(tmp_path, blocked(status=Status.NOT_APPLICABLE, cause=None, reason="no AppArmor")),
    ]
    assert judged("blocked-tests", *cells).answer is DOES_NOT
    assert judged("blocked-tests", cells[0], cells[2]).answer is HOLDS


@pytest.mark.parametrize(
    ("name", "result"),
    [
        # Something else blocked it than its variant.
        ("audit-line", blocked("userns-sysctl", expected=Expectation(status="xfail", cause=POLICY))),
        # A Debian is no Ubuntu, whatever it is called.
        ("fresh-ubuntu", stock(guest="ubuntu-24.04")),
        ("fresh-ubuntu", stock(facts=enforcing(os=UBUNTU | {"id": "zorin"}))),
        ("ubuntu-default", stock(guest="ubuntu-24.04")),
        ("blocked-tests", blocked(expected=Expectation(), confidence=Confidence.LIKELY)),
    ],
)
def test_a_cell_that_is_no_example_shows_nothing(tmp_path: Path, name: str, result: CellResult) -> None:
    judgement = judged(name, gathered(tmp_path, result), guest=result.guest)
    assert (judgement.answer, judgement.seen) == (NOT_JUDGED, ())


def test_a_kernel_log_that_was_lost_shows_no_absence(tmp_path: Path) -> None:
    lost = gathered(tmp_path, on_ubuntu(), kernel="")
    (lost.folder / "kernel.log").rename(lost.folder / "kernel-mark-lost.log")
    assert judged("audit-line", lost, guest="ubuntu-24.04").answer is NOT_JUDGED


def test_where_no_evidence_was_gathered_nothing_is_judged_by_it(tmp_path: Path) -> None:
    bare = FinishedCell(blocked(), tmp_path)
    for name in ("preflight-fails", "error-text", "audit-line", "bwrap-alone", "libcontainer"):
        assert judged(name, bare).answer is NOT_JUDGED


def test_a_build_that_tells_its_caller_all_is_judged_by_that(tmp_path: Path) -> None:
    _, _, words = messages.APPARMOR_NOCAPS.partition("sandbox::bwrap: ")
    told = [TestResult(name=TESTS[0], outcome=Outcome.FAIL, message=f"boxlite.errors.ConfigError: {words}")]
    bare = FinishedCell(blocked(tests=told), tmp_path)
    expected = {"preflight-fails": HOLDS, "libcontainer": DOES_NOT}
    assert {name: judged(name, bare).answer for name in expected} == expected


def test_the_page_has_an_answer_for_every_guest_and_links_what_shows_it(tmp_path: Path) -> None:
    cells = [
        blocked("userns-sysctl"),
        blocked("userns-limit"),
        cell(guest="ubuntu-24.04", status=Status.NOT_RUN, reason="image not available: no | network"),
    ]
    for result in cells:
        gathered(tmp_path, result)
        junit = tmp_path / result.folder / "suite/junit.xml"
        junit.parent.mkdir()
        junit.write_text("<x/>")
    page = judgements.render_claims(run_of(*cells), tmp_path, REPORT)
    assert "| claim | debian-13 | ubuntu-24.04 |" in page
    assert "| blocked-tests | holds | not judged |" in page
    section = section_of("blocked-tests", tmp_path, *cells)
    assert (
        "| debian-13 | Debian GNU/Linux 13 (trixie), boxlite 0.10.8 | holds | both fail, and no other | "
        "userns-sysctl [junit.xml](cells/debian-13/userns-sysctl/0.10.8/suite/junit.xml), "
        "userns-limit [junit.xml](cells/debian-13/userns-limit/0.10.8/suite/junit.xml) |"
    ) in section
    assert "Not judged on ubuntu-24.04: only a cell whose user namespaces are blocked shows it." in section
    never = r"| ubuntu-24.04 | -, boxlite 0.10.8 | not judged | not-run: image not available: no \| network |"
    assert f"{never} stock |" in page


def test_what_was_not_gathered_is_not_linked(tmp_path: Path) -> None:
    gathered(tmp_path, on_ubuntu())
    page = judgements.render_claims(run_of(on_ubuntu()), tmp_path, REPORT)
    assert "junit.xml" not in page
    assert "[kernel.log](cells/ubuntu-24.04/stock/0.10.8/kernel.log)" in page


def test_the_documentations_page_is_no_bug_report_and_asks_for_the_cells_of_its_own_set(tmp_path: Path) -> None:
    page = judgements.render_claims(run_of(passing()), tmp_path, "docs")
    assert page.startswith("# The documentation of boxlite 0.10.8, judged by run ")
    assert "| kvm-is-all | holds |" in page
    definitions = catalog.load()
    places = (place.only for place in claims.load("docs").places.values())
    named = {word.strip("()") for only in places for word in only.split()} & definitions.variants.keys()
    assert named >= {"kvm-denied", "apparmor-userns-nocaps"}
    assert named <= set(definitions.set("docs").variants)
