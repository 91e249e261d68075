"""Experiments on a cell, with a guest that is not there: what it is put on with decides what blocks it."""

import time
from collections.abc import Callable, Sequence
from itertools import combinations, count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import catalog
from lab.base.errors import LabError
from lab.builds import SuiteOptions
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Variant
from lab.guest import variant
from lab.guest.session import SessionLost
from lab.guest.suite import SuiteRun
from lab.guest.variant import NotInEffect
from lab.lane.cell import Applied
from lab.machine.lane import LaneDied
from lab.plan import Cell
from lab.probes import Facts, SuiteUser
from lab.record import (
    UNKNOWN,
    CellResult,
    Confidence,
    Experiment,
    ExperimentPolicy,
    Finding,
    Needs,
    Outcome,
    RunOptions,
    Status,
    TestResult,
)
from lab.trials import experiment
from lab.trials.experiment import smallest, with_experiment
from tests.builders.facts import facts as a_facts
from tests.builders.facts import who
from tests.builders.guests import SUITE, FakeRunner

KNOWN = catalog.load()
BLOCKED = [name for name, needs in SUITE.tests.items() if needs is Needs.SANDBOX]
CLONE, LIMIT = "kernel.unprivileged_userns_clone", "user.max_user_namespaces"
NOT_CLONE, NOT_LIMIT = f"without sysctl {CLONE}=0", f"without sysctl {LIMIT}=0"
SLOW = "Timeout waiting for guest ready (30s)"
NO_SANDBOX = "The sandbox could not be initialized on this host."


DEBIAN_HAS = {CLONE: "1", LIMIT: "7794", "kernel.yama.ptrace_scope": "1", "kernel.io_uring_disabled": "0"}


def planned(name: str, guest: str = "debian-13") -> Cell:
    return Cell(KNOWN.guest(guest), KNOWN.variant(name), Wheel("0.10.8", "0.10.8"))


def facts(**sysctls: str) -> Facts:
    values = {name.replace("__", "."): value for name, value in sysctls.items()}
    return a_facts(
        apparmor=None,
        login_sessions=True,
        lsm=[],
        sysctls={**dict.fromkeys(KNOWN.sysctls()), **DEBIAN_HAS, **values},
    )


def blocked_by_sysctls(wanted: Variant) -> str:
    """As a Debian blocks: whichever of the two sysctls is 0."""
    sysctls = {name: value for knob in wanted.knobs.values() for name, value in (knob.settings() or {}).items()}
    return NO_SANDBOX if sysctls.get(CLONE) == 0 or sysctls.get(LIMIT) == 0 else ""


class Guest(FakeRunner):
    """`blocks`: what tests say under a variant; nothing if they pass. `did` has the settings of each fork."""

    def __init__(
        self, folder: Path, experiments: ExperimentPolicy, blocks: Callable[[Variant], str], retries: int = 0
    ) -> None:
        super().__init__(folder, facts())
        self.options = RunOptions(experiments=experiments, retries=retries)
        self.blocks = blocks
        self.did: list[dict[str, Any]] = []
        self.asked: list[SuiteOptions] = []

    def apply(self, wanted: Variant) -> Applied:
        settings = {name: knob.settings() for name, knob in wanted.knobs.items()}
        self.did.append(settings)
        set_now = {name: str(value) for name, value in (settings.get("sysctl") or {}).items()}
        sysctls = {**self.facts.sysctls, **set_now}
        return Applied(self.facts.model_copy(update={"sysctls": sysctls}), WHO, variant.Mark("begins"))

    def read_who(self, _wanted: Variant) -> SuiteUser:
        return WHO

    def run_suite(self, cell: Cell, _watch: object, options: SuiteOptions) -> SuiteRun:
        self.asked.append(options)
        message = self.blocks(cell.variant)
        results = []
        for name in options.tests:
            if not message:
                results.append(TestResult(name=name, outcome=Outcome.PASS))
            elif results:
                results.append(TestResult(name=name, outcome=Outcome.NOT_RUN))
            else:
                results.append(TestResult(name=name, outcome=Outcome.FAIL, message=message))
        return SuiteRun(results)


