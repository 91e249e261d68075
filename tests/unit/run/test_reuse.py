"""Which cells of a new run an earlier one has decided already, and what is taken over of these."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.images.store import DISK, KERNEL, PACKAGES, BaseImage, StoredFile
from lab.plan import Cell, PlannedRun
from lab.record import (
    CellResult,
    Expectation,
    Experiment,
    ExperimentPolicy,
    KeptFrom,
    LaneRecord,
    RemedyOutcome,
    RemedyResult,
    RunOptions,
    RunResult,
    Status,
)
from lab.report.site.publish import publish_site
from lab.run import reuse
from lab.run.reuse import EarlierRun, EarlierRuns, Judgement, describe_judgements, read_earlier
from tests.builders.cells import changed
from tests.builders.facts import facts
from tests.builders.guests import base_image
from tests.builders.processes import ONE_CELL, RunLab
from tests.builders.runs import RELEASE, SMALL, begin, finish, host

CELL = SMALL[0]
FAILED: dict[str, Any] = {"status": Status.XFAIL, "cause": "userns-limit"}


def image(packages: str = "1", kernel: str = "2", disk: str = "3") -> BaseImage:
    """An image that the lab built, with the digests of its files, each as one digit."""
    sha256s = {PACKAGES: packages * 64, KERNEL: kernel * 64, DISK: disk * 64}
    files = {name: StoredFile(sha256=sha256, size=1, modified_ns=1) for name, sha256 in sha256s.items()}
    built = base_image(Path("image"))
    manifest = built.manifest.model_copy(update={"files": files, "disk_sha256": disk * 64})
    return replace(built, manifest=manifest)


IMAGE = image()


def run_before(folder: Path, paths: Paths, options: RunOptions | None = None, **more: Any) -> EarlierRun:
    """An earlier run of SMALL on an image that the lab built; `more` is what each of its results has."""
    lanes = [
        LaneRecord(
            guest=guest,
            label=guest,
            host=host(),
            image="3" * 64,
            packages="1" * 64,
            kernel="2" * 64,
            fork="memory",
            seconds={},
        )
        for guest in ("debian-12", "debian-13")
    ]
    run = finish(folder, begin(folder, SMALL, options=options))
    files = [build.with_values(files={"boxlite.whl": "4" * 64}) for build in run.run.builds]
    told = {"facts": facts()} | more
    cells = [changed(cell, **({"lane": cell.guest} | told)) for cell in run.cells]
    RunResult(run=run.run.with_values(lanes=lanes, builds=files), cells=cells).write(folder)
    return read_earlier(folder, paths, None).runs[0]


def judge(
    earlier: EarlierRun,
    cell: Cell = CELL,
    *,
    base: BaseImage | None = IMAGE,
    options: RunOptions | None = None,
    definitions: Mapping[str, str] | None = None,
) -> Judgement:
    known = begin(Path("new"), [cell], options=options).info
    runs = EarlierRuns([earlier], Paths.default())
    return runs.judge_cell(cell, {**known.definitions, **(definitions or {})}, known.options, base)


def test_a_cell_is_kept_as_long_as_nothing_that_decides_it_changes(tmp_path: Path, paths: Paths) -> None:
    earlier = run_before(tmp_path / "one", paths)
    judged = judge(earlier)
    assert judged.reason == f"kept: run one of {earlier.run.run.started:%Y-%m-%d}"
    assert judged.kept is not None
    assert judged.kept.history.kept == KeptFrom(run="one", began=earlier.run.run.started)
    assert judged.kept.history.lane == "one: debian-12"
    # Another disk of the same packages is the same image.
    assert judge(earlier, base=image(disk="9")).kept == judged.kept


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("suite jailer", "suite"),
        ("guest debian-12", "guest"),
        ("variant stock", "variant"),
        ("programs", "code (programs)"),
        ("seed", "code (seed)"),
        ("rule set", "code (rule set)"),
        ("deployment", "code (deployment)"),
    ],
)
def test_the_part_that_changed_is_named(tmp_path: Path, paths: Paths, name: str, part: str) -> None:
    earlier = run_before(tmp_path / "one", paths)
    judged = judge(earlier, definitions={name: "0" * 64})
    assert (judged.reason, judged.kept) == (f"differs: {part}", None)


def test_a_cell_that_should_do_something_else_now_is_run(tmp_path: Path, paths: Paths) -> None:
    blocked = Expectation(status="xfail", cause="userns-limit")
    assert judge(run_before(tmp_path / "one", paths, expected=blocked)).reason == "differs: variant"


def test_what_another_guest_or_variant_is_made_of_changes_nothing(tmp_path: Path, paths: Paths) -> None:
    earlier = run_before(tmp_path / "one", paths)
    others = dict.fromkeys(["guest debian-13", "variant max-userns-zero", "suite volumes"], "0" * 64)
    assert judge(earlier, definitions=others).kept


def test_another_image_kernel_or_build_is_named(tmp_path: Path, paths: Paths) -> None:
    earlier = run_before(tmp_path / "one", paths)
    assert judge(earlier, base=image(packages="9")).reason == "differs: image"
    assert judge(earlier, base=image(kernel="9")).reason == "differs: kernel"
    assert judge(earlier, base=image("9", "9")).reason == "differs: image, kernel"
    newer = replace(CELL, build=replace(RELEASE, name="0.10.9", version="0.10.9"))
    assert judge(earlier, newer).reason == "differs: build"
    renewed = replace(CELL, build=replace(RELEASE, version="0.10.8+mine"))
    assert judge(earlier, renewed).reason == "differs: build"


def test_a_guest_without_an_image_is_known_to_differ_or_not_known(tmp_path: Path, paths: Paths) -> None:
    earlier = run_before(tmp_path / "one", paths)
    assert judge(earlier, base=None).reason == "image not known before it is built"
    assert judge(earlier, base=None, definitions={"programs": "0" * 64}).reason == "differs: code (programs)"


def test_a_run_that_recorded_no_packages_keeps_nothing_and_says_so(tmp_path: Path, paths: Paths) -> None:
    earlier = run_before(tmp_path / "one", paths)
    run = earlier.run
    lanes = [lane.with_values(packages="", kernel="") for lane in run.run.lanes]
    builds = [build.with_values(digest="") for build in run.run.builds]
    old = replace(earlier, run=RunResult(run=run.run.with_values(lanes=lanes, builds=builds), cells=run.cells))
    assert judge(old).reason == "not kept: that run did not record build, image, kernel"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"status": Status.FLAKY}, "it was flaky"),
        ({"status": Status.ERROR}, "it was error"),
        ({"status": Status.NOT_RUN}, "it was not-run"),
        ({"status": Status.NOT_APPLICABLE, "facts": None}, "no guest decided it"),
        (FAILED | {"unfinished": True}, "its trials did not end"),
        ({"bug": True}, "its trials did not end"),
    ],
)
def test_what_decided_nothing_is_never_kept(
    tmp_path: Path, paths: Paths, told: dict[str, Any], reason: str
) -> None:
    assert judge(run_before(tmp_path / "one", paths, **told)).reason == f"not kept: {reason}"


def test_what_does_not_apply_to_a_guest_is_kept(tmp_path: Path, paths: Paths) -> None:
    assert judge(run_before(tmp_path / "one", paths, status=Status.NOT_APPLICABLE)).kept


def test_fewer_repeats_than_asked_for_may_be_chance(tmp_path: Path, paths: Paths) -> None:
    earlier = run_before(tmp_path / "one", paths, RunOptions(repeat=3))
    assert judge(earlier).kept
    assert judge(earlier, options=RunOptions(repeat=3)).kept
    assert judge(earlier, options=RunOptions(repeat=10)).reason == (
        "not kept: it was repeated 3 times, and 10 are asked for"
    )
    # The order of its tests decides, too.
    assert judge(earlier, options=RunOptions(shuffle=7)).reason == "differs: options"


def test_only_a_failed_cell_depends_on_remedies(tmp_path: Path, paths: Paths) -> None:
    asked = RunOptions(remedies=True)
    passed = run_before(tmp_path / "passed", paths)
    assert judge(passed, options=asked).kept
    # What was not tried there has to be tried now.
    assert judge(run_before(tmp_path / "untried", paths, **FAILED), options=asked).reason.startswith(
        "differs: options"
    )
    cure = RemedyResult(name="userns-limit-raise", result=RemedyOutcome.VERIFIED, price="none")
    tried = run_before(tmp_path / "tried", paths, asked, remedies=[cure], **FAILED)
    assert judge(tried, options=asked).kept
    assert judge(tried, options=asked, definitions={"remedy of-today": "0" * 64}).reason == "differs: remedies"


def test_an_experiment_depends_on_every_variant(tmp_path: Path, paths: Paths) -> None:
    asked = RunOptions(experiments=ExperimentPolicy.UNCLEAR)
    none = run_before(tmp_path / "none", paths, asked)
    with_one = run_before(tmp_path / "one", paths, asked, experiment=Experiment(tests=["starts"]), **FAILED)
    new = {"variant of-today": "0" * 64}
    assert judge(none, options=asked, definitions=new).kept
    assert judge(with_one, options=asked).kept
    assert judge(with_one, options=asked, definitions=new).reason == "differs: variant"


def test_what_is_older_than_asked_is_run_again(tmp_path: Path, paths: Paths) -> None:
    earlier = run_before(tmp_path / "one", paths)
    began = datetime.now(UTC) - timedelta(days=8)
    old = RunResult(run=earlier.run.run.with_values(started=began), cells=earlier.run.cells)
    assert judge(replace(earlier, run=old, fresh=9 * 86400.0)).kept
    assert judge(replace(earlier, run=old, fresh=7 * 86400.0)).reason == (
        f"older than --fresh: run one of {began:%Y-%m-%d}"
    )


def keep(earlier: EarlierRun, folder: Path, cells: list[Cell]) -> PlannedRun:
    planned = begin(folder, cells)
    return EarlierRuns([earlier], Paths.default()).keep(planned, [judge(earlier, cell) for cell in cells])


def test_a_kept_cell_brings_its_evidence_its_lane_and_the_files_of_its_build(
    tmp_path: Path, paths: Paths
) -> None:
    earlier = run_before(tmp_path / "one", paths)
    planned = keep(earlier, tmp_path / "two", SMALL)
    assert planned.cells_to_run == []
    kept = planned.earlier_results[CELL.folder]
    assert [(tmp_path / "two" / file).read_text() for file in kept.evidence] == [f"one {CELL.name}\n"]
    assert [(lane.label, lane.host) for lane in planned.info.lanes] == [
        ("one: debian-12", host()),
        ("one: debian-13", host()),
    ]
    assert planned.info.builds[0].files == {"boxlite.whl": "4" * 64}
    assert kept.rerun == CELL.rerun(RunOptions())


def test_what_was_kept_twice_names_the_run_that_ran_it(tmp_path: Path, paths: Paths) -> None:
    first = run_before(tmp_path / "one", paths)
    second = keep(first, tmp_path / "two", SMALL)
    results = list(second.earlier_results.values())
    RunResult(run=second.info, cells=results).write(second.folder)
    third = keep(read_earlier(second.folder, paths, None).runs[0], tmp_path / "three", [CELL])
    kept = third.earlier_results[CELL.folder]
    assert kept.history.kept == KeptFrom(run="one", began=first.run.run.started)
    assert [lane.label for lane in third.info.lanes] == [kept.history.lane] == ["one: debian-12"]


def test_reasons_are_counted(tmp_path: Path, paths: Paths) -> None:
    judged = [Judgement(SMALL[0], "kept: x"), Judgement(SMALL[3], "kept: x"), Judgement(SMALL[1], "not there")]
    assert describe_judgements(judged) == [
        "2 cells of debian-12, debian-13: kept: x",
        "1 cell of debian-12: not there",
    ]


def test_a_run_that_only_predicted_has_no_results(tmp_path: Path, paths: Paths) -> None:
    folder = tmp_path / "one"
    finish(folder, begin(folder, SMALL, options=RunOptions(predict=True)))
    with pytest.raises(UsageError, match="that run only predicted"):
        read_earlier(folder, paths, None)


# -- from a site


def test_a_site_has_what_a_later_run_can_keep(tmp_path: Path, paths: Paths) -> None:
    run_before(tmp_path / "one", paths)
    site = publish_site([tmp_path / "one"], tmp_path / "site").parent
    [earlier] = read_earlier(site, paths, None).runs
    kept = keep(earlier, tmp_path / "two", SMALL).earlier_results[CELL.folder]
    assert kept.history.kept is not None
    assert kept.history.kept.run == "one"
    assert [(tmp_path / "two" / file).read_text() for file in kept.evidence] == [f"one {CELL.name}\n"]
    # The names of hosts stay at home.
    [lane, _] = earlier.run.run.lanes
    assert lane.host is not None
    assert lane.host.name == "host 1"


def test_of_each_cell_a_site_has_the_result_that_it_shows(tmp_path: Path, paths: Paths) -> None:
    run_before(tmp_path / "one", paths)
    finish(tmp_path / "two", begin(tmp_path / "two", SMALL[:2]))
    site = publish_site([tmp_path / "one", tmp_path / "two"], tmp_path / "site").parent
    runs = {earlier.run.run.id: list(earlier.results) for earlier in read_earlier(site, paths, None).runs}
    assert runs == {
        "one": [cell.folder for cell in SMALL[2:]],
        "two": [cell.folder for cell in SMALL[:2]],
    }


def test_a_site_without_records_or_with_damaged_ones_is_refused(tmp_path: Path, paths: Paths) -> None:
    run_before(tmp_path / "one", paths)
    site = publish_site([tmp_path / "one"], tmp_path / "site").parent
    places = site / "records/one/evidence.json"
    places.write_text(json.dumps({"places": {"cells/x": "../../etc/passwd"}}))
    with pytest.raises(UsageError, match=r"places.cells/x: .*expected where the site has evidence"):
        read_earlier(site, paths, None)
    record = places.with_name("results.json")
    record.write_text(record.read_text().replace('"schema":3', '"schema":2'))
    with pytest.raises(UsageError, match="has version 2 of its format, and this lab, "):
        read_earlier(site, paths, None)
    shutil.rmtree(site / "records")
    with pytest.raises(UsageError, match="that site holds no records of its runs"):
        read_earlier(site, paths, None)


# -- through the command line


def cells_of(folder: Path) -> list[CellResult]:
    return RunResult.read(folder).cells


@pytest.fixture
def stored_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "find_ready_image", lambda _paths, _guest: IMAGE)


@pytest.mark.usefixtures("releases", "stored_image")
def test_a_second_run_keeps_what_the_first_decided(
    home: Path, tmp_path: Path, passing: list[str], run_lab: RunLab
) -> None:
    earlier = run_before(tmp_path / "one", Paths.default(), RunOptions(remedies=True))
    words = ["matrix", "-g", "debian-12", "-v", "stock", "-v", "userns-clone-off", "--build", "0.10.8"]
    since = [*words, "--since", str(tmp_path / "one")]
    date = f"{earlier.run.run.started:%Y-%m-%d}"
    listed = run_lab(0, *since, "--list").out.splitlines()
    assert "since" in listed[0]
    assert f"kept: run one of {date}" in listed[1]
    assert "not kept: not there" in listed[2]
    only = ["matrix", "-g", "debian-12", "-v", "stock", "--build", "0.10.8", *since[-2:]]
    assert "time: none, all of them are kept" in run_lab(0, *only, "--list").err
    printed = run_lab(0, *since, "--no-experiment", "-o", str(tmp_path / "two"))
    assert passing == ["debian-12/userns-clone-off/0.10.8"]
    assert f"1 cell of debian-12: kept: run one of {date}\n" in printed
    assert "2 cells, 1 of them kept from before, run" in printed
    kept, ran = cells_of(tmp_path / "two")
    assert (kept.history.kept is not None, ran.history.kept) == (True, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--since", "RUN", "--cold"], "--since and --cold contradict each other: it is the control"),
        (["--since", "RUN", "--predict"], "--since and --predict contradict each other"),
        (["--since", "RUN", "--resume", "RUN"], "--since and --resume contradict each other: a resumed run"),
        (["--fresh", "7d"], "--fresh says how old results of --since may be, and there is none"),
        (["--since", "nowhere"], "no run 'nowhere'"),
    ],
)
@pytest.mark.usefixtures("releases")
def test_what_makes_no_sense_beside_since_is_refused(
    home: Path, tmp_path: Path, run_lab: RunLab, words: list[str], message: str
) -> None:
    run_before(tmp_path / "one", Paths.default())
    told = [word.replace("RUN", str(tmp_path / "one")) for word in words]
    assert message in run_lab(2, *ONE_CELL, *told)
