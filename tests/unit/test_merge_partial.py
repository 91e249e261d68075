"""Merging a plan of which shards were lost, and resuming what that makes."""

from pathlib import Path

import pytest

from lab.base.errors import UsageError
from lab.plan import Shard
from lab.record import RunResult, Status
from lab.run import definitions
from lab.run.past import merge
from tests.builders.runs import SMALL, begin, finish, host, names, resume
from tests.unit.test_merge import Shards, runs_of_shards


def without(shards: Shards, *lost: int) -> Shards:
    return [shard for number, shard in enumerate(shards, 1) if number not in lost]


def test_the_cells_of_lost_shards_are_not_run_and_the_run_says_so(tmp_path: Path) -> None:
    run = merge(without(runs_of_shards(tmp_path, 4), 2, 3), tmp_path / "whole", partial=True)
    assert [c.status for c in run.cells] == [Status.PASS, Status.NOT_RUN, Status.NOT_RUN, Status.PASS]
    missing, other = run.cells[1:3]
    assert (missing.guest, missing.variant, missing.build) == ("debian-12", "max-userns-zero", "0.10.8")
    assert (missing.reason, other.reason) == ("shard 2/4 was lost", "shard 3/4 was lost")
    assert missing.expected == SMALL[1].variant.expect
    assert missing.rerun == SMALL[1].rerun(run.run.options)
    assert (run.run.lost_shards, run.run.is_partial) == ([2, 3], True)
    assert run.exit_status() == 3
    assert RunResult.read(tmp_path / "whole") == run


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ([2], "shard 2/4 is missing: 1 of the plan's 4 cells are in none of these runs\n  next: run what"),
        ([1, 2, 4], "shards 1/4, 2/4, 4/4 are missing: 3 of the plan's 4 cells are in none of these runs"),
    ],
)
def test_missing_shards_have_to_be_allowed(tmp_path: Path, lost: list[int], said: str) -> None:
    with pytest.raises(UsageError) as error:
        merge(without(runs_of_shards(tmp_path, 4), *lost), tmp_path / "whole")
    assert str(error.value).startswith(said)
    assert "--partial" in str(error.value)
    assert not (tmp_path / "whole").exists()


def test_shards_without_cells_are_not_missed(tmp_path: Path) -> None:
    shards = [
        (folder, finish(folder, begin(folder, SMALL, shard=shard)))
        for shard in [Shard(number, 9) for number in range(1, 10)]
        if shard.of(SMALL) and (folder := tmp_path / str(shard.number))
    ]
    assert len(shards) < 9
    assert merge(shards, tmp_path / "whole").run.lost_shards == []
    [(first, _), *others] = shards
    assert merge(others, tmp_path / "rest", partial=True).run.lost_shards == [int(first.name)]


def test_a_partial_run_is_resumed_with_the_cells_of_the_lost_shard_alone(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path, 4)
    for _, shard in shards:
        shard.run.host = host(name=shard.run.id)
    merged = merge(without(shards, 3), tmp_path / "whole", partial=True)
    begun = resume(merged)
    assert names(begun) == [cell.name for cell in SMALL]
    assert [cell.name for cell in begun.left] == [SMALL[2].name]
    # Of this guest only one shard knew what it was defined by.
    assert begun.info.definitions == definitions.digests(SMALL, begun.info.options)
    assert [part.id for part in begun.info.merged] == ["shard-1", "shard-2", "shard-4"]
    assert (begun.info.lost_shards, begun.info.is_partial) == ([3], False)


@pytest.mark.parametrize("name", ["guest debian-12", "rule set", "suite jailer", None])
def test_changed_definitions_of_cells_that_stand_are_refused_all_the_same(
    tmp_path: Path, name: str | None
) -> None:
    merged = merge(without(runs_of_shards(tmp_path, 2), 2), tmp_path / "whole", partial=True)
    # Definitions that only the lost shard had are those of today.
    assert "guest debian-13" not in merged.run.definitions
    if name is None:
        assert "guest debian-13" in resume(merged).info.definitions
        return
    merged.run.definitions[name] = "0" * 64
    with pytest.raises(UsageError, match=f"cannot be resumed, changed since: {name}\n"):
        resume(merged)


def test_a_whole_merged_run_is_resumed_where_its_shards_left_off(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    shards[0][1].cells[1].status = Status.ERROR
    shards[1][1].cells[0].unfinished = True
    begun = resume(merge(shards, tmp_path / "whole"))
    assert [cell.name for cell in begun.left] == [SMALL[1].name, SMALL[2].name]
    assert len(begun.kept) == 3
