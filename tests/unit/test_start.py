from dataclasses import replace
from pathlib import Path

import pytest
from packaging.version import Version

from lab.base.errors import UsageError
from lab.builds import rootfs, wheels
from lab.builds.kinds.wheel import Wheel
from lab.plan import Shard
from lab.record import (
    Experiment,
    ExperimentPolicy,
    ExperimentStep,
    LaneRecord,
    RemedyOutcome,
    RemedyResult,
    RunOptions,
    RunResult,
    Status,
    StepOutcome,
)
from lab.run import definitions
from tests.builders.runs import (
    KNOWN,
    PLAN,
    RELEASE,
    SMALL,
    begin,
    finish,
    make_wheel,
    names,
    own_definitions,
    resume,
)


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_definitions(tmp_path, monkeypatch)


def test_a_new_run_says_all_that_it_takes_to_resume_it(tmp_path: Path) -> None:
    layout = str(rootfs.make(tmp_path / "layout"))
    options = RunOptions(cold=True, repeat=3, retries=0, rootfs=layout)
    begun = begin(tmp_path / "20261124-1", options=options)
    assert (begun.cells, begun.kept) == (PLAN, {})
    assert (begun.info.id, begun.info.command, begun.info.options) == ("20261124-1", "lab matrix", options)
    assert begun.info.definitions == definitions.digests(PLAN, RunOptions(rootfs=layout))
    assert "rootfs" in begun.info.definitions
    assert begun.info.builds == [RELEASE.record()]
    assert (begun.info.shard, begun.info.merged, begun.info.resumed) == (None, [], [])


def test_a_shard_says_what_the_whole_plan_is_and_no_more_of_it(tmp_path: Path) -> None:
    cells = [replace(each, build=Wheel("0.10.7", "0.10.7")) for each in SMALL[:2]] + SMALL[2:]
    begun = begin(tmp_path, cells, shard=Shard(2, 2))
    assert begun.cells == cells[2:]
    assert begun.info.shard is not None
    assert (begun.info.shard.number, begun.info.shard.count) == (2, 2)
    assert begun.info.shard.plan == [each.name for each in cells]
    assert "guest debian-12" not in begun.info.definitions
    # The whole plan's: what no shard ran is told with its build, too.
    assert [build.name for build in begun.info.builds] == ["0.10.7", "0.10.8"]


def test_a_shard_with_nothing_to_do_is_wrong_usage(tmp_path: Path) -> None:
    idle = next(shard for shard in (Shard(number, 50) for number in range(1, 51)) if not shard.of(SMALL))
    with pytest.raises(UsageError, match=f"--shard {idle}: the plan has 4 cells"):
        begin(tmp_path, SMALL, shard=idle)


def test_what_could_not_run_is_run_again_and_everything_else_stands(tmp_path: Path) -> None:
    run = finish(tmp_path, begin(tmp_path), list(Status))
    begun = resume(run)
    assert begun.cells == PLAN
    assert [result.status for result in begun.kept.values()] == [
        Status.PASS,
        Status.FAIL,
        Status.XFAIL,
        Status.XPASS,
        Status.FLAKY,
        Status.NOT_APPLICABLE,
    ]
    known = {Path("cells", c.guest, c.variant, c.build): c for c in run.cells}
    assert all(result == known[folder] for folder, result in begun.kept.items())
    left = [each for each in begun.cells if each.folder not in begun.kept]
    assert {known[each.folder].status for each in left} == {Status.ERROR, Status.NOT_RUN}


def left_to_try(run: RunResult) -> list[str]:
    """The cells that go on, every one of which stands as it was."""
    begun = resume(run)
    assert list(begun.kept.values()) == run.cells
    assert len(begun.complete) + len(begun.left) == len(PLAN)
    return [cell.name for cell in begun.left]


def test_on_a_cell_whose_remedies_met_a_fault_they_are_tried_again(tmp_path: Path) -> None:
    run = finish(tmp_path, begin(tmp_path), [Status.XFAIL] * len(PLAN))
    for each, outcome in zip(run.cells, RemedyOutcome, strict=False):
        each.remedies = [RemedyResult(name="a", result=outcome, price="", seconds=1.0)]
    index = list(RemedyOutcome).index(RemedyOutcome.ERROR)
    assert left_to_try(run) == [PLAN[index].name]
    assert [bool(each.before_trials().remedies) for each in run.cells[: len(RemedyOutcome)]] == [
        outcome is not RemedyOutcome.ERROR for outcome in RemedyOutcome
    ]


def test_on_a_cell_whose_trials_were_interrupted_they_are_tried(tmp_path: Path) -> None:
    run = finish(tmp_path, begin(tmp_path), [Status.XFAIL] * len(PLAN))
    run.cells[1].unfinished = True
    assert left_to_try(run) == [PLAN[1].name]
    assert not run.cells[1].before_trials().unfinished


def test_on_a_cell_whose_experiment_met_a_fault_it_is_made_again(tmp_path: Path) -> None:
    run = finish(tmp_path, begin(tmp_path), [Status.XFAIL] * len(PLAN))
    for each, outcome in zip(run.cells, StepOutcome, strict=False):
        each.experiment = Experiment(tests=["a"], steps=[ExperimentStep(changes=[], outcome=outcome)])
    index = list(StepOutcome).index(StepOutcome.ERROR)
    assert left_to_try(run) == [PLAN[index].name]
    again = run.cells[index]
    assert again.before_trials().experiment is None
    # What it found for a cell that failed has become part of the result, and stands.
    assert again.experiment is not None
    again.experiment.turning = [["without a"]]
    assert again.before_trials().experiment == again.experiment


