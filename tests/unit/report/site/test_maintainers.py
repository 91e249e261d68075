"""The pages of the site for maintainers: cells, findings, the matrix and charts of time."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.base.activity import Activity
from lab.base.files import make_slug
from lab.catalog import load_suite, remedies
from lab.record import (
    BuildRecord,
    CellResult,
    Experiment,
    ExperimentTrial,
    LaneRecord,
    LaneStep,
    Omission,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RepeatResult,
    Status,
    TestRate,
    TestResult,
    TrialOutcome,
)
from lab.report import table
from lab.report.site.charts import MOST_TICKS, draw_timelines, format_duration, ticks
from lab.report.site.maintainers import LONGEST_LINE, MOST_LINES
from lab.report.site.publish import publish_site
from tests.builders import golden, output
from tests.builders.cells import blocked, box, cell, changed
from tests.builders.evidence import DENIED_CREATE
from tests.builders.facts import context, facts, probe, probed
from tests.builders.runs import host, run_of

CELL = "cells/debian-13/stock/0.10.8.html"
CURE = "userns-clone-on"


def failed(**more: Any) -> CellResult:
    return blocked("userns-sysctl", "the sysctl is 0", **({"status": Status.FAIL} | more))


def whole_cell() -> CellResult:
    """A failed cell with everything that its page shows of a record."""
    trial = ExperimentTrial(changes=["without sysctl a.b=0"], outcome=TrialOutcome.PASSES, seconds=3.0)
    digest = remedies.find_remedy(CURE).digest
    return failed(
        tests=[TestResult(name="box_starts", outcome=Outcome.FAIL, seconds=1.5, message="no sandbox")],
        remedies=[
            RemedyResult(name=CURE, result=RemedyOutcome.VERIFIED, price="the price", scripts={CURE: digest}),
            RemedyResult(name="preflight", result=RemedyOutcome.AVOIDS, price="all of it", reason="skipped"),
        ],
        experiment=Experiment(tests=["box_starts"], trials=[trial], turning=[["without sysctl a.b=0"]]),
        retried=["the machine died"],
        differs={"Ubuntu 24.04": ["bubblewrap starts in it"]},
        repeats=[RepeatResult(status=Status.FAIL, failed=["box_starts"])],
        rates=[TestRate(name="box_starts", ran=1, failed_in=[1], low=0.2, high=1.0)],
        facts=facts(),
        context=context(),
        seconds={"fork": 1.25, "suite": 20.0},
        lane="debian-13",
        evidence=[f"cells/debian-13/stock/0.10.8/{name}" for name in ("suite.log", "gone.log")],
        rerun="lab matrix -g debian-13 -v stock",
    )


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site that was published twice, of a run with everything that its pages tell apart."""
    base = tmp_path_factory.mktemp("whole")
    older = output.run_folder(base, cell(), cell("debian-12"), name="older")
    publish_site([older], base / "site")
    boxes = [
        cell(
            guest,
            "podman",
            facts=facts(),
            tests=[TestResult(name="starts", outcome=Outcome.PASS, protection=seen)],
        )
        for guest, seen in {
            "debian-13": box(),
            "debian-14": box(seccomp=["off"], asked={"seccomp_enabled": True}),
        }.items()
    ]
    cells = [
        whole_cell(),
        cell(build="0.10.0"),
        *(misjudged(variant) for variant in ("a", "b")),
        *boxes,
        cell("debian-12", status=Status.FLAKY, repeats=[RepeatResult(status=Status.PASS)]),
        cell("debian-12", "as-root", status=Status.XPASS),
        cell("debian-12", "max-userns-zero", status=Status.NOT_APPLICABLE, reason="no such sysctl"),
        cell("debian-14", status=Status.NOT_RUN, reason="no image"),
        cell("debian-sid", status=Status.ERROR, reason="no SSH"),
    ]
    newer = output.run_folder(
        base,
        *cells,
        name="newer",
        started=STARTED,
        finished=STARTED + timedelta(minutes=9),
        steps=STEPS,
        host=host(),
        lanes=[
            LaneRecord(
                guest="debian-13",
                image="1" * 64,
                omissions=[
                    Omission(packages=["man-db", "nano"], reason="programs <for people>"),
                    Omission(units=["fstrim.timer"], reason="it would run inside a cell"),
                ],
                fork="memory",
                seconds={"boot": 30.0},
            )
        ],
    )
    (newer / "cells/debian-13/stock/0.10.8/gone.log").unlink()
    for variant in ("a", "b"):
        (newer / misjudged(variant).evidence[0]).write_text(LOG)
    publish_site([newer], base / "site")
    return base / "site"


