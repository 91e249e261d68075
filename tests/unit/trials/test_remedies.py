"""Remedies tried on a cell, with a guest that is not there: it is blocked by causes, and remedies lift them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import catalog
from lab.builds import WHOLE_SUITE, Build, SuiteOptions
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Variant, remedies
from lab.catalog.remedies import Remedy
from lab.guest.remedy_script import ScriptRun, ScriptRuns
from lab.guest.session import SessionLost
from lab.guest.variant import CellStart
from lab.lane import cell as lane_cell
from lab.plan import Cell
from lab.probes import Facts, ProbedUser
from lab.record import (
    CellResult,
    Confidence,
    FoundCause,
    Needs,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RunOptions,
    Status,
    SuiteRun,
    TestResult,
)
from lab.trials.remedies import RemedyAttempt, add_remedies
from tests.builders.cells import changed
from tests.builders.facts import facts, probe, probed
from tests.builders.lanes import SUITE, Bench, FakeGuest, FakeLane, fails, trust_guests

CATALOG = catalog.load_catalog()
CELL = Cell(CATALOG.guest("debian-13"), CATALOG.variant("userns-clone-off"), Wheel("0.10.8", "0.10.8"))
KNOWN = remedies.load_remedies()
BLOCKED = [name for name, needs in SUITE.tests.items() if needs.includes(Needs.SANDBOX)]
SLOW = "Timeout waiting for guest ready (30s)"

DONE = ScriptRuns(
    [ScriptRun("--check", 1, ""), ScriptRun("--yes", 0, "done"), ScriptRun("--yes", 0, "in place")], []
)
IN_PLACE = ScriptRuns([ScriptRun("--check", 0, "in place")], [])
CANNOT = ScriptRuns(
    [
        ScriptRun("--check", 1, ""),
        ScriptRun("--yes", 3, "userns-clone-on: nothing can be done on this host: no package\n"),
    ],
    [],
)
FAILED = ScriptRuns(
    [
        ScriptRun("--check", 1, ""),
        ScriptRun("--yes", 1, "It sets a sysctl.\n\nsysctl: no such file\nx: failed\n"),
    ],
    [],
)
FAILED_AGAIN = ScriptRuns([*DONE.runs[:2], ScriptRun("--yes", 1, "no such file")], [])
HANGS = ScriptRuns([ScriptRun("--check", 1, ""), ScriptRun("--yes", 124, "did not end within 300 s")], [])


def finding(cause: str) -> FoundCause:
    return FoundCause(name=cause, confidence=Confidence.PROVED, reason=f"{cause} it is")


def outcome_of(name: str, outcome: Outcome = Outcome.PASS, message: str = "") -> TestResult:
    return TestResult(name=name, outcome=outcome, message=message)


def a_suite(
    failing: Sequence[str] = (), message: str = "no sandbox", outcome: Outcome = Outcome.FAIL
) -> SuiteRun:
    """A suite that stops at its first failure, or comes to its end."""
    tests: list[TestResult] = []
    for name in SUITE.tests:
        if tests and (tests[-1].outcome is Outcome.FAIL or tests[-1].outcome is Outcome.NOT_RUN):
            tests.append(outcome_of(name, Outcome.NOT_RUN))
        elif name in failing:
            tests.append(outcome_of(name, outcome, message))
        else:
            tests.append(outcome_of(name))
    return SuiteRun(tests)


class Guest(FakeGuest):
    """Blocked by causes, of which remedies lift some. `lifts`: which causes each remedy lifts if it is applied.

    `masking`: whether only the cause that blocks first leaves evidence. `instead`: what happens when a suite
    runs with these remedies in place, or with these environment variables; a list is used up.
    """

    def __init__(
        self,
        blocked_by: list[str],
        lifts: Mapping[str, set[str]] | None = None,
        *,
        masking: bool = False,
        scripts: dict[str, ScriptRuns] | None = None,
        undoes: bool = True,
    ) -> None:
        off = {"kernel.unprivileged_userns_clone": "0", "user.max_user_namespaces": "0"}
        self.facts = facts(sysctls=off, apparmor=None)
        self.blocked_by = blocked_by
        self.lifts = lifts or {}
        self.masking = masking
        self.scripts = scripts or {}
        self.undoes = undoes
        self.did: list[str] = []
        self.instead: dict[str, list[Callable[[], SuiteRun]]] = {}
        self.applied: set[str] = set()

    def enter(self, lane: FakeLane) -> None:
        """Be the guest of this lane."""
        super().__init__(lane)

    @property
    def left(self) -> list[str]:
        lifted = {cause for name in self.applied for cause in self.lifts.get(name, ())}
        return [cause for cause in self.blocked_by if cause not in lifted]

    def control_fails(self) -> bool:
        return any(cause.startswith("kvm") for cause in self.left)

    def read_facts(self, sysctls: Iterable[str]) -> Facts:
        return self.facts

    def begin(self, variant: Variant, *, mark: CellStart, sysctls: Iterable[str]) -> Facts:
        more = [f"{kind} {knob.words()}" for kind, knob in variant.knobs.items() if kind != "sysctl"]
        self.did.append(" ".join(["fork", *more]))
        starters = [knob for kind, knob in variant.knobs.items() if kind in ("container", "service", "session")]
        self.applied = {f"{name}={value}" for knob in starters for name, value in knob.given().items()}
        return self.facts

    def run_remedy(self, remedy: Remedy, *, undo: bool = False) -> ScriptRuns:
        if undo:
            self.did.append(f"undo {remedy.name}")
            if self.undoes:
                self.applied.discard(remedy.name)
            return ScriptRuns([ScriptRun("--undo --yes", 0, "taken back")], [])
        self.did.append(f"apply {remedy.name}{' for the user' if remedy.about_user else ''}")
        self.applied.add(remedy.name)
        return self.scripts.get(remedy.name, DONE)

    def run_suite(
        self, build: Build, variant: Variant, *, speed: object, options: SuiteOptions = WHOLE_SUITE
    ) -> SuiteRun:
        if options.tests == (SUITE.control,):
            self.did.append("control")
            control = outcome_of(SUITE.control, Outcome.FAIL if self.control_fails() else Outcome.PASS)
            return SuiteRun([control])
        assert options.to_first_failure
        self.did.append(" ".join(["suite", *options.environment]))
        steps = self.instead.get("+".join([*sorted(self.applied), *options.environment]))
        if steps:
            return steps.pop(0)()
        if options.environment:
            return a_suite([BLOCKED[-1]], "Skipped: the jailer is switched off", Outcome.SKIP)
        return a_suite(BLOCKED if self.left else [])

    def diagnose(self, _cell: Cell, _folder: Path, tests: Sequence[TestResult]) -> list[FoundCause]:
        # The rules have to know of the control, which runs after the first test of the sandbox.
        [control] = [test for test in tests if test.name == SUITE.control]
        assert control.outcome is (Outcome.FAIL if self.control_fails() else Outcome.PASS)
        # And of no words from before the remedy.
        assert "before" not in [test.message for test in tests]
        seen = self.left[:1] if self.masking else self.left
        return [finding(cause) for cause in seen]

    def collect(self, folder: Path, variant: Variant, *, mark: CellStart, full: bool) -> None:
        (folder / "suite.log").write_text("ran")
        if full:
            (folder / "kernel.log").write_text("DENIED")

    def probe(self, variant: Variant) -> ProbedUser:
        filtered = "seccomp" in self.left
        return probed({"bwrap_user": probe(int(bool(self.left))), "unshare_user": probe(int(filtered))})


Try = Callable[..., dict[str, RemedyResult]]


@pytest.fixture
def try_all(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Try:
    trust_guests(monkeypatch)

    def run(
        guest: Guest,
        causes: Sequence[str] | None = None,
        *,
        retries: int = 0,
        variant_name: str = CELL.variant.name,
        finished: list[RemedyResult] | None = None,
        has_probes: bool = True,
    ) -> dict[str, RemedyResult]:
        cell = replace(CELL, variant=CATALOG.variant(variant_name))
        folder = tmp_path / cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        if has_probes:
            (folder / "probes.json").write_text(guest.probe(cell.variant).model_dump_json())
        blocking = guest.blocked_by if causes is None else causes
        failed = [*BLOCKED, *([SUITE.control] if guest.control_fails() else [])]
        before = changed(
            cell.result(Status.XFAIL),
            causes=[finding(cause) for cause in blocking],
            remedies=list(finished or []),
            tests=[
                outcome_of(name, Outcome.FAIL, "before") if name in failed else outcome_of(name)
                for name in SUITE.tests
            ],
        )
        bench.lane.when.clear()
        guest.enter(bench.lane)
        monkeypatch.setattr(lane_cell, "diagnose_cell", guest.diagnose)
        running = bench.deployed(guest, folder=tmp_path)
        guest.did.clear()
        options = RunOptions(remedies=True, retries=retries)
        keep = [] if finished is None else finished
        tried = add_remedies(options, running, cell, before, keep.append).remedies
        return {trial.name: trial for trial in tried}

    return run


SYSCTL, LIMIT, NOCAPS, KVM = "userns-sysctl", "userns-limit", "apparmor-userns-nocaps", "kvm-denied"


def results(tried: Mapping[str, RemedyResult]) -> dict[str, str]:
    return {name: str(trial.result) for name, trial in tried.items()}


def test_every_candidate_has_its_fork_and_is_recorded_in_order(try_all: Try, tmp_path: Path) -> None:
    guest = Guest([SYSCTL], {"userns-clone-on": {SYSCTL}})
    tried = try_all(guest)
    assert list(results(tried).items()) == [
        ("preflight", "avoids it"),
        ("userns-clone-on", "verified"),
        ("privileged-container", "cannot be tried here"),
        ("jailer-off", "avoids it"),
    ]
    assert guest.did == [
        *["fork", "suite LAB_PREFLIGHT"],
        *["fork", "apply userns-clone-on", "suite", "undo userns-clone-on"],
        *["fork", "suite LAB_JAILER"],
    ]
    cured = tried["userns-clone-on"]
    assert (cured.reason, cured.defects, cured.price.startswith("Every program")) == ("", [], True)
    assert cured.scripts == {"userns-clone-on": KNOWN["userns-clone-on"].digest}
    base = f"{CELL.folder}/remedies/userns-clone-on"
    names = ("probes-undone.json", "suite.log", "userns-clone-on.log", "userns-clone-on.sh")
    assert cured.evidence == [f"{base}/{name}" for name in names]
    assert (tmp_path / base / "userns-clone-on.sh").read_text() == KNOWN["userns-clone-on"].script()
    assert "$ --yes\ndone(exit status 0)\n" in (tmp_path / base / "userns-clone-on.log").read_text()
    assert list(cured.steps) == ["fork", "apply", "remedy", "suite", "evidence", "undo"]
    assert list(tried["jailer-off"].steps) == ["fork", "apply", "suite", "evidence"]
    assert tried["jailer-off"].reason.startswith(
        "skipped: maximum_security_box_starts_and_executes: the jailer"
    )
    assert "podman" in tried["privileged-container"].reason


def test_what_does_not_help_says_what_fails_and_why_and_keeps_all_evidence(try_all: Try) -> None:
    guest = Guest([NOCAPS], {"unprivileged-userns-complain": {NOCAPS}})
    tried = try_all(guest)
    useless = tried["bwrap-profile"]
    assert (useless.result, useless.reason) == (
        "does not help",
        "jailer_enabled_box_starts_and_executes fails all the same: apparmor-userns-nocaps it is",
    )
    assert any(file.endswith("kernel.log") for file in useless.evidence)
    assert tried["unprivileged-userns-complain"].result == "verified"
    # Nothing is tried together where one cures alone.
    assert not any("+" in name for name in tried)


WORSE, CURE, JAILER_OFF = "standard_mode_enables_jailer", "userns-clone-on", "jailer-off"
SKIPPED = a_suite(BLOCKED[:1], "no /dev/kvm", Outcome.SKIP)


@pytest.mark.parametrize(
    ("causes", "remedy", "suite", "tries", "result", "reason"),
    [
        ([SYSCTL], CURE, a_suite([WORSE]), 2, "makes it worse", f"twice: {WORSE} passed without it: "),
        # A failure that nothing explains is looked at twice.
        ([SYSCTL], CURE, a_suite(BLOCKED), 2, "does not help", f"twice: {BLOCKED[0]} fails all the same: "),
        # A box without a sandbox may fail for what blocks every box.
        (
            [SYSCTL, KVM],
            JAILER_OFF,
            a_suite(BLOCKED),
            1,
            "does not help",
            f"{BLOCKED[0]} fails all the same: {KVM}",
        ),
        # What is skipped by no remedy is no success.
        ([SYSCTL], CURE, SKIPPED, 1, "error", "skipped or not run, so not covered: jailer_enabled"),
    ],
)
def test_what_a_suite_shows_under_a_remedy(
    try_all: Try, causes: list[str], remedy: str, suite: SuiteRun, tries: int, result: str, reason: str
) -> None:
    guest = Guest(causes, {CURE: {SYSCTL}})
    guest.instead["LAB_JAILER" if remedy == JAILER_OFF else remedy] = [lambda: suite] * tries
    tried = try_all(guest)[remedy]
    assert (tried.result, tried.reason.startswith(reason)) == (result, True), tried.reason
    assert not any(guest.instead.values())


def test_a_box_without_a_sandbox_is_not_blocked_by_it(try_all: Try) -> None:
    guest = Guest([SYSCTL])
    guest.instead["LAB_JAILER"] = [lambda: a_suite([BLOCKED[-1]], "The VM failed to start.")]
    tried = try_all(guest)[JAILER_OFF]
    # So it is surprising, and tried again.
    assert guest.did.count("suite LAB_JAILER") == 3
    assert (tried.result, tried.reason.startswith("skipped: ")) == ("avoids it", True)
    once = f"once: does not help: {BLOCKED[-1]} fails all the same: the evidence proves no known cause)"
    assert tried.reason.endswith(f"(in two of three tries under emulation; {once}")


@pytest.mark.parametrize(
    ("steps", "result", "reason"),
    [
        (IN_PLACE, "does not help", "it is in place already, and the cell fails all the same"),
        (CANNOT, "cannot be tried here", "no package"),
        (FAILED, "its script fails", "it ended with exit status 1: sysctl: no such file; x: failed"),
        (FAILED_AGAIN, "its script fails", "run again, it ended with exit status 1: no such file"),
        (HANGS, "its script fails", "it ended with exit status 124: did not end within 300 s"),
    ],
)
def test_a_script_without_effect_ends_the_try(
    try_all: Try, steps: ScriptRuns, result: str, reason: str
) -> None:
    guest = Guest([SYSCTL], {"userns-clone-on": {SYSCTL}}, scripts={"userns-clone-on": steps})
    tried = try_all(guest, retries=2)["userns-clone-on"]
    assert (tried.result, tried.reason, tried.retried) == (result, reason, [])
    assert guest.did.count("apply userns-clone-on") == 1
    assert "suite" not in guest.did
    assert any(file.endswith("userns-clone-on.log") for file in tried.evidence)


CHANGES = {CURE: ScriptRuns(DONE.runs, ["/etc/sysctl.d/x.conf"])}


@pytest.mark.parametrize(
    ("has_probes", "guest", "defects"),
    [
        (True, {"scripts": CHANGES}, ["run again, its script changed /etc/sysctl.d/x.conf"]),
        (True, {"undoes": False}, ["its undo does not put back what was: bwrap_user"]),
        # Without the evidence of before nothing is said of an undo.
        (False, {}, []),
    ],
)
def test_defects_of_a_remedy_are_told_beside_its_result(
    try_all: Try, has_probes: bool, guest: dict[str, Any], defects: list[str]
) -> None:
    tried = try_all(Guest([SYSCTL], {CURE: {SYSCTL}}, **guest), has_probes=has_probes)[CURE]
    assert (tried.result, tried.defects) == ("verified", defects)


RAISE = "userns-limit-raise"
LIFTS = {CURE: {SYSCTL}, RAISE: {LIMIT}, "bwrap-profile": {NOCAPS}}


@pytest.mark.parametrize(
    ("blocked_by", "lifts", "masking", "cures"),
    [
        ([SYSCTL, LIMIT], LIFTS, False, [CURE, RAISE]),
        # The second shows behind the first.
        ([SYSCTL, LIMIT], LIFTS, True, [CURE, RAISE]),
        ([SYSCTL, LIMIT, NOCAPS], LIFTS, True, [CURE, RAISE, "bwrap-profile"]),
        # Nothing is put on top of what lifts nothing.
        ([SYSCTL, LIMIT], {RAISE: {LIMIT}}, False, []),
    ],
)
def test_remedies_are_added_the_cheapest_for_each_cause_as_long_as_each_lifts_one(
    try_all: Try, blocked_by: list[str], lifts: dict[str, set[str]], masking: bool, cures: list[str]
) -> None:
    guest = Guest(blocked_by, lifts, masking=masking)
    tried = try_all(guest, [SYSCTL] if masking else None)
    together = [name for name in tried if "+" in name]
    assert [together[0], together[-1]] == ["+".join(cures[:2]), "+".join(cures)] if cures else not together
    assert {name: tried[name].result for name in [CURE, *together]} == {
        name: "verified" if name == "+".join(cures) else "does not help" for name in [CURE, *together]
    }
    if cures:
        assert list(tried)[-1] == together[-1]
        assert list(tried[together[-1]].scripts) == cures
        applied, undone = [f"apply {name}" for name in cures], [f"undo {name}" for name in reversed(cures)]
        assert guest.did[-2 * len(cures) - 2 :] == ["fork", *applied, "suite", *undone]


def test_what_shows_behind_a_cause_that_broke_the_control_is_cured_too(try_all: Try) -> None:
    lifts = {"kvm-module": {"kvm-absent"}, "userns-clone-on": {SYSCTL}}
    guest = Guest(["kvm-absent", SYSCTL], lifts, masking=True)
    tried = try_all(guest, ["kvm-absent"])
    first = tried["kvm-module"]
    # It did cure what it is for: what fails now fails for the other cause.
    assert (first.result, first.reason) == (
        "does not help",
        f"{BLOCKED[0]} fails all the same: userns-sysctl it is",
    )
    assert any("/control/" in file for file in first.evidence)
    assert list(results(tried).items())[-1] == ("kvm-module+userns-clone-on", "verified")
    assert guest.did[:5] == ["fork", "apply kvm-module", "suite", "control", "undo kvm-module"]


@pytest.mark.parametrize(
    ("variants", "result", "reason", "forked"),
    [
        ([["as-root"]], "does not help", "jailer_enabled_box_starts", ["fork user name=root"]),
        ([["apparmor-restrict-on"]], "cannot be tried here", "no AppArmor", []),
        # Of a list it is the first that makes sense on the guest; if none does, the first says why.
        ([["docker", "as-root"]], "does not help", "jailer_enabled_box_starts", ["fork user name=root"]),
        ([["docker", "podman"]], "cannot be tried here", "has no docker", []),
        ([["moon"]], "error", "no variant is called 'moon'", []),
    ],
)
def test_another_way_to_run_boxlite_can_take_variants_of_its_own(
    try_all: Try,
    monkeypatch: pytest.MonkeyPatch,
    variants: list[list[str]],
    result: str,
    reason: str,
    forked: list[str],
) -> None:
    container = KNOWN["privileged-container"]
    assert container.run
    run = container.run.model_copy(update={"variants": variants})
    guest = Guest([SYSCTL])
    changed = container.model_copy(update={"run": run})
    monkeypatch.setattr(remedies, "choose_candidates", lambda _remedies, _causes: [changed])
    tried = try_all(guest)["privileged-container"]
    assert tried.result == result
    assert tried.reason.startswith(reason)
    assert guest.did == [*forked, *(["suite"] if forked else [])]


@pytest.mark.parametrize(("engine", "variant"), [("podman", "podman-apparmor-off"), ("docker", "docker-kvm")])
def test_a_cell_s_container_gives_way_to_that_of_a_remedy(try_all: Try, engine: str, variant: str) -> None:
    guest = Guest(["masked-proc"])
    guest.facts = facts(engines=[engine])
    tried = try_all(guest, variant_name=f"{variant}+userns-clone-off")
    assert list(tried) == ["unconfined-container", "privileged-container", "jailer-off"]
    with_kvm = ", kvm=True" if engine == "docker" else ""
    assert [step for step in guest.did if step.startswith("fork")] == [
        f"fork container engine={engine}, kind=unconfined{with_kvm}",
        f"fork container engine={engine}, kind=privileged{with_kvm} user name=root",
        f"fork container {CATALOG.variants[variant].knobs['container'].words()}",
    ]


def test_a_remedy_that_gives_the_container_a_device_gives_it(try_all: Try) -> None:
    guest = Guest(["container-without-kvm"], {"kvm=True": {"container-without-kvm"}})
    guest.facts = facts(engines=["docker"])
    tried = try_all(guest, ["container-without-kvm"], variant_name="docker")
    assert tried["container-kvm"].result == "verified"
    assert "fork container engine=docker, kind=default, kvm=True" in guest.did


def test_another_container_comes_on_top_of_a_change_of_the_host(try_all: Try) -> None:
    lifts = {"kvm-everyone": {"kvm-denied"}, "kind=unconfined": {"seccomp"}}
    guest = Guest(["kvm-denied", "seccomp"], lifts)
    guest.facts = facts(engines=["docker"], login_sessions=True)
    tried = try_all(guest, ["kvm-denied", "seccomp"], variant_name="docker-rootless")
    assert tried["kvm-everyone"].result == tried["unconfined-container"].result == "does not help"
    assert tried["kvm-everyone+unconfined-container"].result == "verified"
    # In the other container the probes never said what they said in the cell's.
    assert tried["kvm-everyone+unconfined-container"].defects == []
    # Without a sandbox there is nothing to add to.
    assert "kvm-everyone+jailer-off" not in tried


def test_what_a_remedy_does_not_set_of_a_container_stays_as_the_cell_has_it(try_all: Try) -> None:
    guest = Guest(["seccomp"], {"kind=unconfined": {"seccomp"}})
    guest.facts = facts(engines=["docker"], login_sessions=True)
    tried = try_all(guest, ["seccomp"], variant_name="docker-rootless")
    assert tried["unconfined-container"].result == "verified"
    assert "fork container engine=docker, kind=unconfined, kvm=True, rootless=True" in guest.did
    refused = tried["privileged-container"]
    assert refused.result == "cannot be tried here"
    assert refused.reason == "the daemon is one of the suite's usual user, and root would run the suite"


@pytest.mark.parametrize(
    ("variant", "result", "reason"),
    [
        ("session-cron", "verified", ""),
        ("service", "cannot be tried here", "the suite cannot be started by service ("),
        ("session-none", "not judged here", "it needs the service manager that this variant takes from users"),
    ],
)
def test_a_cell_s_session_gives_way_to_that_of_a_remedy_and_its_service_does_not(
    try_all: Try, variant: str, result: str, reason: str
) -> None:
    guest = Guest(["cgroup-not-joined"], {"kind=user-scope": {"cgroup-not-joined"}})
    guest.facts = facts(login_sessions=True, cron=True)
    tried = try_all(guest, ["cgroup-not-joined"], variant_name=variant)["user-scope"]
    assert tried.result == result
    assert tried.reason.startswith(reason)
    assert ("fork session kind=user-scope" in guest.did) is (result == "verified")


def test_settings_of_a_service_are_taken_back_together(try_all: Try) -> None:
    namespaces, proc = "service-restricts-namespaces", "service-masks-proc"
    lifts = {"RestrictNamespaces=user mnt pid ipc uts": {namespaces}, "ProtectKernelTunables=no": {proc}}
    guest = Guest([namespaces, proc], lifts, masking=True)
    tried = try_all(guest, [namespaces], variant_name="service-restrict-namespaces+service-kernel-tunables")
    assert results(tried) == {
        "preflight": "avoids it",
        "service-namespaces": "does not help",
        "jailer-off": "avoids it",
        "service-namespaces+service-proc": "verified",
    }
    assert tried["service-namespaces+service-proc"].scripts == {}
    assert "apply service-proc" not in guest.did


def test_what_a_variant_cannot_tell_about_is_not_tried_and_says_why(try_all: Try) -> None:
    guest = Guest([NOCAPS], {"bwrap-profile": {NOCAPS}})
    guest.facts = facts(sysctls=guest.facts.sysctls)
    variant = CATALOG.variant("apparmor-userns-nocaps")
    tried = try_all(guest, variant_name=variant.name)
    not_judged = {name: trial.reason for name, trial in tried.items() if trial.result == "not judged here"}
    assert not_judged == variant.not_judged
    assert not_judged.keys() >= {"apparmor-restrict-off"}
    assert not {f"apply {name}" for name in not_judged} & set(guest.did)
    # The others are tried as before.
    assert (tried["bwrap-profile"].result, tried["preflight"].result) == ("verified", "avoids it")
    # Nor are two together where one of them is not.
    guest = Guest([SYSCTL, NOCAPS], {CURE: {SYSCTL}})
    guest.facts = facts(sysctls=guest.facts.sysctls)
    both = try_all(guest, variant_name=variant.name)[f"{CURE}+apparmor-restrict-off"]
    assert (both.result, both.reason) == ("not judged here", variant.not_judged["apparmor-restrict-off"])


def test_remedies_by_ignored_variables_are_not_judged(try_all: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(CELL.build), "heeds_remedies", False)
    tried = try_all(Guest([SYSCTL], {CURE: {SYSCTL}}))
    assert tried[CURE].result == "verified"
    assert {name: trial.reason for name, trial in tried.items() if trial.result == "not judged here"} == {
        "preflight": "the tests of jailer ignore LAB_PREFLIGHT",
        "jailer-off": "the tests of jailer ignore LAB_JAILER",
    }


def test_a_fault_of_the_lab_s_is_tried_again_and_told(try_all: Try) -> None:
    guest = Guest([SYSCTL], {CURE: {SYSCTL}})
    guest.instead[CURE] = [fails(SessionLost("SSH broke")), lambda: a_suite(BLOCKED[:1], SLOW)]
    tried = try_all(guest, retries=2)[CURE]
    assert tried.result == "verified"
    assert tried.retried[0] == "SSH broke"
    assert "too slow" in tried.retried[1]
    # What the tries before left is evidence of their faults, and not of what came of the remedy.
    [log] = [Path(file) for file in tried.evidence if file.endswith("kernel.log")]
    assert log.parent.name == "fault-2"


def test_a_fresh_lane_tries_only_what_the_dead_one_did_not_finish(try_all: Try, tmp_path: Path) -> None:
    dead, finished = Guest([SYSCTL]), list[RemedyResult]()

    def die() -> SuiteRun:
        dead.lane.die()

    dead.instead[CURE] = [die]
    first = try_all(dead, retries=1, finished=finished)
    assert results(first)[CURE] == "error"
    # Nothing can be tried again on a dead machine.
    assert not any(tried.retried for tried in first.values())
    assert first[JAILER_OFF].reason.splitlines()[0] == "the machine is gone"
    done = [name for name, outcome in results(first).items() if outcome != "error"]
    assert [tried.name for tried in finished] == done
    assert done
    kept = {name: (tmp_path / first[name].evidence[0]).read_text() for name in done}
    fresh = Guest([SYSCTL], {CURE: {SYSCTL}})
    second = try_all(fresh, finished=finished)
    assert [name for name in second if f"apply {name}" in fresh.did] == [
        name for name in second if name not in done and KNOWN[name].host
    ]
    assert {name: second[name] for name in done} == {name: first[name] for name in done}
    assert {name: (tmp_path / second[name].evidence[0]).read_text() for name in done} == kept
    assert results(second)[CURE] == "verified"


@pytest.mark.parametrize(
    ("status", "has_cause", "tried"),
    [
        (Status.XFAIL, True, True),
        (Status.FAIL, True, True),
        (Status.FAIL, False, False),
        (Status.PASS, False, False),
        (Status.FLAKY, True, False),
        (Status.ERROR, False, False),
    ],
)
def test_only_a_cell_that_failed_for_a_known_cause_has_something_to_cure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, status: Status, has_cause: bool, tried: bool
) -> None:
    monkeypatch.setattr(RemedyAttempt, "run", lambda _attempt: (RemedyOutcome.VERIFIED, ""))
    causes = [finding(SYSCTL)] if has_cause else []
    result: CellResult = changed(CELL.result(status), causes=causes)
    running = bench.service(stores=False)
    kept: list[RemedyResult] = []
    made = add_remedies(RunOptions(remedies=True), running, CELL, result, kept.append)
    assert bool(made.remedies) is tried
    assert add_remedies(RunOptions(), running, CELL, result, kept.append) is result
