"""What the probes alone say of a cell, and how often that is right."""

from collections.abc import Mapping
from typing import Any

import pytest

from lab.catalog import load_suites
from lab.lane.cell import run_cell
from lab.probes import Probes
from lab.record import (
    BuildRecord,
    CellResult,
    CellVerdict,
    Foreseen,
    Outcome,
    Prediction,
    Status,
    SuiteRun,
    TestResult,
)
from lab.report.predictions import score_run
from lab.verdict.prediction import UNMAPPED, ProbedHost, judge_prediction, predict_suite
from lab.verdict.status import combine_repeats
from tests.builders.cells import blocked, cell
from tests.builders.facts import ALL_WORK, facts, probe, who
from tests.builders.lanes import NEW, Bench, FakeGuest
from tests.builders.lanes import cell as planned_cell
from tests.builders.runs import run_of

SUITES = {suite.name: suite for suite in load_suites()}
CLONE = "kernel.unprivileged_userns_clone"
EPERM = probe(1, "unshare: unshare failed: Operation not permitted")
NO_USERNS = dict.fromkeys(("unshare_user", "unshare_user_root", "bwrap_user", "bwrap_all"), EPERM)
KVM_DENIED = {"open_kvm": probe(13, "[Errno 13] Permission denied: '/dev/kvm'")}
SAME: Mapping[str, Any] = {}
WORKS = Prediction(says=Foreseen.WORKS)
SILENT = Prediction(says=Foreseen.UNKNOWN)
BLOCKED = Prediction(says=Foreseen.BLOCKED)


def of_cause(name: str) -> Prediction:
    return Prediction(says=Foreseen.BLOCKED, cause=name)


def probed(*, user: Mapping[str, Any] = SAME, probes: Mapping[str, Any] = SAME, **of: Any) -> ProbedHost:
    """A debian-13 on which everything works, with changes of its facts, its user and its probes."""
    asked = Probes.model_validate(ALL_WORK | dict(probes))
    user_of = who(**user)
    return ProbedHost(facts(**of), user_of, asked, same_ids=user_of.container is None)


@pytest.mark.parametrize(
    ("host", "says"),
    [
        (probed(), "~ works"),
        (probed(sysctls={CLONE: "0"}, probes=NO_USERNS), "~ userns-sysctl"),
        (probed(probes=NO_USERNS), "~ blocked"),
        (probed(probes={"create_vm": probe(None, "not run")}), "~ not known"),
        (probed(kvm={"capabilities": {"IRQCHIP": False}}), "~ blocked"),
    ],
)
def test_the_probes_alone_say_what_they_expect(host: ProbedHost, says: str) -> None:
    assert str(predict_suite(host, SUITES["jailer"])) == says


def test_a_suite_that_needs_more_than_a_box_is_never_expected_to_pass() -> None:
    assert predict_suite(probed(), SUITES["lifecycle"]).says is Foreseen.UNKNOWN
    # What stops every box stops it, too.
    absent = {"open_kvm": probe(2, "No such file or directory: '/dev/kvm'")}
    assert predict_suite(probed(kvm=None, probes=absent), SUITES["lifecycle"]).cause == "kvm-absent"
    # And what only open files need says nothing about a suite that needs none.
    few = probed(user={"context": who().context.model_dump() | {"limits": limits(nofile_hard=256)}})
    assert predict_suite(few, SUITES["volumes"]).cause != "nofile-limit"


def limits(**changes: int) -> dict[str, Any]:
    return who().context.limits.model_dump() | changes


@pytest.mark.parametrize(
    ("user", "kvm", "cause"),
    [
        # The mode lets the group of the user in: something else denies it.
        ({}, {}, None),
        ({}, {"mode": "0o600"}, "kvm-denied"),
        # Groups of a container: its unmapped number is no group of the host, and its root is not the host's.
        ({"container": "podman", "groups": [UNMAPPED]}, {"gid": UNMAPPED}, "kvm-denied"),
        ({"container": None, "groups": [UNMAPPED]}, {"gid": UNMAPPED}, "kvm-denied"),
        ({"container": None, "uid": UNMAPPED, "groups": []}, {"uid": UNMAPPED, "gid": 5}, "kvm-denied"),
        ({"container": "docker", "uid": 0, "groups": [0]}, {"uid": 0, "gid": 993}, "kvm-denied"),
        ({"container": "docker", "uid": 0, "groups": [0]}, {"uid": 0, "mode": "0o666"}, None),
    ],
)
def test_whom_the_mode_of_kvm_lets_in(user: dict[str, Any], kvm: dict[str, Any], cause: str | None) -> None:
    host = probed(user=user, kvm=kvm, probes=KVM_DENIED)
    assert predict_suite(host, SUITES["jailer"]) == Prediction(
        says=Foreseen.BLOCKED, cause=cause, reason=predict_suite(host, SUITES["jailer"]).reason
    )


