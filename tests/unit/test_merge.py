import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from lab.base.errors import LabError, UsageError
from lab.plan import Cell, Shard
from lab.record import CellResult, LaneRecord, RunInfo, RunOptions, RunResult, Status
from lab.run import definitions
from lab.run.lanes import Labels
from lab.run.past import merge
from tests.builders.runs import SMALL, begin, finish, host, resume

Shards = list[tuple[Path, RunResult]]


def runs_of_shards(folder: Path, count: int = 2, cells: Sequence[Cell] = SMALL) -> Shards:
    """The shards of a plan, run on one host and ended well."""
    shards = []
    for number in range(1, count + 1):
        shard = folder / f"shard-{number}"
        shards.append((shard, finish(shard, begin(shard, cells, shard=Shard(number, count)))))
    return shards


@pytest.mark.parametrize("count", [1, 2, 4])
def test_merged_shards_are_the_plan_in_its_order_with_their_evidence(tmp_path: Path, count: int) -> None:
    shards = runs_of_shards(tmp_path, count)
    run = merge(shards[::-1], tmp_path / "whole")
    assert [f"{c.guest}/{c.variant}/{c.build}" for c in run.cells] == [cell.name for cell in SMALL]
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
    lanes = [
        LaneRecord(guest=guest, image="1" * 64, fork="memory", seconds={"boot": 20.0})
        for guest in ("debian-12", "debian-13")
    ]
    one.run.lanes, two.run.lanes = lanes[:1], lanes[1:]
    info = merge(shards, tmp_path / "whole").run
    assert (info.id, info.shard, info.merged) == ("whole", None, [one.run, two.run])
    assert (info.started, info.finished) == (begun - timedelta(hours=1), begun + timedelta(hours=3))
    assert info.interrupted
    assert info.lanes == lanes
    assert info.definitions == definitions.digests(SMALL, RunOptions())


