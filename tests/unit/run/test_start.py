"""New and resumed runs, and what a command line asks for."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from lab import builds, plan
from lab.base.architecture import X86_64
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.builds import rootfs, wheels
from lab.builds.kinds.wheel import Wheel
from lab.plan import Shard
from lab.record import (
    Experiment,
    ExperimentPolicy,
    ExperimentTrial,
    LaneRecord,
    RemedyOutcome,
    RemedyResult,
    RunOptions,
    Status,
    TrialOutcome,
)
from lab.run import start
from lab.run.request import Request
from tests.builders.cells import changed
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


def test_a_new_run_says_all_that_it_takes_to_resume_it(tmp_path: Path) -> None:
    layout = str(rootfs.make(tmp_path / "layout", X86_64, rootfs.find_busybox()))
    options = RunOptions(cold=True, repeat=3, retries=0, rootfs=layout)
    begun = begin(tmp_path / "20261124-1", options=options)
    assert (begun.cells, begun.earlier_results) == (PLAN, {})
    assert (begun.info.id, begun.info.command, begun.info.options) == ("20261124-1", "lab matrix", options)
    assert begun.info.definitions == start.compute_digests(PLAN, RunOptions(rootfs=layout))
    assert "rootfs" in begun.info.definitions
    assert begun.info.builds == [RELEASE.record()]
    assert (begun.info.shard, begun.info.merged, begun.info.resumed) == (None, [], [])


def test_a_shard_says_what_the_whole_plan_is_and_no_more_of_it(tmp_path: Path) -> None:
    cells = [replace(cell, build=Wheel("0.10.7", "0.10.7")) for cell in SMALL[:2]] + SMALL[2:]
    begun = begin(tmp_path, cells, shard=Shard(2, 2))
    assert begun.cells == cells[2:]
    assert begun.info.shard is not None
    assert (begun.info.shard.number, begun.info.shard.count) == (2, 2)
    assert begun.info.shard.plan == [cell.name for cell in cells]
    assert "guest debian-12" not in begun.info.definitions
    # The whole plan's: what no shard ran is told with its build, too.
    assert [build.name for build in begun.info.builds] == ["0.10.7", "0.10.8"]


def test_what_could_not_run_is_run_again_and_everything_else_stands(tmp_path: Path) -> None:
    run = finish(tmp_path, begin(tmp_path), list(Status))
    begun = resume(run)
    assert begun.cells == PLAN
    results = {result.folder: result for result in run.cells}
    assert all(result == results[folder] for folder, result in begun.earlier_results.items())
    left = [cell for cell in begun.cells if cell.folder not in begun.earlier_results]
    assert {results[cell.folder].status for cell in left} == {Status.ERROR, Status.NOT_RUN}
    assert len(left) == 2


def experiment(outcome: TrialOutcome, turning: Sequence[list[str]] = ()) -> Experiment:
    trials = [ExperimentTrial(changes=[], outcome=outcome)]
    return Experiment(tests=["a"], trials=trials, turning=list(turning))


@pytest.mark.parametrize(
    ("tried", "is_left"),
    [
        *(
            ({"remedies": [RemedyResult(name="a", result=outcome, price="")]}, outcome is RemedyOutcome.ERROR)
            for outcome in RemedyOutcome
        ),
        *(({"experiment": experiment(outcome)}, outcome is TrialOutcome.ERROR) for outcome in TrialOutcome),
        ({"unfinished": True}, True),
    ],
)
def test_trials_that_met_a_fault_are_made_again(tmp_path: Path, tried: dict[str, Any], is_left: bool) -> None:
    run = finish(tmp_path, begin(tmp_path, SMALL), [Status.XFAIL] * len(SMALL))
    run.cells[1] = changed(run.cells[1], **tried)
    begun = resume(run)
    # Every cell stands as it was.
    assert list(begun.earlier_results.values()) == run.cells
    assert [cell.name for cell in begun.cells_to_run] == ([SMALL[1].name] if is_left else [])
    assert len(begun.complete) + len(begun.cells_to_run) == len(SMALL)
    trials = run.cells[1].before_trials().trials
    if {"remedies", "experiment"} & tried.keys():
        assert bool(trials.remedies or trials.experiment) is not is_left
    # What an experiment found for a cell that failed stands.
    useful = experiment(TrialOutcome.ERROR, turning=[["without a"]])
    assert changed(run.cells[0], experiment=useful).before_trials().trials.experiment == useful


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
    assert names(begun) == [cell.name for cell in SMALL[2:]]
    assert begun.info.shard == run.run.shard
    assert list(begun.earlier_results) == [SMALL[3].folder]


def test_changed_definitions_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_files = own_definitions(tmp_path, monkeypatch)
    run = finish(tmp_path / "run", begin(tmp_path / "run", SMALL))
    variants = {
        name: KNOWN.variant(name).model_copy(update={"title": "Other"})
        for name in ("stock", "userns-clone-off")
    }
    later = replace(KNOWN, variants={**KNOWN.variants, **variants})
    (own_files / "cloud-init" / "meta-data").write_text("changed\n")
    run.run.definitions["rule set"] = "0" * 64
    # That of a variant that no cell has is nobody's concern.
    with pytest.raises(UsageError) as error:
        resume(run, later)
    assert "cannot be resumed, changed since: rule set, seed, variant stock\n" in str(error.value)


def test_a_new_variant_does_not_stop_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions(experiments=ExperimentPolicy.UNCLEAR)
    run = finish(tmp_path, begin(tmp_path, SMALL, options=options))
    new = KNOWN.variant("userns-clone-off").model_copy(update={"name": "new"})
    later = replace(KNOWN, variants={**KNOWN.variants, "new": new})
    monkeypatch.setattr(start, "load_catalog", lambda: later)
    begun = resume(run, later)
    assert "variant new" in begun.info.definitions
    # An experiment may have tried what this one was.
    changed = new.model_copy(update={"title": "Other"})
    again = run.model_copy(update={"run": begun.info})
    monkeypatch.setattr(
        start, "load_catalog", lambda: replace(KNOWN, variants={**KNOWN.variants, "new": changed})
    )
    with pytest.raises(UsageError, match="changed since: variant new\n"):
        resume(again, later)


def test_guests_and_variants_that_are_gone_are_named(tmp_path: Path) -> None:
    run = finish(tmp_path, begin(tmp_path, SMALL))
    with pytest.raises(UsageError, match="no guest is called 'debian-12'"):
        resume(run, replace(KNOWN, guests={"debian-13": KNOWN.guest("debian-13")}))
    with pytest.raises(UsageError, match="no variant is called 'max-userns-zero'"):
        resume(run, replace(KNOWN, variants={"stock": KNOWN.variant("stock")}))


def test_a_resumed_run_has_its_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = make_wheel(tmp_path / "boxlite-0.10.8-py3-none-any.whl")
    cells = [*SMALL, *(replace(cell, build=local) for cell in SMALL)]
    run = finish(tmp_path / "run", begin(tmp_path / "run", cells))
    monkeypatch.setattr(wheels, "list_releases", lambda: [Version("99.0")])
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


# -- what a command line asks for, before anything is started


def refuse(*_: object) -> Any:
    raise AssertionError("a release was looked up")


@pytest.mark.parametrize(
    ("request_", "options"),
    [
        # The set decides what the user leaves open.
        ({}, {"remedies": True, "experiments": "unclear"}),
        ({"remedies": False}, {"experiments": "unclear"}),
        ({"set_name": "quick"}, {"experiments": "unclear"}),
        ({"set_name": "quick", "remedies": True}, {"remedies": True, "experiments": "unclear"}),
        ({"experiment": True}, {"remedies": True, "experiments": "always"}),
        ({"experiment": False}, {"remedies": True, "experiments": "never"}),
        ({"cold": True}, {"cold": True, "experiments": "never"}),
        # Until a test fails: a hundred times, unless the user says how often.
        ({"repeat": 3}, {"remedies": True, "experiments": "unclear", "repeat": 3}),
        ({"until_fail": True}, {"remedies": True, "experiments": "unclear", "until_fail": True, "repeat": 100}),
        (
            {"until_fail": True, "repeat": 8},
            {"remedies": True, "experiments": "unclear", "until_fail": True, "repeat": 8},
        ),
    ],
)
def test_options_of_a_run_follow_from_the_request(request_: dict[str, Any], options: dict[str, Any]) -> None:
    assert Request(**request_).options(KNOWN) == RunOptions.model_validate(options)


def test_what_takes_forks_contradicts_cold() -> None:
    with pytest.raises(UsageError, match=r"--remedies and --cold .* each remedy"):
        Request(cold=True, remedies=True).options(KNOWN)
    with pytest.raises(UsageError, match=r"--experiment and --cold .* each change"):
        Request(cold=True, experiment=True).options(KNOWN)


def test_a_preview_does_not_look_up_the_newest_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "list_releases", refuse)
    cells, options = start.preview_run(Request(guests=["debian-13"], variants=["stock"], repeat=3), KNOWN)
    assert [(cell.guest.name, cell.variant.name, cell.build) for cell in cells] == [
        ("debian-13", "stock", builds.ANY)
    ]
    assert options.repeat == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"guests": ["debian-99"]},
        {"variants": ["none"]},
        {"set_name": "none"},
        {"shard": "3"},
        {"rootfs": Path("/none")},
        {"cold": True, "remedies": True},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_request_is_refused_before_a_release_is_looked_up_or_a_folder_is_made(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    monkeypatch.setattr(wheels, "list_releases", refuse)
    with pytest.raises(UsageError):
        start.plan_run(Request(**wrong), KNOWN, paths, None, "lab matrix")
    with pytest.raises(UsageError):
        start.preview_run(Request(**wrong), KNOWN)
    assert not paths.runs.exists()


def test_a_new_run_has_its_own_folder(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    release = Wheel("0.10.8", "0.10.8")
    monkeypatch.setattr(builds, "resolve_builds", lambda _names, **_more: [release])
    monkeypatch.setattr(Wheel, "check", refuse)  # The newest release is known to be there.
    planned = start.plan_run(Request(guests=["debian-13"]), KNOWN, paths, None, "lab matrix -g debian-13")
    assert planned.cells == plan.choose_cells(KNOWN, guests=["debian-13"]).cells([release])
    assert (planned.info.command, planned.info.id) == ("lab matrix -g debian-13", planned.folder.name)
    assert planned.folder.parent == paths.runs
    assert (planned.cells_to_run, planned.complete) == (planned.cells, [])


@pytest.mark.parametrize(
    "more",
    [
        {"cold": True},
        {"repeat": 3},
        {"until_fail": True},
        {"shuffle": 1},
        {"stress": ["cpu"]},
        {"remedies": True},
    ],
)
def test_a_run_that_only_predicts_refuses_what_is_about_suites(more: dict[str, Any]) -> None:
    [name] = more
    with pytest.raises(UsageError, match=f"--predict and --{name.replace('_', '-')} contradict each other"):
        Request(predict=True, **more).options(KNOWN)
    options = Request(predict=True).options(KNOWN)
    assert (options.predict, options.remedies, options.experiments) == (True, False, ExperimentPolicy.NEVER)