WHO = who(context={"apparmor": None})


Make = Callable[..., Guest]


@pytest.fixture
def guest(tmp_path: Path) -> Make:
    def make(
        blocks: Callable[[Variant], str] = blocked_by_sysctls,
        experiments: ExperimentPolicy = ExperimentPolicy.ALWAYS,
        retries: int = 0,
    ) -> Guest:
        return Guest(tmp_path, experiments, blocks, retries)

    return make


def found(cause: str, confidence: Confidence = Confidence.PROVED) -> Finding:
    return Finding(name=cause, confidence=confidence, why=f"{cause} it is")


def failed(cell: Cell, *causes: Finding, status: Status = Status.FAIL, **sysctls: str) -> CellResult:
    """A cell whose sandbox is blocked, for these causes or an unknown one."""
    result = cell.result(status, reason="; ".join(cause.why for cause in causes) or "nothing is proved")
    update = {
        "causes": list(causes),
        "cause": causes[0].name if causes else UNKNOWN,
        "confidence": causes[0].confidence if causes else None,
        "facts": facts(**sysctls),
        "tests": [
            TestResult(name=name, outcome=Outcome.FAIL if name in BLOCKED else Outcome.PASS)
            for name in SUITE.tests
        ],
    }
    return result.model_copy(update=update)


def passed(cell: Cell, **sysctls: str) -> CellResult:
    tests = [TestResult(name=name, outcome=Outcome.PASS) for name in SUITE.tests]
    return cell.result(Status.PASS).model_copy(update={"facts": facts(**sysctls), "tests": tests})


def run(
    guest: Guest,
    cell: Cell,
    result: CellResult,
    passing: Sequence[CellResult] = (),
) -> CellResult:
    runner: Any = guest
    return with_experiment(guest.options, runner, cell, result, passing)


def made(result: CellResult) -> Experiment:
    assert result.experiment is not None
    return result.experiment


def steps(result: CellResult) -> list[tuple[list[str], str]]:
    return [(step.changes, str(step.outcome)) for step in made(result).steps]


def test_the_one_setting_that_blocks_is_found_by_leaving_it_out(guest: Make, tmp_path: Path) -> None:
    cell = planned("userns-clone-off")
    service = guest()
    result = run(service, cell, failed(cell, found("userns-sysctl"), status=Status.XFAIL))
    assert steps(result) == [([], "fails"), ([NOT_CLONE], "passes")]
    assert made(result).turning == [[NOT_CLONE]]
    assert service.did == [{"sysctl": {CLONE: 0}}, {}]
    # Only what failed is run, to its first failure.
    assert service.asked == [SuiteOptions(tests=BLOCKED, to_first_failure=True)] * 2
    assert made(result).tests == BLOCKED
    assert made(result).steps[0].reason == f"{BLOCKED[0]}: {NO_SANDBOX}"
    base = f"{cell.folder}/experiment"
    assert made(result).evidence == [f"{base}/01/suite.log", f"{base}/02/suite.log"]
    # A cause that is proved already needs no other proof.
    assert (result.causes, result.reason) == ([found("userns-sysctl")], "userns-sysctl it is")


def test_two_that_block_at_once_are_found_together_and_no_fork_is_made_twice(guest: Make) -> None:
    cell = planned("userns-clone-off+max-userns-zero")
    causes = [found("userns-sysctl"), found("userns-limit", Confidence.LIKELY)]
    result = run(guest(), cell, failed(cell, *causes, status=Status.XFAIL))
    assert steps(result) == [
        ([], "fails"),
        ([NOT_CLONE], "fails"),
        ([NOT_LIMIT], "fails"),
        ([NOT_CLONE, NOT_LIMIT], "passes"),
    ]
    assert made(result).turning == [[NOT_CLONE, NOT_LIMIT]]
    assert [(each.name, str(each.confidence)) for each in result.causes] == [
        ("userns-sysctl", "proved"),
        ("userns-limit", "proved"),
    ]
    said = f"by experiment, what failed passes {NOT_CLONE} and {NOT_LIMIT}"
    assert result.causes[1].why == f"userns-limit it is; {said}"
    assert result.reason.endswith(said)
    assert result.status is Status.XFAIL
    reasons = {each.change: each.reason for each in made(result).not_tried}
    assert reasons["with as-root"] == "something else let it pass before"
    assert reasons["with max-userns-zero"] == "it is so already"
    assert reasons["with apparmor-off"] == "it needs a machine that is booted for it"
    assert reasons["with apparmor-restrict-off"].startswith("its kernel has no ")


