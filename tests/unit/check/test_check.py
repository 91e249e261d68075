"""`lab check`: what a host's probe shows, and what published results say about the nearest tested host."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lab.base.errors import UsageError
from lab.catalog import remedies
from lab.check import HostAnswer, HostOutlook, Published, judge_host, published
from lab.check.text import format_answer
from lab.cli import cli
from lab.probes import Facts, Probes
from lab.probes.report import HostReport
from lab.record import CellResult, Confidence, Outcome, RemedyOutcome, RemedyResult, Status, TestResult
from tests.builders import ubuntu
from tests.builders.cells import blocked, changed
from tests.builders.cells import cell as a_cell
from tests.builders.facts import (
    ALL_WORK,
    DEBIAN,
    context,
    facts,
    printed_facts,
    probe,
    service_probe,
    session,
    who,
)
from tests.builders.output import run_folder, site_of
from tests.unit.causes.test_causes import SEEN, example

CURE = remedies.find_remedy("userns-clone-on")
CLONE, RESTRICT = "kernel.unprivileged_userns_clone", ubuntu.RESTRICT
EPERM = probe(1, "unshare: unshare failed: Operation not permitted")
REFUSED = dict.fromkeys(("unshare_user", "unshare_user_root", "bwrap_user", "bwrap_all"), EPERM)


def report(
    *,
    unreadable: tuple[str, ...] = (),
    uid: int = 1000,
    container: str | None = None,
    limits: Mapping[str, Any] = {},
    **changes: Any,
) -> HostReport:
    """A debian-13 on which everything works, with changes of its facts, its user's limits and its probes."""
    probes = ALL_WORK | changes.pop("probes", {})
    return HostReport(
        facts=facts(**changes),
        unreadable=unreadable,
        id_like=changes.get("id_like", ()),
        who=who(uid=uid, container=container, context=dict(context(**limits))),
        probes=Probes.model_validate(probes),
    )


def cured(**more: Any) -> CellResult:
    """A cell that a sysctl blocks, and a remedy cures."""
    scripts = {CURE.name: CURE.digest}
    trial = RemedyResult(name=CURE.name, result=RemedyOutcome.VERIFIED, price="x", scripts=scripts)
    given = {"variant": "userns-clone-off", "remedies": [trial], "facts": facts(sysctls={CLONE: "0"})}
    return blocked("userns-sysctl", **(given | more))


STOCK = a_cell(facts=facts(), context=context())


def from_run(base: Path, *cells: CellResult) -> Published:
    folder = run_folder(base, *cells, name=f"run-{len(list(base.iterdir()))}")
    return published.load_published([str(folder)], base).published


def check(base: Path, host: HostReport, *cells: CellResult) -> HostAnswer:
    return judge_host(host, from_run(base, *(cells or (STOCK, cured()))))


def text_of(answer: HostAnswer) -> str:
    return " ".join(" ".join(format_answer(answer)).split())


WORKS, BLOCKED, UNKNOWN, NOT_APPLICABLE = HostOutlook
KVM_DENIED = {"open_kvm": probe(13, "[Errno 13] Permission denied: '/dev/kvm'")}
NO_KVM = {"open_kvm": probe(2, "No such file or directory: '/dev/kvm'")}
HOME_DENIED = {"exec_home": probe(13, "[Errno 13] Permission denied: '~/.lab-probe'")}
NOEXEC = HOME_DENIED | {"home_allows_exec": probe(1, "noexec")}
BWRAP_DENIED = dict.fromkeys(("bwrap_user", "bwrap_all"), probe(None, "[Errno 13] Permission denied: 'bwrap'"))
UID_MAP = probe(1, "bwrap: setting up uid map: Permission denied")
STRIPPED = {"unshare_user_root": EPERM, "bwrap_user": UID_MAP, "bwrap_all": UID_MAP}
NO_ROOT = {name: refused for name, refused in REFUSED.items() if name != "unshare_user"}
MASKED = {"proc_unmasked": probe(1, "/proc/keys"), "bwrap_user": EPERM}
NOCAPS = "apparmor-userns-nocaps"
BTRFS = {"on": "/home", "type": "btrfs", "options": ["rw"]}
NO_USERNS = dict.fromkeys(REFUSED, probe(1, "unshare: unshare failed: Invalid argument"))
FULL = {"start_processes": probe(11, "Resource temporarily unavailable", ["fork", "9 at once"])}
NOFILE = {"nofile": 256, "nofile_hard": 256}
KERNEL, PTRACE, CLOSED = DEBIAN["kernel"], "kernel.yama.ptrace_scope", {"mode": "0o600"}