FAILED = blocked("userns-sysctl")


@pytest.mark.parametrize(
    ("result", "prediction", "right"),
    [
        (cell(), WORKS, True),
        (cell(), of_cause("userns-sysctl"), False),
        (cell(), BLOCKED, False),
        (cell(), SILENT, None),
        (cell(), None, None),
        (FAILED, WORKS, False),
        (FAILED, of_cause("userns-sysctl"), True),
        (FAILED, of_cause("seccomp"), False),
        (FAILED, BLOCKED, True),
        (cell(status=Status.ERROR), WORKS, None),
        (cell(status=Status.NOT_RUN), WORKS, None),
        (cell(status=Status.FLAKY), WORKS, None),
    ],
)
def test_a_prediction_is_right_if_the_suite_says_the_same(
    result: CellResult, prediction: Prediction | None, right: bool | None
) -> None:
    assert judge_prediction(result.with_values(prediction=prediction)) is right


def test_a_run_counts_the_predictions_of_the_jailers_suite() -> None:
    cells = [
        cell("debian-12", prediction=WORKS),
        cell("debian-13", prediction=of_cause("seccomp")),
        cell("debian-14", prediction=SILENT),
        cell("debian-15"),
        cell("debian-16", build="another", prediction=WORKS),
        cell("debian-17", status=Status.NOT_RUN, prediction=WORKS),
    ]
    names = {"0.10.8": "jailer", "another": "lifecycle"}
    builds = [BuildRecord(name=name, version=name, source="PyPI", suite=suite) for name, suite in names.items()]
    score = score_run(run_of(*cells, builds=builds))
    assert score.describe() == "the probes alone: 1 right, 1 wrong, 1 silent of 3"
    assert score.describe_trust() == "the probe alone was right on 1 of 3 hosts that were tested"
    assert score.list_wrong() == ["debian-13 stock 0.10.8: ~ seccomp, and it is: pass"]
    assert score_run(run_of(cell())).describe() == ""


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("passes", [True, False])
def test_a_prediction_is_shown_before_the_suite_and_never_changes_the_verdict(
    bench: Bench, works: bool, passes: bool
) -> None:
    outcome = Outcome.PASS if passes else Outcome.FAIL
    shown: list[str] = []

    class Guest(FakeGuest):
        probes = Probes.model_validate(ALL_WORK | ({} if works else NO_USERNS))

        def run_suite(self, *_: Any, **__: Any) -> SuiteRun:
            shown.append("suite")
            return SuiteRun([TestResult(name=name, outcome=outcome) for name in NEW.suite.tests])

    served = bench.service(stores=False)
    served.session = Guest(bench.lane)
    served.start()
    served.deploy(NEW)
    result = run_cell(
        served, planned_cell(NEW), bench.folder / "cell", show_prediction=lambda said: shown.append(str(said))
    )
    assert shown == ["~ works" if works else "~ blocked", "suite"]
    assert str(result.prediction) == shown[0]
    assert result.status is (Status.PASS if passes else Status.FAIL)
    assert result.cause == (None if passes else "unknown")


def test_only_the_first_of_repeats_is_predicted(bench: Bench) -> None:
    served = bench.service(stores=False)
    served.start()
    served.deploy(NEW)
    shown: list[Prediction] = []
    first = run_cell(served, planned_cell(NEW), bench.folder / "first", show_prediction=shown.append)
    second = run_cell(served, planned_cell(NEW), bench.folder / "second")
    assert (shown, str(first.prediction), second.prediction) == ([first.prediction], "~ works", None)
    # The details may be those of a later one.
    failed = second.with_values(verdict=CellVerdict(status=Status.FAIL, cause="unknown"))
    for repeats in [first, second], [first, failed]:
        assert str(combine_repeats(repeats, at_most=2).prediction) == "~ works"