PAGES = {
    "front": "index.html",
    "changes": "changes.html",
    "matrix": "matrix.html",
    "findings": "findings.html",
    "runs": "runs.html",
    "run": "runs/newer.html",
    "host": "hosts/debian-13.html",
    "cell": CELL,
}


@pytest.mark.parametrize("name", PAGES)
def test_the_text_of_a_page_is_golden(whole_site: Path, name: str) -> None:
    golden.check(f"site-{name}.txt", str(output.PageText(whole_site / PAGES[name])))


def test_the_table_of_a_site_in_markdown_is_golden(whole_site: Path) -> None:
    golden.check("support.md", (whole_site / "support.md").read_text())


def test_the_kernels_refusals_and_the_probes_are_shown_and_shortened(tmp_path: Path) -> None:
    files = ["kernel.log", "probes.json"]
    result = failed(evidence=[f"cells/debian-13/stock/0.10.8/{name}" for name in files])
    run = output.run_folder(tmp_path, result)
    line = f"{DENIED_CREATE.strip().splitlines()[0]}{'x' * 1000}<b>"
    (run / result.folder / "kernel.log").write_text(f"{line}\n" * (MOST_LINES + 5))
    refused = probed({"unshare_user": probe(1, "no permission <script>", ["unshare", "-U"])})
    (run / result.folder / "probes.json").write_text(refused.model_dump_json())
    publish_site([run], tmp_path / "site")
    html = (tmp_path / "site" / CELL).read_text()
    assert html.count('apparmor="DENIED"') + html.count("apparmor=&#34;DENIED&#34;") == MOST_LINES
    assert "5 more lines there" in html and "x" * LONGEST_LINE not in html
    assert "no permission &lt;script&gt;" in html and "failed (1)" in html
    assert "<b>" not in html


def test_files_are_linked_and_what_could_not_be_read_is_said(tmp_path: Path) -> None:
    cells = [
        failed(evidence=[f"cells/debian-13/stock/0.10.8/{name}.log" for name in ("suite", "gone")]),
        cell(variant="unread", status=Status.NOT_RUN, reason="image not available"),
        # What is in this file is no answer of the probes.
        failed(variant="damaged", evidence=["cells/debian-13/damaged/0.10.8/probes.json"]),
    ]
    run = output.run_folder(tmp_path, *cells)
    (run / cells[0].folder / "suite.log").write_text("a line of the suite\n" * 1000)
    (run / cells[0].folder / "gone.log").unlink()
    publish_site([run], tmp_path / "site")
    parsed = output.Parsed(tmp_path / "site" / CELL)
    assert "a line of the suite" not in parsed.text and "gone.log: there is no such file" in parsed.text
    [link] = [address for address in parsed.attributes("href") if "suite.log" in address]
    assert (tmp_path / "site" / CELL).parent.joinpath(link).resolve().read_text().startswith("a line")
    unread, damaged = (
        output.Parsed(tmp_path / "site" / f"cells/debian-13/{name}/0.10.8.html").words
        for name in ("unread", "damaged")
    )
    assert "guest not known: the lab did not read it" in unread and "image not available" in unread
    assert "What the kernel allows" not in damaged and "fail userns-sysctl" in damaged


def test_a_page_leads_to_its_neighbours_to_other_builds_and_names_other_runs(tmp_path: Path) -> None:
    old = output.run_folder(tmp_path, failed(), name="a-run")
    cells = cell(), cell(build="0.10.0"), cell(variant="z")
    new = output.run_folder(tmp_path, *cells, name="b-run", started=datetime(2026, 11, 25, tzinfo=UTC))
    publish_site([old, new], tmp_path / "site")
    first = output.Parsed(tmp_path / "site" / CELL)
    relations = {str(link["rel"]): str(link["href"]) for link in first.of("a") if "rel" in link}
    assert relations == {"next": "0.10.0.html"}
    assert "a-run, started 2026-11-24 16:00 UTC: fail userns-sysctl" in first.words
    assert [link for link in first.of("a") if link["href"] == "0.10.0.html" and "rel" not in link]
    middle = output.Parsed(tmp_path / "site" / "cells/debian-13/stock/0.10.0.html")
    assert [str(link["rel"]) for link in middle.of("a") if "rel" in link] == ["prev", "next"]


