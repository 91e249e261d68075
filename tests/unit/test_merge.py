import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from lab.base import notices
from lab.base.errors import LabError, UsageError
from lab.merge import merge_shards
from lab.plan import Shard
from lab.record import CellResult, LaneRecord, RunInfo, RunOptions, RunResult, ShardRecord, Status
from lab.run import start
from lab.run.lanes import Labels
from tests.builders.cells import changed
from tests.builders.runs import SMALL, Shards, begin, finish, host, names, resume, runs_of_shards


@pytest.mark.parametrize("count", [1, 2, 4])
def test_merged_shards_are_the_plan_in_its_order_with_their_evidence(tmp_path: Path, count: int) -> None:
    shards = runs_of_shards(tmp_path, count)
    run = merge_shards(shards[::-1], tmp_path / "whole")
    assert [c.name for c in run.cells] == [cell.name for cell in SMALL]
    assert run.cells == [result for _, shard in shards for result in shard.cells]
    for folder, shard in shards:
        for name in (name for result in shard.cells for name in result.evidence):
            assert (tmp_path / "whole" / name).read_text() == (folder / name).read_text()
    assert RunResult.read(tmp_path / "whole") == run
    assert run.exit_status() == 0


def test_a_merged_run_says_what_it_was_made_of(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    (_, one), (_, two) = shards
    begun = one.run.started
    one.run.finished = begun + timedelta(hours=3)
    two.run.started, two.run.finished = begun - timedelta(hours=1), begun + timedelta(hours=2)
    two.run.interrupted = True
    wheels = [{"cp311.whl": "1" * 64, "pytest.whl": "3" * 64}, {"cp313.whl": "2" * 64, "pytest.whl": "3" * 64}]
    one.run.builds[0].files, two.run.builds[0].files = dict(wheels[0]), dict(wheels[1])
    two.cells[0] = SMALL[2].result(Status.NOT_RUN, reason="interrupted")
    # How often faults are tried again does not make another plan.
    two.run.options = RunOptions(retries=5)
    run = merge_shards(shards, tmp_path / "whole")
    info = run.run
    assert (info.id, info.shard, info.merged) == ("whole", None, [one.run, two.run])
    assert (info.started, info.finished) == (begun - timedelta(hours=1), begun + timedelta(hours=3))
    assert info.interrupted
    assert info.definitions == start.compute_digests(SMALL, RunOptions())
    assert [(c.status, c.reason) for c in run.cells][2] == (Status.NOT_RUN, "interrupted")
    assert [build.files for build in info.builds] == [wheels[0] | wheels[1]]
    assert [shard.run.builds[0].files for _, shard in shards] == wheels


def test_the_host_is_kept_only_where_all_lanes_had_the_same(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    for _, shard in shards:
        shard.run.host = host()
    assert merge_shards(shards, tmp_path / "same").run.host == host()
    # A shard that was resumed on another host.
    hosts = [host(), host(kernel="6.1")]
    shards[1][1].run.lanes = [
        LaneRecord(guest="debian-13", image="1" * 64, fork="cold", seconds={}, host=ran_on) for ran_on in hosts
    ]
    resumed = merge_shards(shards, tmp_path / "resumed").run
    assert (resumed.host, resumed.hosts("debian-13")) == (None, hosts)
    shards[1][1].run.lanes, shards[1][1].run.host = [], hosts[1]
    other = merge_shards(shards, tmp_path / "other").run
    assert (other.host, other.hosts()) == (None, hosts)
    assert [shard.host for shard in other.merged] == hosts


NOT_THE_SAME = "{1} is not a shard of the same plan as run shard-1: "
ZEROS = "0" * 64
OTHERS = {"seed": ZEROS, "variant stock": ZEROS}


def of_shard(run: RunInfo) -> ShardRecord:
    assert run.shard
    return run.shard


@pytest.mark.parametrize(
    ("change", "number", "expected"),
    [
        (lambda run: of_shard(run).plan.append("debian-13/x/0.10.8"), 1, NOT_THE_SAME + "another plan"),
        (lambda run: setattr(of_shard(run), "count", 3), 1, NOT_THE_SAME + "another plan"),
        (lambda run: setattr(run, "options", RunOptions(cold=True)), 1, NOT_THE_SAME + "other options"),
        (lambda run: run.definitions.update(OTHERS), 1, NOT_THE_SAME + "another seed, another variant stock"),
        (lambda run: run.definitions.pop("rule set"), 1, NOT_THE_SAME + "another rule set"),
        (lambda run: run.builds[0].files.update({"a.whl": "1"}), 1, NOT_THE_SAME + "another build 0.10.8"),
        (lambda run: setattr(run, "shard", None), 1, "{1} is not a shard"),
        (lambda run: setattr(run, "shard", None), 0, "{0} is not a shard"),
        (None, 1, "{0} and {1} overlap: both have debian-12/stock/0.10.8"),
    ],
)
def test_unrelated_runs_are_refused(
    tmp_path: Path, change: Callable[[RunInfo], object] | None, number: int, expected: str
) -> None:
    shards = runs_of_shards(tmp_path)
    shards[0][1].run.builds[0].files = {"a.whl": ZEROS}
    if change:
        change(shards[number][1].run)
    else:
        shards[1] = shards[0]
    with pytest.raises(UsageError) as error:
        merge_shards(shards, tmp_path / "whole")
    assert expected.format(*[folder for folder, _ in shards]) == str(error.value).splitlines()[0]
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize("kind", ["definition", "wheel"])
def test_later_parts_that_differ_in_what_the_first_does_not_have_are_refused(tmp_path: Path, kind: str) -> None:
    # The first has a cell of debian-12 only, the last two are of debian-13.
    first, _, third, fourth = runs_of_shards(tmp_path, 4)
    if kind == "definition":
        fourth[1].run.definitions["guest debian-13"] = "0" * 64
    else:
        third[1].run.builds[0].files = {"cp313.whl": "1" * 64}
        fourth[1].run.builds[0].files = {"cp313.whl": "2" * 64}
    with pytest.raises(UsageError, match=r"another guest debian-13|another build 0\.10\.8"):
        merge_shards([first, third, fourth], tmp_path / "whole")


def test_lanes_of_several_shards_have_labels_of_their_own_and_say_what_they_ran_on(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    labels = ("debian-13", "debian-13 #2", "debian-13 lsm=yama")
    for number, (_, shard) in enumerate(shards, 1):
        shard.run.host = host(name=f"host-{number}")
        shard.run.lanes = [
            LaneRecord(guest="debian-13", label=label, image=str(number) * 64, fork="memory", seconds={})
            for label in labels
        ]
        shard.cells[0] = changed(shard.cells[0], lane=labels[0], trials_lane=labels[1])
        # This lane did not come up, so that it has no record.
        shard.cells[1] = changed(shard.cells[1], lane="debian-13 #3")
    run = merge_shards(shards, tmp_path / "whole")
    assert [(lane.label, lane.image[0], lane.host and lane.host.name) for lane in run.run.lanes] == [
        (f"{number}/2: {label}", str(number), f"host-{number}") for number in (1, 2) for label in labels
    ]
    assert [(cell.history.lane, cell.history.trials_lane) for cell in run.cells] == [
        ("1/2: debian-13", "1/2: debian-13 #2"),
        ("1/2: debian-13 #3", ""),
        ("2/2: debian-13", "2/2: debian-13 #2"),
        ("2/2: debian-13 #3", ""),
    ]
    assert run.run.hosts("debian-13", "2/2: debian-13 #2") == [host(name="host-2")]
    # What the shards recorded is as they recorded it, and further lanes have labels of their own.
    assert [part.lanes[1].label for part in run.run.merged] == ["debian-13 #2", "debian-13 #2"]
    assert Labels(run.run.lanes).next("debian-13") == "debian-13"


def test_evidence_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    folder, shard = shards[1]
    gone = shard.cells[0].evidence[0]
    (folder / gone).unlink()
    with pytest.raises(
        LabError, match=f"evidence of {folder} cannot be copied: No such file.*: {gone}"
    ) as error:
        merge_shards(shards, tmp_path / "whole")
    assert error.value.exit_status == 3
    assert not (tmp_path / "whole" / "results.json").exists()
    # It is refused outside of the cell's own folder.
    shard.cells[0] = changed(shard.cells[0], evidence=["variants/stock.toml"])
    with pytest.raises(UsageError, match=r"evidence outside of the cell's folder: variants/stock\.toml"):
        merge_shards(shards, tmp_path / "other")


@pytest.mark.parametrize("kind", ["a link", "below a link", "a pipe"])
def test_no_file_of_this_host_gets_into_it(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = runs_of_shards(tmp_path)
    folder, shard = shards[1]
    [log] = shard.cells[0].evidence
    inner = f"{shard.cells[0].folder}/boxlite/kernel.log"
    shard.cells[0] = changed(shard.cells[0], evidence=[log, inner])
    secret = tmp_path / "host" / "kernel.log"
    secret.parent.mkdir()
    secret.write_text("a secret of this host")
    file = folder / inner
    if kind == "below a link":
        file.parent.symlink_to(secret.parent)
    else:
        file.parent.mkdir()
    if kind == "a link":
        file.symlink_to(secret)
    elif kind == "a pipe":
        os.mkfifo(file)
    lines: list[str] = []
    monkeypatch.setattr(notices, "listener", lines.append)
    run = merge_shards(shards, tmp_path / "whole")
    assert run.cells[2].evidence == [log]
    assert not (tmp_path / "whole" / inner).exists()
    assert (tmp_path / "whole" / log).is_file()
    [line] = lines
    assert line.startswith(f"left out: {file}: it is not ")


def test_a_shard_that_was_resumed_is_merged_as_it_is_now(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    folder, shard = shards[0]
    begun = resume(shard)
    results: list[CellResult] = [begun.earlier_results[cell.folder] for cell in begun.cells]
    shards[0] = folder, RunResult(run=begun.info, cells=results)
    run = merge_shards(shards, tmp_path / "whole")
    assert run.exit_status() == 0
    assert (run.run.resumed, run.run.merged[0].resumed) == ([], begun.info.resumed)


# -- a plan with lost shards


def without(shards: Shards, *lost: int) -> Shards:
    return [shard for number, shard in enumerate(shards, 1) if number not in lost]


def test_the_cells_of_lost_shards_are_not_run_and_the_run_says_so(tmp_path: Path) -> None:
    run = merge_shards(without(runs_of_shards(tmp_path, 4), 2, 3), tmp_path / "whole", partial=True)
    assert [c.status for c in run.cells] == [Status.PASS, Status.NOT_RUN, Status.NOT_RUN, Status.PASS]
    missing, other = run.cells[1:3]
    assert (missing.guest, missing.variant, missing.build) == ("debian-12", "max-userns-zero", "0.10.8")
    assert (missing.reason, other.reason) == ("shard 2/4 was lost", "shard 3/4 was lost")
    assert missing.expected == SMALL[1].variant.expect
    assert missing.rerun == SMALL[1].rerun(run.run.options)
    assert (run.run.lost_shards, run.run.is_partial) == ([2, 3], True)
    assert run.exit_status() == 3
    assert RunResult.read(tmp_path / "whole") == run


def test_missing_shards_have_to_be_allowed(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        merge_shards(without(runs_of_shards(tmp_path, 4), 1, 2, 4), tmp_path / "whole")
    assert str(error.value).startswith("shards 1/4, 2/4, 4/4 are missing: 3 of the plan's 4 cells are in none")
    assert "--partial" in str(error.value)
    assert not (tmp_path / "whole").exists()


def test_shards_without_cells_are_not_missed(tmp_path: Path) -> None:
    shards = [
        (folder, finish(folder, begin(folder, SMALL, shard=shard)))
        for shard in [Shard(number, 9) for number in range(1, 10)]
        if shard.of(SMALL) and (folder := tmp_path / str(shard.number))
    ]
    assert len(shards) < 9
    assert merge_shards(shards, tmp_path / "whole").run.lost_shards == []
    [(first, _), *others] = shards
    assert merge_shards(others, tmp_path / "rest", partial=True).run.lost_shards == [int(first.name)]


def test_a_partial_run_is_resumed_with_the_cells_of_the_lost_shard_alone(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path, 4)
    for _, shard in shards:
        shard.run.host = host(name=shard.run.id)
    merged = merge_shards(without(shards, 3), tmp_path / "whole", partial=True)
    begun = resume(merged)
    assert names(begun) == [cell.name for cell in SMALL]
    assert [cell.name for cell in begun.cells_to_run] == [SMALL[2].name]
    # Of this guest only one shard knew what it was defined by.
    assert begun.info.definitions == start.compute_digests(SMALL, begun.info.options)
    assert [part.id for part in begun.info.merged] == ["shard-1", "shard-2", "shard-4"]
    assert (begun.info.lost_shards, begun.info.is_partial) == ([3], False)


def test_changed_definitions_of_cells_that_stand_are_refused_all_the_same(tmp_path: Path) -> None:
    merged = merge_shards(without(runs_of_shards(tmp_path, 2), 2), tmp_path / "whole", partial=True)
    # Definitions that only the lost shard had are those of today.
    assert "guest debian-13" not in merged.run.definitions
    assert "guest debian-13" in resume(merged).info.definitions
    for name in ("guest debian-12", "rule set", "suite jailer"):
        definitions = merged.run.definitions | {name: "0" * 64}
        changed = merged.run.model_copy(update={"definitions": definitions})
        with pytest.raises(UsageError, match=f"cannot be resumed, changed since: {name}\n"):
            resume(RunResult(run=changed, cells=merged.cells))


def test_a_whole_merged_run_is_resumed_where_its_shards_left_off(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    shards[0][1].cells[1] = changed(shards[0][1].cells[1], status=Status.ERROR)
    shards[1][1].cells[0] = changed(shards[1][1].cells[0], unfinished=True)
    begun = resume(merge_shards(shards, tmp_path / "whole"))
    assert [cell.name for cell in begun.cells_to_run] == [SMALL[1].name, SMALL[2].name]
    assert len(begun.earlier_results) == 3