def test_of_many_settings_bisection_finds_those_that_matter(guest: Make) -> None:
    cell = planned("ptrace-scope-3+userns-clone-off+io-uring-disabled+tmp-noexec+max-userns-zero+bwrap-absent")
    assert made(run(guest(), cell, failed(cell))).turning == [[NOT_CLONE, NOT_LIMIT]]


def test_a_likely_cause_is_proved_where_what_makes_it_was_taken_back(guest: Make) -> None:
    cell = planned("max-userns-zero")
    result = run(
        guest(experiments=ExperimentPolicy.UNCLEAR),
        cell,
        failed(cell, found("userns-limit", Confidence.LIKELY)),
    )
    assert (result.cause, result.confidence) == ("userns-limit", Confidence.PROVED)
    assert result.causes[0].confidence is Confidence.PROVED


def test_a_likely_cause_stays_so_where_something_else_turned_the_outcome(guest: Make) -> None:
    cell = planned("userns-clone-off")
    likely = found("userns-limit", Confidence.LIKELY)
    result = run(guest(), cell, failed(cell, likely))
    assert made(result).turning == [[NOT_CLONE]]
    assert (result.causes, result.confidence) == ([likely], Confidence.LIKELY)
    assert result.reason == "userns-limit it is"


def test_a_box_that_dies_once_proves_no_likely_cause(guest: Make) -> None:
    cell = planned("userns-clone-off+max-userns-zero")
    deaths = ["VM subprocess exited"]

    def blocks(wanted: Variant) -> str:
        knob = wanted.knobs.get("sysctl")
        if knob and (knob.settings() or {}).get(CLONE) == 0:
            return NO_SANDBOX
        return deaths.pop() if deaths else ""

    likely = found("userns-limit", Confidence.LIKELY)
    result = run(guest(blocks, ExperimentPolicy.UNCLEAR), cell, failed(cell, likely))
    assert steps(result)[1] == ([NOT_CLONE], "passes")
    assert made(result).steps[1].reason.startswith("in two of three tries under emulation; once: fails: ")
    assert result.causes == [likely]


def test_an_unknown_cause_stays_unknown_and_its_reason_says_what_was_found(guest: Make) -> None:
    cell = planned("tmp-noexec")
    service = guest(lambda wanted: "no sandbox" if "mount" in wanted.knobs else "", ExperimentPolicy.UNCLEAR)
    result = run(service, cell, failed(cell))
    assert (result.cause, result.confidence, result.causes) == (UNKNOWN, None, [])
    assert result.reason == "nothing is proved; by experiment, what failed passes without mount /tmp noexec"


def test_what_the_guest_itself_sets_is_found_by_the_nearest_passing_cell(guest: Make) -> None:
    cell = planned("stock")

    def strange(wanted: Variant) -> str:
        knob = wanted.knobs.get("sysctl")
        return "" if knob and (knob.settings() or {}).get("kernel.strange") == 7 else NO_SANDBOX

    passing = [
        passed(planned("stock", "debian-12"), kernel__strange="8", kernel__other="1"),
        passed(planned("stock", "debian-14"), kernel__strange="7", kernel__other="1"),
        passed(planned("as-root"), kernel__strange="7", kernel__other="0", user__max_user_namespaces="1"),
    ]
    service = guest(strange)
    service.facts = facts(kernel__strange="0", kernel__other="0")
    result = run(service, cell, failed(cell, kernel__strange="0", kernel__other="0"), passing)
    # Of its own guest, although another one's differs in less.
    assert made(result).compared_with == "debian-13/as-root"
    assert made(result).turning == [["with sysctl kernel.strange=7"]]
    assert made(run(service, cell, failed(cell), passing[:2])).compared_with == "debian-12/stock"