def test_cells_and_wheels_of_all_shards_are_taken_as_they_are(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    digests = [{"cp311.whl": "1" * 64, "pytest.whl": "3" * 64}, {"cp313.whl": "2" * 64, "pytest.whl": "3" * 64}]
    for (_, shard), files in zip(shards, digests, strict=True):
        shard.run.builds[0].files = dict(files)
    shards[1][1].cells[0] = SMALL[2].result(Status.NOT_RUN, reason="interrupted")
    # How often faults are tried again does not make another plan.
    shards[1][1].run.options = RunOptions(retries=5)
    run = merge(shards, tmp_path / "whole")
    assert [(c.status, c.reason) for c in run.cells][2] == (Status.NOT_RUN, "interrupted")
    assert [build.files for build in run.run.builds] == [digests[0] | digests[1]]
    assert [shard.run.builds[0].files for _, shard in shards] == digests


def test_the_host_is_kept_only_where_all_lanes_had_the_same(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    for _, shard in shards:
        shard.run.host = host()
    assert merge(shards, tmp_path / "same").run.host == host()
    # A shard that was resumed on another host.
    shards[1][1].run.lanes = [
        LaneRecord(guest="debian-13", image="1" * 64, fork="cold", seconds={}, host=ran_on)
        for ran_on in (host(), host(kernel="6.1"))
    ]
    resumed = merge(shards, tmp_path / "resumed").run
    assert resumed.host is None
    assert resumed.hosts("debian-13") == [host(), host(kernel="6.1")]
    shards[1][1].run.lanes, shards[1][1].run.host = [], host(kernel="6.1")
    other = merge(shards, tmp_path / "other").run
    assert other.host is None
    assert [shard.host for shard in other.merged] == [host(), host(kernel="6.1")]
    assert other.hosts() == [host(), host(kernel="6.1")]


def _other_plan(run: RunInfo) -> None:
    assert run.shard
    run.shard.plan.append("debian-13/userns-clone-off/0.10.8")


def _other_count(run: RunInfo) -> None:
    assert run.shard
    run.shard.count = 3


def _other_options(run: RunInfo) -> None:
    run.options = RunOptions(cold=True)


def _other_definitions(run: RunInfo) -> None:
    run.definitions |= {"seed": "0" * 64, "variant stock": "0" * 64}


def _unknown_rules(run: RunInfo) -> None:
    del run.definitions["rule set"]


def _other_wheel(run: RunInfo) -> None:
    run.builds[0].files = {"boxlite.whl": "1" * 64}


def _no_shard(run: RunInfo) -> None:
    run.shard = None


NOT_THE_SAME = "{1} is not a shard of the same plan as run shard-1: "


@pytest.mark.parametrize(
    ("change", "number", "expected"),
    [
        (_other_plan, 1, NOT_THE_SAME + "another plan"),
        (_other_count, 1, NOT_THE_SAME + "another plan"),
        (_other_options, 1, NOT_THE_SAME + "other options"),
        (_other_definitions, 1, NOT_THE_SAME + "another seed, another variant stock"),
        (_unknown_rules, 1, NOT_THE_SAME + "another rule set"),
        (_other_wheel, 1, NOT_THE_SAME + "another build 0.10.8"),
        (_no_shard, 1, "{1} is not a shard"),
        (_no_shard, 0, "{0} is not a shard"),
        (None, 1, "{0} and {1} overlap: both have debian-12/stock/0.10.8"),
    ],
)
def test_unrelated_runs_are_refused(
    tmp_path: Path, change: Callable[[RunInfo], None] | None, number: int, expected: str
) -> None:
    shards = runs_of_shards(tmp_path)
    shards[0][1].run.builds[0].files = {"boxlite.whl": "0" * 64}
    if change:
        change(shards[number][1].run)
    else:
        shards[1] = shards[0]
    with pytest.raises(UsageError) as error:
        merge(shards, tmp_path / "whole")
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
        merge([first, third, fourth], tmp_path / "whole")


def test_lanes_of_several_shards_have_labels_of_their_own_and_say_what_they_ran_on(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    for number, (_, shard) in enumerate(shards):
        shard.run.host = host(name=f"host-{number}")
        for label in ("debian-13", "debian-13 #2", "debian-13 lsm=yama"):
            shard.run.lanes.append(
                LaneRecord(guest="debian-13", label=label, image=f"{number}" * 64, fork="memory", seconds={})
            )
        shard.cells[0].lane, shard.cells[0].trials_lane = "debian-13", "debian-13 #2"
        # This lane did not come up, so that it has no record.
        shard.cells[1].lane = "debian-13 #3"
    run = merge(shards, tmp_path / "whole")
    assert [(lane.label, lane.image[0], lane.host and lane.host.name) for lane in run.run.lanes] == [
        ("debian-13", "0", "host-0"),
        ("debian-13 #2", "0", "host-0"),
        ("debian-13 lsm=yama", "0", "host-0"),
        ("debian-13 #4", "1", "host-1"),
        ("debian-13 #5", "1", "host-1"),
        ("debian-13 lsm=yama #2", "1", "host-1"),
    ]
    assert [cell.lanes for cell in run.cells] == [
        ("debian-13", "debian-13 #2"),
        ("debian-13 #3", ""),
        ("debian-13 #4", "debian-13 #5"),
        ("debian-13 #6", ""),
    ]
    assert run.run.hosts("debian-13", "debian-13 #5") == [host(name="host-1")]
    # What the shards recorded is as they recorded it.
    assert [part.lanes[1].label for part in run.run.merged] == ["debian-13 #2", "debian-13 #2"]
    assert Labels(run.run.lanes).next("debian-13") == "debian-13 #6"


def test_evidence_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    folder, shard = shards[1]
    gone = shard.cells[0].evidence[0]
    (folder / gone).unlink()
    with pytest.raises(
        LabError, match=f"evidence of {folder} cannot be copied: No such file.*: {gone}"
    ) as error:
        merge(shards, tmp_path / "whole")
    assert error.value.exit_status == 3
    assert not (tmp_path / "whole" / "results.json").exists()
    # It is refused outside of the cell's own folder.
    shard.cells[0].evidence = ["variants/stock.toml"]
    with pytest.raises(UsageError, match=r"evidence outside of the cell's folder: variants/stock\.toml"):
        merge(shards, tmp_path / "other")


def to_file(name: Path, secret: Path) -> None:
    name.symlink_to(secret)


def to_folder(name: Path, secret: Path) -> None:
    name.parent.rename(name.parent.with_name("elsewhere"))
    name.parent.symlink_to(secret.parent)


def pipe(name: Path, _secret: Path) -> None:
    os.mkfifo(name)


@pytest.mark.parametrize("put", [to_file, to_folder, pipe])
def test_no_file_of_the_merging_host_gets_into_the_merged_run(
    tmp_path: Path, put: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    shards = runs_of_shards(tmp_path)
    folder, shard = shards[1]
    [log] = shard.cells[0].evidence
    inner = f"{shard.cells[0].folder}/boxlite/kernel.log"
    shard.cells[0].evidence = [log, inner]
    (folder / inner).parent.mkdir()
    secret = tmp_path / "host" / "kernel.log"
    secret.parent.mkdir()
    secret.write_text("a secret of this host")
    put(folder / inner, secret)
    with caplog.at_level("INFO", "lab.progress"):
        run = merge(shards, tmp_path / "whole")
    assert run.cells[2].evidence == [log]
    assert not (tmp_path / "whole" / inner).exists()
    assert (tmp_path / "whole" / log).is_file()
    [told] = caplog.messages
    assert told.startswith(f"left out: {folder / inner}: it is not ")


def test_a_shard_that_was_resumed_is_merged_as_it_is_now(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    folder, shard = shards[0]
    begun = resume(shard)
    results: list[CellResult] = [begun.kept[cell.folder] for cell in begun.cells]
    shards[0] = folder, RunResult(run=begun.info, cells=results)
    run = merge(shards, tmp_path / "whole")
    assert run.exit_status() == 0
    assert (run.run.resumed, run.run.merged[0].resumed) == ([], begun.info.resumed)
