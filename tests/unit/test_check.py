"""`lab check`: what a host's probe shows, and what published results say about the nearest tested host."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.base.errors import UsageError
from lab.catalog import remedies
from lab.check import Answer, Outcome, Published, judge, tested
from lab.check.text import lines
from lab.cli import cli
from lab.probes import Facts, Probe, Probes
from lab.probes.report import HostReport
from lab.probes.report import read as read_probe
from lab.record import CellResult, Confidence, Finding, RemedyOutcome, RemedyResult, Status
from tests.builders import ubuntu as ubuntu
from tests.builders.cells import cell as a_cell
from tests.builders.facts import facts, printed_facts, who
from tests.builders.output import run_folder, site_of

CURE = remedies.find("userns-clone-on")
WORKED = Probe(status=0, stderr="", command=())
EPERM = Probe(status=1, stderr="unshare: unshare failed: Operation not permitted", command=())
NO_KVM = Probe(status=2, stderr="[Errno 2] No such file or directory: '/dev/kvm'", command=())
REFUSED = dict.fromkeys(("unshare_user", "unshare_user_root", "bwrap_user", "bwrap_all"), EPERM)


def report(*, unreadable: tuple[str, ...] = (), uid: int = 1000, **changes: Any) -> HostReport:
    """A debian-13 on which everything works, with changes of its facts and probes."""
    probes = dict.fromkeys(Probes.model_fields, WORKED) | changes.pop("probes", {})
    return HostReport(
        facts=facts(**changes),
        unreadable=unreadable,
        id_like=changes.get("id_like", ()),
        who=who(uid=uid),
        probes=Probes.model_validate(probes),
    )


def blocked(**more: Any) -> CellResult:
    return a_cell(
        variant="userns-clone-off",
        status=Status.XFAIL,
        cause="userns-sysctl",
        causes=[Finding(name="userns-sysctl", confidence=Confidence.PROVED, why="it is 0")],
        remedies=[
            RemedyResult(
                name=CURE.name,
                result=RemedyOutcome.VERIFIED,
                price="x",
                scripts={CURE.name: more.pop("digest", CURE.digest)},
            )
        ],
        facts=facts(sysctls={"kernel.unprivileged_userns_clone": "0"}),
        **more,
    )


STOCK = a_cell(facts=facts())


def from_run(base: Path, *cells: CellResult) -> Published:
    folder = run_folder(base, *cells, name=f"run-{len(list(base.iterdir()))}")
    return tested.load([str(folder)], base).published


def check(base: Path, host: HostReport, *cells: CellResult) -> Answer:
    return judge(host, from_run(base, *(cells or (STOCK, blocked()))))


def shown(answer: Answer) -> str:
    return " ".join(" ".join(lines(answer)).split())


def test_a_host_like_a_tested_one_that_passed_is_expected_to_work(tmp_path: Path) -> None:
    answer = check(tmp_path, report(kernel="6.12.200"))
    assert answer.outcome is Outcome.WORKS
    assert answer.nearest is not None
    assert [each.name for each in answer.nearest.comparison.differing] == ["kernel"]
    assert "kernel: 6.12.200 here, 6.12.118+deb13-cloud-amd64 on the tested host" in shown(answer)


def test_what_the_probe_shows_comes_before_what_was_published(tmp_path: Path) -> None:
    host = report(sysctls={"kernel.unprivileged_userns_clone": "0"}, probes=REFUSED)
    answer = check(tmp_path, host)
    assert answer.outcome is Outcome.BLOCKED
    assert [(each.name, each.confidence) for each in answer.findings] == [("userns-sysctl", Confidence.PROVED)]
    [advice] = answer.advice
    assert (advice.name, advice.price, advice.changed) == (CURE.name, CURE.price, False)
    assert advice.verified_on is not None
    text = shown(answer)
    assert "userns-clone-on was verified on Debian 13 (trixie) with userns-clone-off" in text
    assert "lab remedies show userns-clone-on --script" in text


def test_a_cause_that_nobody_published_has_remedies_that_only_claim_to_cure(tmp_path: Path) -> None:
    host = report(sysctls={"user.max_user_namespaces": "0"}, probes=REFUSED)
    answer = check(tmp_path, host, STOCK)
    assert [each.name for each in answer.findings] == ["userns-limit"]
    assert "userns-limit-raise" in [each.name for each in answer.advice]
    assert all(each.verified_on is None for each in answer.advice)
    assert "claims to cure it; no published result shows that it does" in shown(answer)


def test_a_script_that_changed_since_it_was_verified_says_so(tmp_path: Path) -> None:
    data = from_run(tmp_path, STOCK, blocked())
    [cell] = [each for each in data.cells if each.remedy]
    assert cell.remedy is not None
    older = cell.model_copy(update={"remedy": cell.remedy.model_copy(update={"digests": {CURE.name: "0"}})})
    host = report(sysctls={"kernel.unprivileged_userns_clone": "0"}, probes=REFUSED)
    [advice] = judge(host, data.model_copy(update={"cells": (older,)})).advice
    assert advice.changed


def test_kvm_is_named_although_no_suite_ran(tmp_path: Path) -> None:
    answer = check(tmp_path, report(kvm=None, probes={"open_kvm": NO_KVM}))
    assert [each.name for each in answer.findings] == ["kvm-absent"]
    assert answer.outcome is Outcome.BLOCKED


def test_a_kvm_whose_mode_allows_it_is_denied_by_something_else(tmp_path: Path) -> None:
    denied = {"open_kvm": Probe(status=13, stderr="[Errno 13] Permission denied: '/dev/kvm'", command=())}
    # The user of the examples is in the group of /dev/kvm.
    answer = check(tmp_path, report(probes=denied))
    assert (answer.outcome, answer.findings, answer.advice) == (Outcome.BLOCKED, (), ())
    assert "a security module denies it" in shown(answer)
    closed = check(tmp_path, report(kvm={"mode": "0o600"}, probes=denied))
    assert [each.name for each in closed.findings] == ["kvm-denied"]
    assert [each.name for each in closed.advice] == ["kvm-group"]


def test_a_refusal_that_no_rule_names_is_told_as_it_is(tmp_path: Path) -> None:
    answer = check(
        tmp_path, report(probes={"unshare_user_root": EPERM, "bwrap_user": EPERM, "bwrap_all": EPERM})
    )
    assert (answer.outcome, answer.findings, answer.advice) == (Outcome.BLOCKED, (), ())
    text = shown(answer)
    assert "makes a user namespace and denies its capabilities" in text
    assert "unshare failed: Operation not permitted" in text


def test_ubuntus_policy_is_likely_without_its_log(tmp_path: Path) -> None:
    denied = Probe(status=1, stderr="bwrap: setting up uid map: Permission denied", command=())
    stripped = {"unshare_user_root": EPERM, "bwrap_user": denied, "bwrap_all": denied}
    switch = "kernel.apparmor_restrict_unprivileged_userns"
    answer = check(tmp_path, report(sysctls={switch: "1"}, probes=stripped))
    assert [(each.name, each.confidence) for each in answer.findings] == [
        ("apparmor-userns-nocaps", Confidence.LIKELY)
    ]
    assert {"bwrap-userns-restrict", "apparmor-restrict-off"} <= {each.name for each in answer.advice}
    assert check(tmp_path, report(sysctls={switch: "0"}, probes=stripped)).findings == ()


def test_settings_that_nobody_tested_are_no_promise(tmp_path: Path) -> None:
    answer = check(tmp_path, report(sysctls={"kernel.yama.ptrace_scope": "3"}))
    assert answer.outcome is Outcome.UNKNOWN
    assert "kernel.yama.ptrace_scope: 3 here, 1 on the tested host" in shown(answer)


def test_another_system_is_never_expected_to_work(tmp_path: Path) -> None:
    mint = {"id": "linuxmint", "version_id": "22", "version_codename": None, "pretty_name": "Linux Mint 22"}
    host = report(os=mint).model_copy(update={"id_like": ("debian",)})
    answer = judge(host, from_run(tmp_path, STOCK))
    assert (answer.outcome, answer.same_system) == (Outcome.UNKNOWN, False)
    assert [each.name for each in answer.related] == ["debian-13"]
    assert "Linux Mint 22: not known" in shown(answer)
    nobody = judge(host.model_copy(update={"id_like": ()}), from_run(tmp_path, STOCK))
    assert (nobody.outcome, nobody.nearest) == (Outcome.UNKNOWN, None)


def test_a_suspicion_that_the_probe_does_not_share_is_no_block(tmp_path: Path) -> None:
    probes = {"proc_unmasked": Probe(status=1, stderr="/proc/keys", command=()), "bwrap_user": EPERM}
    answer = check(tmp_path, report(probes=probes))
    assert [(each.name, each.confidence) for each in answer.findings] == [("masked-proc", Confidence.LIKELY)]
    assert answer.outcome is Outcome.UNKNOWN
    assert "is suspected, yet the probe was refused nothing" in shown(answer)


def test_a_home_where_nothing_may_be_executed_blocks(tmp_path: Path) -> None:
    denied = Probe(status=13, stderr="[Errno 13] Permission denied: '~/.lab-probe'", command=())
    noexec = Probe(status=1, stderr="noexec", command=())
    answer = check(tmp_path, report(probes={"exec_home": denied, "home_allows_exec": noexec}))
    assert [each.name for each in answer.findings] == ["home-noexec"]
    other = check(tmp_path, report(probes={"exec_home": denied}))
    assert (other.outcome, other.findings) == (Outcome.BLOCKED, ())


@pytest.mark.parametrize(
    ("mode", "outcome"), [("0o755", Outcome.UNKNOWN), ("0o644", Outcome.WORKS)], ids=["denied", "by its mode"]
)
def test_a_bubblewrap_that_something_denies_to_execute_is_no_promise(
    tmp_path: Path, mode: str, outcome: Outcome
) -> None:
    denied = Probe(status=None, stderr="[Errno 13] Permission denied: 'bwrap'", command=("bwrap",))
    host = report(bubblewrap={"mode": mode}, probes={"bwrap_user": denied, "bwrap_all": denied})
    assert check(tmp_path, host).outcome is outcome


def test_a_probe_that_ran_as_root_is_no_promise(tmp_path: Path) -> None:
    answer = check(tmp_path, report(uid=0))
    assert answer.outcome is Outcome.UNKNOWN
    assert "ran as root" in shown(answer)


def test_what_could_not_be_tried_is_no_promise(tmp_path: Path) -> None:
    missing = Probe(status=None, stderr="no", command=())
    answer = check(tmp_path, report(probes={"open_kvm": missing}))
    assert answer.outcome is Outcome.UNKNOWN


def test_what_cannot_be_read_is_not_compared(tmp_path: Path) -> None:
    name = "kernel.apparmor_restrict_unprivileged_unconfined"
    known = printed_facts()
    readable = {key: value for key, value in known["sysctls"].items() if key != name}
    host = report(unreadable=(f"sysctls.{name}", "apparmor.profiles"))
    host = host.model_copy(update={"facts": Facts.model_validate(known | {"sysctls": readable})})
    answer = check(tmp_path, host)
    assert answer.outcome is Outcome.WORKS
    assert answer.nearest is not None
    assert name in answer.nearest.comparison.not_known
    assert f"Not readable for the user who ran the probe: sysctls.{name}" in shown(answer)


def test_a_profile_that_its_user_would_see_is_not_loaded(tmp_path: Path) -> None:
    with_profile = facts(apparmor={"profiles": {"bwrap": "enforce"}})
    cells = [STOCK, a_cell(variant="userns-clone-off", status=Status.FAIL, facts=with_profile)]
    answer = check(tmp_path, report(), *cells)
    assert answer.nearest is not None
    assert "AppArmor profile bwrap" in answer.nearest.comparison.compared
    assert answer.outcome is Outcome.WORKS


def test_a_site_says_the_same_as_the_run_it_was_made_of(tmp_path: Path) -> None:
    site = site_of(tmp_path, STOCK, blocked())
    of_site = tested.load([str(site)], tmp_path).published
    of_run = tested.load([str(tmp_path / "run")], tmp_path).published
    assert of_site == of_run
    both = tested.load([str(site), str(tmp_path / "run")], tmp_path).published
    assert [both.distributions[each.distribution].name for each in both.cells] == ["debian-13"] * 4


# ---- The command.


def lab(tmp_path: Path, *arguments: str, text: str = "") -> tuple[int, str]:
    environment = {"LAB_HOME": str(tmp_path / "home")}
    result = CliRunner().invoke(cli, ["check", *arguments], input=text, env=environment, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.output


def test_this_host_is_checked_without_any_result(tmp_path: Path) -> None:
    status, text = lab(tmp_path)
    assert status in (1, 3)
    assert "There are no published results" in text


def test_a_document_for_programs(tmp_path: Path) -> None:
    run = run_folder(tmp_path, STOCK, blocked())
    status, text = lab(tmp_path, "--results", str(run), "--json")
    document = json.loads(text)
    assert status == {"expected to work": 0, "blocked": 1, "not known": 3}[document["outcome"]]
    assert document["results"] == [str(run)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no probe here", "holds no output of the probe script"),
        ("===== begin boxlite-probe 1 =====", "damaged"),
    ],
)
def test_bad_input_says_what_to_give(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        lab(tmp_path, "-", text=text)
    with pytest.raises(UsageError, match="No such file"):
        lab(tmp_path, str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="Is a directory"):
        lab(tmp_path, str(tmp_path))


@pytest.mark.parametrize("text", ["alert(1)", "{}", '{"cells": 3}', "[" * 10_000])
def test_a_site_that_is_damaged_is_named(tmp_path: Path, text: str) -> None:
    site = site_of(tmp_path, STOCK)
    (site / "published.json").write_text(text)
    with pytest.raises(UsageError, match=r"published\.json"):
        tested.load([str(site)], tmp_path)


@pytest.mark.parametrize("number", ["99", "-1"])
def test_a_cell_of_a_distribution_that_the_site_lacks_is_named(tmp_path: Path, number: str) -> None:
    data = site_of(tmp_path, STOCK) / "published.json"
    data.write_text(re.sub(r'"distribution":\d+', f'"distribution":{number}', data.read_text()))
    with pytest.raises(UsageError, match=f"of distribution {number}, which is not there"):
        tested.load([str(data.parent)], tmp_path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", ["=", "= "])
def test_a_long_line_is_read_to_its_end(part: str) -> None:
    # A reader that tries each split of a line takes hours for this.
    read_probe(part * (2**20 // len(part)))


# ---- Hosts with Ubuntu's restriction of user namespaces.

UNCONFINED = "kernel.apparmor_restrict_unprivileged_unconfined"
ENFORCED = {ubuntu.POLICY: "enforce"}
# How the guest as installed was tested.
POLICY = a_cell(
    status=Status.XFAIL,
    cause="apparmor-userns-nocaps",
    causes=[Finding(name="apparmor-userns-nocaps", confidence=Confidence.PROVED, why="x")],
    facts=facts(sysctls={ubuntu.RESTRICT: "1", UNCONFINED: "0"}, apparmor={"profiles": ENFORCED}),
)


def on_ubuntu(state: str, profiles: dict[str, str], **more: Any) -> HostReport:
    known = ubuntu.STATES[state]
    probes = ubuntu.evidence(known).probes.by_name()
    sysctls = {ubuntu.RESTRICT: known.restrict, UNCONFINED: "0"}
    return report(sysctls=sysctls, apparmor={"profiles": profiles}, probes=probes, **more)


@pytest.mark.parametrize(
    ("state", "profiles", "outcome", "causes", "differing"),
    [
        ("as installed", ENFORCED, Outcome.BLOCKED, ["apparmor-userns-nocaps"], []),
        ("profile not loaded", {}, Outcome.BLOCKED, ["apparmor-userns-deny"], [ubuntu.POLICY]),
        ("complain", {ubuntu.POLICY: "complain"}, Outcome.BLOCKED, ["apparmor-disconnected"], [ubuntu.POLICY]),
        ("restriction off", ENFORCED, Outcome.UNKNOWN, [], [ubuntu.RESTRICT]),
        ("bwrap-userns-restrict", {**ENFORCED, "bwrap": "enforce"}, Outcome.UNKNOWN, [], ["bwrap"]),
        ("bwrap unconfined", {**ENFORCED, "boxlite-bwrap": "enforce"}, Outcome.UNKNOWN, [], ["boxlite-bwrap"]),
    ],
)
def test_each_state_of_ubuntus_policy_is_told_from_the_tested_one(
    tmp_path: Path,
    state: str,
    profiles: dict[str, str],
    outcome: Outcome,
    causes: list[str],
    differing: list[str],
) -> None:
    answer = check(tmp_path, on_ubuntu(state, profiles), POLICY)
    assert (answer.outcome, [each.name for each in answer.findings]) == (outcome, causes)
    assert answer.nearest is not None
    named = [each.name.removeprefix("AppArmor profile ") for each in answer.nearest.comparison.differing]
    assert named == differing
    assert ("are as tested" in shown(answer)) is (not differing)


def test_nothing_is_advised_that_the_host_has_already(tmp_path: Path) -> None:
    installed = {each.name for each in check(tmp_path, on_ubuntu("as installed", ENFORCED), POLICY).advice}
    assert {"bwrap-userns-restrict", "apparmor-restrict-off"} <= installed
    in_place = {"install-bubblewrap", "bundled-bwrap-profile"}
    assert installed.isdisjoint(in_place)


def test_a_cell_whose_suite_a_profile_confined_is_not_like_a_host_where_none_does(tmp_path: Path) -> None:
    cell = POLICY.model_copy(update={"variant": "apparmor-bwrap-exec-deny"})
    answer = check(tmp_path, on_ubuntu("bwrap unconfined", ENFORCED), cell)
    assert answer.nearest is not None
    [differing] = answer.nearest.comparison.differing
    assert (differing.yours, differing.theirs) == ("no profile", "lab-without-bwrap")