def test_without_a_passing_cell_the_catalog_is_tried(guest: Make) -> None:
    cell = planned("stock")
    service = guest(lambda wanted: "" if "kvm" in wanted.knobs else NO_SANDBOX)
    result = run(service, cell, failed(cell))
    names = [step_changes for step_changes, _ in steps(result)]
    assert made(result).turning == [["with kvm-absent"]]
    assert names.index(["with as-root"]) < names.index(["with kvm-absent"])
    assert all(len(each) <= 1 for each in names)


def test_of_a_cell_that_passed_every_single_change_that_breaks_it_is_named(guest: Make) -> None:
    cell = planned("stock")
    service = guest()
    result = run(service, cell, passed(cell))
    assert sorted(made(result).turning) == [["with max-userns-zero"], ["with userns-clone-off"]]
    assert result.status is Status.PASS
    assert made(result).tests == [SUITE.witness]
    assert steps(result)[0] == ([], "passes")
    tried = {each[0] for each, _ in steps(result)[1:]}
    untried = {each.change for each in made(result).not_tried}
    assert tried | untried == {str(change) for change in experiment.of_catalog(KNOWN)}
    assert {"with as-root", "with bwrap-absent", "with kvm-denied"} <= tried
    assert {"with apparmor-off", "with apparmor-userns-deny"} <= untried
    # What the catalog expects to break comes first: a budget may end it.
    assert steps(result)[1][0][0] != "with as-root"


def test_a_change_breaks_what_passed_only_where_it_does_so_in_two_forks(guest: Make) -> None:
    cell = planned("stock")
    deaths = ["VM subprocess exited"]

    def dies_once(wanted: Variant) -> str:
        return deaths.pop() if "kvm" in wanted.knobs and deaths else blocked_by_sysctls(wanted)

    result = run(guest(dies_once), cell, passed(cell))
    assert sorted(made(result).turning) == [["with max-userns-zero"], ["with userns-clone-off"]]
    [doubtful] = [
        step
        for step in made(result).steps
        if step.changes[:1] and step.changes[0].startswith("with kvm-") and step.reason
    ]
    once = f"once: fails: {SUITE.witness}: VM subprocess exited"
    assert (doubtful.outcome, doubtful.reason) == ("passes", f"in two of three tries under emulation; {once}")
    [broke] = [step for step in made(result).steps if step.changes == ["with max-userns-zero"]]
    assert broke.reason == f"twice: {SUITE.witness}: {NO_SANDBOX}"
    number = made(result).steps.index(broke) + 1
    folder = f"{cell.folder}/experiment/{number:02}"
    assert {f"{folder}/suite.log", f"{folder}/again/suite.log"} <= set(made(result).evidence)