def test_the_pages_say_what_confines_boxes_and_where_they_are_less_protected(tmp_path: Path) -> None:
    def passed(guest: str, **other: Any) -> CellResult:
        tests = [TestResult(name="starts", outcome=Outcome.PASS, protection=box(**other))]
        return cell(guest, status=Status.PASS, tests=tests, facts=facts())

    weak = {"seccomp": ["off"], "asked": {"seccomp_enabled": True}}
    site = output.site_of(tmp_path, passed("debian-13", **weak), passed("debian-12"))
    text = {str(file.relative_to(site)): output.Parsed(file).words for file in output.pages(site)}
    unmet = "starts asked for a seccomp filter (seccomp_enabled): no thread of libkrun VM has one"
    lacks = "debian-13 stock: less protected: the box of starts lacked seccomp filter; debian-12 stock has that"
    weaker = text[CELL]
    assert unmet in weaker and lacks in weaker and "What confined its boxes" in weaker
    other = text["cells/debian-12/stock/0.10.8.html"]
    assert "no_new_privs, seccomp filter, no capabilities" in other
    assert unmet not in other and lacks not in other
    assert unmet in text["findings.html"]
    assert text["matrix.html"].count("pass less protected") == 1
    [host] = [path for path, words in text.items() if path.startswith("hosts/") and lacks in words]
    assert "What confines a box here" in text[host]


# -- findings on what boxlite itself says

SAID = "boxlite.errors.ConfigError: <b>The sandbox</b> could not be initialized on this host."
LOG = """\
2026-11-25T23:35:20Z ERROR boxlite::jailer: Sandbox preflight failed.

Cause: Unknown restriction.
2026-11-25T23:35:20Z ERROR boxlite::task: Task failed: it
"""


def misjudged(variant: str) -> CellResult:
    cured = RemedyResult(name=CURE, result=RemedyOutcome.VERIFIED, price="the price")
    return blocked(
        "apparmor-userns-deny",
        "AppArmor denied it",
        variant=variant,
        tests=[TestResult(name="box", outcome=Outcome.FAIL, message=SAID)],
        evidence=[f"cells/debian-13/{variant}/0.10.8/boxlite/box-1/logs/boxlite.log.2026-11-25"],
        remedies=[cured],
    )


def test_a_wrong_diagnosis_is_shown_with_its_cells_the_cause_and_the_cure(tmp_path: Path) -> None:
    cells = [misjudged("a"), misjudged("b"), cell()]
    run = output.run_folder(tmp_path, *cells)
    for file in (file for result in cells for file in result.evidence):
        (run / file).write_text(LOG)
    publish_site([run], tmp_path / "site")
    parsed = output.Parsed(tmp_path / "site" / "findings.html")
    assert len([section for section in parsed.of("section") if section.get("class") == "finding"]) == 1
    links = [address for address in parsed.attributes("href") if address.startswith("cells/")]
    assert links == ["cells/debian-13/a/0.10.8.html", "cells/debian-13/b/0.10.8.html"]
    assert "<b>" not in (tmp_path / "site" / "findings.html").read_text()


def test_what_cannot_be_judged_is_said(tmp_path: Path) -> None:
    passed = output.run_folder(tmp_path, cell(), name="passed")
    without_log = changed(misjudged("a"), evidence=[])
    publish_site([passed, output.run_folder(tmp_path, without_log, name="failed")], tmp_path / "site")
    text = output.Parsed(tmp_path / "site" / "findings.html").text
    assert "there is no diagnosis to judge" in text
    assert "not judged" in text and "No finding." in text


def test_a_bug_that_a_suite_knows_is_a_finding_of_the_cells_that_met_it(tmp_path: Path) -> None:
    reason = "every process of the box is in the control group of its caller"
    met = blocked("cgroup-not-joined", reason, build="lifecycle-1", status=Status.XFAIL)
    joined = cell(variant="session-user-scope", build="lifecycle-1")
    record = BuildRecord(name="lifecycle-1", version="1", source="1,suite=lifecycle", suite="lifecycle")
    run = output.run_folder(tmp_path, met, joined, builds=[record])
    publish_site([run], tmp_path / "site")
    parsed = output.Parsed(tmp_path / "site" / "findings.html")
    assert load_suite("lifecycle").because in parsed.text and reason in parsed.text
    links = [address for address in parsed.attributes("href") if address.startswith("cells/")]
    assert "cells/debian-13/stock/lifecycle-1.html" in links
    assert "cells/debian-13/session-user-scope/lifecycle-1.html" not in links