@pytest.mark.parametrize(
    ("host", "outcome", "causes", "says"),
    [
        (report(kernel="6.12.200"), WORKS, [], f"{KERNEL} on the tested host (seldom decides)"),
        (report(sysctls={PTRACE: "3"}), UNKNOWN, [], f"{PTRACE}: 3 here, 1 on the tested host"),
        (report(uid=0), UNKNOWN, [], "ran as root"),
        (report(probes={"open_kvm": probe(None, "no")}), UNKNOWN, [], "could be tried"),
        (report(kvm=None, probes=NO_KVM), BLOCKED, ["kvm-absent"], ""),
        (report(container="docker", probes=NO_KVM), BLOCKED, ["container-without-kvm"], "if they are told to"),
        # Nothing else decides on a host for which there is no wheel.
        (report(glibc="", probes=NO_KVM), NOT_APPLICABLE, [], "this host has another C library"),
        (report(glibc="2.17"), NOT_APPLICABLE, [], "for glibc 2.28 or newer, not for 2.17"),
        (report(glibc="2.28"), WORKS, [], ""),
        # The user of the examples is in the group of /dev/kvm.
        (report(probes=KVM_DENIED), BLOCKED, [], "a security module denies it"),
        (report(kvm=CLOSED, probes=KVM_DENIED), BLOCKED, ["kvm-denied"], "kvm-group claims to cure it; no"),
        (report(probes=NO_ROOT), BLOCKED, [], "makes a user namespace and denies its capabilities"),
        # Ubuntu's policy, without its log.
        (report(sysctls={RESTRICT: "1"}, probes=STRIPPED), BLOCKED, [NOCAPS], f"{NOCAPS} (likely)"),
        (report(sysctls={RESTRICT: "0"}, probes=STRIPPED), BLOCKED, [], ""),
        (report(probes=MASKED), UNKNOWN, ["masked-proc"], "is suspected, yet the probe was refused nothing"),
        (report(probes=NOEXEC), BLOCKED, ["home-noexec"], ""),
        (report(probes=HOME_DENIED), BLOCKED, [], ""),
        (report(bubblewrap={"mode": "0o755"}, probes=BWRAP_DENIED), UNKNOWN, [], "denies executing bubblewrap"),
        (report(bubblewrap={"mode": "0o644"}, probes=BWRAP_DENIED), WORKS, [], ""),
        (report(limits={"nproc": 12}, probes=FULL), BLOCKED, ["nproc-limit"], "nproc-limit (likely)"),
        (report(limits={"nproc": 400}), UNKNOWN, [], "limit nproc: 400 here, 3897 on the tested host"),
        (report(limits={"nofile": 256}), UNKNOWN, [], "limit nofile: 256 here, 1024 on the tested host"),
        (report(limits=NOFILE), UNKNOWN, ["nofile-limit"], "nofile-raise claims to cure it; no published"),
        (report(limits={"fsize": 1 << 30}), UNKNOWN, [], "limit fsize: 1073741824 here, unlimited on the"),
        (report(limits={"address_space": 1 << 32}), UNKNOWN, [], "limit address space: 4294967296 here"),
        (report(kvm={"capabilities": {"IRQCHIP": False}}), BLOCKED, [], "KVM lacks IRQCHIP"),
        (report(kernel_options={"TUN": None}), UNKNOWN, [], "kernel built without: TUN here, nothing that"),
        (report(kernel_options=None), WORKS, [], "not compared: kernel built without"),
        (report(kernel_options={"USER_NS": None}, probes=NO_USERNS), BLOCKED, [], "was built without USER_NS"),
        (report(landlock=None), WORKS, [], "Landlock: not in use here, version 6 on the tested host (seldom"),
        # boxlite's copy of its shim loses its permission there, which no probe shows.
        (report(mounts={"/home": BTRFS}), UNKNOWN, [], "/home is on: btrfs here, ext4 on the tested host"),
        # A host that allows more than the tested one is no other host.
        (report(limits={"nproc": 7795, "nofile": 1 << 20, "memlock": None}), WORKS, [], "are as tested"),
    ],
)
def test_what_is_to_be_expected_of_a_host_and_why(
    tmp_path: Path, host: HostReport, outcome: HostOutlook, causes: list[str], says: str
) -> None:
    answer = check(tmp_path, host)
    assert (answer.outcome, [cause.name for cause in answer.findings]) == (outcome, causes)
    assert says in text_of(answer)
    assert causes or not answer.advice


