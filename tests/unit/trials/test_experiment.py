"""Experiments on a cell, with a guest that is not there: what it is put on with decides what blocks it."""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import catalog
from lab.base.errors import LabError
from lab.builds import WHOLE_SUITE, Build, SuiteOptions
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Variant
from lab.guest.session import SessionLost
from lab.guest.variant import CellStart, NotInEffect
from lab.plan import Cell
from lab.probes import Facts, SuiteUser
from lab.record import (
    UNKNOWN,
    CellResult,
    Confidence,
    Experiment,
    ExperimentPolicy,
    FoundCause,
    Needs,
    Outcome,
    RunOptions,
    Status,
    SuiteRun,
    TestResult,
)
from lab.trials import experiment
from lab.trials.experiment import add_experiment, smallest
from tests.builders.cells import changed
from tests.builders.facts import facts as a_facts
from tests.builders.facts import who
from tests.builders.lanes import SUITE, Bench, FakeGuest, trust_guests

CATALOG = catalog.load_catalog()
BLOCKED = [name for name, needs in SUITE.tests.items() if needs.includes(Needs.SANDBOX)]
CLONE, LIMIT = "kernel.unprivileged_userns_clone", "user.max_user_namespaces"
NOT_CLONE, NOT_LIMIT = f"without sysctl {CLONE}=0", f"without sysctl {LIMIT}=0"
BOTH = "userns-clone-off+max-userns-zero"
NO_SANDBOX = "The sandbox could not be initialized on this host."
DIES = "VM subprocess exited"
DEBIAN_HAS = {CLONE: "1", LIMIT: "7794", "kernel.yama.ptrace_scope": "1", "kernel.io_uring_disabled": "0"}
WHO = who(context={"apparmor": None})
UNCLEAR, ALWAYS = ExperimentPolicy.UNCLEAR, ExperimentPolicy.ALWAYS


def planned(name: str, guest: str = "debian-13") -> Cell:
    return Cell(CATALOG.guest(guest), CATALOG.variant(name), Wheel("0.10.8", "0.10.8"))


def facts(**sysctls: str) -> Facts:
    values = {name.replace("__", "."): value for name, value in sysctls.items()}
    every: dict[str, str | None] = {**dict.fromkeys(CATALOG.sysctls()), **DEBIAN_HAS, **values}
    return a_facts(apparmor=None, login_sessions=True, lsm=[], sysctls=every)


def sysctls_of(changed: Variant) -> dict[str, Any]:
    return (changed.knobs["sysctl"].settings() or {}) if "sysctl" in changed.knobs else {}


def blocked_by_sysctls(changed: Variant) -> str:
    """As a Debian blocks: whichever of the two sysctls is 0."""
    return NO_SANDBOX if 0 in map(sysctls_of(changed).get, (CLONE, LIMIT)) else ""