def limit(monkeypatch: pytest.MonkeyPatch, steps: int) -> str:
    """Let the time of an experiment be up after so many steps, each of which looks at the clock three times."""
    clock = count(time.monotonic() + 1000, 1000)
    monkeypatch.setattr(experiment, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(experiment, "SECONDS", 3000.0 * steps + 500)
    return f"the budget of {experiment.SECONDS:.0f} s is used up"


@pytest.mark.parametrize("number", [0, 3])
def test_a_budget_ends_it_and_what_was_not_tried_is_said(
    guest: Make, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    said = limit(monkeypatch, number)
    cell = planned("stock")
    result = run(guest(lambda wanted: NO_SANDBOX), cell, failed(cell))
    assert made(result).stopped == said
    assert len(made(result).steps) == number
    reasons = {each.change: each.reason for each in made(result).not_tried}
    assert reasons["with userns-clone-off"] == said
    assert made(result).turning == []


def test_a_set_that_cannot_shrink_is_said(guest: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = planned("ptrace-scope-3+userns-clone-off+io-uring-disabled+max-userns-zero")
    said = limit(monkeypatch, 6)
    result = run(guest(), cell, failed(cell))
    [turning] = made(result).turning
    assert len(turning) == 4
    assert made(result).not_tried[-1].change == "fewer of those that let it pass together"
    assert made(result).not_tried[-1].reason == made(result).stopped == said


@pytest.mark.parametrize(
    ("variant", "shows", "outcome"),
    [
        ("userns-clone-off", "", "passes"),
        ("stock", NO_SANDBOX, f"fails: {SUITE.witness}: {NO_SANDBOX}"),
        ("userns-clone-off", SessionLost("SSH broke"), "error: SSH broke"),
    ],
)
def test_a_cell_that_does_otherwise_when_it_is_run_again_tells_nothing(
    guest: Make, variant: str, shows: str | Exception, outcome: str
) -> None:
    cell = planned(variant)

    def blocks(_wanted: Variant) -> str:
        if isinstance(shows, Exception):
            raise shows
        return shows

    result = run(guest(blocks), cell, passed(cell) if variant == "stock" else failed(cell))
    assert made(result).turning == []
    assert len(made(result).steps) == 1
    assert made(result).stopped.startswith("the cell was run once more, unchanged, and not as before: ")
    assert made(result).stopped.endswith(outcome)
    assert {untried.reason for untried in made(result).not_tried} >= {made(result).stopped}


def test_a_result_that_the_suite_does_not_name_decides_nothing(guest: Make) -> None:
    cell = planned("userns-clone-off")
    result = failed(cell)
    result.tests.append(TestResult(name="another", outcome=Outcome.ERROR))
    assert made(run(guest(), cell, result)).tests == BLOCKED


def test_what_cannot_be_put_on_is_not_what_breaks(guest: Make) -> None:
    cell = planned("stock")

    def refuses(wanted: Variant) -> str:
        if "bubblewrap" in wanted.knobs:
            raise NotInEffect("variant not in effect: bubblewrap's mode is 0o755, not None")
        return ""

    result = run(guest(refuses), cell, passed(cell))
    assert (["with bwrap-absent"], "cannot be tried here") in steps(result)
    assert made(result).turning == []


def test_a_fault_of_the_lab_s_says_nothing_of_the_change(guest: Make) -> None:
    cell = planned("userns-clone-off")
    faults = [SessionLost("SSH broke"), LabError("a broken tool")]

    def broken(wanted: Variant) -> str:
        if not wanted.knobs and faults:
            raise faults.pop()
        return blocked_by_sysctls(wanted)

    result = run(guest(broken, retries=1), cell, failed(cell))
    [step] = [step for step in made(result).steps if step.changes == [NOT_CLONE]]
    assert (str(step.outcome), step.reason, step.retried) == ("error", "SSH broke", ["a broken tool"])
    assert made(result).turning == []


def test_a_fault_that_hides_whether_less_would_do_leaves_a_likely_cause_likely(guest: Make) -> None:
    cell = planned("userns-clone-off+max-userns-zero")

    def broken(wanted: Variant) -> str:
        if wanted.knobs and CLONE not in (wanted.knobs["sysctl"].settings() or {}):
            raise SessionLost("SSH broke")
        return blocked_by_sysctls(wanted)

    likely = found("userns-limit", Confidence.LIKELY)
    result = run(guest(broken), cell, failed(cell, likely))
    assert (steps(result)[1], made(result).turning) == (([NOT_CLONE], "error"), [[NOT_CLONE, NOT_LIMIT]])
    assert made(result).not_tried[-1].reason == "it was not seen to fail without each of them"
    assert result.causes == [likely]


def test_an_emulated_guest_that_is_too_slow_says_nothing_of_the_change(guest: Make) -> None:
    cell = planned("stock")
    result = run(guest(lambda wanted: SLOW if wanted.knobs else ""), cell, passed(cell))
    assert {outcome for each, outcome in steps(result) if each} == {"error"}
    assert made(result).turning == []


def test_on_a_dead_lane_an_experiment_ends_and_it_starts_over_on_a_fresh_one(guest: Make) -> None:
    cell, service = planned("userns-clone-off"), guest()

    def dies_without_knobs(wanted: Variant) -> str:
        if not wanted.knobs:
            service.alive = False
            raise LaneDied("the machine is gone")
        return NO_SANDBOX

    service.blocks = dies_without_knobs
    first = run(service, cell, failed(cell))
    assert steps(first) == [([], "fails"), ([NOT_CLONE], "error")]
    assert made(first).stopped == "the machine is gone"
    assert first.has_more_to_try and first.before_trials().experiment is None
    result = run(guest(), cell, failed(cell))
    assert steps(result) == [([], "fails"), ([NOT_CLONE], "passes")]
    assert (made(result).turning, made(result).stopped) == ([[NOT_CLONE]], "")
    folder = f"{cell.folder}/experiment"
    assert made(result).evidence == [f"{folder}/01/suite.log", f"{folder}/02/suite.log"]


def test_an_interrupt_ends_the_experiment_and_leaves_no_result(guest: Make) -> None:
    cell = planned("userns-clone-off")
    service = guest()

    def interrupted(wanted: Variant) -> str:
        service.given_up = True
        raise SessionLost("SSH broke")

    service.blocks = interrupted
    with pytest.raises(LaneDied, match="given up"):
        run(service, cell, failed(cell))


PROVED, LIKELY = found("userns-sysctl"), found("userns-sysctl", Confidence.LIKELY)


@pytest.mark.parametrize(
    ("when", "status", "causes", "wanted"),
    [
        (ExperimentPolicy.UNCLEAR, Status.FAIL, [], True),
        (ExperimentPolicy.UNCLEAR, Status.XFAIL, [LIKELY], True),
        (ExperimentPolicy.UNCLEAR, Status.XFAIL, [PROVED], False),
        (ExperimentPolicy.UNCLEAR, Status.PASS, None, False),
        (ExperimentPolicy.ALWAYS, Status.XFAIL, [PROVED], True),
        (ExperimentPolicy.ALWAYS, Status.PASS, None, True),
        (ExperimentPolicy.ALWAYS, Status.FLAKY, [PROVED], False),
        (ExperimentPolicy.ALWAYS, Status.ERROR, None, False),
        (ExperimentPolicy.NEVER, Status.FAIL, [], False),
        (ExperimentPolicy.NEVER, Status.PASS, None, False),
    ],
)
def test_on_which_cells_an_experiment_is_made(
    guest: Make, when: ExperimentPolicy, status: Status, causes: list[Finding] | None, wanted: bool
) -> None:
    cell = planned("userns-clone-off" if causes is not None else "stock")
    result = passed(cell) if causes is None else failed(cell, *causes)
    result.status = status
    assert (run(guest(experiments=when), cell, result).experiment is not None) is wanted


# -- delta debugging, on sets whose smallest failing part is known


def parts(whole: str, needed: set[str]) -> tuple[str, list[str]]:
    """What is found where `needed` is needed, and every part that was asked about."""
    asked: list[str] = []

    def does(part: Sequence[str]) -> bool:
        asked.append("".join(part))
        return needed <= set(part)

    return "".join(smallest(whole, does)), asked


@pytest.mark.parametrize("size", range(1, 8))
def test_exactly_what_is_needed_is_found_whatever_it_is(size: int) -> None:
    whole = "abcdefg"[:size]
    for length in range(1, size + 1):
        for needed in combinations(whole, length):
            assert parts(whole, set(needed))[0] == "".join(needed)


def test_where_any_of_several_does_it_nothing_can_be_left_out_of_what_is_found() -> None:
    def does(part: Sequence[str]) -> bool:
        return {"a", "f"} <= set(part) or {"b", "c", "g"} <= set(part)

    found = smallest("abcdefgh", does)
    assert does(found)
    assert not any(does([each for each in found if each != left_out]) for left_out in found)


def test_one_of_many_takes_few_tries() -> None:
    found, asked = parts("".join(map(chr, range(100, 164))), {"x"})
    assert found == "x"
    assert len(asked) <= 12


def test_of_two_that_are_needed_together_each_is_tried_alone_and_nothing_twice() -> None:
    assert parts("ab", {"a", "b"}) == ("ab", ["a", "b"])


def test_a_single_one_needs_no_try() -> None:
    assert parts("a", {"a"}) == ("a", [])