# What no probe shows: boxlite meets it with its own options or copies of programs, or after the start of a box.
NOT_PROBED = {
    *("SHIM_NOT_EXECUTABLE", "BWRAP_TOO_OLD", "MOUNT_SYMLINK", "CGROUP_NOT_JOINED"),
    *("VOLUME_SYMLINK", "THREE_VOLUMES"),
}


@pytest.mark.parametrize("name", sorted({name for name, *_ in SEEN} - NOT_PROBED))
def test_a_host_with_what_blocked_a_real_guest_is_never_expected_to_work(tmp_path: Path, name: str) -> None:
    evidence = example(name)
    limits = dict(evidence.limits or {})
    host = report(probes=evidence.probes.by_name(), sysctls=evidence.sysctls, limits=limits)
    answer = check(tmp_path, host, STOCK)
    # What only some boxes meet, and a bubblewrap whose substitute is not tried.
    careful = name in ("SERVICE_WITHOUT_SECCOMP", "NOFILE_LIMIT") or name.startswith("BWRAP_EXEC_DENIED")
    assert answer.outcome is (UNKNOWN if careful else BLOCKED)


@pytest.mark.parametrize(
    ("nproc", "nearest", "outcome", "differing"),
    [
        (7795, "stock", WORKS, []),
        (3000, "nproc-400", WORKS, []),
        # Between a limit that blocks and one that does not.
        (300, "stock", UNKNOWN, [("limit nproc", "300", "3897")]),
        (12, "nproc-12", UNKNOWN, []),
    ],
)
def test_a_limit_is_compared_with_those_that_work_and_those_that_block(
    tmp_path: Path, nproc: int, nearest: str, outcome: HostOutlook, differing: list[tuple[str, str, str]]
) -> None:
    low = blocked("nproc-limit", variant="nproc-12", facts=facts(), context=context(nproc=12))
    enough = a_cell(variant="nproc-400", facts=facts(), context=context(nproc=400))
    answer = check(tmp_path, report(limits={"nproc": nproc}), STOCK, low, enough)
    assert answer.nearest is not None
    assert (answer.nearest.cell.variant, answer.outcome) == (nearest, outcome)
    compared = answer.nearest.comparison.differing
    assert [(each.name, each.yours, each.theirs) for each in compared] == differing


def test_what_the_probe_shows_comes_before_what_was_published(tmp_path: Path) -> None:
    data = from_run(tmp_path, STOCK, cured())
    host = report(sysctls={CLONE: "0"}, probes=REFUSED)
    answer = judge_host(host, data)
    assert answer.outcome is BLOCKED
    [finding] = answer.findings
    assert (finding.name, finding.confidence) == ("userns-sysctl", Confidence.PROVED)
    [advice] = answer.advice
    assert (advice.remedy, advice.price, advice.script_changed) == (CURE.name, CURE.price, False)
    assert advice.verified_on is not None
    text = text_of(answer)
    assert "userns-clone-on was verified on Debian 13 (trixie) on x86_64 with userns-clone-off" in text
    assert "lab remedies show userns-clone-on --script" in text
    # A script that is another one now says so.
    changed = data.model_dump_json().replace(CURE.digest, "0")
    [advice] = judge_host(host, Published.model_validate_json(changed)).advice
    assert advice.script_changed


def test_in_a_service_that_blocks_boxlite_its_setting_is_what_to_change(tmp_path: Path) -> None:
    service = {
        "service_unrestricted": service_probe(RestrictNamespaces="yes"),
        "unshare_flags": probe(1, "Operation not permitted"),
    }
    answer = check(tmp_path, report(probes=REFUSED | service), STOCK)
    assert [finding.name for finding in answer.findings] == ["service-restricts-namespaces"]
    assert [advice.remedy for advice in answer.advice] == ["service-namespaces"]
    assert "RestrictNamespaces=user mnt pid ipc uts" in text_of(answer)
    assert set(answer.otherwise) == {"preflight", "jailer-off"}


