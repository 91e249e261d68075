"""What reports assert of hosts, of boxlite and of cures: how it is read, and what a cell shows of it."""

from pathlib import Path
from typing import Any

import pytest

from lab import catalog
from lab.base import notices
from lab.catalog import remedies
from lab.probes import Facts
from lab.record import CellResult, Outcome, RemedyOutcome, Status, TestResult
from lab.repro import assertions, verdict
from lab.repro.report import Assertion, Speaker, Statement
from lab.repro.verdict import ClaimOutcome, Reproduction
from lab.verdict import observers
from lab.verdict.observers import NothingShown, Observation
from lab.verdict.words import FinishedCell
from tests.builders import evidence as evidence_examples
from tests.builders import messages
from tests.builders.cells import box, cell
from tests.builders.facts import facts
from tests.builders.finished_cells import (
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
from tests.builders.report_texts import of
from tests.builders.reports import (
    audit,
    gather,
    plan,
    quote,
    report,
    run,
    suspected,
    system,
    words,
)
from tests.builders.reports import ran as ran_of_plan

SUITE = catalog.load_catalog().suite
VERIFIED, NO_HELP, CANNOT = RemedyOutcome.VERIFIED, RemedyOutcome.DOES_NOT_HELP, RemedyOutcome.CANNOT
HELD, NOT_HELD, NOT_TESTED = ClaimOutcome.HELD, ClaimOutcome.NOT_HELD, ClaimOutcome.NOT_TESTED
AVOIDS = RemedyOutcome.AVOIDS
PASS = ran(Outcome.PASS, Outcome.PASS)
NOT_EXECUTED = "failed to run bwrap: Permission denied (os error 13)"

SHIPS = "Blame the unprivileged_userns AppArmor profile that ships in apparmor ≥ 4.0."
INCLUDES = "It is the bwrap-userns-restrict profile that Ubuntu 25.04+ includes."
LACKS = "Ubuntu 24.04 has AppArmor and does not ship the bwrap-userns-restrict profile."
DEFAULT = "This is the unprivileged_userns AppArmor profile, a default of Ubuntu 24."
FRESH = "I see it on a fresh Ubuntu 24.04 server."
NEWER = "It works without sudo on Ubuntu 25.04+."
ROOT = "It works with sudo"
ONLY_KVM = "It only requires access to /dev/kvm."
MODE = "ls -l /dev/kvm # Should be: crw-rw---- 1 root kvm"
KINDS = "There is namespace isolation (mount, PID, network)."
DENIED = "CAP_SYS_ADMIN is needed and is denied by the unprivileged_userns AppArmor profile."
LISTED = 'aa-status | grep bwrap # should show "bwrap-userns-restrict"'
PROFILE = "One fix is to install an AppArmor profile for bwrap."
CONTAINER = "Run the tests in a privileged container."
SKIP = "One option: detect user namespaces at the start and skip."
JAILER = "Fix: SecurityOptions.development()"
GROUP = "Fix: sudo usermod -aG kvm $USER && newgrp kvm"


def installed(profile: str = "", *, version: str = "4.1.0", os: dict[str, str] | None = None) -> CellResult:
    """A cell as installed, on a guest with this AppArmor and the file of this profile."""
    files = [f"/etc/apparmor.d/{profile}"] if profile else []
    apparmor = {"version": version, "profile_files": files, "profiles": {}}
    return cell(tests=PASS, facts=facts(apparmor=apparmor, **({"os": os} if os else {})))


def with_facts(of_guest: Facts | None, **more: Any) -> CellResult:
    return cell(**({"tests": PASS, "facts": of_guest} | more))


def outcomes(*failed: str) -> list[TestResult]:
    return [
        TestResult(name=name, outcome=Outcome.FAIL if name in failed else Outcome.PASS) for name in SUITE.tests
    ]


def boxed(*namespaces: str, asked: bool = True) -> CellResult:
    """A cell whose witness saw a box with these namespaces; `asked`: whether it was given the jailer."""
    protection = box(namespaces=list(namespaces), asked={"jailer_enabled": asked})
    return cell(tests=[TestResult(name=SUITE.witness, outcome=Outcome.PASS, protection=protection)])


def on_newer(version: str, **more: Any) -> CellResult:
    return with_facts(facts(os=UBUNTU | {"version_id": version}), **more)


THREAD = evidence_examples.DENIED_CAP_BOXLITE
FAILED: dict[str, Any] = {"status": Status.FAIL, "tests": FAIL}
LOADED = facts(apparmor={"profiles": {"bwrap": "enforce", "bwrap-userns-restrict": "enforce"}})

ARM = "| Linux | ARM64 | Supported |"
WINDOWS = "| Windows (WSL2) | x86_64 | Supported |"
NO_ROOT = "Embed it as a library: no root, no service."
OWN_ROOT = "Chroot/pivot_root for filesystem isolation"
FILTERED = "Seccomp BPF for syscall filtering"
DROPPED = "Privilege dropping (unprivileged user)"
ON_ARM = facts(arch="aarch64")


def jailed(**other: Any) -> CellResult:
    """A cell whose witness saw a box with the jailer that is confined in another way than most."""
    protection = box(asked={"jailer_enabled": True}, **other)
    return cell(tests=[TestResult(name=SUITE.witness, outcome=Outcome.PASS, protection=protection)])


# What is asserted, one cell, how its evidence differs from that of a cell under Ubuntu's policy, whether it
# holds (None: nothing is shown), and a word of the reason.
CASES: list[tuple[str, CellResult, dict[str, Any], bool | None, str]] = [
    (
        SHIPS,
        installed("unprivileged_userns"),
        {},
        True,
        "4.1.0 has the profile unprivileged_userns, not loaded",
    ),
    (SHIPS, installed(), {}, False, "4.1.0 has no profile unprivileged_userns"),
    (SHIPS, installed(version="3.0.8"), {}, None, "3.0.8 may be older than 4"),
    (SHIPS, with_facts(facts(apparmor=None)), {}, None, "has no AppArmor"),
    (SHIPS, with_facts(None), {}, None, "the facts of its guest were not read"),
    (
        INCLUDES,
        installed("bwrap-userns-restrict", os=UBUNTU | {"version_id": "26.04"}),
        {},
        True,
        "has the profile",
    ),
    (INCLUDES, installed("bwrap-userns-restrict", os=UBUNTU), {}, None, "only Ubuntu 25.04 or newer shows it"),
    (LACKS, installed(os=UBUNTU), {}, True, "has no profile bwrap-userns-restrict"),
    (LACKS, installed("bwrap-userns-restrict", os=UBUNTU), {}, False, "has the profile bwrap-userns-restrict"),
    (LACKS, installed(), {}, None, "only Ubuntu 24.04 shows it"),
    (DEFAULT, with_facts(ubuntu("1", "unprivileged_userns")), {}, True, f"{RESTRICTION}: 1"),
    (DEFAULT, with_facts(ubuntu("0", "unprivileged_userns")), {}, False, f"{RESTRICTION}: 0"),
    (DEFAULT, with_facts(ubuntu("1")), {}, False, "the profile: not loaded"),
    (DEFAULT.replace("unprivileged_userns", "bwrap"), with_facts(LOADED), {}, True, "the profile: enforce"),
    (FRESH, cell(facts=facts(), **FAILED), {}, True, f"failed with kernel {facts().kernel}"),
    (FRESH, with_facts(facts()), {}, False, f"passed with kernel {facts().kernel}"),
    (FRESH, cell(tests=[]), {}, None, "did not run, or were skipped"),
    (NEWER, on_newer("26.04"), {}, True, "every test passes"),
    (NEWER, on_newer("25.04", **FAILED), {}, False, f"failed: {', '.join(TESTS)}"),
    (NEWER, on_newer("24.04"), {}, None, "only Ubuntu 25.04 or newer shows it"),
    (ROOT, cell(tests=PASS), {}, True, "every test passes"),
    (ROOT, blocked(tests=FAIL), {}, False, "for the cause apparmor-userns-nocaps"),
    (ONLY_KVM, cell(tests=outcomes()), {}, True, "every test passes"),
    (ONLY_KVM, blocked(tests=outcomes(TESTS[0])), {}, False, f"failed: {TESTS[0]}"),
    (ONLY_KVM, blocked("kvm-denied", tests=outcomes(*TESTS, SUITE.control)), {}, None, "no box starts there"),
    (MODE, with_facts(facts()), {}, True, "mode 0o660, owner root, group kvm"),
    (MODE, with_facts(facts(kvm={"mode": "0o666"})), {}, False, "mode 0o666"),
    (MODE, with_facts(facts(kvm=None)), {}, None, "it has no /dev/kvm"),
    (KINDS, boxed("mnt", "pid", "net", "user"), {}, True, "1 boxes, namespaces mnt, net, pid, user"),
    (KINDS, boxed("mnt", "pid", "user"), {}, False, "namespaces mnt, pid, user"),
    (KINDS, boxed("mnt", asked=False), {}, None, "was not read"),
    (OWN_ROOT, jailed(), {}, True, "1 boxes, mounts / rw, /usr ro"),
    (OWN_ROOT, jailed(mounts=["/ rw", "/home rw"]), {}, False, "mounts / rw, /home rw"),
    (OWN_ROOT, jailed(namespaces=["user"]), {}, False, "mounts / rw"),
    (OWN_ROOT, boxed("mnt", asked=False), {}, None, "was not read"),
    (FILTERED, jailed(), {}, True, "seccomp filter"),
    (FILTERED, jailed(seccomp=["filter", "off"]), {}, False, "seccomp filter, off"),
    (DROPPED, jailed(), {}, True, "user 1001"),
    (DROPPED, jailed(users=["0"]), {}, False, "user 0"),
    (ARM, blocked("runtime-library", tests=FAIL, facts=ON_ARM), {}, False, "for the cause runtime-library"),
    (ARM, with_facts(ON_ARM), {}, True, "every test passes"),
    (ARM, with_facts(facts()), {}, None, "only a guest of ARM64 shows it"),
    (ARM, with_facts(None), {}, None, "the facts of its guest were not read"),
    (ARM.replace("ARM64", "x86_64"), with_facts(facts()), {}, True, "every test passes"),
    (WINDOWS, cell(tests=PASS), {}, None, "cannot get that system; the guest twin-wsl2 has traits of it"),
    (NO_ROOT, cell(tests=PASS), {}, True, "every test passes"),
    (NO_ROOT, jailed(), {}, True, "every test passes"),
    (DENIED, blocked(), {}, True, "the kernel denied it to bwrap"),
    (DENIED, blocked(), {"kernel": THREAD}, True, "tokio-rt-worker, which says nothing about bubblewrap"),
    # The line of the lab's own probe.
    (DENIED, blocked(), {"kernel": THREAD.replace("tokio-rt-worker", "unshare")}, False, "no such denial"),
    (DENIED, cell(tests=PASS), {}, False, "every test passes all the same"),
    (LISTED, with_facts(LOADED), {}, True, "the profile: enforce"),
    (LISTED, with_facts(facts(apparmor={"profiles": {"bwrap": "enforce"}})), {}, False, "not loaded"),
    (
        PROFILE,
        with_remedies(("bwrap-userns-restrict", CANNOT), ("bwrap-profile", VERIFIED)),
        {},
        True,
        "verified",
    ),
    (PROFILE, with_remedies(("bwrap-profile", NO_HELP)), {}, False, "bwrap-profile: does not help"),
    (CONTAINER, with_remedies(("privileged-container", CANNOT)), {}, None, "cannot be tried"),
    (CONTAINER, blocked(), {}, None, "not tried on this cell: privileged-container"),
    (CONTAINER, cell(tests=PASS), {}, None, "nothing failed that could be cured"),
    (SKIP, with_remedies(("preflight", AVOIDS)), {}, True, "preflight: avoids it"),
    (JAILER, with_remedies(("jailer-off", AVOIDS)), {}, True, "jailer-off: avoids it"),
    (JAILER, with_remedies(("jailer-off", NO_HELP)), {}, False, "jailer-off: does not help"),
    (GROUP, with_remedies(("kvm-group", VERIFIED), name="kvm-denied"), {}, True, "kvm-group: verified"),
    # A cell without a stable result shows nothing.
    (ROOT, cell(status=Status.ERROR, reason="no SSH"), {}, None, "error: no SSH"),
    (DENIED, blocked(status=Status.FLAKY), {}, None, "flaky"),
]


def asserted(sentence: str) -> Assertion:
    [assertion] = of(Assertion, sentence)
    return assertion


@pytest.mark.parametrize(("sentence", "result", "evidence", "holds", "reason"), CASES)
def test_an_assertion_is_judged_by_what_a_cell_recorded(
    tmp_path: Path, sentence: str, result: CellResult, evidence: dict[str, Any], holds: bool | None, reason: str
) -> None:
    assertion, notices.bugs = asserted(sentence), {}
    arguments = {"names": TESTS} if sentence == FRESH else assertion.arguments
    shown = observers.observe_cell(assertion.observer, gathered(tmp_path, result, **evidence), arguments)
    assert (shown.holds if isinstance(shown, Observation) else None) is holds
    assert reason in (shown.reason if isinstance(shown, Observation) else str(shown))
    assert notices.bugs == {}


def test_each_observer_can_say_yes_and_no() -> None:
    shown = {(asserted(sentence).observer, holds) for sentence, _, _, holds, _ in CASES}
    assert shown >= {(observer, holds) for observer in observers.OBSERVERS for holds in (True, False)}


def test_what_the_table_names_exists() -> None:
    for row in assertions.ROWS:
        assert row["observer"] in observers.OBSERVERS
        assert set(row.get("given", {}).get("remedies", [])) <= remedies.load_remedies().keys()
        assert row.get("variant", "stock") in catalog.load_catalog().variants


def test_evidence_that_cannot_be_read_shows_nothing(tmp_path: Path) -> None:
    (tmp_path / blocked().folder).mkdir(parents=True)
    (tmp_path / blocked().folder / "probes.json").mkdir()
    assertion = asserted(DENIED)
    damaged = FinishedCell(blocked(), tmp_path)
    shown = observers.observe_cell(assertion.observer, damaged, assertion.arguments)
    assert isinstance(shown, NothingShown)


# -- reading


@pytest.mark.parametrize(
    "sentence",
    [
        "I ran sudo usermod -aG kvm $USER, and it still fails.",
        "I could run sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, which does not help.",
        "sudo chmod 666 /dev/kvm",
        "It starts in a privileged container.",
        "It works on a fresh Ubuntu 24.04.",
        "We had a profile of AppArmor.",
    ],
)
def test_what_nobody_asserts_or_proposes_is_not_asserted(sentence: str) -> None:
    assert of(Assertion, sentence) == []


def test_an_item_of_a_list_is_proposed_by_the_line_above_the_list() -> None:
    items = "- run it again\n- the tests in a privileged container\n"
    assert [each.arguments for each in of(Assertion, f"Options\n{items}")] == [
        {"remedies": ["privileged-container"]}
    ]
    assert of(Assertion, f"What I did\n{items.replace('run', 'ran')}") == []


DOCUMENTS = {
    "boxlite-kvm": {"works", "cured", "kvm_mode"},
    "boxlite-platforms": {"works"},
    "boxlite-security": {"confined", "works"},
    "boxlite-ubuntu": {"works", "profile_shipped", "profile_in_force", "cured"},
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_documents_of_boxlite_are_reports(name: str) -> None:
    text = (Path(__file__).parents[3] / "docs/reports" / f"{name}.md").read_text()
    assert {assertion.observer for assertion in of(Assertion, text)} == DOCUMENTS[name]


# -- in a verdict


def planned(*statements: Statement, host: str = "debian", version: str = "13") -> list[str]:
    """The variants that are run for these statements of a report under Ubuntu's policy."""
    return list(plan(report(system(host, version), *statements), POLICY, nearest=True).variants)


def test_what_is_asserted_of_a_system_as_installed_has_a_cell_without_remedies() -> None:
    made = plan(report(system(), asserted(FRESH), asserted(SHIPS), asserted(ROOT)), POLICY)
    assert {each.variant.name: each.trials for each in made.cells} == {
        POLICY: True,
        "stock": False,
        "as-root": False,
    }
    [step] = [step for step in made.steps if step.endswith("variant stock")]
    assert step.startswith("to see whether on a system as installed, the tests that the report names fail and")


def test_only_the_reports_own_host_shows_what_is_asserted_of_it(tmp_path: Path) -> None:
    assert planned(asserted(FRESH), host="pop", version="22.04") == [POLICY]
    assert planned(asserted(SHIPS), host="pop", version="22.04") == [POLICY, "stock"]
    made = plan(report(system("pop", "22.04"), asserted(FRESH)), POLICY, nearest=True)
    cells = run(ran_of_plan(made, POLICY, cause=POLICY))
    [claim] = verdict.judge_run(made, cells, tmp_path).claims
    assert (claim.outcome, claim.reason) == (NOT_TESTED, "only the report's own host shows it")


def test_a_variant_that_the_guest_cannot_have_is_not_tested(tmp_path: Path) -> None:
    made = plan(report(system("fedora", "44"), asserted(LISTED)), "kvm-denied", nearest=True, guest="fedora-44")
    assert "bwrap-allow-list" not in made.variants
    assert any(
        step.endswith("not tested: the guest cannot have variant bwrap-allow-list") for step in made.steps
    )


def test_an_assertion_holds_if_the_cell_of_one_question_shows_it(tmp_path: Path) -> None:
    made = plan(report(system(), asserted(DENIED)), POLICY, "userns-sysctl")
    cells = [
        ran_of_plan(made, variant, cause=cause)
        for variant, cause in zip(made.variants, (POLICY, "userns-sysctl"), strict=True)
    ]
    for result, kernel in zip(cells, (evidence_examples.DENIED_CAP_BWRAP, ""), strict=True):
        gather(tmp_path, result, kernel=kernel)
    [claim] = verdict.judge_run(made, run(*cells), tmp_path).claims
    assert claim.outcome is HELD
    assert claim.reason == (
        f"{POLICY}: the kernel denied it to bwrap; userns-clone-off: the kernel logged no such denial"
    )
    assert claim.file
    assert (tmp_path / claim.file).is_file()
    for result in cells:
        gather(tmp_path / "neither", result, kernel="")
    [claim] = verdict.judge_run(made, run(*cells), tmp_path / "neither").claims
    assert claim.outcome is NOT_HELD
    [claim] = verdict.judge_run(made, run(*cells), tmp_path / "nothing gathered").claims
    assert claim.outcome is NOT_TESTED


CANNOT_RUN, AUDIT = words(NOT_EXECUTED, 8), audit(10)
EXECUTION = messages.APPARMOR_NOCAPS.replace(
    "bwrap --unshare-user failed (system bwrap at bwrap)", NOT_EXECUTED
)


@pytest.mark.parametrize(
    ("logs", "kernels", "held"),
    [
        (
            (EXECUTION, messages.APPARMOR_NOCAPS),
            ("", evidence_examples.DENIED_CAP_BWRAP),
            NOT_HELD,
        ),
        ((EXECUTION, EXECUTION), ("", evidence_examples.DENIED_CAP_BWRAP), HELD),
        ((messages.HOME_NOEXEC, messages.HOME_NOEXEC), ("", ""), NOT_TESTED),
    ],
)
def test_lines_that_show_different_causes_are_of_one_failure_if_one_cell_shows_both(
    tmp_path: Path, logs: tuple[str, str], kernels: tuple[str, str], held: ClaimOutcome
) -> None:
    causes = ("bwrap-exec-denied", POLICY)
    made = plan(
        report(system(), CANNOT_RUN, AUDIT),
        suspected(causes[0], CANNOT_RUN.quote),
        suspected(causes[1], AUDIT.quote),
    )
    cells = [ran_of_plan(made, name, cause=cause) for name, cause in zip(made.variants, causes, strict=True)]
    for result, log, kernel in zip(cells, logs, kernels, strict=True):
        gather(tmp_path, result, log=log, kernel=kernel)
    [claim] = [
        each
        for each in verdict.judge_run(made, run(*cells), tmp_path).claims
        if each.text == "one failure shows lines 8 and 10"
    ]
    assert claim.outcome is held


def test_words_that_no_question_is_about_are_looked_for_and_decide_nothing(tmp_path: Path) -> None:
    said = 'Config("Sandbox preflight failed: bwrap cannot create user namespaces.'
    preflight = words(said, 7, Speaker.BOXLITE)
    made = plan(report(system(), preflight, AUDIT), suspected(POLICY, AUDIT.quote))
    result = ran_of_plan(made, POLICY, cause=POLICY)
    gather(tmp_path, result, kernel="")
    judged = verdict.judge_run(made, run(result), tmp_path)
    assert [(claim.statement, claim.outcome) for claim in judged.claims] == [
        (AUDIT, NOT_HELD),
        (preflight, HELD),
    ]
    assert judged.result is Reproduction.NOT_REPRODUCED


def test_words_of_one_cause_are_not_compared_with_themselves(tmp_path: Path) -> None:
    made = plan(report(system(), CANNOT_RUN, AUDIT), suspected(POLICY, quote(8), quote(10)))
    result = ran_of_plan(made, POLICY, cause=POLICY)
    gather(tmp_path, result)
    texts = [claim.text for claim in verdict.judge_run(made, run(result), tmp_path).claims]
    assert not any(text.startswith("one failure") for text in texts)