class Guest(FakeGuest):
    """`blocks`: what tests say under a variant; nothing if they pass. `did` has the settings of each fork."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.lane)
        self.bench, self.facts = bench, facts()
        self.blocks: Callable[[Variant], str] = blocked_by_sysctls
        self.did: list[dict[str, Any]] = []
        self.ran: list[SuiteOptions] = []

    def read_facts(self, sysctls: Iterable[str]) -> Facts:
        return self.facts

    def begin(self, variant: Variant, *, mark: CellStart, sysctls: Iterable[str]) -> Facts:
        self.did.append({name: knob.settings() for name, knob in variant.knobs.items()})
        set_now = {name: str(value) for name, value in sysctls_of(variant).items()}
        return self.facts.model_copy(update={"sysctls": {**self.facts.sysctls, **set_now}})

    def read_who(self, variant: Variant) -> SuiteUser:
        return WHO

    def run_suite(
        self, build: Build, variant: Variant, *, speed: object, options: SuiteOptions = WHOLE_SUITE
    ) -> SuiteRun:
        self.ran.append(options)
        first, *others = options.tests
        if message := self.blocks(variant):
            failure = TestResult(name=first, outcome=Outcome.FAIL, message=message)
            return SuiteRun([failure, *(TestResult(name=name, outcome=Outcome.NOT_RUN) for name in others)])
        return SuiteRun([TestResult(name=name, outcome=Outcome.PASS) for name in options.tests])

    def collect(self, folder: Path, variant: Variant, *, mark: CellStart, full: bool) -> None:
        (folder / "suite.log").write_text("ran")


@pytest.fixture
def guest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Guest:
    trust_guests(monkeypatch)
    return Guest(bench)


def finding(cause: str, confidence: Confidence = Confidence.PROVED) -> FoundCause:
    return FoundCause(name=cause, confidence=confidence, reason=f"{cause} it is")


SYSCTL, LIKELY = finding("userns-sysctl"), finding("userns-limit", Confidence.LIKELY)


def failed(cell: Cell, *causes: FoundCause, status: Status = Status.FAIL, **sysctls: str) -> CellResult:
    """A cell whose sandbox is blocked, for these causes or an unknown one."""
    result = cell.result(status, reason="; ".join(cause.reason for cause in causes) or "nothing is proved")
    return changed(
        result,
        causes=list(causes),
        cause=causes[0].name if causes else UNKNOWN,
        confidence=causes[0].confidence if causes else None,
        facts=facts(**sysctls),
        tests=[
            TestResult(name=name, outcome=Outcome.FAIL if name in BLOCKED else Outcome.PASS)
            for name in SUITE.tests
        ],
    )


def passed(cell: Cell, **sysctls: str) -> CellResult:
    tests = [TestResult(name=name, outcome=Outcome.PASS) for name in SUITE.tests]
    return changed(cell.result(Status.PASS), facts=facts(**sysctls), tests=tests)


def run(
    guest: Guest,
    cell: Cell,
    result: CellResult,
    *,
    when: ExperimentPolicy = ALWAYS,
    retries: int = 0,
    passing: Sequence[CellResult] = (),
) -> CellResult:
    options = RunOptions(experiments=when, retries=retries)
    return add_experiment(options, guest.bench.deployed(guest), cell, result, passing)


def run_failed(guest: Guest, name: str, *causes: FoundCause, **more: Any) -> CellResult:
    """The result of a cell that failed for these causes, after the experiment on it."""
    return run(guest, planned(name), failed(planned(name), *causes), **more)


def run_passed(guest: Guest) -> CellResult:
    return run(guest, planned("stock"), passed(planned("stock")))


def made(result: CellResult) -> Experiment:
    assert result.trials.experiment is not None
    return result.trials.experiment


def trials(result: CellResult) -> list[tuple[list[str], str]]:
    return [(trial.changes, str(trial.outcome)) for trial in made(result).trials]


def test_the_one_setting_that_blocks_is_found_by_leaving_it_out(guest: Guest) -> None:
    cell = planned("userns-clone-off")
    result = run(guest, cell, failed(cell, SYSCTL, status=Status.XFAIL))
    assert trials(result) == [([], "fails"), ([NOT_CLONE], "passes")]
    assert made(result).turning == [[NOT_CLONE]]
    assert guest.did == [{"sysctl": {CLONE: 0}}, {}]
    # Only what failed is run, to its first failure.
    assert guest.ran == [SuiteOptions(tests=BLOCKED, to_first_failure=True)] * 2
    assert made(result).tests == BLOCKED
    assert made(result).trials[0].reason == f"{BLOCKED[0]}: {NO_SANDBOX}"
    base = f"{cell.folder}/experiment"
    assert made(result).evidence == [f"{base}/01/suite.log", f"{base}/02/suite.log"]
    # A cause that is proved already needs no other proof.
    assert (result.causes, result.reason) == ([SYSCTL], "userns-sysctl it is")


def test_two_that_block_at_once_are_found_together_and_no_fork_is_made_twice(guest: Guest) -> None:
    cell = planned(BOTH)
    result = run(guest, cell, failed(cell, SYSCTL, LIKELY, status=Status.XFAIL))
    assert trials(result) == [
        ([], "fails"),
        ([NOT_CLONE], "fails"),
        ([NOT_LIMIT], "fails"),
        ([NOT_CLONE, NOT_LIMIT], "passes"),
    ]
    assert made(result).turning == [[NOT_CLONE, NOT_LIMIT]]
    assert [(cause.name, str(cause.confidence)) for cause in result.causes] == [
        ("userns-sysctl", "proved"),
        ("userns-limit", "proved"),
    ]
    by_experiment = f"by experiment, what failed passes {NOT_CLONE} and {NOT_LIMIT}"
    assert result.causes[1].reason == f"userns-limit it is; {by_experiment}"
    assert result.reason.endswith(by_experiment)
    assert result.status is Status.XFAIL


@pytest.mark.parametrize(
    ("name", "when", "confidence", "taken_back"),
    [
        ("max-userns-zero", UNCLEAR, Confidence.PROVED, NOT_LIMIT),
        # Something else than what makes the cause turned the outcome.
        ("userns-clone-off", ALWAYS, Confidence.LIKELY, ""),
    ],
)
def test_a_likely_cause_is_proved_only_by_taking_back_what_makes_it(
    guest: Guest, name: str, when: ExperimentPolicy, confidence: Confidence, taken_back: str
) -> None:
    result = run_failed(guest, name, LIKELY, when=when)
    assert made(result).turning == [[taken_back or NOT_CLONE]]
    assert (result.cause, result.verdict.confidence) == ("userns-limit", confidence)
    assert [(cause.name, cause.confidence) for cause in result.causes] == [("userns-limit", confidence)]
    by_experiment = f"; by experiment, what failed passes {taken_back}" if taken_back else ""
    assert result.reason == result.causes[0].reason == f"userns-limit it is{by_experiment}"


def test_a_box_that_dies_once_proves_no_likely_cause(guest: Guest) -> None:
    deaths = [DIES]

    def blocks(changed: Variant) -> str:
        if sysctls_of(changed).get(CLONE) == 0:
            return NO_SANDBOX
        return deaths.pop() if deaths else ""

    guest.blocks = blocks
    result = run_failed(guest, BOTH, LIKELY, when=UNCLEAR)
    assert trials(result)[1] == ([NOT_CLONE], "passes")
    assert made(result).trials[1].reason.startswith("in two of three tries under emulation; once: fails: ")
    assert result.causes == [LIKELY]


def test_an_unknown_cause_stays_unknown_and_its_reason_says_what_was_found(guest: Guest) -> None:
    guest.blocks = lambda changed: "no sandbox" if "mount" in changed.knobs else ""
    result = run_failed(guest, "tmp-noexec", when=UNCLEAR)
    assert (result.cause, result.verdict.confidence, result.causes) == (UNKNOWN, None, [])
    assert result.reason == "nothing is proved; by experiment, what failed passes without mount /tmp noexec"


def test_what_the_guest_itself_sets_is_found_by_the_nearest_passing_cell(guest: Guest) -> None:
    cell = planned("stock")
    guest.blocks = lambda changed: "" if sysctls_of(changed).get("kernel.strange") == 7 else NO_SANDBOX
    passing = [
        passed(planned("stock", "debian-12"), kernel__strange="8", kernel__other="1"),
        passed(planned("stock", "debian-14"), kernel__strange="7", kernel__other="1"),
        passed(planned("as-root"), kernel__strange="7", kernel__other="0", user__max_user_namespaces="1"),
    ]
    guest.facts = facts(kernel__strange="0", kernel__other="0")
    result = run(guest, cell, failed(cell, kernel__strange="0", kernel__other="0"), passing=passing)
    # Of its own guest, although another one's differs in less.
    assert made(result).compared_with == "debian-13/as-root"
    assert made(result).turning == [["with sysctl kernel.strange=7"]]
    assert made(run_failed(guest, "stock", passing=passing[:2])).compared_with == "debian-12/stock"


def test_a_passing_cell_of_another_architecture_is_no_comparison(guest: Guest) -> None:
    other = passed(planned("stock", "debian-12"), kernel__strange="7")
    assert other.facts
    other = changed(other, facts=other.facts.model_copy(update={"arch": "aarch64"}))
    assert made(run_failed(guest, "stock", passing=[other])).compared_with == ""
    near = passed(planned("stock", "debian-14"), kernel__strange="8")
    assert (
        made(run_failed(Guest(guest.bench), "stock", passing=[other, near])).compared_with == "debian-14/stock"
    )


def test_without_a_passing_cell_the_catalog_is_tried(guest: Guest) -> None:
    guest.blocks = lambda changed: "" if "kvm" in changed.knobs else NO_SANDBOX
    result = run_failed(guest, "stock")
    changes = [changes for changes, _ in trials(result)]
    assert made(result).turning == [["with kvm-absent"]]
    assert changes.index(["with as-root"]) < changes.index(["with kvm-absent"])
    assert all(len(change) <= 1 for change in changes)


BREAKING = [["with max-userns-zero"], ["with userns-clone-off"]]


def test_of_a_cell_that_passed_every_single_change_that_breaks_it_is_named(guest: Guest) -> None:
    result = run_passed(guest)
    assert sorted(made(result).turning) == BREAKING
    assert result.status is Status.PASS
    assert made(result).tests == [SUITE.witness]
    assert trials(result)[0] == ([], "passes")
    tried = {changes[0] for changes, _ in trials(result)[1:]}
    assert tried < {str(change) for change in experiment.of_catalog(CATALOG)}
    assert {"with as-root", "with bwrap-absent", "with kvm-denied"} <= tried
    # The first needs a machine that is booted for it; the second makes no sense on the guest.
    assert not {"with apparmor-off", "with apparmor-userns-deny"} & tried
    # What the catalog expects to break comes first: a budget may end it.
    assert trials(result)[1][0][0] != "with as-root"


def test_a_change_breaks_what_passed_only_where_it_does_so_in_two_forks(guest: Guest) -> None:
    deaths = [DIES]
    guest.blocks = lambda changed: (
        deaths.pop() if "kvm" in changed.knobs and deaths else blocked_by_sysctls(changed)
    )
    result = run_passed(guest)
    assert sorted(made(result).turning) == BREAKING
    [doubtful] = [
        trial
        for trial in made(result).trials
        if trial.changes[:1] and trial.changes[0].startswith("with kvm-") and trial.reason
    ]
    once = f"once: fails: {SUITE.witness}: {DIES}"
    assert (doubtful.outcome, doubtful.reason) == ("passes", f"in two of three tries under emulation; {once}")
    [broke] = [trial for trial in made(result).trials if trial.changes == ["with max-userns-zero"]]
    assert broke.reason == f"twice: {SUITE.witness}: {NO_SANDBOX}"
    folder = f"{result.folder}/experiment/{made(result).trials.index(broke) + 1:02}"
    assert {f"{folder}/suite.log", f"{folder}/again/suite.log"} <= set(made(result).evidence)


def limit(monkeypatch: pytest.MonkeyPatch, trials: int) -> str:
    """Let the time of an experiment be up after so many trials. Each looks at the clock three times."""
    clock = count(time.monotonic() + 1000, 1000)
    monkeypatch.setattr(experiment, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    seconds = 3000.0 * trials + 500
    monkeypatch.setattr("lab.trials.experiment.MOST_EXPERIMENT_SECONDS", seconds)
    return f"the budget of {seconds:.0f} s is used up"


@pytest.mark.parametrize("number", [0, 3])
def test_a_budget_ends_it_and_says_so(guest: Guest, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    used_up = limit(monkeypatch, number)
    guest.blocks = lambda changed: NO_SANDBOX
    result = run_failed(guest, "stock")
    assert (made(result).stopped, len(made(result).trials)) == (used_up, number)
    assert made(result).turning == []


def test_a_set_that_cannot_shrink_is_said(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    used_up = limit(monkeypatch, 6)
    result = run_failed(guest, "ptrace-scope-3+userns-clone-off+io-uring-disabled+max-userns-zero")
    [turning] = made(result).turning
    assert len(turning) == 4
    assert made(result).stopped == used_up


@pytest.mark.parametrize(
    ("name", "shows", "outcome"),
    [
        ("userns-clone-off", "", "passes"),
        ("stock", NO_SANDBOX, f"fails: {SUITE.witness}: {NO_SANDBOX}"),
        ("userns-clone-off", SessionLost("SSH broke"), "error: SSH broke"),
    ],
)
def test_another_outcome_tells_nothing(guest: Guest, name: str, shows: str | Exception, outcome: str) -> None:
    def blocks(_changed: Variant) -> str:
        if isinstance(shows, Exception):
            raise shows
        return shows

    guest.blocks = blocks
    result = run_passed(guest) if name == "stock" else run_failed(guest, name)
    assert (made(result).turning, len(made(result).trials)) == ([], 1)
    assert made(result).stopped.startswith("the unchanged cell was run once more and behaved differently: ")
    assert made(result).stopped.endswith(outcome)


def test_a_result_that_the_suite_does_not_name_decides_nothing(guest: Guest) -> None:
    cell = planned("userns-clone-off")
    result = failed(cell)
    result.tests.append(TestResult(name="another", outcome=Outcome.ERROR))
    assert made(run(guest, cell, result)).tests == BLOCKED


def test_what_cannot_be_put_on_is_not_what_breaks(guest: Guest) -> None:
    def refuses(changed: Variant) -> str:
        if "bubblewrap" in changed.knobs:
            raise NotInEffect("variant not in effect: bubblewrap's mode is 0o755, not None")
        return ""

    guest.blocks = refuses
    result = run_passed(guest)
    assert (["with bwrap-absent"], "cannot be tried here") in trials(result)
    assert made(result).turning == []


def test_a_fault_of_the_lab_s_says_nothing_of_the_change(guest: Guest) -> None:
    faults = [SessionLost("SSH broke"), LabError("a broken tool")]

    def broken(changed: Variant) -> str:
        if not changed.knobs and faults:
            raise faults.pop()
        return blocked_by_sysctls(changed)

    guest.blocks = broken
    result = run_failed(guest, "userns-clone-off", retries=1)
    [trial] = [trial for trial in made(result).trials if trial.changes == [NOT_CLONE]]
    assert (str(trial.outcome), trial.reason, trial.retried) == ("error", "SSH broke", ["a broken tool"])
    assert made(result).turning == []


def test_a_fault_that_hides_whether_less_would_do_leaves_a_likely_cause_likely(guest: Guest) -> None:
    def broken(changed: Variant) -> str:
        if changed.knobs and CLONE not in sysctls_of(changed):
            raise SessionLost("SSH broke")
        return blocked_by_sysctls(changed)

    guest.blocks = broken
    result = run_failed(guest, BOTH, LIKELY)
    assert (trials(result)[1], made(result).turning) == (([NOT_CLONE], "error"), [[NOT_CLONE, NOT_LIMIT]])
    assert made(result).stopped == "not shown to fail without each of these changes"
    assert result.causes == [LIKELY]


def test_an_emulated_guest_that_is_too_slow_says_nothing_of_the_change(guest: Guest) -> None:
    guest.blocks = lambda changed: "Timeout waiting for guest ready (30s)" if changed.knobs else ""
    result = run_passed(guest)
    assert {outcome for changes, outcome in trials(result) if changes} == {"error"}
    assert made(result).turning == []


def test_on_a_dead_lane_an_experiment_ends_and_it_starts_over_on_a_fresh_one(guest: Guest) -> None:
    def dies_without_knobs(changed: Variant) -> str:
        if not changed.knobs:
            guest.lane.die()
        return NO_SANDBOX

    guest.blocks = dies_without_knobs
    first = run_failed(guest, "userns-clone-off")
    assert trials(first) == [([], "fails"), ([NOT_CLONE], "error")]
    assert made(first).stopped == "the machine is gone"
    assert first.has_more_to_try and first.before_trials().trials.experiment is None
    guest.lane.when.clear()
    result = run_failed(Guest(guest.bench), "userns-clone-off")
    assert trials(result) == [([], "fails"), ([NOT_CLONE], "passes")]
    assert (made(result).turning, made(result).stopped) == ([[NOT_CLONE]], "")
    folder = f"{result.folder}/experiment"
    assert made(result).evidence == [f"{folder}/01/suite.log", f"{folder}/02/suite.log"]


@pytest.mark.parametrize(
    ("when", "status", "causes", "is_made"),
    [
        (UNCLEAR, Status.FAIL, [], True),
        (UNCLEAR, Status.FAIL, [LIKELY], True),
        (UNCLEAR, Status.FAIL, [SYSCTL], False),
        (UNCLEAR, Status.XFAIL, [LIKELY], False),
        (UNCLEAR, Status.PASS, None, False),
        (ALWAYS, Status.XFAIL, [SYSCTL], True),
        (ALWAYS, Status.PASS, None, True),
        (ALWAYS, Status.FLAKY, [SYSCTL], False),
        (ALWAYS, Status.ERROR, None, False),
        (ExperimentPolicy.NEVER, Status.FAIL, [], False),
    ],
)
def test_on_which_cells_an_experiment_is_made(
    guest: Guest, when: ExperimentPolicy, status: Status, causes: list[FoundCause] | None, is_made: bool
) -> None:
    cell = planned("userns-clone-off" if causes is not None else "stock")
    result = passed(cell) if causes is None else failed(cell, *causes)
    result = changed(result, status=status)
    assert (run(guest, cell, result, when=when).trials.experiment is not None) is is_made


# -- delta debugging, on sets whose smallest failing part is known


def smallest_of(whole: str, does: Callable[[set[str]], bool]) -> tuple[str, list[str]]:
    tried: list[str] = []

    def decide(part: Sequence[str]) -> bool:
        tried.append("".join(part))
        return does(set(part))

    return "".join(smallest(whole, decide)), tried


@pytest.mark.parametrize("size", range(1, 8))
def test_exactly_what_is_needed_is_found_whatever_it_is(size: int) -> None:
    whole = "abcdefg"[:size]
    for length in range(1, size + 1):
        for needed in map(set, combinations(whole, length)):
            assert smallest_of(whole, needed.issubset)[0] == "".join(sorted(needed))


def test_where_any_of_several_does_it_nothing_can_be_left_out_of_what_is_found() -> None:
    def does(part: set[str]) -> bool:
        return {"a", "f"} <= part or {"b", "c", "g"} <= part

    smallest_part, _ = smallest_of("abcdefgh", does)
    assert does(set(smallest_part))
    assert not any(does(set(smallest_part) - {left_out}) for left_out in smallest_part)


def test_few_parts_are_tried_and_none_twice() -> None:
    smallest_part, tried = smallest_of("".join(map(chr, range(100, 164))), {"x"}.issubset)
    assert (smallest_part, len(tried) <= 12) == ("x", True)
    assert smallest_of("ab", {"a", "b"}.issubset) == ("ab", ["a", "b"])
    assert smallest_of("a", {"a"}.issubset) == ("a", [])