def test_a_resumed_run_is_the_same_run_under_way_again(tmp_path: Path) -> None:
    first = finish(tmp_path, begin(tmp_path, options=RunOptions(cold=True, repeat=2)))
    first.run.interrupted = True
    lane = LaneRecord(guest="debian-13", image="1" * 64, fork="cold", seconds={"boot": 20.0})
    first.run.lanes.append(lane)
    again = resume(first).info
    assert (again.interrupted, again.finished, len(again.resumed)) == (False, None, 1)
    assert first.run.resumed == []
    for key in ("id", "started", "command", "options", "definitions", "builds", "lanes"):
        assert getattr(again, key) == getattr(first.run, key)
    third = resume(first.model_copy(update={"run": again})).info
    assert third.resumed[:1] == again.resumed
    assert len(third.resumed) == 2


def test_a_shard_is_resumed_as_the_shard_it_was(tmp_path: Path) -> None:
    run = finish(tmp_path, begin(tmp_path, SMALL, shard=Shard(2, 2)), [Status.ERROR, Status.PASS])
    begun = resume(run)
    assert names(begun) == [each.name for each in SMALL[2:]]
    assert begun.info.shard == run.run.shard
    assert list(begun.kept) == [SMALL[3].folder]


def test_changed_definitions_are_refused_by_name(tmp_path: Path, own_files: Path) -> None:
    run = finish(tmp_path / "run", begin(tmp_path / "run"))
    stock = KNOWN.variant("stock").model_copy(update={"title": "Other"})
    (own_files / "cloud-init" / "meta-data").write_text("changed\n")
    with pytest.raises(UsageError) as error:
        resume(run, replace(KNOWN, variants={**KNOWN.variants, "stock": stock}))
    assert "cannot be resumed, changed since: seed, variant stock\n" in str(error.value)


def test_a_changed_definition_that_no_cell_has_is_nobodys_concern(tmp_path: Path) -> None:
    run = finish(tmp_path, begin(tmp_path, SMALL))
    other = KNOWN.variant("userns-clone-off").model_copy(update={"title": "Other"})
    begun = resume(run, replace(KNOWN, variants={**KNOWN.variants, "userns-clone-off": other}))
    assert len(begun.kept) == len(SMALL)


def test_a_new_variant_does_not_stop_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions(experiments=ExperimentPolicy.UNCLEAR)
    run = finish(tmp_path, begin(tmp_path, SMALL, options=options))
    new = KNOWN.variant("userns-clone-off").model_copy(update={"name": "new"})
    later = replace(KNOWN, variants={**KNOWN.variants, "new": new})
    monkeypatch.setattr(definitions, "load", lambda: later)
    begun = resume(run, later)
    assert "variant new" in begun.info.definitions
    # An experiment may have tried what this one was.
    changed = new.model_copy(update={"title": "Other"})
    again = run.model_copy(update={"run": begun.info})
    monkeypatch.setattr(
        definitions, "load", lambda: replace(KNOWN, variants={**KNOWN.variants, "new": changed})
    )
    with pytest.raises(UsageError, match="changed since: variant new\n"):
        resume(again, later)


def test_a_run_of_a_lab_with_other_rules_is_refused(tmp_path: Path) -> None:
    run = finish(tmp_path, begin(tmp_path, SMALL))
    run.run.definitions["rule set"] = "0" * 64
    with pytest.raises(UsageError, match="cannot be resumed, changed since: rule set\n"):
        resume(run)


def test_guests_and_variants_that_are_gone_are_named(tmp_path: Path) -> None:
    run = finish(tmp_path, begin(tmp_path, SMALL))
    with pytest.raises(UsageError, match="no guest is called 'debian-12'"):
        resume(run, replace(KNOWN, guests={"debian-13": KNOWN.guest("debian-13")}))
    with pytest.raises(UsageError, match="no variant is called 'max-userns-zero'"):
        resume(run, replace(KNOWN, variants={"stock": KNOWN.variant("stock")}))


def test_a_resumed_run_has_its_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = make_wheel(tmp_path / "boxlite-0.10.8-py3-none-any.whl")
    cells = [*SMALL, *(replace(each, build=local) for each in SMALL)]
    run = finish(tmp_path / "run", begin(tmp_path / "run", cells))
    monkeypatch.setattr(wheels, "releases", lambda: [Version("99.0")])
    assert resume(run).cells == cells


def test_a_changed_or_lost_wheel_is_refused_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "boxlite-0.10.8-py3-none-any.whl"
    local = make_wheel(file)
    run = finish(tmp_path / "run", begin(tmp_path / "run", [replace(SMALL[0], build=local)]))
    now = make_wheel(file, "other = True")
    with pytest.raises(UsageError, match=f"{file} changed since: it was {local.name} and is {now.name}"):
        resume(run)
    file.unlink()
    with pytest.raises(UsageError, match=f"{file}: no such file"):
        resume(run)


def test_a_resumed_run_has_its_root_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"static")
    monkeypatch.setattr(rootfs, "find_busybox", lambda: busybox)
    first = rootfs.make(tmp_path / "run" / "rootfs")
    # The folder of a run is the same when the run is resumed.
    assert rootfs.check(rootfs.make(first)) == first
