import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab import builds, catalog, plan, remedies
from lab.base import paths
from lab.base.errors import LabError, UsageError
from lab.builds import Build, pip, rootfs
from lab.builds.kinds.wheel import Wheel
from lab.catalog import loading, suite
from lab.images import debian
from lab.knobs.sysctl import Sysctl
from lab.plan import Cell, Shard
from lab.record import (
    CellResult,
    Experiment,
    ExperimentPolicy,
    ExperimentStep,
    Host,
    LaneRecord,
    RemedyOutcome,
    RemedyResult,
    RunOptions,
    RunResult,
    Status,
    StepOutcome,
)
from lab.run import definitions, start
from lab.run.merge import merge
from tests.unit.examples import cell, run_of

KNOWN = catalog.load()
RELEASE = Wheel("0.10.8", "0.10.8")
OTHER = Sysctl({"a.b": 1})
VARIANTS = ["stock", "max-userns-zero", "userns-clone-off", "apparmor-userns-deny"]
# One cell for each status that there is.
PLAN = plan.choose(KNOWN, guests=["debian-12", "debian-13"], variants=VARIANTS).cells([RELEASE])
# Two guests, four cells: a shard of four has one cell each.
SMALL = plan.choose(KNOWN, guests=["debian-12", "debian-13"], variants=VARIANTS[:2]).cells([RELEASE])


def begin(
    folder: Path,
    cells: Sequence[Cell] = PLAN,
    *,
    options: RunOptions | None = None,
    shard: Shard | None = None,
) -> start.PlannedRun:
    options = options or RunOptions()
    return start.begin(folder, cells, command="lab matrix", options=options, shard=shard)


def resume(run: RunResult, known: catalog.Catalog = KNOWN) -> start.PlannedRun:
    return start.resume(Path("run"), run, known)


def finish(folder: Path, begun: start.PlannedRun, statuses: Sequence[Status] = ()) -> RunResult:
    """A run as it is on disk after it ended, each cell with a file of evidence. Without statuses all pass."""
    cells = []
    for number, each in enumerate(begun.cells):
        status = statuses[number] if statuses else Status.PASS
        log = each.folder / "kernel.log"
        (folder / each.folder).mkdir(parents=True)
        (folder / log).write_text(f"{folder.name} {each.name}\n")
        # Seconds that no other cell has: a result that stands is known by them.
        more = {"evidence": [str(log)], "seconds": {"suite": float(number)}}
        cells.append(each.result(status).model_copy(update=more))
    info = begun.info.model_copy(update={"finished": datetime.now(UTC)})
    RunResult(run=info, cells=cells).write(folder)
    return RunResult.read(folder)


def make_wheel(path: Path, content: str = "") -> Build:
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("boxlite/__init__.py", content)
    return builds.resolve(str(path))


def names(begun: start.PlannedRun) -> list[str]:
    return [each.name for each in begun.cells]


# -- definitions


def changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return sorted(name for name in before | now if before.get(name) != now.get(name))


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the suites and of `cloud-init/` that the lab takes for its own."""
    shutil.copytree(paths.PACKAGE / "suites", tmp_path / "suites")
    shutil.copytree(paths.definitions() / "cloud-init", tmp_path / "cloud-init")
    monkeypatch.setattr(suite, "PACKAGE", tmp_path)
    monkeypatch.setattr(loading, "PACKAGE", tmp_path)
    monkeypatch.setattr(paths, "definitions", lambda: tmp_path)
    return tmp_path


def test_definitions_are_those_of_the_cells_and_no_others() -> None:
    found = definitions.digests(SMALL[2:3], RunOptions())
    assert set(found) == {"guest debian-13", "variant stock", "suite jailer", "seed", "programs"}
    assert found.items() <= definitions.digests(PLAN, RunOptions()).items()
    assert len(set(found.values())) == 5


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda c: replace(c, guest=c.guest.model_copy(update={"memory_mib": 4096})), "guest debian-13"),
        (
            lambda c: replace(c, variant=c.variant.model_copy(update={"sysctl": OTHER})),
            "variant stock",
        ),
    ],
)
def test_a_changed_definition_changes_its_digest_alone(change: Callable[[Cell], Cell], name: str) -> None:
    [wanted] = SMALL[2:3]
    before, now = (definitions.digests([each], RunOptions()) for each in (wanted, change(wanted)))
    assert changed(before, now) == [name]


def test_remedies_are_definitions_of_a_run_that_tries_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = RunOptions(remedies=True)
    before = definitions.digests(SMALL, tries)
    without = definitions.digests(SMALL, RunOptions())
    known = remedies.load()
    assert changed(without, before) == sorted(f"remedy {name}" for name in known)
    other = known["jailer-off"].model_copy(update={"price": "nothing at all"})
    monkeypatch.setattr(remedies, "load", lambda: {**known, "jailer-off": other, "new": known["preflight"]})
    after = definitions.digests(SMALL, tries)
    assert changed(before, after) == ["remedy jailer-off", "remedy new"]


def test_every_variant_is_a_definition_of_a_run_that_makes_experiments() -> None:
    without = definitions.digests(SMALL, RunOptions())
    made = definitions.digests(SMALL, RunOptions(experiments=ExperimentPolicy.UNCLEAR))
    of_cells = {each.variant.name for each in SMALL}
    assert changed(without, made) == sorted(f"variant {name}" for name in KNOWN.variants.keys() - of_cells)


def test_another_way_to_build_images_changes_every_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = definitions.digests(SMALL, RunOptions())
    monkeypatch.setattr(debian, "PACKAGES", (*debian.PACKAGES, "vim"))
    assert changed(before, definitions.digests(SMALL, RunOptions())) == [
        "guest debian-12",
        "guest debian-13",
    ]


SUITE_FILES = sorted(f.name for f in KNOWN.suite.folder.iterdir() if f.is_file())
SEED_FILES = sorted(f.name for f in (paths.definitions() / "cloud-init").iterdir() if f.is_file())


@pytest.mark.parametrize(
    ("file", "name"),
    [(f"suites/jailer/{file}", "suite jailer") for file in [*SUITE_FILES, "new.py"]]
    + [(f"cloud-init/{file}", "seed") for file in SEED_FILES],
)
def test_a_changed_file_of_the_suite_or_the_seed_is_seen(own_files: Path, file: str, name: str) -> None:
    before = definitions.digests(SMALL, RunOptions())
    with (own_files / file).open("a") as stream:
        stream.write("# changed\n")
    assert changed(before, definitions.digests(SMALL, RunOptions())) == [name]


def test_a_renamed_file_of_the_suite_is_seen_and_what_python_leaves_there_is_not(own_files: Path) -> None:
    before = definitions.digests(SMALL, RunOptions())
    suite = own_files / "suites" / "jailer"
    (suite / "__pycache__").mkdir(exist_ok=True)
    (suite / "__pycache__" / "boxes.cpython-313.pyc").write_bytes(b"\xff")
    assert definitions.digests(SMALL, RunOptions()) == before
    (suite / "boxes.py").rename(suite / "boxez.py")
    assert changed(before, definitions.digests(SMALL, RunOptions())) == ["suite jailer"]


# -- begin


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


# -- resume


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
    assert run.cells[index].before_trials().remedies == []


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


def test_a_run_from_before_definitions_were_kept_is_refused() -> None:
    run = run_of(cell())
    run.run.builds = [RELEASE.record()]
    with pytest.raises(
        UsageError, match="changed since: guest debian-13, programs, seed, suite jailer, variant stock"
    ):
        resume(run)


def test_guests_and_variants_that_are_gone_are_named(tmp_path: Path) -> None:
    run = finish(tmp_path, begin(tmp_path, SMALL))
    with pytest.raises(UsageError, match="no guest is called 'debian-12'"):
        resume(run, replace(KNOWN, guests={"debian-13": KNOWN.guest("debian-13")}))
    with pytest.raises(UsageError, match="no variant is called 'max-userns-zero'"):
        resume(run, replace(KNOWN, variants={"stock": KNOWN.variant("stock")}))


def test_a_local_wheel_is_found_again_and_a_release_stays_the_one_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = make_wheel(tmp_path / "boxlite-0.10.8-py3-none-any.whl")
    cells = [*SMALL, *(replace(each, build=local) for each in SMALL)]
    run = finish(tmp_path / "run", begin(tmp_path / "run", cells))
    monkeypatch.setattr(pip, "newest", lambda: "99.0")
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


def test_a_resumed_run_has_its_root_file_system_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"static")
    monkeypatch.setattr(rootfs, "find_busybox", lambda: busybox)
    first = rootfs.make(tmp_path / "run" / "rootfs")
    # The folder of a run is the same when the run is resumed.
    assert rootfs.check(rootfs.make(first)) == first


# -- merge

Shards = list[tuple[Path, RunResult]]


def runs_of_shards(folder: Path, count: int = 2, cells: Sequence[Cell] = SMALL) -> Shards:
    """The shards of a plan, run on one host and ended well."""
    shards = []
    for number in range(1, count + 1):
        shard = folder / f"shard-{number}"
        shards.append((shard, finish(shard, begin(shard, cells, shard=Shard(number, count)))))
    return shards


def host(**more: str) -> Host:
    words = {"libvirt": "11.3.0", "qemu": "10.0.0", "connect": "qemu:///system", "acceleration": "kvm"}
    words |= {"kernel": "6.12", "system": "Debian", "acceleration_reason": "", **more}
    return Host(cpus=2, memory_mib=24000, **words)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_merged_shards_are_the_plan_in_its_order_with_their_evidence(tmp_path: Path, count: int) -> None:
    shards = runs_of_shards(tmp_path, count)
    run = merge(shards[::-1], tmp_path / "whole")
    assert [f"{c.guest}/{c.variant}/{c.build}" for c in run.cells] == [each.name for each in SMALL]
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


def test_a_cell_that_is_in_no_part_is_not_run(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path, 4)
    run = merge([shards[0], *shards[2:]], tmp_path / "whole")
    assert [c.status for c in run.cells] == [Status.PASS, Status.NOT_RUN, Status.PASS, Status.PASS]
    missing = run.cells[1]
    assert (missing.guest, missing.variant, missing.build) == ("debian-12", "max-userns-zero", "0.10.8")
    assert (missing.reason, missing.expected) == ("in none of the merged shards", SMALL[1].variant.expect)
    assert run.exit_status() == 3


def test_what_could_not_run_in_its_part_is_taken_as_it_is(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    shards[1][1].cells[0] = SMALL[2].result(Status.NOT_RUN, reason="interrupted")
    run = merge(shards, tmp_path / "whole")
    assert [(c.status, c.reason) for c in run.cells][2] == (Status.NOT_RUN, "interrupted")


def test_the_host_is_kept_only_where_all_parts_have_the_same(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    for _, shard in shards:
        shard.run.host = host()
    assert merge(shards, tmp_path / "same").run.host == host()
    shards[1][1].run.host = host(kernel="6.1")
    other = merge(shards, tmp_path / "other").run
    assert other.host is None
    assert [shard.host for shard in other.merged] == [host(), host(kernel="6.1")]


def test_the_wheels_of_all_parts_are_kept(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    digests = [{"cp311.whl": "1" * 64, "pytest.whl": "3" * 64}, {"cp313.whl": "2" * 64, "pytest.whl": "3" * 64}]
    for (_, shard), files in zip(shards, digests, strict=True):
        shard.run.builds[0].files = dict(files)
    [build] = merge(shards, tmp_path / "whole").run.builds
    assert build.files == digests[0] | digests[1]
    assert [shard.run.builds[0].files for _, shard in shards] == digests


def test_how_often_faults_were_tried_again_does_not_make_another_plan(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    shards[1][1].run.options = RunOptions(retries=5)
    assert merge(shards, tmp_path / "whole").exit_status() == 0


def _other_plan(shards: Shards) -> None:
    assert shards[1][1].run.shard
    shards[1][1].run.shard.plan.append("debian-13/userns-clone-off/0.10.8")


def _other_count(shards: Shards) -> None:
    assert shards[1][1].run.shard
    shards[1][1].run.shard.count = 3


def _other_options(shards: Shards) -> None:
    shards[1][1].run.options = RunOptions(cold=True)


def _other_definitions(shards: Shards) -> None:
    shards[1][1].run.definitions |= {"seed": "0" * 64, "variant stock": "0" * 64}


def _other_wheel(shards: Shards) -> None:
    for number, (_, shard) in enumerate(shards):
        shard.run.builds[0].files = {"boxlite.whl": str(number) * 64}


def _second_is_no_shard(shards: Shards) -> None:
    shards[1][1].run.shard = None


def _first_is_no_shard(shards: Shards) -> None:
    shards[0][1].run.shard = None


def _the_same_twice(shards: Shards) -> None:
    shards[1] = shards[0]


NOT_THE_SAME = "{1} is not a shard of the same plan as run shard-1: "


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_other_plan, NOT_THE_SAME + "another plan"),
        (_other_count, NOT_THE_SAME + "another plan"),
        (_other_options, NOT_THE_SAME + "other options"),
        (_other_definitions, NOT_THE_SAME + "another seed, another variant stock"),
        (_other_wheel, NOT_THE_SAME + "another build 0.10.8"),
        (_second_is_no_shard, "{1} is not a shard"),
        (_first_is_no_shard, "{0} is not a shard"),
        (_the_same_twice, "{0} and {1} overlap: both have debian-12/stock/0.10.8"),
    ],
)
def test_what_does_not_belong_together_is_refused_and_nothing_is_written(
    tmp_path: Path, change: Callable[[Shards], None], expected: str
) -> None:
    shards = runs_of_shards(tmp_path)
    change(shards)
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


def test_a_merged_run_is_neither_resumed_nor_merged_again(tmp_path: Path) -> None:
    merged = merge(runs_of_shards(tmp_path), tmp_path / "whole")
    with pytest.raises(UsageError, match="run whole was merged from other runs"):
        resume(merged)
    with pytest.raises(UsageError, match="whole is not a shard"):
        merge([(tmp_path / "whole", merged)], tmp_path / "again")


def test_evidence_that_is_gone_is_named(tmp_path: Path) -> None:
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


def test_a_shard_that_was_resumed_is_merged_as_it_is_now(tmp_path: Path) -> None:
    shards = runs_of_shards(tmp_path)
    folder, shard = shards[0]
    begun = resume(shard)
    results: list[CellResult] = [begun.kept[each.folder] for each in begun.cells]
    shards[0] = folder, RunResult(run=begun.info, cells=results)
    run = merge(shards, tmp_path / "whole")
    assert run.exit_status() == 0
    assert run.run.merged[0].resumed == begun.info.resumed
