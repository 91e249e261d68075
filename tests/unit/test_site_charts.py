"""Charts: their figures are those of the record, and each has the same figures as text."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.record import CellResult, LaneRecord, RemedyOutcome, RemedyResult, Status
from lab.site.charts import (
    MOST_COLUMNS,
    MOST_TICKS,
    Kind,
    Scale,
    duration,
    from_log,
    kind_of,
    pass_rates,
    sums,
    timelines,
)
from lab.site.model import Seen, SeenRun
from lab.site.publish import publish
from tests.builders import output
from tests.builders.cells import cell
from tests.builders.runs import run_of

STARTED = datetime(2026, 11, 24, 16, 0, tzinfo=UTC)
LOG = """\
2026-11-24T16:00:00.000Z debian-13: finding out about KVM
2026-11-24T16:00:01.000Z note: guests run under software emulation
2026-11-24T16:00:02.000Z debian-13: booting
2026-11-24T16:00:32.000Z debian-13: deploying
2026-11-24T16:00:40.000Z debian-13: stock
2026-11-24T16:00:41.000Z debian-12 #2: booting
2026-11-24T16:00:44.000Z debian-13: stock: running the suite
2026-11-24T16:01:44.000Z debian-13: stock: gathering evidence
2026-11-24T16:01:45.000Z debian-13: stock: trying userns-clone-on
2026-11-24T16:01:50.000Z debian-13: stock: running the suite
2026-11-24T16:02:00.000Z debian-13 stock 0.10.8: fail userns-sysctl (fork 1.9 s, suite 60.0 s)
2026-11-24T16:02:00.000Z debian-13: done
2026-11-24T16:02:10.000Z debian-12 #2: waiting for a processor
2026-11-24T16:02:30.000Z debian-12 #2: done
""".splitlines()
WAITS = "waiting for a processor"


def lane(guest: str = "debian-13", **more: object) -> LaneRecord:
    given = {"image": "0" * 64, "fork": "memory", "seconds": {"boot": 30.0, "deploy": 8.0, "checkpoint": 1.0}}
    return LaneRecord.model_validate({"guest": guest, **given, **more})


def timed(guest: str = "debian-13", suite: float = 60.0, **more: Any) -> CellResult:
    return cell(guest, seconds={"fork": 2.0, "apply": 2.0, "suite": suite, "evidence": 1.0}, **more)


def test_a_timeline_has_the_times_of_the_runs_log() -> None:
    [line] = from_log(run_of(cell(), cell("debian-12")), LOG)
    first, second = line.lanes
    assert line.began == STARTED and (first.name, second.name) == ("debian-13", "debian-12 #2")
    assert [(part.kind, part.start, part.seconds) for part in first.segments] == [
        (Kind.WAITING, 0, 2),
        (Kind.START, 2, 30),
        (Kind.DEPLOY, 32, 8),
        (Kind.SETUP, 40, 4),
        (Kind.SUITE, 44, 60),
        (Kind.EVIDENCE, 104, 1),
        # The suite under a remedy is part of trying it.
        (Kind.TRIALS, 105, 5),
        (Kind.TRIALS, 110, 10),
    ]
    assert (second.start, second.end, second.sums) == (41, 150, {Kind.START: 89, Kind.WAITING: 20})
    assert line.scale.end == 150


def test_lanes_of_several_hosts_are_told_apart() -> None:
    log = [
        "2026-11-24T16:00:00.000Z one: debian-13: booting",
        "2026-11-24T16:00:01.000Z two: debian-13 #2: booting",
        "2026-11-24T16:00:02.000Z note: two: debian-13: is no lane",
        "2026-11-24T16:00:03.000Z one: debian-13: stock: running the suite",
        "2026-11-24T16:00:05.000Z one: debian-13: done",
        "2026-11-24T16:00:06.000Z two: debian-13 #2: done",
        "2026-11-24T16:00:06.000Z host one: 1 of 2 lanes, emulation",
        "2026-11-24T16:00:07.000Z one: debian-13 #3: booting",
        "2026-11-24T16:00:08.000Z one: debian-13 #3: done",
        "2026-11-24T16:00:09.000Z 1 of 1 cells, about 0:10:00 left by typical times",
    ]
    [line] = from_log(run_of(cell()), log)
    assert [(row.name, row.sums) for row in line.lanes] == [
        ("one: debian-13", {Kind.START: 3, Kind.SUITE: 2}),
        ("one: debian-13 #3", {Kind.START: 1}),
        ("two: debian-13 #2", {Kind.START: 5}),
    ]


def test_a_trial_goes_on_after_it_waited_for_a_processor() -> None:
    waited = [*LOG[:9], LOG[9].replace("running the suite", "waiting").replace("stock: waiting", WAITS)]
    waited += [LOG[9].replace("50.000", "55.000"), LOG[11]]
    [line] = from_log(run_of(cell(), cell("debian-12")), waited)
    assert [part.kind for part in line.lanes[0].segments][-3:] == [Kind.TRIALS, Kind.WAITING, Kind.TRIALS]


def test_what_was_still_going_on_at_the_end_of_a_log_ends_with_it() -> None:
    [line] = from_log(run_of(cell(), cell("debian-12")), LOG[:7])
    assert [row.end for row in line.lanes] == [44, 44]


def test_a_resumed_run_has_a_timeline_for_each_session() -> None:
    resumed = STARTED + timedelta(hours=2)
    later = [line.replace("T16:", "T18:") for line in LOG]
    first, second = from_log(run_of(cell(), cell("debian-12"), resumed=[resumed]), [*LOG, *later])
    assert first.began == STARTED and second.began == resumed
    assert [row.sums for row in first.lanes] == [row.sums for row in second.lanes]


def test_the_tables_of_a_resumed_run_have_names_of_their_own(tmp_path: Path) -> None:
    resumed = STARTED + timedelta(hours=2)
    run = output.run_folder(tmp_path, timed(), cell("debian-12"), resumed=[resumed])
    (run / "run.log").write_text("\n".join([*LOG, *(line.replace("T16:", "T18:") for line in LOG)]))
    publish([run], tmp_path / "site")
    text = " ".join(output.Parsed(tmp_path / "site" / "runs" / "run.html").text.split())
    assert "First session" in text and "After it was resumed" in text
    assert "kind of work from 16:00:00 on" in text and "kind of work from 18:00:00 on" in text


def test_lines_that_are_no_event_of_a_lane_are_left_out() -> None:
    damaged = [
        "",
        "no time",
        "2026-99-24T16:00:00.000Z debian-13: booting",
        "2026-11-24T16:00:00.000Z x: booting",
    ]
    assert from_log(run_of(cell()), damaged) == []


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("image: downloading packages", Kind.IMAGE),
        ("image: waiting for this image to be built", Kind.WAITING),
        ("waiting for boxlite==0.10.8 for Python 3.13 to be fetched", Kind.WAITING),
        ("restoring the deployed build", Kind.START),
        ("a+b: experiment: without sysctl", Kind.TRIALS),
        ("a+b", Kind.SETUP),
        ("something new", Kind.OTHER),
    ],
)
def test_a_step_of_the_log_is_one_kind_of_work(step: str, kind: Kind) -> None:
    assert kind_of(step, {"a+b"}) is kind


def test_without_a_log_the_sums_are_those_of_the_record() -> None:
    tried = RemedyResult(name="a", result=RemedyOutcome.VERIFIED, price="", seconds=7.0)
    cells = [timed(), timed(variant="b", suite=40.0, remedies=[tried])]
    [line] = timelines(run_of(*cells, lanes=[lane(), lane()]))
    [row] = line.lanes
    assert row.sums == {
        Kind.START: 60,
        Kind.DEPLOY: 18,
        Kind.SETUP: 8,
        Kind.SUITE: 100,
        Kind.EVIDENCE: 2,
        Kind.TRIALS: 7,
    }
    assert line.began is None and row.end == sum(row.sums.values())


def test_a_cold_cell_is_not_counted_twice() -> None:
    seconds = {"boot": 30.0, "apply": 2.0, "suite": 60.0}
    run = run_of(cell(seconds=seconds, fork="cold"), lanes=[lane(fork="cold", seconds=seconds)])
    assert sums(run).lanes[0].sums == {Kind.START: 30, Kind.SETUP: 2, Kind.SUITE: 60}


def test_a_run_without_times_has_no_timeline() -> None:
    assert timelines(run_of(cell(status=Status.NOT_RUN))) == []


def seen(run: int, statuses: dict[tuple[str, str, str], Status]) -> SeenRun:
    cells = [
        Seen(guest=guest, variant=variant, build=build, status=status, run=str(run))
        for (guest, variant, build), status in statuses.items()
    ]
    started = STARTED + timedelta(days=run)
    return SeenRun(id=str(run), started=started, builds={"0.10.0": "0.10.0", "0.10.8": "0.10.8"}, cells=cells)


def test_a_pass_rate_counts_only_cells_with_a_result() -> None:
    statuses = dict(zip("abcdefgh", Status, strict=True))
    rates = pass_rates([seen(1, {("g", variant, "0.10.8"): status for variant, status in statuses.items()})])
    [rate] = rates.guests["g"]
    # pass and xpass, of those and fail, xfail and flaky.
    assert rate and (rate.passed, rate.decided, rate.percent) == (2, 5, 40)


def test_pass_rates_stand_in_the_order_of_runs_and_builds_and_say_where_the_cells_are_others() -> None:
    rates = pass_rates(
        [
            seen(2, {("g", "a", "0.10.8"): Status.FAIL, ("g", "b", "0.10.8"): Status.PASS}),
            seen(1, {("g", "a", "0.10.8"): Status.PASS, ("g", "a", "0.10.0"): Status.PASS}),
            seen(3, {("h", "a", "0.10.8"): Status.ERROR}),
        ]
    )
    named = [(column.run, column.build) for column in rates.columns]
    assert named == [("1", "0.10.0"), ("1", "0.10.8"), ("2", "0.10.8"), ("3", "0.10.8")]
    assert [rate and (str(rate), rate.same_cells) for rate in rates.guests["g"]] == [
        ("1/1", True),
        ("1/1", True),
        ("1/2", False),
        None,
    ]
    assert rates.guests["h"] == [None] * 4 and rates.have_other_cells


def test_only_the_newest_columns_are_shown_and_the_others_counted() -> None:
    rates = pass_rates([seen(day, {("g", "a", "0.10.8"): Status.PASS}) for day in range(MOST_COLUMNS + 3)])
    assert len(rates.columns) == MOST_COLUMNS and rates.left_out == 3
    assert rates.columns[-1].run == str(MOST_COLUMNS + 2)


def test_the_log_of_a_merged_run_is_that_of_its_resumed_session_alone(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("\n".join(LOG))
    [whole] = timelines(run_of(timed()), tmp_path)
    [merged] = timelines(run_of(timed(), merged=[run_of().run]), tmp_path)
    assert (whole.began, merged.began) == (STARTED, None)


@pytest.mark.parametrize("end", [0.0, 0.3, 7.0, 59.0, 61.0, 3599.0, 90000.0, 1e7])
def test_an_axis_has_few_round_ticks_that_lie_on_it(end: float) -> None:
    ticks = Scale(end).ticks
    assert 1 <= len(ticks) <= MOST_TICKS and ticks[0].at == 0
    assert all(0 <= tick.at <= 100 for tick in ticks)
    assert len({tick.label for tick in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (60, "1 min"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_seconds_are_said_in_the_units_that_people_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def published(base: Path) -> Path:
    """Publish two runs, one of them with its log. Returns the folder of the site."""
    old = output.run_folder(base, timed(suite=50.0), name="a-run")
    later = STARTED + timedelta(days=1)
    new = output.run_folder(base, timed(), cell("debian-12"), name="b-run", started=later)
    (new / "run.log").write_text("\n".join(line.replace("-24T", "-25T") for line in LOG))
    publish([old, new], base / "site")
    return base / "site"


def test_every_chart_is_an_image_with_a_text_and_a_table_of_its_figures(tmp_path: Path) -> None:
    site = published(tmp_path)
    kinds = []
    for page in (site / "runs.html", site / "runs" / "a-run.html", site / "runs" / "b-run.html"):
        parsed = output.Parsed(page)
        kinds += [figure["data-chart"] for figure in parsed.of("figure")]
        images = [image for image in parsed.of("svg") if image.get("role") == "img"]
        ids = parsed.attributes("id")
        assert len(images) == len(parsed.of("figure")) == len(parsed.of("caption"))
        assert all(part in ids for image in images for part in str(image["aria-labelledby"]).split())
        assert len(ids) == len(set(ids))
        assert all(image.get("role") == "img" or "aria-hidden" in image for image in parsed.of("svg"))
    assert sorted(map(str, kinds)) == ["pass-rate", "timeline", "timeline"]


def test_the_figures_of_the_charts_are_in_the_tables(tmp_path: Path) -> None:
    site = published(tmp_path)
    runs = (site / "runs.html").read_text()
    assert "<td>1/1 (100 %)</td>" in runs and "<td>no result</td>" in runs
    run = (site / "runs" / "b-run.html").read_text()
    assert '<th scope="row">debian-13</th><td>16:00:00</td><td>16:02:00</td>' in run
    assert "The times are those of the run&#39;s log" in run or "The times are those of the run's log" in run
    assert "The log of the whole run is not beside its record" in (site / "runs" / "a-run.html").read_text()


def test_names_in_charts_are_escaped(tmp_path: Path) -> None:
    hostile = '"><script>x</script>\x1b[31m'
    run = output.run_folder(tmp_path, timed(guest=hostile, build=hostile), name="run")
    publish([run], tmp_path / "site")
    for page in output.pages(tmp_path / "site"):
        assert "<script>x" not in page.read_text() and "\x1b" not in page.read_text()