def test_a_suite_that_is_not_about_the_start_of_a_box_does_not_say_whether_boxlite_works(
    tmp_path: Path,
) -> None:
    def of_suite(name: str, subject: str, **more: Any) -> CellResult:
        test = TestResult(name="box", outcome=more.pop("outcome"), subject=subject)
        return changed(cell(build=name, **more), tests=[test])

    starts = of_suite("1", "start", outcome=Outcome.PASS)
    stops = of_suite("2", "stop", outcome=Outcome.FAIL, status=Status.FAIL, cause="cgroup-not-joined")
    builds = [BuildRecord(name=name, version=name, source=name) for name in ("1", "2")]
    publish_site([output.run_folder(tmp_path, starts, stops, builds=builds)], tmp_path / "site")
    front = output.Parsed(tmp_path / "site" / "index.html").text
    assert "works as installed" in front and "cgroup-not-joined" not in front


# -- the matrix

FAILED = {"status": Status.FAIL, "cause": "userns-sysctl", "reason": "the sysctl is 0"}


def page(base: Path, *cells: CellResult) -> tuple[str, output.Parsed]:
    file = output.site_of(base, *cells) / "matrix.html"
    return file.read_text(), output.Parsed(file)


def squares(parsed: output.Parsed) -> list[dict[str, str | None]]:
    return [square for square in parsed.of("td") if "data-variant" in square]


def test_builds_stand_side_by_side_below_their_variant_and_absent_cells_say_so(tmp_path: Path) -> None:
    builds = [cell(build=build) for build in ("0.10.0", "0.10.8", "0.9.7")]
    text, parsed = page(tmp_path, *builds, cell("debian-12", "max-userns-zero"), cell("debian-13-selinux"))
    group = next(heading for heading in parsed.of("th") if heading.get("scope") == "colgroup")
    names = [heading["data-build"] for heading in parsed.of("th") if heading.get("data-build")]
    assert group["colspan"] == "3" and names == ["0.10.8", "0.10.0", "0.9.7", "0.10.8"]
    assert len(squares(parsed)) == 12
    empty = re.findall(r"<td[^>]*absent[^>]*>(.*?)</td>", text)
    assert empty == ['<span class="sr">not in the plan</span>'] * 7
    links = [address for address in parsed.attributes("href") if address.startswith("hosts/")]
    assert links == ["hosts/debian-12.html", "hosts/debian-13.html", "hosts/debian-13.html"]


def test_a_square_says_its_status_its_cause_and_its_tries_and_leads_to_its_page(tmp_path: Path) -> None:
    repeats = [RepeatResult(status=Status.PASS), RepeatResult(status=Status.FAIL, failed=["a"])]
    text, parsed = page(
        tmp_path,
        *(cell(variant=f"v{number}", status=status) for number, status in enumerate(Status)),
        cell(**FAILED, retried=["lost"]),
        cell(variant="flaky-one", status=Status.FLAKY, repeats=repeats),
    )
    assert "userns-sysctl (try 2)" in text and "1/2" in text
    for link in (address for address in parsed.attributes("href") if address.startswith("cells/")):
        assert (tmp_path / "site" / link).is_file()
    # Only a pass has the mark of what works.
    marked = re.findall(r'<td[^>]* data-status="([^"]*)"[^>]*><a[^>]*><span class="mark mark-works"', text)
    assert marked == ["pass"]
    assert {square["data-status"] for square in squares(parsed)} == set(Status)
    assert [status for status, look in table.LOOKS.items() if look.mark == "works"] == [Status.PASS]


def test_filters_offer_the_values_that_occur_and_builds_that_differ(tmp_path: Path) -> None:
    _, parsed = page(
        tmp_path,
        cell(build="0.10.0"),
        cell(build="0.10.8", **FAILED),
        cell("debian-12", build="0.10.0"),
        # What could not be run is no difference, nor is a guest that the lab's user could not build.
        cell("debian-12", build="0.10.8", status=Status.ERROR),
        cell("debian-12", build="0.10.7", status=Status.NOT_APPLICABLE),
    )
    differing = [square for square in squares(parsed) if square.get("data-differs")]
    assert [square["data-status"] for square in differing] == ["fail", "pass"]
    offered = ", ".join(f"{box['name']}={box['value']}" for box in parsed.of("input"))
    assert offered == (
        "guest=debian-12, guest=debian-13, build=0.10.8, build=0.10.7, build=0.10.0, "
        "status=pass, status=fail, status=n/a, status=error, cause=userns-sysctl, cause=, differs=yes"
    )
    assert [note for note in parsed.of("p") if note.get("aria-live") == "polite"]


