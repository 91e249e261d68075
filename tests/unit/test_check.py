"""`lab check`: what a host's probe shows, and what published results say about the nearest tested host."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lab.base.errors import UsageError
from lab.catalog import remedies
from lab.check import Answer, Outcome, Published, judge, published
from lab.check.text import lines
from lab.cli import cli
from lab.probes import Facts, Probe, Probes
from lab.probes.report import HostReport
from lab.probes.report import read as read_probe
from lab.record import CellResult, Confidence, RemedyOutcome, RemedyResult, Status
from tests.builders import ubuntu
from tests.builders.cells import blocked
from tests.builders.cells import cell as a_cell
from tests.builders.facts import facts, printed_facts, who
from tests.builders.output import run_folder, site_of

CURE = remedies.find("userns-clone-on")
CLONE, RESTRICT = "kernel.unprivileged_userns_clone", ubuntu.RESTRICT
WORKED = Probe(status=0, stderr="", command=())
EPERM = Probe(status=1, stderr="unshare: unshare failed: Operation not permitted", command=())
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


def cured(**more: Any) -> CellResult:
    """A cell that a sysctl blocks, and a remedy cures."""
    trial = RemedyResult(
        name=CURE.name, result=RemedyOutcome.VERIFIED, price="x", scripts={CURE.name: CURE.digest}
    )
    given = {"variant": "userns-clone-off", "remedies": [trial], "facts": facts(sysctls={CLONE: "0"})}
    return blocked("userns-sysctl", **(given | more))


STOCK = a_cell(facts=facts())


def from_run(base: Path, *cells: CellResult) -> Published:
    folder = run_folder(base, *cells, name=f"run-{len(list(base.iterdir()))}")
    return published.load([str(folder)], base).published


def check(base: Path, host: HostReport, *cells: CellResult) -> Answer:
    return judge(host, from_run(base, *(cells or (STOCK, cured()))))


def shown(answer: Answer) -> str:
    return " ".join(" ".join(lines(answer)).split())


def probe(status: int | None, stderr: str) -> Probe:
    return Probe(status=status, stderr=stderr, command=())


KVM_DENIED = {"open_kvm": probe(13, "[Errno 13] Permission denied: '/dev/kvm'")}
HOME_DENIED = {"exec_home": probe(13, "[Errno 13] Permission denied: '~/.lab-probe'")}
BWRAP_DENIED = dict.fromkeys(("bwrap_user", "bwrap_all"), probe(None, "[Errno 13] Permission denied: 'bwrap'"))
UID_MAP = probe(1, "bwrap: setting up uid map: Permission denied")
STRIPPED = {"unshare_user_root": EPERM, "bwrap_user": UID_MAP, "bwrap_all": UID_MAP}


@pytest.mark.parametrize(
    ("host", "outcome", "causes", "says"),
    [
        (
            report(kernel="6.12.200"),
            Outcome.WORKS,
            [],
            "kernel: 6.12.200 here, 6.12.118+deb13-cloud-amd64 on the tested host (seldom decides)",
        ),
        (
            report(sysctls={"kernel.yama.ptrace_scope": "3"}),
            Outcome.UNKNOWN,
            [],
            "kernel.yama.ptrace_scope: 3 here, 1 on the tested host",
        ),
        (report(uid=0), Outcome.UNKNOWN, [], "ran as root"),
        (report(probes={"open_kvm": probe(None, "no")}), Outcome.UNKNOWN, [], "could be tried"),
        (
            report(kvm=None, probes={"open_kvm": probe(2, "No such file or directory: '/dev/kvm'")}),
            Outcome.BLOCKED,
            ["kvm-absent"],
            "",
        ),
        # The user of the examples is in the group of /dev/kvm.
        (report(probes=KVM_DENIED), Outcome.BLOCKED, [], "a security module denies it"),
        (
            report(kvm={"mode": "0o600"}, probes=KVM_DENIED),
            Outcome.BLOCKED,
            ["kvm-denied"],
            "kvm-group claims to cure it",
        ),
        (
            report(probes={"unshare_user_root": EPERM, "bwrap_user": EPERM, "bwrap_all": EPERM}),
            Outcome.BLOCKED,
            [],
            "makes a user namespace and denies its capabilities",
        ),
        # Ubuntu's policy, without its log.
        (
            report(sysctls={RESTRICT: "1"}, probes=STRIPPED),
            Outcome.BLOCKED,
            ["apparmor-userns-nocaps"],
            "apparmor-userns-nocaps (likely)",
        ),
        (report(sysctls={RESTRICT: "0"}, probes=STRIPPED), Outcome.BLOCKED, [], ""),
        (
            report(probes={"proc_unmasked": probe(1, "/proc/keys"), "bwrap_user": EPERM}),
            Outcome.UNKNOWN,
            ["masked-proc"],
            "is suspected, yet the probe was refused nothing",
        ),
        (
            report(probes=HOME_DENIED | {"home_allows_exec": probe(1, "noexec")}),
            Outcome.BLOCKED,
            ["home-noexec"],
            "",
        ),
        (report(probes=HOME_DENIED), Outcome.BLOCKED, [], ""),
        (
            report(bubblewrap={"mode": "0o755"}, probes=BWRAP_DENIED),
            Outcome.UNKNOWN,
            [],
            "something denies executing bubblewrap",
        ),
        (report(bubblewrap={"mode": "0o644"}, probes=BWRAP_DENIED), Outcome.WORKS, [], ""),
    ],
)
def test_what_is_to_be_expected_of_a_host_and_why(
    tmp_path: Path, host: HostReport, outcome: Outcome, causes: list[str], says: str
) -> None:
    answer = check(tmp_path, host)
    assert (answer.outcome, [cause.name for cause in answer.findings]) == (outcome, causes)
    assert says in shown(answer)
    assert causes or not answer.advice


def test_what_the_probe_shows_comes_before_what_was_published(tmp_path: Path) -> None:
    data = from_run(tmp_path, STOCK, cured())
    host = report(sysctls={CLONE: "0"}, probes=REFUSED)
    answer = judge(host, data)
    assert answer.outcome is Outcome.BLOCKED
    assert [(each.name, each.confidence) for each in answer.findings] == [("userns-sysctl", Confidence.PROVED)]
    [advice] = answer.advice
    assert (advice.name, advice.price, advice.changed) == (CURE.name, CURE.price, False)
    assert advice.verified_on is not None
    text = shown(answer)
    assert "userns-clone-on was verified on Debian 13 (trixie) with userns-clone-off" in text
    assert "lab remedies show userns-clone-on --script" in text
    # A script that is another one now says so.
    [debian] = [each for each in data.distributions if each.cells]
    [cell] = [each for each in debian.cells if each.remedy]
    assert cell.remedy is not None
    older = cell.model_copy(update={"remedy": cell.remedy.model_copy(update={"digests": {CURE.name: "0"}})})
    changed = data.model_copy(update={"distributions": (debian.model_copy(update={"cells": (older,)}),)})
    [advice] = judge(host, changed).advice
    assert advice.changed


def test_a_cause_that_nobody_published_has_remedies_that_only_claim_to_cure(tmp_path: Path) -> None:
    answer = check(tmp_path, report(sysctls={"user.max_user_namespaces": "0"}, probes=REFUSED), STOCK)
    assert [each.name for each in answer.findings] == ["userns-limit"]
    assert "userns-limit-raise" in [each.name for each in answer.advice]
    assert all(each.verified_on is None for each in answer.advice)
    assert "claims to cure it; no published result shows that it does" in shown(answer)


def test_another_system_is_never_expected_to_work(tmp_path: Path) -> None:
    mint = {"id": "linuxmint", "version_id": "22", "version_codename": None, "pretty_name": "Linux Mint 22"}
    host = report(os=mint).model_copy(update={"id_like": ("debian",)})
    answer = check(tmp_path, host, STOCK)
    assert (answer.outcome, answer.same_system) == (Outcome.UNKNOWN, False)
    assert [each.name for each in answer.related] == ["debian-13"]
    assert "Linux Mint 22: not known" in shown(answer)
    nobody = check(tmp_path, host.model_copy(update={"id_like": ()}), STOCK)
    assert (nobody.outcome, nobody.nearest) == (Outcome.UNKNOWN, None)


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
    assert answer.nearest.cell.variant == "stock"
    assert "AppArmor profile bwrap" in [each.name for each in answer.cells[1].comparison.differing]
    assert answer.outcome is Outcome.WORKS


def test_a_site_says_the_same_as_the_run_it_was_made_of(tmp_path: Path) -> None:
    site = site_of(tmp_path, STOCK, cured())
    of_site = published.load([str(site)], tmp_path).published
    of_run = published.load([str(tmp_path / "run")], tmp_path).published
    assert of_site == of_run
    both = published.load([str(site), str(tmp_path / "run")], tmp_path).published
    with_cells = [each.name for each in both.distributions for _ in each.cells]
    assert with_cells == ["debian-13"] * 4


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
    run = run_folder(tmp_path, STOCK, cured())
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
    with pytest.raises(click.BadParameter, match="No such file"):
        lab(tmp_path, str(tmp_path / "nothing"))
    with pytest.raises(click.BadParameter, match="Is a directory"):
        lab(tmp_path, str(tmp_path))


@pytest.mark.parametrize("text", ["alert(1)", "{}", '{"cells": 3}', "[" * 10_000])
def test_a_site_that_is_damaged_is_named(tmp_path: Path, text: str) -> None:
    site = site_of(tmp_path, STOCK)
    (site / "published.json").write_text(text)
    with pytest.raises(UsageError, match=r"published\.json"):
        published.load([str(site)], tmp_path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", ["=", "= "])
def test_a_long_line_is_read_to_its_end(part: str) -> None:
    # A reader that tries each split of a line takes hours for this.
    read_probe(part * (2**20 // len(part)))


# ---- Hosts with Ubuntu's restriction of user namespaces.

UNCONFINED = "kernel.apparmor_restrict_unprivileged_unconfined"
ENFORCED = {ubuntu.POLICY: "enforce"}
# How the guest as installed was tested.
POLICY = blocked(
    "apparmor-userns-nocaps",
    facts=facts(sysctls={RESTRICT: "1", UNCONFINED: "0"}, apparmor={"profiles": ENFORCED}),
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