def test_another_system_is_never_expected_to_work(tmp_path: Path) -> None:
    mint = {"id": "linuxmint", "version_id": "22", "version_codename": None, "pretty_name": "Linux Mint 22"}
    host = report(os=mint).model_copy(update={"id_like": ("debian",)})
    answer = check(tmp_path, host, STOCK)
    assert (answer.outcome, answer.same_system) == (UNKNOWN, False)
    assert [distribution.name for distribution in answer.related] == ["debian-13"]
    assert "Linux Mint 22 on x86_64: not known" in text_of(answer)
    nobody = check(tmp_path, host.model_copy(update={"id_like": ()}), STOCK)
    assert (nobody.outcome, nobody.nearest) == (UNKNOWN, None)


@pytest.mark.parametrize(("yours", "tested"), [("aarch64", "x86_64"), ("x86_64", "aarch64")])
def test_what_was_tested_on_another_architecture_is_nothing_of_this_host(
    tmp_path: Path, yours: str, tested: str
) -> None:
    names = {"x86_64": "debian-11", "aarch64": "debian-11-arm64"}
    bullseye = dict(DEBIAN["os"]) | {"version_id": "11", "version_codename": "bullseye"}
    cell = a_cell(names[tested], facts=facts(os=bullseye, arch=tested))
    answer = check(tmp_path, report(os=bullseye, arch=yours), cell)
    assert answer.outcome is UNKNOWN
    text = text_of(answer)
    assert f"on {yours}: not known" in text
    # Where it is compared with all the same, both architectures are named.
    assert answer.nearest is None or f"architecture: {yours} here, {tested} on the tested host" in text
    own = a_cell(names[yours], facts=facts(os=bullseye, arch=yours), status=Status.FAIL, cause="unknown")
    nearest = check(tmp_path, report(os=bullseye, arch=yours), cell, own).nearest
    assert nearest and nearest.cell.guest == names[yours]


def test_what_cannot_be_read_is_not_compared(tmp_path: Path) -> None:
    name = "kernel.apparmor_restrict_unprivileged_unconfined"
    printed = printed_facts()
    readable = {key: value for key, value in printed["sysctls"].items() if key != name}
    host = report(unreadable=(f"sysctls.{name}", "apparmor.profiles"))
    host = host.model_copy(update={"facts": Facts.model_validate(printed | {"sysctls": readable})})
    answer = check(tmp_path, host)
    assert answer.outcome is WORKS
    assert answer.nearest is not None
    assert name in answer.nearest.comparison.not_known
    assert f"Not readable for the user who ran the probe: sysctls.{name}" in text_of(answer)


def test_a_profile_that_its_user_would_see_is_not_loaded(tmp_path: Path) -> None:
    with_profile = facts(apparmor={"profiles": {"bwrap": "enforce"}})
    cells = [STOCK, a_cell(variant="userns-clone-off", status=Status.FAIL, facts=with_profile)]
    answer = check(tmp_path, report(), *cells)
    assert answer.nearest is not None
    assert answer.nearest.cell.variant == "stock"
    assert "AppArmor profile bwrap" in [difference.name for difference in answer.cells[1].comparison.differing]
    assert answer.outcome is WORKS


def test_a_site_says_the_same_as_the_run_it_was_made_of(tmp_path: Path) -> None:
    site = site_of(tmp_path, STOCK, cured())
    of_site = published.load_published([str(site)], tmp_path).published
    of_run = published.load_published([str(tmp_path / "run")], tmp_path).published
    assert of_site == of_run
    both = published.load_published([str(site), str(tmp_path / "run")], tmp_path).published
    with_cells = [distribution.name for distribution in both.distributions for _ in distribution.cells]
    assert with_cells == ["debian-13"] * 4


def about(build: str, status: Status, **outcomes: Outcome) -> dict[str, Any]:
    """What a cell has that ran the suite of this build, with one test of each of these subjects."""
    tests = [TestResult(name=name, outcome=outcome, subject=name) for name, outcome in outcomes.items()]
    return {"build": build, "status": status, "tests": tests, "facts": facts()}


STARTS = about("0.10.8", Status.PASS, start=Outcome.PASS, confinement=Outcome.PASS)
STOPS = about("lifecycle-0.10.8", Status.PASS, stop=Outcome.PASS, recovery=Outcome.PASS)
LIVES_ON = about("lifecycle-0.10.8", Status.XFAIL, stop=Outcome.FAIL, recovery=Outcome.PASS)
SCOPE = context().model_copy(update={"session": session(kind="user unit")})
REAPED = remedies.find_remedy("user-scope")