@pytest.mark.parametrize("name", ["A", "Debian", "a b", "a/b", "..", ".", "", "-", "ä", "x" * 300, "\ud800"])
def test_no_other_name_becomes_the_same_part_of_a_path(name: str) -> None:
    made = make_slug(name)
    assert made and re.fullmatch(r"[a-z0-9._+-]+", made) and not made.startswith(".") and len(made) < 100
    # A name that looks like a made one is another one.
    assert make_slug(made) != made and make_slug(made) != make_slug(name)
    assert [make_slug(kept) for kept in ("stock", "a+b", "0.10.8")] == ["stock", "a+b", "0.10.8"]


# -- the chart of a run's time: its figures are those of the record

STARTED = datetime(2026, 11, 24, 16, 0, tzinfo=UTC)


def step(lane: str, activity: Activity, start: float, seconds: float, text: str = "") -> LaneStep:
    began = STARTED + timedelta(seconds=start)
    return LaneStep(lane=lane, activity=activity, text=text or activity, began=began, seconds=seconds)


STEPS = [
    step("debian-13", Activity.START, 2, 30),
    step("debian-13 #2", Activity.START, 41, 89),
    step("debian-13", Activity.SUITE, 44, 60, "stock: running the suite"),
    step("debian-13", Activity.TRIALS, 105, 5),
    step("debian-13", Activity.TRIALS, 110, 10),
]
LATER = [step.model_copy(update={"began": step.began + timedelta(hours=2)}) for step in STEPS]


def test_a_timeline_has_a_row_for_each_lane_from_the_first_step_on() -> None:
    [line] = draw_timelines(run_of(steps=STEPS[::-1]).run)
    assert line.began == STARTED + timedelta(seconds=2)
    assert {
        lane: [(step.activity, line.start(step), line.end(step)) for step in steps]
        for lane, steps in line.lanes.items()
    } == {
        "debian-13": [
            (Activity.START, 0, 30),
            (Activity.SUITE, 42, 102),
            (Activity.TRIALS, 103, 108),
            (Activity.TRIALS, 108, 118),
        ],
        "debian-13 #2": [(Activity.START, 39, 128)],
    }
    assert line.sums("debian-13") == {Activity.START: 30, Activity.SUITE: 60, Activity.TRIALS: 15}
    assert (line.length, line.percent(64)) == (128, 50)
    assert line.activities == [Activity.START, Activity.SUITE, Activity.TRIALS]
    # The lanes of a host stand together.
    names = ["one: debian-13", "two: debian-13", "one: debian-13 #2"]
    [line] = draw_timelines(
        run_of(steps=[step(name, Activity.SUITE, at, 1) for at, name in enumerate(names)]).run
    )
    assert list(line.lanes) == ["one: debian-13", "one: debian-13 #2", "two: debian-13"]


def test_each_session_has_a_timeline_and_so_has_each_shard_of_a_merged_run() -> None:
    resumed = STARTED + timedelta(hours=2)
    run = run_of(steps=[*STEPS, *LATER], resumed=[resumed]).run
    first, second = draw_timelines(run)
    assert (first.title, second.title) == (f"Run {run.id}", f"Run {run.id}, resumed")
    assert second.began - first.began == timedelta(hours=2)
    assert [first.sums(lane) for lane in first.lanes] == [second.sums(lane) for lane in second.lanes]
    parts = [run.model_copy(update={"steps": STEPS, "resumed": [], "id": name}) for name in ("one", "two")]
    merged = run.model_copy(update={"steps": LATER, "merged": parts, "id": "both"})
    assert [line.title for line in draw_timelines(merged)] == ["Run one", "Run two", "Run both, resumed"]
    assert draw_timelines(run_of(cell()).run) == []


@pytest.mark.parametrize("end", [0.0, 0.3, 7.0, 59.0, 61.0, 3599.0, 90000.0, 1e7])
def test_an_axis_has_few_round_ticks_that_lie_on_it(end: float) -> None:
    times = ticks(end)
    assert 1 <= len(times) <= MOST_TICKS and times[0] == 0
    assert all(0 <= at <= end for at in times)
    assert len({format_duration(at) for at in times}) == len(times)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (60, "1 min"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_seconds_are_said_in_the_units_that_people_use(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
