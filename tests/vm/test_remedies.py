"""Remedies and an experiment on real guests: what cures or turns a cell is verified, and each undo undoes."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from lab.catalog import Catalog, remedies
from lab.record import CellResult, Needs, RemedyOutcome, RemedyResult, RunResult, Status, TrialOutcome
from lab.verdict import observers, words
from lab.verdict.observers import Observation
from lab.verdict.words import FinishedCell, WordsVerdict
from tests.vm.conftest import ONE_KNOB, TRIES, TWO_KNOBS

of_one_knob = pytest.mark.shared(TRIES[ONE_KNOB])
of_two_knobs = pytest.mark.shared(TRIES[TWO_KNOBS])
MARKS: dict[str, list[pytest.MarkDecorator]] = {ONE_KNOB: [], TWO_KNOBS: [pytest.mark.slow]}
of_each = pytest.mark.parametrize(
    "variant",
    [pytest.param(name, marks=[*MARKS[name], pytest.mark.shared(run)]) for name, run in TRIES.items()],
)


@pytest.fixture
def cell(run: RunResult) -> CellResult:
    [only] = run.cells
    assert only.status is Status.XFAIL, only.reason
    return only


def tried(cell: CellResult, name: str) -> RemedyResult:
    [remedy] = [remedy for remedy in cell.remedies if remedy.name == name]
    return remedy


@of_one_knob
def test_what_cures_is_verified_by_the_script_that_users_get(cell: CellResult, folder: Path) -> None:
    name = "userns-clone-on"
    cured = tried(cell, name)
    assert (cured.result, cured.reason) == (RemedyOutcome.VERIFIED, "")
    [script] = [file for file in cured.evidence if file.endswith(f"{name}.sh")]
    assert (folder / script).read_text() == remedies.find_remedy(name).script()
    assert cured.scripts == {name: sha256((folder / script).read_bytes()).hexdigest()}
    [log] = [file for file in cured.evidence if file.endswith(f"{name}.log")]
    text = (folder / log).read_text()
    assert text.count("(exit status 0)") == 3  # done, already in place, undone
    assert f"{name}: already in place: nothing was changed" in text


@pytest.mark.slow
@of_two_knobs
def test_of_two_causes_the_cure_of_one_does_not_help_and_both_together_do(cell: CellResult) -> None:
    alone = ("userns-clone-on", "userns-limit-raise")
    assert [tried(cell, name).result for name in alone] == [RemedyOutcome.DOES_NOT_HELP] * 2
    together = tried(cell, remedies.AND.join(alone))
    assert together.result is RemedyOutcome.VERIFIED, together.reason
    assert sorted(together.scripts) == sorted(alone)


@of_each
def test_without_the_jailer_boxes_start_and_nothing_is_called_cured(cell: CellResult, variant: str) -> None:
    for name in ("jailer-off", "preflight"):
        avoided = tried(cell, name)
        assert avoided.result is RemedyOutcome.AVOIDS, avoided.reason
        assert avoided.reason.startswith("skipped: ")


@of_each
def test_no_script_changes_a_host_twice_and_undo_undoes(cell: CellResult, folder: Path, variant: str) -> None:
    before = json.loads((folder / cell.folder / "probes.json").read_text())
    undone = 0
    for remedy in cell.remedies:
        assert remedy.defects == []
        for file in remedy.evidence:
            if file.endswith("probes-undone.json"):
                after = json.loads((folder / file).read_text())
                assert _statuses(after) == _statuses(before)
                undone += 1
    assert undone > 0


def _statuses(probes: dict[str, dict[str, dict[str, object]]]) -> dict[str, object]:
    return {name: probe["status"] for name, probe in probes["probes"].items()}


@of_one_knob
def test_what_a_report_asserts_is_judged_by_what_was_tried(cell: CellResult, folder: Path) -> None:
    blocked = FinishedCell(cell, folder)
    avoided = observers.observe_cell("cured", blocked, {"remedies": ["preflight"], "outcome": "avoids it"})
    assert isinstance(avoided, Observation)
    assert avoided.holds
    # A blocked switch of the kernel's is no policy of AppArmor's.
    profile = {"profile": "unprivileged_userns", "capability": "CAP_SYS_ADMIN"}
    denied = observers.observe_cell("capability_denied", blocked, profile)
    assert isinstance(denied, Observation)
    assert not denied.holds


@of_one_knob
def test_boxlite_names_this_cause_and_its_advice_cures(cell: CellResult, folder: Path) -> None:
    blocked = FinishedCell(cell, folder)
    assert blocked.words.advises == ["sudo sysctl -w kernel.unprivileged_userns_clone=1"]
    assert words.judge_words(blocked.result, blocked.words, remedies.load_remedies()) is WordsVerdict.RIGHT


@pytest.mark.slow
@of_two_knobs
def test_by_experiment_the_smallest_change_that_turns_a_cell_is_both_settings(
    cell: CellResult, folder: Path, definitions: Catalog
) -> None:
    limit = "without sysctl user.max_user_namespaces=0"
    clone = "without sysctl kernel.unprivileged_userns_clone=0"
    made = cell.trials.experiment
    assert made is not None
    assert made.turning == [[limit, clone]]
    assert [(trial.changes, trial.outcome) for trial in made.trials] == [
        ([], TrialOutcome.FAILS),
        ([limit], TrialOutcome.FAILS),
        ([clone], TrialOutcome.FAILS),
        ([limit, clone], TrialOutcome.PASSES),
    ]
    assert set(made.tests) == definitions.suite.needing(Needs.SANDBOX)
    # The sysctl keeps the kernel from coming to the limit, so that no probe proves that.
    causes = {cause.name: (str(cause.confidence), cause.reason) for cause in cell.causes}
    assert list(causes) == ["userns-sysctl", "userns-limit"]
    assert causes["userns-limit"] == (
        "proved",
        f"user.max_user_namespaces is 0; by experiment, what failed passes {limit} and {clone}",
    )
    for number in range(1, len(made.trials) + 1):
        place = f"/experiment/{number:02}/suite/junit.xml"
        [report] = [file for file in made.evidence if file.endswith(place)]
        assert "jailer_enabled_box_starts_and_executes" in (folder / report).read_text()