def test_what_works_covers_is_what_was_tested_on_the_host_that_is_like_this(tmp_path: Path) -> None:
    starts = a_cell(context=context(), **STARTS)
    scope = a_cell(variant="session-user-scope", context=SCOPE, **STOPS)
    # No test of a box's end ran, or none in such a session.
    for cells in ((starts,), (starts, scope)):
        answer = check(tmp_path, report(), *cells)
        assert (answer.outcome, answer.fails) == (WORKS, ())
        covered, _, untested = answer.covers.partition(". Not tested there: ")
        assert covered.startswith("a box starts and runs a command; a box is confined")
        assert {"stop", "recovery"} <= {*untested.split(", ")}
        assert f"- Tested there: {covered}" in text_of(answer)


@pytest.mark.parametrize("is_cured", [True, False])
def test_what_fails_on_the_host_that_is_like_this_is_not_said_to_work(tmp_path: Path, is_cured: bool) -> None:
    starts = a_cell(context=context(), **STARTS)
    trial = RemedyResult(name=REAPED.name, result=RemedyOutcome.VERIFIED, price="x", scripts={})
    tried = [trial] if is_cured else []
    lives_on = blocked("cgroup-not-joined", context=context(), remedies=tried, **LIVES_ON)
    answer = check(tmp_path, report(), starts, lives_on)
    assert answer.outcome is WORKS
    text = text_of(answer)
    assert "boxes are found again after their runtime was killed" in answer.covers
    assert "stop" not in answer.covers.rpartition(": ")[2].split(", ")
    assert "- Failed there (cgroup-not-joined): a box that is stopped or removed leaves nothing behind" in text
    assert "say success while the box lives on" in text
    assert ("user-scope cures it there: `lab remedies show user-scope`" in text) is is_cured


def test_each_suite_beyond_a_start_says_what_failed_in_it(tmp_path: Path) -> None:
    starts = a_cell(context=context(), **STARTS)
    stops = a_cell(context=context(), **STOPS)
    mounts = about("volumes-0.10.8", Status.XFAIL, volumes=Outcome.FAIL)
    answer = check(
        tmp_path, report(), starts, stops, blocked("volumes-exhaust-irqs", context=context(), **mounts)
    )
    [failure] = answer.fails
    assert (failure.subjects, failure.causes) == (("volumes",), ("volumes-exhaust-irqs",))
    assert "a box that is stopped or removed leaves nothing behind" in answer.covers
    assert "volumes" not in answer.covers.rpartition(": ")[2].split(", ")


def test_a_probe_that_only_the_end_of_a_box_needs_is_shown_apart(tmp_path: Path) -> None:
    refusal = {"own_cgroup": probe(13, "[Errno 13] Permission denied")}
    answer = check(tmp_path, report(probes=refusal))
    assert answer.outcome is WORKS
    text = text_of(answer)
    assert "The probe was refused:" not in text
    assert "The probe was refused what a box can start without: - Make a control group" in text


# -- The command.


def lab(tmp_path: Path, *arguments: str, text: str = "") -> tuple[int, str]:
    environment = {"LAB_HOME": str(tmp_path / "home")}
    result = CliRunner().invoke(cli, ["check", *arguments], input=text, env=environment, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.output


def test_this_host_is_checked_with_and_without_results(tmp_path: Path) -> None:
    status, text = lab(tmp_path)
    assert status in (1, 3)
    assert "There are no published results" in text
    run = run_folder(tmp_path, STOCK, cured())
    status, text = lab(tmp_path, "--results", str(run), "--json")
    document = json.loads(text)
    assert status == {"expected to work": 0, "blocked": 1, "not known": 3}[document["outcome"]]
    assert document["results"] == [str(run)]


@pytest.mark.parametrize(
    ("argument", "text", "says"),
    [
        ("-", "no probe here", "holds no output of the probe script"),
        ("-", "===== begin boxlite-probe 4 =====", "damaged"),
        ("nothing", "", "No such file"),
        (".", "", "Is a directory"),
    ],
)
def test_bad_input_says_what_to_give(tmp_path: Path, argument: str, text: str, says: str) -> None:
    with pytest.raises((UsageError, click.BadParameter), match=says):
        lab(tmp_path, argument, text=text)


def test_a_site_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "published.json").write_text("alert(1)")
    with pytest.raises(UsageError, match=r"published\.json"):
        published.load_published([str(tmp_path)], tmp_path)


# -- Hosts with Ubuntu's restriction of user namespaces.

UNCONFINED = "kernel.apparmor_restrict_unprivileged_unconfined"
ENFORCED = {ubuntu.POLICY: "enforce"}
# How the guest as installed was tested.
POLICY = blocked(
    "apparmor-userns-nocaps",
    facts=facts(sysctls={RESTRICT: "1", UNCONFINED: "0"}, apparmor={"profiles": ENFORCED}),
)


def on_ubuntu(state: str, profiles: dict[str, str], **more: Any) -> HostReport:
    policy = ubuntu.STATES[state]
    probes = ubuntu.evidence(policy).probes.by_name()
    sysctls = {ubuntu.RESTRICT: policy.restrict, UNCONFINED: "0"}
    return report(sysctls=sysctls, apparmor={"profiles": profiles}, probes=probes, **more)


@pytest.mark.parametrize(
    ("state", "profiles", "outcome", "causes", "differing"),
    [
        ("as installed", ENFORCED, BLOCKED, [NOCAPS], []),
        ("profile not loaded", {}, BLOCKED, ["apparmor-userns-deny"], [ubuntu.POLICY]),
        ("complain", {ubuntu.POLICY: "complain"}, BLOCKED, ["apparmor-disconnected"], [ubuntu.POLICY]),
        ("restriction off", ENFORCED, UNKNOWN, [], [ubuntu.RESTRICT]),
        ("bwrap-userns-restrict", {**ENFORCED, "bwrap": "enforce"}, UNKNOWN, [], ["bwrap"]),
        ("bwrap unconfined", {**ENFORCED, "boxlite-bwrap": "enforce"}, UNKNOWN, [], ["boxlite-bwrap"]),
    ],
)
def test_each_state_of_ubuntus_policy_is_told_from_the_tested_one(
    tmp_path: Path,
    state: str,
    profiles: dict[str, str],
    outcome: HostOutlook,
    causes: list[str],
    differing: list[str],
) -> None:
    answer = check(tmp_path, on_ubuntu(state, profiles), POLICY)
    assert (answer.outcome, [finding.name for finding in answer.findings]) == (outcome, causes)
    assert answer.nearest is not None
    names = [difference.name for difference in answer.nearest.comparison.differing]
    assert [name.removeprefix("AppArmor profile ") for name in names] == differing
    assert ("are as tested" in text_of(answer)) is (not differing)


def test_nothing_is_advised_that_the_host_has_already(tmp_path: Path) -> None:
    advised = {advice.remedy for advice in check(tmp_path, on_ubuntu("as installed", ENFORCED), POLICY).advice}
    assert {"bwrap-userns-restrict", "apparmor-restrict-off"} <= advised
    assert advised.isdisjoint({"install-bubblewrap", "bundled-bwrap-profile"})


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({}, []),
        ({"kind": "user unit"}, ["session"]),
        ({"kind": "system service", "manager": False}, ["session", "the user's service manager answers"]),
    ],
)
def test_another_kind_of_session_is_another_host(
    tmp_path: Path, changes: dict[str, Any], differing: list[str]
) -> None:
    host = report()
    user = host.who.model_copy(update={"context": context().model_copy(update={"session": session(**changes)})})
    answer = check(tmp_path, host.model_copy(update={"who": user}), changed(STOCK, context=context()))
    assert answer.nearest is not None
    assert [each.name for each in answer.nearest.comparison.differing] == differing
    assert answer.outcome is (UNKNOWN if differing else WORKS)


def test_what_root_was_allowed_says_nothing_about_an_ordinary_user(tmp_path: Path) -> None:
    answer = check(tmp_path, report(), changed(STOCK, variant="as-root"))
    assert answer.nearest is not None
    [differing] = answer.nearest.comparison.differing
    assert (differing.name, differing.yours, differing.theirs) == ("the user is root", "no", "yes")
    assert answer.outcome is UNKNOWN


def test_a_cell_whose_suite_a_profile_confined_is_not_like_a_host_where_none_does(tmp_path: Path) -> None:
    cell = changed(POLICY, variant="apparmor-bwrap-exec-deny")
    answer = check(tmp_path, on_ubuntu("bwrap unconfined", ENFORCED), cell)
    assert answer.nearest is not None
    [differing] = answer.nearest.comparison.differing
    assert (differing.yours, differing.theirs) == ("no profile", "lab-without-bwrap")
